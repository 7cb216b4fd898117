"""The optimizers, the loop and the local networks on problems whose solution is known."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from plain_sampler import PlainUniform, Tilted

from gliodil.errors import InputError
from gliodil.sampling.derivatives import laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.local import Growth, least_squares, solve_local
from gliodil.sampling.mlp import MLP
from gliodil.sampling.objective import Objective
from gliodil.sampling.optimizers.catalogue import OPTIMIZERS
from gliodil.sampling.optimizers.damped import gram
from gliodil.sampling.optimizers.levenberg_marquardt import LevenbergMarquardt
from gliodil.sampling.points import Points
from gliodil.sampling.problems.catalogue import PROBLEMS
from gliodil.sampling.problems.disk import disk
from gliodil.sampling.problems.poisson import poisson
from gliodil.sampling.problems.problem import Condition, Problem, values
from gliodil.sampling.samplers.smc import SmcSampler
from gliodil.sampling.schedule import Schedule
from gliodil.sampling.solve import solve

LINE = Box((0.0,), (1.0,))


def reaction(**changes: object) -> Problem:
    """-u'' + u³ = s on [0, 1], u = sin(πx), hard."""

    def residual(x, u, scalars):  # type: ignore[no-untyped-def]
        exact = (math.pi * x[:, 0]).sin()
        return -u.laplacian + u.value**3 - math.pi**2 * exact - exact**3

    problem = Problem(
        name="reaction",
        box=LINE,
        second_order=laplacian(1),
        residual=residual,
        distance=lambda x: x[0] * (1.0 - x[0]),
        exact=lambda x: (math.pi * x[:, 0]).sin(),
    )
    return dataclasses.replace(problem, **changes)


def soft() -> Problem:
    """The same with values at both ends in the loss."""

    def ends(count, *, generator, dtype):  # type: ignore[no-untyped-def]
        return LINE.boundary(count, generator=generator, dtype=dtype)

    condition = Condition(lambda x, u, scalars: u.value, ends, weight=100.0)
    return reaction(distance=None, conditions=(condition,))


def slope_at_the_end() -> Problem:
    """Zero value at 0 hard, slope -π at 1 soft."""

    def end(count, *, generator, dtype):  # type: ignore[no-untyped-def]
        return LINE.face(0, upper=True, count=count, generator=generator, dtype=dtype)

    condition = Condition(lambda x, u, scalars: u.gradient[0] + math.pi, end, weight=10.0)
    return reaction(distance=lambda x: x[0], conditions=(condition,))


@pytest.mark.parametrize("problem", [reaction(), soft(), slope_at_the_end()], ids=["hard", "soft", "slope"])
def test_every_boundary_treatment_finds_the_manufactured_solution(problem: Problem) -> None:
    solution = solve(
        problem,
        network=MLP(problem.box, (10,)),
        schedule=Schedule(steps=80, budget_s=20, condition_points=20),
    )
    assert solution.best.error < 1e-4


def test_a_distance_function_serves_where_the_domain_is_no_box() -> None:
    solution = solve(disk(), network=MLP(disk().box, (12,)), schedule=Schedule(steps=60, budget_s=20))
    assert solution.best.error < 1e-3


def test_an_unknown_coefficient_is_found_from_data() -> None:
    """-D u'' = π² sin(πx) with D = 2 and 20 exact observations of u = sin(πx)/2."""

    def data(count, *, generator, dtype):  # type: ignore[no-untyped-def]
        return torch.linspace(0.05, 0.95, 20, dtype=dtype)[:, None]

    def misfit(x, u, scalars):  # type: ignore[no-untyped-def]
        return u.value - 0.5 * (math.pi * x[:, 0]).sin()

    def residual(x, u, scalars):  # type: ignore[no-untyped-def]
        return -scalars[:, 0] * u.laplacian - math.pi**2 * (math.pi * x[:, 0]).sin()

    problem = reaction(
        residual=residual,
        scalars=(1.0,),
        conditions=(Condition(misfit, data, weight=1e3),),
        exact=lambda x: 0.5 * (math.pi * x[:, 0]).sin(),
    )
    solution = solve(problem, network=MLP(LINE, (8,)), schedule=Schedule(steps=80, budget_s=20))
    assert solution.scalars[0] == pytest.approx(2.0, rel=1e-4)


class Fixed:
    """r(θ) = (θ₀² - 2, θ₀ θ₁ - 1, θ₁ + θ₀ - 3/√2): zero at (√2, 1/√2)."""

    network = SimpleNamespace(size=2)

    def residual(self, t: torch.Tensor) -> torch.Tensor:
        return torch.stack([t[0] ** 2 - 2, t[0] * t[1] - 1, t[0] + t[1] - 1.5 * 2**0.5])

    def loss(self, t: torch.Tensor) -> float:
        return 0.5 * float(self.residual(t).square().sum())

    def linearize(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one = torch.ones_like(t[0])
        rows = [[2 * t[0], 0 * one], [t[1], t[0]], [one, one]]
        return self.residual(t), torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("method", ["primal", "dual", "iterative"])
def test_lm_converges_quadratically_where_the_residual_vanishes(method: str) -> None:
    truth = torch.tensor([2**0.5, 0.5**0.5], dtype=torch.float64)
    theta = truth + torch.tensor([0.2, -0.1], dtype=torch.float64)
    optimizer = LevenbergMarquardt(damping=1e-14, smallest=1e-14, method=method, rank=2)
    errors = []
    for _ in range(4):
        theta, _, moved = optimizer.step(Fixed(), theta)
        errors.append(float((theta - truth).norm()))
        if errors[-1] < 1e-12:
            break
        assert moved
    assert errors[-1] < 1e-7
    for before, after in pairwise(errors):
        assert after < 2 * before**2 + 1e-12


@pytest.mark.parametrize(
    ("method", "damping"), [("primal", 1e-3), ("primal", 1e-13), ("dual", 1e-3), ("iterative", 1e-3)]
)
def test_a_step_follows_the_curvature_of_the_residual(method: str, damping: float) -> None:
    theta = torch.tensor([1.0, 1.2], dtype=torch.float64)
    r, jacobian = Fixed().linearize(theta)
    norms = jacobian.norm(dim=0)
    scale = (norms * norms.square().mean().sqrt()).sqrt()
    damped = jacobian.T @ jacobian + damping * scale.square().diag()
    delta = -torch.linalg.solve(damped, jacobian.T @ r)
    second = torch.stack([2 * delta[0] ** 2, 2 * delta[0] * delta[1], 0 * delta[0]])
    bent = theta + delta - 0.5 * torch.linalg.solve(damped, jacobian.T @ second)
    assert Fixed().loss(bent) < 0.5 * Fixed().loss(theta + delta)
    optimizer = LevenbergMarquardt(damping=damping, method=method, rank=2)
    found, loss, moved = optimizer.step(Fixed(), theta)
    torch.testing.assert_close(found, bent, rtol=1e-9, atol=1e-9)
    assert moved
    assert loss == pytest.approx(Fixed().loss(bent), rel=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_lower_triangle_of_the_gram_matrix_is_right(threads: int, dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    a = torch.randn(40, 7, dtype=dtype, generator=torch.Generator().manual_seed(0))
    try:
        torch.set_num_threads(threads)
        found = gram(a)
    finally:
        torch.set_num_threads(before)
    assert found.dtype == dtype
    torch.testing.assert_close(found.tril(), (a.T @ a).tril())


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_lowers_the_loss(name: str) -> None:
    problem = poisson()
    network = MLP(problem.box, (8, 8))
    generator = torch.Generator().manual_seed(1)
    theta = network.initial(generator=generator)
    objective = Objective(problem, network, PlainUniform(problem.box).draw(400, generator=generator))
    optimizer, first = OPTIMIZERS[name](), objective.loss(theta)
    for _ in range(10):
        theta, _, _ = optimizer.step(objective, theta)
    assert objective.loss(theta) < (0.9 if name in ("adam", "soap") else 0.05) * first


def test_importance_weights_make_the_loss_independent_of_the_law() -> None:
    problem = dataclasses.replace(poisson(), residual=lambda x, u, scalars: x[:, 0] + 1)
    network = MLP(problem.box, (4,))
    theta = network.initial(generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(0)
    uniform, tilted = (
        Objective(problem, network, law(problem.box).draw(200_000, generator=generator)).loss(theta)
        for law in (PlainUniform, Tilted)
    )
    assert tilted == pytest.approx(uniform, rel=0.01)
    plain = Objective(problem, network, Tilted(problem.box).draw(200_000, generator=generator), kappa=0.0)
    assert abs(plain.loss(theta) / uniform - 1) > 0.1


def test_a_run_is_reproducible_from_its_seed() -> None:
    problem = poisson()
    runs = [
        solve(
            problem,
            network=MLP(problem.box, (6,)),
            sampler=Tilted(problem.box),
            schedule=Schedule(steps=30, budget_s=30),
            seed=seed,
        ).theta
        for seed in (4, 4, 5)
    ]
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-6, atol=1e-6)
    assert float((runs[0] - runs[2]).abs().max()) > 0.1


def test_divergence_is_a_status() -> None:
    def residual(x, u, scalars):  # type: ignore[no-untyped-def]
        return u.laplacian / (x[:, 0] * 0)

    solution = solve(
        reaction(residual=residual), network=MLP(LINE, (4,)), schedule=Schedule(steps=20, budget_s=10)
    )
    assert solution.status == "diverged"
    assert "finite" in solution.message


class Harmful:
    """Levenberg-Marquardt that throws θ far away at some calls."""

    def __init__(self, calls: range) -> None:
        self.inner, self.calls, self.call, self.retreats = LevenbergMarquardt(), calls, 0, 0

    def reset(self) -> None: ...

    def retreat(self) -> None:
        self.retreats += 1
        self.inner.retreat()

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        self.call += 1
        if self.call in self.calls:
            return theta + 1e9, 1.0, True
        return self.inner.step(objective, theta)


def test_harmful_steps_are_taken_back_and_do_not_end_a_run() -> None:
    optimizer = Harmful(range(40, 60))
    plan = Schedule(steps=100, resample=10, budget_s=20)
    solution = solve(reaction(), network=MLP(LINE, (10,)), optimizer=optimizer, schedule=plan)
    assert solution.status == "budget"
    assert optimizer.retreats == 3  # draws that hold calls 40 to 59
    before = min(record.validation for record in solution.history[:3])
    assert solution.history[6].validation < 10 * before
    assert solution.best.error < 1e-4


def test_only_harmful_steps_are_divergence() -> None:
    solution = solve(
        reaction(),
        network=MLP(LINE, (10,)),
        optimizer=Harmful(range(11, 10_000)),
        schedule=Schedule(steps=1000, resample=10, budget_s=20),
    )
    assert solution.status == "diverged"
    assert "grew" in solution.message
    assert solution.best.validation == solution.history[0].validation


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_every_optimizer_goes_on_after_a_retreat(name: str) -> None:
    problem = poisson()
    network = MLP(problem.box, (6,))
    generator = torch.Generator().manual_seed(1)
    theta = network.initial(generator=generator)
    objective = Objective(problem, network, PlainUniform(problem.box).draw(100, generator=generator))
    optimizer = OPTIMIZERS[name]()
    optimizer.step(objective, theta)
    optimizer.retreat()
    first = objective.loss(theta)
    for _ in range(5):
        theta, _, _ = optimizer.step(objective, theta)
    assert objective.loss(theta) < first


def test_tolerance_and_patience_are_statuses() -> None:
    network = MLP(LINE, (8,))
    met = solve(reaction(), network=network, schedule=Schedule(tolerance=1e-1, budget_s=20))
    assert met.status == "converged"
    assert met.best.validation <= 1e-1
    stuck = solve(reaction(), network=MLP(LINE, (1,)), schedule=Schedule(patience=2, budget_s=20))
    assert stuck.status == "stalled"


def test_a_budget_spent_before_the_first_step_still_gives_a_record() -> None:
    found = solve(
        poisson(),
        network=MLP(poisson().box, (4,)),
        sampler=PlainUniform(poisson().box),
        schedule=Schedule(budget_s=1e-9),
    )
    assert found.status == "budget"
    assert math.isfinite(found.best.validation)


def test_least_squares_is_that_of_a_direct_solver() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    r = torch.randn(40, generator=generator, dtype=torch.float64)
    expected = torch.linalg.lstsq(a, -r[:, None]).solution[:, 0]
    delta, left = least_squares(a.clone(), r, 1e-28)
    torch.testing.assert_close(delta, expected)
    assert left == pytest.approx(0.5 * float((r + a @ expected).square().sum()))


def test_a_local_network_resolves_a_smooth_solution() -> None:
    solution = solve_local(poisson(), growth=Growth(rounds=12, budget_s=20))
    assert solution.best.error < 1e-5


def test_a_local_network_finds_a_peak() -> None:
    def near(count, *, generator, dtype):  # type: ignore[no-untyped-def]
        return 0.5 + 0.05 * torch.randn(count, 2, generator=generator, dtype=dtype)

    problem = dataclasses.replace(PROBLEMS["one-peak"](), test_points=near)
    solution = solve_local(problem, growth=Growth(rounds=19, budget_s=15), test_points=2000)
    assert solution.best.error < 5e-2


@pytest.mark.parametrize("name", [n for n in PROBLEMS if n != "allen-cahn"])
def test_the_exact_solution_has_no_residual(name: str) -> None:
    """The stated equation, lift and conditions hold for the stated solution (by finite differences)."""
    problem = PROBLEMS[name]()
    generator = torch.Generator().manual_seed(0)
    x = problem.draw_test(400, generator=generator)[:400]
    h = 1e-3
    if name == "burgers":
        x = x[(x[:, 0].abs() > 0.1) & (x[:, 1] > 0.01)]
    centre = problem.exact(x)
    firsts, seconds = [], []
    for axis in range(problem.box.dimension):
        move = torch.zeros_like(x[0])
        move[axis] = h
        far = [problem.exact(x + k * move) for k in (-2, -1, 1, 2)]
        firsts.append((far[0] - 8 * far[1] + 8 * far[2] - far[3]) / (12 * h))
        seconds.append((-far[0] + 16 * far[1] - 30 * centre + 16 * far[2] - far[3]) / (12 * h * h))
    from gliodil.sampling.derivatives import Jet

    c = torch.tensor(problem.second_order, dtype=x.dtype)
    jet = Jet(torch.cat([centre[None], torch.stack(firsts), c @ torch.stack(seconds)]), c)
    r = problem.residual(x, jet, x.new_empty(len(x), 0))
    size = (c @ torch.stack(seconds)).abs().max() + torch.stack(firsts).abs().max() + 1e-9
    assert float(r.abs().max()) < 2e-3 * float(size)


def test_the_lift_of_the_bump_has_its_values_on_the_faces() -> None:
    problem = PROBLEMS["bump-nonlinear"]()
    x = problem.box.boundary(300, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(values(problem.lift, x), problem.exact(x), rtol=1e-8, atol=0)
    assert float(values(problem.lift, torch.zeros(1, 10, dtype=torch.float64))) < 1e-4  # it knows no bump


def test_ten_dimensions_are_solved_by_points_of_all_scales() -> None:
    """Seconds of what takes minutes: on the way to 1e-3, where uniform points leave an error of 1."""
    problem = PROBLEMS["bump-nonlinear"]()
    solution = solve(
        problem,
        network=MLP(problem.box, (20, 10), activation="softplus"),
        sampler=SmcSampler(problem.box, dtype=torch.float64, ladder=True),
        optimizer=LevenbergMarquardt(),
        schedule=Schedule(
            budget_s=60, steps=50, points=1500, kappa=0.4, defensive=0.1, prepare=1, adapt=0, validation=1000
        ),
        test_points=4000,
    )
    assert solution.best.error < 0.15


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError):
        MLP(LINE, (3,), activation="step")
    with pytest.raises(InputError):
        Schedule(adapt=-1)
    with pytest.raises(InputError):
        Box((0.0, 1.0), (1.0,))
    with pytest.raises(InputError):
        Box((0.0,), (0.0,))
    with pytest.raises(InputError):
        Schedule(kappa=2.0)
    with pytest.raises(InputError):
        MLP(LINE, ())


def test_boundary_points_lie_on_faces_by_their_measure() -> None:
    box = Box((0.0, 0.0), (4.0, 1.0))
    x = box.boundary(20_000, generator=torch.Generator().manual_seed(0))
    flat = (x[:, 1] == 0) | (x[:, 1] == 1)
    upright = (x[:, 0] == 0) | (x[:, 0] == 4)
    assert bool((flat | upright).all())
    assert float(flat.double().mean()) == pytest.approx(0.8, abs=0.02)


def test_points_of_the_tree_follow_its_density() -> None:
    from gliodil.sampling.leaves import lattice

    cells = lattice(Box((0.0, 0.0), (1.0, 1.0)), (4, 4), like=torch.zeros(1, dtype=torch.float64))
    marked = torch.zeros(16, 2, dtype=torch.bool)
    marked[3, 0] = marked[5] = True
    split = cells.halve(marked)
    assert len(split) == 20
    assert float(split.volumes.sum()) == pytest.approx(1.0)
    x, density = split.draw(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(density, split.density(x))
    points = Points(x, density)
    assert float((1 / points.density).mean()) == pytest.approx(1.0)
