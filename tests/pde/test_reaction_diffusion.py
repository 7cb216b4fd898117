"""Grid solvers: exactness, orders, invariants, gradients, statuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import InputError, NumericsError
from gliodil.pde import fused
from gliodil.pde.grid import Grid
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.operators import Faces, diffuse
from gliodil.pde.reaction_diffusion import Logistic, ReactionDiffusion, implicit, solve
from gliodil.pde.reaction_diffusion.chebyshev import chebyshev_step, stages_needed, weights
from gliodil.pde.reaction_diffusion.cosine import CosineDiffusion
from gliodil.pde.reaction_diffusion.implicit import ImplicitDiffusion
from gliodil.pde.reaction_diffusion.methods import METHOD_NAMES, make
from gliodil.pde.reaction_diffusion.polynomial import coefficients as fitted_polynomial
from gliodil.pde.reaction_diffusion.polynomial import polynomial_step

ModelFactory = Callable[..., FisherKolmogorov]


def seeded(grid: Grid, width: float = 2.0, peak: float = 0.7) -> torch.Tensor:
    centres = grid.centres()
    distance2 = (centres - centres.mean(dim=1, keepdim=True)).square().sum(dim=0)
    return peak * torch.exp(-distance2 / (2 * width**2))


def box(shape: tuple[int, int, int] = (10, 8, 6), rho: float = 0.05, d: float = 0.3) -> ReactionDiffusion:
    """Constant D on an anisotropic grid."""
    grid = Grid(shape, (1.0, 1.3, 1.7))
    model = FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros())
    return ReactionDiffusion(grid, model.coefficients(d, 10.0), Logistic(rho))


def tissue(model: FisherKolmogorov, rho: float = 0.05, d: float = 0.3) -> ReactionDiffusion:
    return ReactionDiffusion(model.grid, model.coefficients(d, 10.0), Logistic(rho))


def matrix(problem: ReactionDiffusion) -> torch.Tensor:
    """∇·(D∇) as a dense matrix, from the definition."""
    return diffuse(torch.eye(problem.grid.cells, dtype=torch.float64), problem.coefficients)


@pytest.mark.parametrize("shape", [(5, 4, 3), (7, 1, 1), (1, 4, 3)])
def test_cosine_diffusion_is_the_exponential_of_the_operator(shape: tuple[int, int, int]) -> None:
    problem = box(shape)
    exact = CosineDiffusion.of(problem.grid, problem.coefficients)
    assert exact is not None
    u = torch.rand(problem.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a = matrix(problem)
    torch.testing.assert_close(exact.flow(u, 7.0), torch.matrix_exp(7.0 * a) @ u, rtol=1e-12, atol=1e-13)
    solved = torch.linalg.solve(torch.eye(len(u), dtype=torch.float64) - 3.0 * a, u)
    torch.testing.assert_close(exact.solve(u, 3.0), solved, rtol=1e-12, atol=1e-13)


def test_cosine_diffusion_knows_where_it_does_not_apply(random_model: ModelFactory) -> None:
    for model in (random_model(), random_model(holes=0.0)):
        assert CosineDiffusion.of(model.grid, model.coefficients(1.0, 10.0)) is None
    line = FisherKolmogorov.on(grid := Grid((9, 1, 1), (1.0, 2.0, 3.0)), grid.zeros() + 1, grid.zeros())
    assert CosineDiffusion.of(grid, line.coefficients(1.0, 10.0)) is not None


@pytest.mark.parametrize("s", [2, 3, 5, 11, 40])
def test_chebyshev_polynomial_is_consistent_and_stable(s: int) -> None:
    """On u' = zu a step multiplies by 1 + z + z²/2 + O(z³), and by less than 1 over the whole interval."""

    def amplify(z: float) -> float:
        one = torch.ones(1, dtype=torch.float64)
        return float(chebyshev_step(lambda u: z * u, one, z * one, 1.0, s))

    z = 1e-3
    assert abs(amplify(z) - (1 + z + z * z / 2)) < z**3
    beta = (s * s - 1) * 2 / 3 * (1 - 2 / 15 * 2 / 13)
    assert max(abs(amplify(-x)) for x in torch.linspace(0.05 * beta, beta, 300).tolist()) < 1
    assert stages_needed(1.0, beta * 0.999) <= s
    assert len(weights(s)[1]) == s - 1


