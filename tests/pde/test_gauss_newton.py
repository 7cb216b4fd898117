"""Gauss-Newton in the space of the data: exact where the data are linear, an ODIL inverse problem, a true status."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.odil import loops
from gliodil.pde.odil.gauss_newton import FIRST_DAMPING, GaussNewtonOptions, _step, gauss_newton
from gliodil.pde.odil.linear import LinearMap
from gliodil.pde.odil.problem import Point, Recorder, dot
from gliodil.pde.odil.steps import Steps
from gliodil.pde.operators import Faces, spectral_bound

ModelFactory = Callable[..., FisherKolmogorov]
DOUBLE = torch.float64
Data = Callable[..., torch.Tensor]


class Here:
    """‖x‖²_M + ‖d(x)‖² + rest(x) at one point; what ``pull`` returns is overwritten by its next call."""

    def __init__(self, world: LeastSquares, x: Point) -> None:
        self.world = world
        self.leaves = [t.detach().requires_grad_() for t in x]
        self.data = world.data(*self.leaves)
        prior = sum(m * t.square().sum() for m, t in zip(world.charged, self.leaves, strict=True))
        self.total = prior + self.data.square().sum() + world.rest(*self.leaves)
        self.value = self.total.item()
        self.terms = {"only": self.value}
        self.linear = LinearMap([self.data], self.leaves) if math.isfinite(self.value) else None

    def gradient(self) -> Point:
        self.world.gradients += 1
        return list(torch.autograd.grad(self.total, self.leaves, retain_graph=True))

    def push(self, dx: Point) -> torch.Tensor:
        assert self.linear is not None
        return self.linear.push(dx)[0]

    def pull(self, d: torch.Tensor) -> Point:
        assert self.linear is not None
        self.world.pulls += 1
        for kept, new in zip(self.world.buffers, self.linear.pull([d]), strict=True):
            kept.copy_(new)
        return self.world.buffers


class LeastSquares:
    """A landscape of data residuals; counts what is asked of it. ``charged``: M of the loss, if not the metric."""

    def __init__(
        self,
        data: Data,
        like: Point,
        *,
        metric: Sequence[float],
        charged: Sequence[float] | None = None,
        rest: Data = lambda *x: torch.zeros((), dtype=DOUBLE),
    ) -> None:
        self.data, self.metric, self.rest = data, metric, rest
        self.charged = metric if charged is None else charged
        self.buffers = [torch.empty_like(t) for t in like]
        self.values: list[float] = []
        self.gradients = self.pulls = 0

    def at(self, x: Point) -> Here:
        here = Here(self, x)
        self.values.append(here.value)
        return here


def free(data: Data, like: Point) -> LeastSquares:
    """Nothing but data; the metric that gauss_newton needs all the same is small and not in the loss."""
    return LeastSquares(data, like, metric=(1e-6,) * len(like), charged=(0.0,) * len(like))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def flat(x: Point) -> torch.Tensor:
    return torch.cat([t.double().reshape(-1) for t in x])


EXACT = GaussNewtonOptions(tolerance=1e-12, cg_iterations=200, cg_tolerance=1e-12)
FEW, MANY = 4, 30
METRIC = (0.5, 1.0, 3.0)


def linear_problem(observations: int) -> tuple[LeastSquares, Point, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three tensors with a weight each, seen through fewer or more data than there are unknowns."""
    like = [torch.zeros(2, dtype=DOUBLE), torch.zeros(3, 4, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE)]
    a, b = normal(observations, 19, seed=1), normal(observations, seed=2)
    landscape = LeastSquares(lambda x, y, z: a @ torch.cat([x, y.reshape(-1), z]) - b, like, metric=METRIC)
    m = torch.cat([torch.full((t.numel(),), w, dtype=DOUBLE) for w, t in zip(METRIC, like, strict=True)])
    return landscape, like, a, b, m


@pytest.mark.parametrize("observations", [FEW, MANY])
def test_linear_least_squares_is_solved_in_one_step(observations: int) -> None:
    landscape, start, a, b, m = linear_problem(observations)
    expected = torch.linalg.solve(torch.diag(m) + a.T @ a, a.T @ b)
    record = Recorder()
    found = gauss_newton(landscape, start, EXACT, record)
    torch.testing.assert_close(flat(found.x), expected, rtol=0, atol=1e-9)
    lowest = float((m * expected.square()).sum() + (a @ expected - b).square().sum())
    assert found.value == pytest.approx(lowest, rel=1e-12)
    assert record.rows[1][2] == pytest.approx(lowest, rel=1e-9)
    assert found.status == "converged"
    assert "round-off" in found.message
    assert found.x[1].shape == (3, 4)
    assert all(torch.count_nonzero(t) == 0 for t in start)


