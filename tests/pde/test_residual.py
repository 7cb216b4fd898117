"""The θ-residual: zero on its own scheme's solutions, second order on smooth ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from gliodil.pde.grid import Grid
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.residual import theta_residual

ModelFactory = Callable[..., FisherKolmogorov]


@pytest.mark.parametrize("theta", [0.0, 0.5, 1.0])
def test_vanishes_on_an_exact_discrete_trajectory(random_model: ModelFactory, theta: float) -> None:
    """Each step of the scheme is solved by Newton's method with the dense Jacobian."""
    model = random_model((4, 3, 2), seed=4)
    c, rho, dt = model.coefficients(0.6, 10.0), 0.1, 0.5

    def rate(u: torch.Tensor) -> torch.Tensor:
        return model.rate(u, c, rho)

    levels = [torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(0))]
    for _ in range(4):
        old, new = levels[-1], levels[-1].clone()

        def defect(u: torch.Tensor, old: torch.Tensor = old) -> torch.Tensor:
            return (u - old) / dt - theta * rate(u) - (1 - theta) * rate(old)

        for _ in range(8):
            jacobian = torch.autograd.functional.jacobian(defect, new)
            new = new - torch.linalg.solve(jacobian, defect(new))
        levels.append(new)
    r = theta_residual(torch.stack(levels), rate, dt, theta=theta)
    assert r.shape == (4, model.grid.cells)
    assert float(r.abs().max()) < 1e-13
    other = theta_residual(torch.stack(levels), rate, dt, theta=abs(theta - 0.25))
    assert float(other.abs().max()) > 1e-6


def test_entry_by_entry(random_model: ModelFactory) -> None:
    model = random_model((3, 3, 2), seed=1)
    c = model.coefficients(0.6, 10.0)
    u = torch.randn(4, model.grid.cells, dtype=torch.float64)
    r = theta_residual(u, lambda f: model.rate(f, c, 0.1), 0.25)
    for n in range(1, 4):
        a, before = model.rate(u[n], c, 0.1), model.rate(u[n - 1], c, 0.1)
        torch.testing.assert_close(r[n - 1], (u[n] - u[n - 1]) / 0.25 - (a + before) / 2)


def manufactured_error(cells: int, steps: int) -> float:
    """RMS of residual minus source, u = ½ + ⅓ cos(kx) cos(2ky) e^{−t/30} in varying tissue."""
    diffusivity, ratio, rho, length, duration = 0.8, 10.0, 0.07, 12.0, 20.0
    h = length / cells
    grid = Grid((cells, cells, 1), (h, h, 3.0))
    x, y, _ = grid.centres()
    k, dt = math.pi / length, duration / steps
    white = 0.6 + 0.3 * torch.cos(k * x)
    grey = 0.1 + 0.05 * torch.cos(2 * k * y)
    model = FisherKolmogorov.on(grid, white, grey)
    d = diffusivity * (white + grey / ratio)
    d_x = -diffusivity * 0.3 * k * torch.sin(k * x)
    d_y = -diffusivity / ratio * 0.1 * k * torch.sin(2 * k * y)

    def field_and_source(t: float) -> tuple[torch.Tensor, torch.Tensor]:
        e = math.exp(-t / 30) / 3
        cx, cy = torch.cos(k * x), torch.cos(2 * k * y)
        u = 0.5 + e * cx * cy
        u_t = -e / 30 * cx * cy
        u_x, u_y = -k * e * torch.sin(k * x) * cy, -2 * k * e * cx * torch.sin(2 * k * y)
        laplacian = -5 * k**2 * e * cx * cy
        return u, u_t - (d * laplacian + d_x * u_x + d_y * u_y) - rho * u * (1 - u)

    pairs = [field_and_source(n * dt) for n in range(steps + 1)]
    u, f = (torch.stack(part) for part in zip(*pairs, strict=True))
    c = model.coefficients(diffusivity, ratio)
    r = theta_residual(u, lambda w: model.rate(w, c, rho), dt)
    return float((r - (f[1:] + f[:-1]) / 2).square().mean().sqrt())


def test_second_order_on_a_manufactured_solution() -> None:
    """Space alone (many steps), time alone (many cells), and both together."""
    space = [manufactured_error(n, 64) for n in (8, 16, 32)]
    both = [manufactured_error(n, n // 2) for n in (8, 16, 32)]
    for errors in (space, both):
        orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        assert all(1.8 <= order <= 2.2 for order in orders), (orders, errors)


def test_second_order_in_time_alone(random_model: ModelFactory) -> None:
    """u(t) from the cells' own ordinary differential equation, so that space contributes nothing."""
    model = random_model((3, 3, 3), seed=8)
    c = model.coefficients(0.3, 10.0)
    matrix = torch.stack([model.rate(e, c, 0.0) for e in torch.eye(model.grid.cells, dtype=torch.float64)]).T
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def error(steps: int) -> float:
        dt = 8.0 / steps
        u = torch.stack([torch.linalg.matrix_exp(matrix * n * dt) @ u0 for n in range(steps + 1)])
        return float(theta_residual(u, lambda w: model.rate(w, c, 0.0), dt).square().mean().sqrt())

    errors = [error(n) for n in (32, 64, 128)]
    assert all(1.8 <= math.log2(a / b) <= 2.2 for a, b in itertools.pairwise(errors)), errors