@settings(max_examples=25, deadline=None)
@given(beta=st.floats(0.01, 300), digits=st.floats(2, 9))
def test_fitted_polynomial_follows_the_exponential_and_damps(beta: float, digits: float) -> None:
    p = fitted_polynomial(beta, 10**-digits)
    one = torch.ones(500, dtype=torch.float64)
    x = torch.linspace(0, beta, 500, dtype=torch.float64)
    value = polynomial_step(lambda u: -x * u, one, beta, p)
    smooth = x <= 1
    assert float((value - torch.exp(-x))[smooth].abs().max()) <= 10**-digits * 1.05
    assert float(value[x > 0.5].abs().max() if beta > 0.51 else 0.0) < 1
    assert abs(float(value[0]) - 1) < 1e-12


def test_impossible_steps_of_the_polynomial_are_an_error() -> None:
    with pytest.raises(NumericsError, match="too long"):
        fitted_polynomial(1e6, 1e-6)


def test_implicit_step_solves_its_equation(random_model: ModelFactory) -> None:
    problem = tissue(random_model((6, 5, 4), seed=3), d=2.0)
    u = torch.rand(problem.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for tau in (0.1, 30.0, 3000.0):  # the last two with the preconditioner
        x = ImplicitDiffusion(problem, 1e-12).solve(u, tau)
        direct = torch.linalg.solve(torch.eye(len(u), dtype=torch.float64) - tau * matrix(problem), u)
        torch.testing.assert_close(x, direct, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["constant", "varying"])
@pytest.mark.parametrize("method", METHOD_NAMES)
def test_temporal_order_is_two(
    method: str, kind: str, random_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implicit, "TOLERANCE", 1e-12)
    problem = box() if kind == "constant" else tissue(random_model((7, 6, 5), holes=0.15))
    u0 = seeded(problem.grid)
    reference = solve(problem, u0, duration=20.0, method="strang", tolerance=1e-8).u
    errors = [
        float(
            (solve(problem, u0, duration=20.0, method=method, steps=n, tolerance=1e-8).u - reference)
            .abs()
            .max()
        )
        for n in (48, 96, 192)
    ]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(1.85 < order < 2.3 for order in orders), (errors, orders)


def test_adapted_strang_is_of_order_four() -> None:
    problem, tolerance = box(rho=0.2), 1.0
    u0 = seeded(problem.grid)
    reference = solve(problem, u0, duration=20.0, method="strang", tolerance=1e-9).u
    errors = []
    for tolerance in (
        1e-3,
        1e-3 / 8,
        1e-3 / 64,
    ):  # steps halve from one to the next, as h³ follows the tolerance
        errors.append(
            float((solve(problem, u0, duration=20.0, tolerance=tolerance).u - reference).abs().max())
        )
    assert math.log2(errors[0] / errors[2]) / 2 > 3.2, errors


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_tolerance_is_met_and_pays(method: str, random_model: ModelFactory) -> None:
    problem = tissue(random_model((7, 6, 5)))
    u0 = seeded(problem.grid)
    reference = solve(problem, u0, duration=60.0, method="rkc2", tolerance=1e-8).u
    loose, tight = (
        solve(problem, u0, duration=60.0, method=method, tolerance=tolerance) for tolerance in (1e-2, 1e-4)
    )
    errors = [float((s.u - reference).abs().max()) for s in (loose, tight)]
    assert errors[0] < 5e-2
    assert errors[1] < 2e-3
    assert loose.status == tight.status == "finished"
    assert loose.evaluations < tight.evaluations
    assert sum(tight.steps) == pytest.approx(60.0)
    assert tight.day == pytest.approx(60.0)


@pytest.mark.parametrize("kind", ["constant", "varying"])
@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("how", [{"steps": 7}, {"tolerance": 1e-3}])
def test_mass_is_conserved_without_growth(
    method: str, kind: str, how: dict[str, float], random_model: ModelFactory
) -> None:
    problem = box(rho=0.0) if kind == "constant" else tissue(random_model((7, 6, 5)), rho=0.0)
    u0 = torch.rand(problem.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    after = solve(problem, u0, duration=50.0, method=method, **how).u  # type: ignore[arg-type]
    # The implicit solve is iterative and keeps the sum to its tolerance only.
    assert float(after.sum()) == pytest.approx(float(u0.sum()), rel=1e-7 if method == "imex" else 1e-11)
    assert float((after - u0).abs().max()) > 1e-2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), rho=st.floats(0, 0.5), d=st.floats(0.01, 3), steps=st.integers(1, 20))