@pytest.mark.parametrize("mu", [0.0, 0.7, 40.0])
@pytest.mark.parametrize("observations", [FEW, MANY])
def test_a_step_solves_the_damped_model(observations: int, mu: float) -> None:
    """(M + μI + JᵀJ) δ = −g/2 for any gradient at all, the small terms' included; the promise is the model's."""
    landscape, start, a, _, m = linear_problem(observations)
    g = [normal(*t.shape, seed=3 + k) for k, t in enumerate(start)]
    kept = flat(g)
    step, promised = _step(landscape.at(start), g, METRIC, mu, EXACT, Recorder())
    expected = torch.linalg.solve(torch.diag(m + mu) + a.T @ a, -kept / 2)
    torch.testing.assert_close(flat(step), expected, rtol=0, atol=1e-7 * float(expected.norm()))
    torch.testing.assert_close(flat(g), kept, rtol=0, atol=0)
    model = kept @ expected + (m * expected.square()).sum() + (a @ expected).square().sum()
    assert promised == pytest.approx(-float(model), rel=1e-9)


def test_few_data_take_few_iterations() -> None:
    """Conjugate gradients end after one iteration more than there are data, however many the unknowns."""
    landscape, start, _, _, _ = linear_problem(FEW)
    record = Recorder()
    _step(landscape.at(start), [normal(*t.shape) for t in start], METRIC, 0.0, EXACT, record)
    assert record.evaluations <= FEW + 1


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_a_step_broken_off_leads_down_as_far_as_it_promises(iterations: int) -> None:
    landscape, start, a, _, m = linear_problem(MANY)
    x = [normal(*t.shape, seed=k) for k, t in enumerate(start)]
    here = landscape.at(x)
    g = here.gradient()
    options = GaussNewtonOptions(cg_iterations=iterations, cg_tolerance=0.0)
    record = Recorder()
    step, promised = _step(here, g, METRIC, 0.0, options, record)
    assert record.evaluations == iterations
    full = float(flat(g) @ torch.linalg.solve(torch.diag(m) + a.T @ a, flat(g))) / 4
    assert 0.05 * full < promised < 0.999 * full
    there = landscape.at([s + t for s, t in zip(x, step, strict=True)])
    assert here.value - there.value == pytest.approx(promised, rel=1e-9)  # the model is exact here


def test_small_terms_outside_the_model_are_minimized_too() -> None:
    """The gradient has every term, the curvature leaves one out: slower, but the same minimum."""
    start = [torch.zeros(2, dtype=DOUBLE), torch.zeros(6, dtype=DOUBLE)]
    a, b = normal(5, 8, seed=1), normal(5, seed=2)
    landscape = LeastSquares(
        lambda x, y: a @ torch.cat([x, y]) - b,
        start,
        metric=(1.0, 1.0),
        rest=lambda x, y: 0.3 * (y - 0.5).square().sum(),
    )
    found = gauss_newton(landscape, start, EXACT, Recorder())
    m = torch.cat([torch.ones(2, dtype=DOUBLE), torch.full((6,), 1.3, dtype=DOUBLE)])
    right = a.T @ b
    right[2:] += 0.3 * 0.5
    expected = torch.linalg.solve(torch.diag(m) + a.T @ a, right)
    torch.testing.assert_close(flat(found.x), expected, rtol=0, atol=1e-5)


def test_rosenbrock_as_least_squares() -> None:
    start = [torch.full((2,), -1.2, dtype=DOUBLE)]
    landscape = free(lambda x: torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1], x[:1] * 0 + 0.1]), start)
    found = gauss_newton(landscape, start, GaussNewtonOptions(tolerance=1e-8), Recorder())
    assert found.status == "converged"
    torch.testing.assert_close(found.x[0], torch.ones(2, dtype=DOUBLE), rtol=0, atol=1e-4)
    assert found.value == pytest.approx(0.01, rel=1e-6)


def test_fields_in_single_precision_beside_parameters_in_double() -> None:
    start = [torch.zeros(2, dtype=DOUBLE), torch.zeros(5, 8)]
    target = torch.linspace(0, 1, 40).reshape(5, 8)
    landscape = LeastSquares(
        lambda p, f: 10 * (f + p[0].exp().float() * target - 2).reshape(-1) + p[1].float(),
        start,
        metric=(1.0, 1.0),
    )
    found = gauss_newton(landscape, start, GaussNewtonOptions(tolerance=1e-5), Recorder())
    assert found.status == "converged"
    assert [t.dtype for t in found.x] == [DOUBLE, torch.float32]
    here = landscape.at(found.x)
    assert here.value == found.value
    assert math.sqrt(dot(here.gradient(), here.gradient())) < 1e-2 * math.sqrt(found.value)


