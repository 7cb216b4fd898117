"""Gauss-Newton: exact on linear residuals, an ODIL inverse problem, and a status that tells the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.odil.gauss_newton import GaussNewtonOptions, gauss_newton
from gliodil.pde.odil.problem import Point, Recorder
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import unroll
from gliodil.pde.residual import theta_residual

ModelFactory = Callable[..., FisherKolmogorov]


def test_linear_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20, 6, dtype=torch.float64, generator=generator)
    b = torch.randn(20, dtype=torch.float64, generator=generator)
    expected = torch.linalg.lstsq(a, b[:, None]).solution[:, 0]
    options = GaussNewtonOptions(tolerance=1e-12, cg_tolerance=1e-10)
    record = Recorder()
    found = gauss_newton(
        lambda x: [a @ torch.cat([x[0], x[1].reshape(-1)]) - b],
        [torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)],
        options,
        record,
    )
    assert found.status == "converged"
    solution = torch.cat([t.reshape(-1) for t in found.x])
    torch.testing.assert_close(solution, expected, rtol=0, atol=1e-5)
    assert found.x[1].shape == (2, 2)
    assert found.value == pytest.approx(float((a @ expected - b).square().sum()), rel=1e-9)
    assert found.evaluations == record.evaluations > 1
    values = [row[2] for row in record.rows]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))


def test_rosenbrock_as_least_squares() -> None:
    def residuals(x: Point) -> Point:
        return [10 * (x[0][1:] - x[0][:-1] ** 2), 1 - x[0][:-1], x[0][:1] * 0 + 0.1]

    options = GaussNewtonOptions(tolerance=1e-10, max_iterations=100)
    found = gauss_newton(residuals, [torch.full((2,), -1.2, dtype=torch.float64)], options, Recorder())
    assert found.status == "converged"
    torch.testing.assert_close(found.x[0], torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-4)
    assert found.value == pytest.approx(0.01, rel=1e-6)


@pytest.mark.slow
def test_recovers_diffusivity_and_growth_of_a_fisher_equation(uniform_model: ModelFactory) -> None:
    """An ODIL inverse problem: unknown field and parameters, known start and last level."""
    model = uniform_model(12, 2.0)
    x = model.grid.centres()[0]
    u0 = 0.6 * torch.exp(-((x - 6) ** 2) / 12)
    duration, n, truth = 20.0, 10, (0.5, 0.12)
    dt = duration / n
    last = integrate(
        model,
        u0,
        diffusivity=truth[0],
        proliferation_rate=truth[1],
        wm_gm_ratio=10,
        duration=duration,
        steps=400,
    )
    steps = Steps(dt=dt, sigma=10.0, stages=1)

    def residuals(point: Point) -> Point:
        z, v = point
        diffusivity, rho = z[0].exp(), z[1].exp()
        c = model.coefficients(diffusivity, 10.0)

        def rate(u: torch.Tensor) -> torch.Tensor:
            return model.rate(u, c, rho)

        u = unroll(u0, v, rate, steps)
        return [10.0 * theta_residual(u, rate, dt), 30.0 * (u[-1] - last)]

    start = [torch.tensor([0.3, 0.2], dtype=torch.float64).log(), torch.zeros(n, 12, dtype=torch.float64)]
    options = GaussNewtonOptions(cg_iterations=100, cg_tolerance=1e-6)
    found = gauss_newton(residuals, start, options, Recorder())
    assert found.status == "converged"
    diffusivity, rho = found.x[0].exp().tolist()
    assert diffusivity == pytest.approx(truth[0], rel=0.02)
    assert rho == pytest.approx(truth[1], rel=0.02)
    assert found.value < 1e-4


def test_iteration_limit_is_reported() -> None:
    def residuals(x: Point) -> Point:
        return [10 * (x[0][1:] - x[0][:-1] ** 2), 1 - x[0][:-1]]

    found = gauss_newton(
        residuals,
        [torch.full((6,), -1.2, dtype=torch.float64)],
        GaussNewtonOptions(max_iterations=2),
        Recorder(),
    )
    assert found.status == "iteration_limit"
    assert "limit" in found.message


def test_diverged_at_the_start() -> None:
    found = gauss_newton(
        lambda x: [x[0] / 0.0], [torch.ones(2, dtype=torch.float64)], GaussNewtonOptions(), Recorder()
    )
    assert found.status == "diverged"


def test_walls_are_survived() -> None:
    """The full step from 3 lands where log is not defined; damping finds the way to 1."""
    found = gauss_newton(
        lambda x: [x[0].log(), x[0] * 0 + 0.1],
        [torch.full((1,), 3.0, dtype=torch.float64)],
        GaussNewtonOptions(max_iterations=60, damping=1e-8),
        Recorder(),
    )
    assert found.status == "converged"
    assert float(found.x[0][0]) == pytest.approx(1, abs=1e-3)


def test_no_convergence_is_claimed_where_only_the_damping_shortens_the_step() -> None:
    """Residual 3 − x behind a wall at 1: the slope there is steep, so the fit has stalled, not converged."""

    def residuals(x: Point) -> Point:
        return [torch.where(x[0] > 1, math.inf, 3 - x[0])]

    start = [torch.full((1,), 1 - 1e-9, dtype=torch.float64)]
    found = gauss_newton(residuals, start, GaussNewtonOptions(max_iterations=100), Recorder())
    assert found.status == "stalled"