def test_strang_keeps_densities_in_bounds_on_a_box(seed: int, rho: float, d: float, steps: int) -> None:
    """Whatever the step: the exact flows keep [0, 1]."""
    problem = box((6, 5, 4), rho=rho, d=d)
    u0 = (torch.rand(problem.grid.cells, generator=torch.Generator().manual_seed(seed)) > 0.7).double()
    u = solve(problem, u0, duration=100.0, method="strang", steps=steps).u
    assert float(u.min()) >= -1e-12
    assert float(u.max()) <= 1 + 1e-12


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_cells_never_enter_csf_and_stay_in_bounds(method: str, random_model: ModelFactory) -> None:
    model = random_model((9, 8, 7), seed=2, holes=0.3)
    problem = tissue(model, rho=0.1, d=0.5)
    u0 = torch.where(model.passable, seeded(model.grid, width=3.0), 0.0)
    u = solve(problem, u0, duration=100.0, method=method, tolerance=1e-3).u
    assert torch.count_nonzero(u[~model.passable]) == 0
    assert float(u.min()) > -1e-3
    assert float(u.max()) < 1 + 1e-3
    assert float(u[model.passable].mean()) > float(u0[model.passable].mean())


@pytest.mark.parametrize("kind", ["constant", "varying"])
@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("adapted", [False, True])
def test_gradients_by_finite_differences(
    method: str, kind: str, adapted: bool, random_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At frozen steps; the adapted kind of step is taken twice by hand, since a difference would move the steps."""
    monkeypatch.setattr(implicit, "TOLERANCE", 1e-14)
    grid = Grid((4, 3, 3), (1.0, 1.5, 2.0))
    flat = FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros())
    model = flat if kind == "constant" else random_model((4, 3, 3))
    u0 = seeded(model.grid)
    weight = torch.rand(u0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def value(d: torch.Tensor, rho: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        problem = ReactionDiffusion(model.grid, model.coefficients(d, 10.0), Logistic(rho))
        if adapted:
            taking = make(method, problem, 1e-10)
            u = taking.estimated(taking.estimated(scale * u0, 3.0)[0], 2.0)[0]
        else:
            u = solve(problem, scale * u0, duration=10.0, method=method, steps=3, tolerance=1e-9).u  # type: ignore[arg-type]
        return u @ weight

    at = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, 0.1, 0.9)]
    gradient = torch.autograd.grad(value(*at), at)
    for k, g in enumerate(gradient):
        shifted = [[t.detach() + (e if j == k else 0) for j, t in enumerate(at)] for e in (-1e-5, 1e-5)]
        low, high = (float(value(*point)) for point in shifted)
        assert float(g) == pytest.approx((high - low) / 2e-5, rel=1e-6)


@pytest.mark.usefixtures("kernel")
def test_diffusion_is_the_shared_operator(random_model: ModelFactory) -> None:
    problem = tissue(random_model())
    u = torch.rand(problem.grid.cells, dtype=torch.float64, requires_grad=True)
    c = [v.clone().requires_grad_() for v in problem.coefficients.values]
    ours = ReactionDiffusion(
        problem.grid, Faces((c[0], c[1], c[2]), problem.coefficients.strides), Logistic(0.1)
    )
    weight = torch.rand(u.shape, dtype=torch.float64)
    plain = diffuse(u, ours.coefficients)
    torch.testing.assert_close(ours.diffusion(u), plain, rtol=1e-13, atol=1e-14)
    wanted = torch.autograd.grad(plain @ weight, [u, *c])
    for mine, reference in zip(torch.autograd.grad(ours.diffusion(u) @ weight, [u, *c]), wanted, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(ours.rate(u), plain + 0.1 * u * (1 - u), rtol=1e-12, atol=1e-13)


def test_logistic_flow_is_the_solution() -> None:
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    e = math.exp(0.6)
    torch.testing.assert_close(Logistic(0.1).flow(u, 6.0), u * e / (1 + u * (e - 1)))
    torch.testing.assert_close(Logistic(torch.tensor(0.1).double()).flow(u, 6.0), Logistic(0.1).flow(u, 6.0))
    assert bool(torch.isfinite(Logistic(1e4).flow(u.float(), 1.0)).all())


def test_exploding_steps_end_with_a_status() -> None:
    """Steps so long that the explicit reaction leaves [0, 1] for good; Strang takes the same ones."""
    problem = box(rho=8.0)
    u0 = seeded(problem.grid)
    exploded = solve(problem, u0, duration=100.0, method="imex", steps=20)
    assert exploded.status == "diverged"
    assert "too large" in exploded.message
    assert torch.equal(exploded.u, u0)
    assert exploded.day == 0
    assert solve(problem, u0, duration=100.0, method="strang", steps=20).status == "finished"
    assert solve(problem, u0, duration=100.0, method="imex", tolerance=1e-2).status == "finished"


def test_budget_and_nan_end_with_a_status(random_model: ModelFactory) -> None:
    problem = box()
    u0 = seeded(problem.grid)
    stopped = solve(problem, u0, duration=100.0, method="rkc2", tolerance=1e-6, max_steps=5)
    assert stopped.status == "budget"
    assert 0 < stopped.day < 100
    assert bool(torch.isfinite(stopped.u).all())
    for method in METHOD_NAMES:
        for how in ({"steps": 4}, {"tolerance": 1e-3}):
            lost = solve(problem, torch.full_like(u0, math.nan), duration=10.0, method=method, **how)  # type: ignore[arg-type]
            assert lost.status == "diverged"
            assert lost.day == 0
    # One step over a stiff grid asks for a polynomial of too high a degree; shorter ones do.
    stiff = tissue(random_model((7, 6, 5)), d=30.0)
    u0 = seeded(stiff.grid)
    assert solve(stiff, u0, duration=100.0, steps=1).status == "diverged"
    assert solve(stiff, u0, duration=100.0, tolerance=1e-2).status == "finished"


def test_nothing_to_do_and_nonsense() -> None:
    problem = box()
    u0 = seeded(problem.grid)
    assert torch.equal(solve(problem, u0, duration=0.0).u, u0)
    for bad in ({"duration": -1.0}, {"duration": 1.0, "steps": 0}, {"duration": 1.0, "tolerance": 0.0}):
        with pytest.raises(InputError, match="make no sense"):
            solve(problem, u0, **bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Unknown grid method"):
        solve(problem, u0, duration=1.0, method="euler")  # type: ignore[arg-type]
    with pytest.raises(NumericsError, match="not finite"):
        solve(box(d=math.inf), u0, duration=1.0)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_precision_follows_the_field(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 in, float32 out; with the kernels of GPUs, too."""
    problem = box()
    exact = solve(problem, seeded(problem.grid), duration=20.0, method=method, tolerance=1e-3).u
    monkeypatch.setattr(fused, "applies", lambda *_: False)
    single = ReactionDiffusion(
        problem.grid.with_dtype(torch.float32), problem.coefficients.to(torch.float32), Logistic(0.05)
    )
    u = solve(single, seeded(single.grid), duration=20.0, method=method, tolerance=1e-3).u
    assert u.dtype == torch.float32
    torch.testing.assert_close(u.double(), exact, rtol=0, atol=1e-3)