class Fisher:
    """‖v‖² + ‖30 (u_last − observed)‖² for unknown ln D, ln ρ and model error, as ``inference`` puts it together."""

    metric = (1e-6, 1.0)

    def __init__(self, model: FisherKolmogorov, u0: torch.Tensor, observed: torch.Tensor, dt: float) -> None:
        self.model, self.u0, self.observed, self.dt = model, u0, observed, dt

    def at(self, x: Point) -> FisherHere:
        return FisherHere(self, x)


class FisherHere:
    def __init__(self, world: Fisher, x: Point) -> None:
        self.z, self.v = x[0].detach().requires_grad_(), x[1]
        faces, rho = world.model.coefficients(self.z[0].exp(), 10.0), self.z[1].exp()
        self.of_model = LinearMap([*faces.values, rho], [self.z])
        self.faces = Faces(tuple(c.detach() for c in faces.values), faces.strides)  # type: ignore[arg-type]
        self.rho = float(rho.detach())
        bound = float(spectral_bound(self.faces, world.model.grid.cells))
        self.steps = Steps.resolving(
            dt=world.dt, sigma=10.0, diffusion_bound=bound, growth=self.rho, tolerance=1e-10
        )
        self.u = torch.empty(self.v.shape[0] + 1, self.v.shape[1], dtype=DOUBLE)
        self.u[0], self.outside = world.u0, torch.zeros_like(world.u0)
        loops.forward(self.u, self.v, self.faces, self.outside, self.rho, self.steps)
        self.data = 30 * (self.u[-1] - world.observed)
        self.value = float(self.v.square().sum() + self.data.square().sum())
        self.terms = {"only": self.value}

    def gradient(self) -> Point:
        d_z, d_v = self.pull(2 * self.data)
        return [d_z, d_v + 2 * self.v]

    def push(self, dx: Point) -> torch.Tensor:
        x, y, z, d_rho = self.of_model.push([dx[0]])
        d_u, d_faces = torch.zeros_like(self.u[0]), Faces((x, y, z), self.faces.strides)
        loops.tangent(d_u, dx[1], self.u, self.faces, self.rho, d_faces, float(d_rho), self.steps)
        return 30 * d_u

    def pull(self, d: torch.Tensor) -> Point:
        adjoint, d_v = 30 * d, torch.empty_like(self.v)
        faces, rho = loops.backward(
            adjoint, d_v, self.u, self.faces, self.outside, self.rho, self.steps, None
        )
        return [*self.of_model.pull([*faces.values, rho]), d_v]


def test_recovers_diffusivity_and_growth_of_a_fisher_equation(uniform_model: ModelFactory) -> None:
    """An ODIL inverse problem: unknown field and parameters, known start and last level."""
    model = uniform_model(12, 2.0)
    u0 = 0.6 * torch.exp(-((model.grid.centres()[0] - 6) ** 2) / 12)
    duration, n, truth = 20.0, 10, (0.5, 0.12)
    observed = integrate(
        model,
        u0,
        diffusivity=truth[0],
        proliferation_rate=truth[1],
        wm_gm_ratio=10,
        duration=duration,
        steps=400,
    )
    start = [torch.tensor([0.3, 0.2], dtype=DOUBLE).log(), torch.zeros(n, 12, dtype=DOUBLE)]
    found = gauss_newton(Fisher(model, u0, observed, duration / n), start, GaussNewtonOptions(), Recorder())
    assert found.status == "converged"
    diffusivity, rho = found.x[0].exp().tolist()
    assert diffusivity == pytest.approx(truth[0], rel=0.01)
    assert rho == pytest.approx(truth[1], rel=0.01)
    assert found.value < 1e-5


def test_the_loss_falls_and_every_sweep_is_counted() -> None:
    start = [torch.full((6,), -1.2, dtype=DOUBLE)]
    landscape = free(lambda x: torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]), start)
    seen: list[tuple[str, int, float]] = []
    record = Recorder(stage="newton", evaluations=5, progress=lambda *entry: seen.append(entry))
    found = gauss_newton(landscape, start, GaussNewtonOptions(max_evaluations=60), record)
    values = [row[2] for row in record.rows]
    assert values[0] == landscape.values[0]
    assert len(values) > 3
    assert all(b < a for a, b in itertools.pairwise(values))
    assert [("newton", row[0], row[2]) for row in record.rows] == seen
    # one pair of sweeps for each point tried and each inner iteration; a step's last pull goes with its first push
    assert found.evaluations == len(landscape.values) + landscape.pulls - landscape.gradients
    assert record.evaluations == 5 + found.evaluations
    assert found.value == landscape.at(found.x).value == found.terms["only"] == values[-1]
    assert torch.equal(start[0], torch.full((6,), -1.2, dtype=DOUBLE))


def test_iteration_limit_is_reported() -> None:
    start = [torch.full((6,), -1.2, dtype=DOUBLE)]
    for limit in (1, 4, 9):
        landscape = free(lambda x: torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]), start)
        found = gauss_newton(landscape, start, GaussNewtonOptions(max_evaluations=limit), Recorder())
        assert found.status == "iteration_limit"
        assert str(limit) in found.message
        assert limit <= found.evaluations <= limit + 30 + 6  # an outer iteration is not broken off
        assert found.value == landscape.at(found.x).value


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_diverged_at_the_start(bad: float) -> None:
    start = [torch.ones(2, dtype=DOUBLE)]
    record = Recorder()
    found = gauss_newton(free(lambda x: x * bad, start), start, GaussNewtonOptions(), record)
    assert found.status == "diverged"
    assert "finite" in found.message
    assert found.evaluations == record.evaluations == 1
    assert record.rows == []


def test_walls_are_survived() -> None:
    """The full step from 3 lands where log is not defined; a shorter one finds the way to 1."""
    start = [torch.full((1,), 3.0, dtype=DOUBLE)]
    landscape = free(lambda x: torch.cat([x.log(), x * 0 + 0.1]), start)
    found = gauss_newton(landscape, start, GaussNewtonOptions(), Recorder())
    assert any(math.isnan(v) for v in landscape.values)
    assert found.status == "converged"
    assert float(found.x[0][0]) == pytest.approx(1, abs=1e-3)


def test_damping_comes_where_steps_are_shortened_and_goes_where_they_keep_their_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dampings: list[float] = []

    def noted(*args: Any) -> tuple[Point, float]:
        dampings.append(args[3])
        return _step(*args)

    monkeypatch.setattr("gliodil.pde.odil.gauss_newton._step", noted)
    start = [torch.full((2,), -1.2, dtype=DOUBLE)]
    landscape = free(lambda x: torch.cat([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1], x[:1] * 0 + 0.1]), start)
    found = gauss_newton(landscape, start, GaussNewtonOptions(tolerance=1e-8), Recorder())
    assert found.status == "converged"
    assert dampings[0] == 0
    assert max(dampings) >= FIRST_DAMPING
    assert dampings[-1] == 0


def test_max_step_holds_the_first_tensor_back() -> None:
    start = [torch.zeros(1, dtype=DOUBLE), torch.zeros(1, dtype=DOUBLE)]
    seen: list[float] = []

    def data(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(float(x.detach()))
        return torch.cat([x - 100, y - 100, x * 0 + 1])

    found = gauss_newton(free(data, start), start, GaussNewtonOptions(max_step=2.0), Recorder())
    moves = [abs(b - a) for a, b in itertools.pairwise(seen)]
    assert max(moves) <= 2 + 1e-9
    assert moves[0] == pytest.approx(2)
    assert float(found.x[0]) > 10


def test_stalled_where_the_model_finds_no_way_down() -> None:
    """Data whose derivative is not a number: the step it leads to promises nothing."""
    start = [torch.zeros(2, dtype=DOUBLE)]
    landscape = free(lambda x: x.abs().sqrt() + 1, start)
    assert math.isfinite(landscape.at(start).value)
    found = gauss_newton(landscape, start, GaussNewtonOptions(), Recorder())
    assert found.status == "stalled"
    assert torch.equal(found.x[0], start[0])


def test_stalled_when_the_gradient_lies() -> None:
    """A gradient of the wrong sign: no step decreases the loss, and that is not convergence."""

    class Lying(LeastSquares):
        def at(self, x: Point) -> Here:
            here = super().at(x)
            here.gradient = lambda: [-2 * t for t in x]  # type: ignore[method-assign]
            return here

    start = [torch.ones(3, dtype=DOUBLE)]
    found = gauss_newton(
        Lying(lambda x: 0 * x + 1, start, metric=(1.0,)), start, GaussNewtonOptions(), Recorder()
    )
    assert found.value == 6
    assert torch.equal(found.x[0], start[0])
    assert found.status == "stalled"


def test_no_convergence_is_claimed_where_only_the_damping_shortens_the_step() -> None:
    """Residual 3 − x behind a wall at 1: the slope there is steep, so the fit has stalled, not converged."""
    start = [torch.full((1,), 1 - 1e-9, dtype=DOUBLE)]
    landscape = free(lambda x: torch.where(x > 1, math.inf, 3 - x), start)
    found = gauss_newton(landscape, start, GaussNewtonOptions(), Recorder())
    assert found.status == "stalled"


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_stationary_start_has_converged(offset: float) -> None:
    start = [torch.zeros(3, dtype=DOUBLE)]
    landscape = LeastSquares(lambda x: torch.cat([x, x[:1] * 0 + offset]), start, metric=(1.0,))
    found = gauss_newton(landscape, start, GaussNewtonOptions(), Recorder())
    assert found.status == "converged"
    assert found.value == offset
