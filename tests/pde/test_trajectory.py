"""The sweep: its model error is the equation's residual, one to one with the field, with the right gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import Trajectory, sweep
from gliodil.pde.operators import Faces, spectral_bound
from gliodil.pde.residual import theta_residual
from gliodil.pde.seed import gaussian_seed

ModelFactory = Callable[..., FisherKolmogorov]
DIFFUSIVITY, RATIO = 0.6, 12.0
SHAPES = [(4, 3, 2), (5, 1, 3), (1, 1, 6), (6, 1, 1), (3, 3, 3)]


def random_start(
    model: FisherKolmogorov, steps: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u⁰ reaching beyond [0, 1], v of order one, and the impassable cells."""
    generator = torch.Generator().manual_seed(seed)
    u0 = 1.4 * torch.rand(model.grid.cells, dtype=torch.float64, generator=generator) - 0.2
    u0[0], u0[-1] = -0.3, 1.3
    v = torch.randn(steps, model.grid.cells, dtype=torch.float64, generator=generator)
    return u0.to(dtype), v.to(dtype), (~model.passable).to(dtype)


def coefficients_of(model: FisherKolmogorov) -> Faces:
    return model.coefficients(DIFFUSIVITY, RATIO)


def solving(
    faces: Faces, cells: int, rho: float, *, dt: float, sigma: float = 1.0, tolerance: float = 1e-12
) -> Steps:
    bound = float(spectral_bound(faces, cells))
    return Steps.resolving(dt=dt, sigma=sigma, diffusion_bound=bound, growth=rho, tolerance=tolerance)


def run(
    model: FisherKolmogorov,
    rho: float,
    u0: torch.Tensor,
    v: torch.Tensor | None,
    *,
    dt: float,
    sigma: float = 1.0,
    tolerance: float = 1e-12,
    count: int | None = None,
) -> Trajectory:
    c = coefficients_of(model)
    steps = solving(c, model.grid.cells, rho, dt=dt, sigma=sigma, tolerance=tolerance)
    outside = (~model.passable).to(u0.dtype)
    return sweep(u0, v, c, torch.tensor(rho, dtype=torch.float64), outside, steps, count=count)


def newton(
    u0: torch.Tensor,
    v: torch.Tensor,
    rate: Callable[[torch.Tensor], torch.Tensor],
    *,
    dt: float,
    sigma: float,
) -> torch.Tensor:
    """The definition: every step by Newton's method with the dense Jacobian; differentiable once."""
    levels = [u0]
    eye = torch.eye(u0.shape[0], dtype=u0.dtype)
    for error in v:
        b = levels[-1] + dt / 2 * rate(levels[-1]) + dt / sigma * error
        x = levels[-1].detach()
        for _ in range(6):  # the last one carries the derivative
            slope = torch.autograd.functional.jacobian(rate, x, vectorize=True).detach()
            x = x.detach() - torch.linalg.solve(
                eye - dt / 2 * slope, x.detach() - dt / 2 * rate(x.detach()) - b
            )
        levels.append(x)
    return torch.stack(levels)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 1), (12, 12, 30)])
def test_the_model_error_is_the_residual_of_the_equation(
    random_model: ModelFactory, shape: tuple[int, int, int], holes: float
) -> None:
    model = random_model(shape, seed=2, holes=holes)
    u0, v, outside = random_start(model, 7)
    t = run(model, 0.2, u0, v, dt=0.3, sigma=5.0)
    u, c = t.levels, coefficients_of(model)
    assert float(u.max()) > 1.01  # the penalties are not trivially zero
    assert float(u.min()) < -0.01 or model.grid.cells == 1
    r = 5.0 * theta_residual(u, lambda x: model.rate(x, c, 0.2), 0.3)
    assert float((r - v).norm()) <= 1e-8 * float(v.norm())
    assert torch.equal(t.last, u[-1])
    assert float(t.bounds) == pytest.approx(float((u - u.clamp(0, 1)).square().sum()), rel=1e-11)
    assert float(t.outside) == pytest.approx(float((u * outside).square().sum()), rel=1e-11, abs=1e-300)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_plain_definition(random_model: ModelFactory, shape: tuple[int, int, int]) -> None:
    model = random_model(shape, seed=2, holes=0.3)
    u0, v, _ = random_start(model, 7)
    c = coefficients_of(model)
    u = newton(u0, v, lambda x: model.rate(x, c, 0.2), dt=0.3, sigma=5.0)
    torch.testing.assert_close(run(model, 0.2, u0, v, dt=0.3, sigma=5.0).levels, u, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("kernel")
def test_a_field_is_reached_by_exactly_one_model_error(random_model: ModelFactory) -> None:
    """Any field at all: its residual is the v that leads through it."""
    model = random_model((3, 4, 3), seed=6)
    u0, _, _ = random_start(model, 1)
    generator = torch.Generator().manual_seed(5)
    field = torch.cat([u0[None], torch.rand(9, model.grid.cells, dtype=torch.float64, generator=generator)])
    c = coefficients_of(model)
    v = 3.0 * theta_residual(field, lambda x: model.rate(x, c, 0.1), 0.25)
    found = run(model, 0.1, field[0], v, dt=0.25, sigma=3.0).levels
    torch.testing.assert_close(found, field, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("kernel")
def test_a_loose_solver_leaves_a_residual_that_does_not_add_up(random_model: ModelFactory) -> None:
    """200 steps: the last ones meet the equation as well as the first, in proportion to the tolerance."""
    model = random_model((5, 4, 3), seed=6)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    c = coefficients_of(model)
    worst = []
    for tolerance in (1e-3, 1e-5):
        t = run(model, 0.05, u0, None, dt=0.5, tolerance=tolerance, count=200)
        r = theta_residual(t.levels, lambda x: model.rate(x, c, 0.05), 0.5).abs().amax(dim=1)
        scale = float((t.levels[1:] - t.levels[:-1]).abs().max() / 0.5)
        assert float(r[100:].max()) <= float(r[:10].max()) + 1e-12
        worst.append(float(r.max()) / scale)
    assert 1e-5 < worst[0] < 1e-2
    assert worst[1] < 0.03 * worst[0]


@pytest.mark.usefixtures("kernel")
def test_gradient(random_model: ModelFactory) -> None:
    """Every output against every input by finite differences."""
    model = random_model((3, 2, 2), seed=3, holes=0.2)
    u0, v, outside = random_start(model, 4, seed=1)
    c = coefficients_of(model)
    steps = solving(c, model.grid.cells, 0.3, dt=0.4, sigma=2.0, tolerance=1e-13)
    rho = torch.tensor(0.3, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for x in (u0, v, *c.values, rho)]
    assert bool(outside.any())

    def outputs(
        u: torch.Tensor, e: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, r: torch.Tensor
    ):  # type: ignore[no-untyped-def]
        return tuple(sweep(u, e, Faces((x, y, z), model.grid.strides), r, outside, steps)[:3])

    assert torch.autograd.gradcheck(outputs, inputs, atol=1e-7, rtol=1e-6)


@pytest.mark.usefixtures("kernel")
def test_gradient_equals_automatic_differentiation_of_the_definition(random_model: ModelFactory) -> None:
    model = random_model((4, 3, 3), seed=7, holes=0.2)
    u0, v, outside = random_start(model, 9, seed=2)
    weight = torch.randn(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def leaves() -> list[torch.Tensor]:
        scalars = [torch.tensor(x, dtype=torch.float64) for x in (DIFFUSIVITY, RATIO, 0.2)]
        return [x.clone().requires_grad_() for x in (u0, v, *scalars)]

    by_hand, by_tape = leaves(), leaves()
    c = model.coefficients(by_hand[2], by_hand[3])
    steps = solving(coefficients_of(model), model.grid.cells, 0.2, dt=0.3, sigma=4.0)
    t = sweep(by_hand[0], by_hand[1], c, by_hand[4], outside, steps)
    (t.last @ weight + 0.4 * t.bounds + 0.3 * t.outside).backward()

    c = model.coefficients(by_tape[2], by_tape[3])
    u = newton(by_tape[0], by_tape[1], lambda x: model.rate(x, c, by_tape[4]), dt=0.3, sigma=4.0)
    bounds, csf = (u - u.clamp(0, 1)).square().sum(), (u * outside).square().sum()
    (u[-1] @ weight + 0.4 * bounds + 0.3 * csf).backward()
    for hand, tape in zip(by_hand, by_tape, strict=True):
        assert hand.grad is not None
        assert tape.grad is not None
        torch.testing.assert_close(hand.grad, tape.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("kernel")
def test_single_precision_agrees(random_model: ModelFactory) -> None:
    """To round-off with a tight solver, to its tolerance with the one that fits the precision."""
    model = random_model((6, 5, 4), seed=3)

    def results(dtype: torch.dtype, tolerance: float) -> tuple[Trajectory, torch.Tensor, torch.Tensor]:
        u0, v, _ = random_start(model, 40, dtype=dtype)
        u0, v = u0.requires_grad_(), v.requires_grad_()
        t = run(model.to(dtype), 0.1, u0, v, dt=0.25, sigma=30.0, tolerance=tolerance)
        g_u, g_v = torch.autograd.grad(t.last.double().sum() + t.bounds + t.outside, (u0, v))
        assert t.last.dtype == g_u.dtype == g_v.dtype == dtype
        assert t.bounds.dtype == t.outside.dtype == torch.float64
        return Trajectory(*(x.detach() for x in t)), g_u, g_v

    a, a_u, a_v = results(torch.float64, 1e-12)
    for tolerance, rounding in ((1e-7, 5e-6), (1e-4, 4e-4)):
        b, b_u, b_v = results(torch.float32, tolerance)
        torch.testing.assert_close(a.levels.float(), b.levels, rtol=0, atol=rounding)
        for x, y in ((a.bounds, b.bounds), (a.outside, b.outside)):
            assert float(x) == pytest.approx(float(y), rel=10 * rounding)
        for x, y in ((a_u, b_u), (a_v, b_v)):
            assert float((x - y).norm()) <= 10 * rounding * float(x.norm())


@pytest.mark.usefixtures("kernel")
def test_no_model_error_is_a_model_error_of_zero(random_model: ModelFactory) -> None:
    model = random_model((4, 3, 3), seed=7)
    u0, v, _ = random_start(model, 6)
    c = coefficients_of(model)
    steps = solving(c, model.grid.cells, 0.1, dt=0.3)
    results = []
    for error in (None, torch.zeros_like(v)):
        leaves = [x.clone().requires_grad_() for x in (u0, *c.values, torch.tensor(0.1, dtype=u0.dtype))]
        u, x, y, z, rho = leaves
        faces = Faces((x, y, z), c.strides)
        t = sweep(u, error, faces, rho, (~model.passable).to(u0.dtype), steps, count=6)
        assert t.levels.shape == (7, model.grid.cells)
        results.append([t.levels, *torch.autograd.grad(t.last.square().sum() + t.bounds, leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.usefixtures("kernel")
def test_there_is_one_level_more_than_steps(random_model: ModelFactory) -> None:
    model = random_model()
    for n in (1, 2, 9):
        u0, v, _ = random_start(model, n)
        assert run(model, 0.1, u0, v, dt=0.2).levels.shape == (n + 1, model.grid.cells)
        assert run(model, 0.1, u0, None, dt=0.2, count=n).levels.shape == (n + 1, model.grid.cells)


@pytest.mark.usefixtures("kernel")
def test_inputs_are_not_changed(random_model: ModelFactory) -> None:
    model = random_model()
    u0, v, _ = random_start(model, 5)
    before = u0.clone(), v.clone()
    leaves = [u0.requires_grad_(), v.requires_grad_()]
    t = run(model, 0.1, *leaves, dt=0.2)
    weight = torch.rand_like(t.last)
    kept = weight.clone()
    torch.autograd.grad(t.last, leaves, weight)
    assert torch.equal(u0, before[0])
    assert torch.equal(v, before[1])
    assert torch.equal(weight, kept)
    assert torch.equal(t.levels[0], u0)
    assert not t.levels.requires_grad


@pytest.mark.usefixtures("kernel")
def test_stiff_diffusion_is_stable(uniform_model: ModelFactory) -> None:
    """D Δt/h² of 60: the grid's fastest mode dies out, and what it decays by is Crank-Nicolson's factor."""
    model = uniform_model(40, 1.0)
    c = model.coefficients(60.0, 10.0)
    steps = solving(c, 40, 0.0, dt=1.0)
    mode = torch.cos(39 * math.pi * (torch.arange(40, dtype=torch.float64) + 0.5) / 40)
    u0, rho = 0.5 + 0.4 * mode, torch.zeros((), dtype=torch.float64)
    levels = sweep(u0, None, c, rho, torch.zeros_like(u0), steps, count=150).levels
    eigenvalue = 60 * 4 * math.sin(39 * math.pi / 80) ** 2
    factor = (1 - eigenvalue / 2) / (1 + eigenvalue / 2)
    assert -1 < factor < -0.95
    expected = 0.5 + 0.4 * factor ** torch.arange(151, dtype=torch.float64)[:, None] * mode
    torch.testing.assert_close(levels, expected, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("kernel")
def test_stiff_diffusion_is_accurate(random_model: ModelFactory) -> None:
    """D Δt/h² of 60 with growth, holes and a model error, against Newton's method; and so is the gradient."""
    model = random_model((5, 4, 3), (0.1, 0.12, 0.15), seed=3, holes=0.2)
    u0, v, outside = random_start(model, 6)
    c = model.coefficients(1.0, RATIO)
    dt = 60 / max(float(x.max()) for x in c.values)
    steps = solving(c, model.grid.cells, 0.2, dt=dt, sigma=2 * dt)
    results = []
    for method in ("sweep", "newton"):
        leaves = [u0.clone().requires_grad_(), v.clone().requires_grad_()]
        if method == "sweep":
            u = sweep(*leaves, c, torch.tensor(0.2, dtype=torch.float64), outside, steps)
            last, levels = u.last, u.levels
        else:
            levels = newton(*leaves, lambda x: model.rate(x, c, 0.2), dt=dt, sigma=2 * dt)
            last = levels[-1]
        results.append([levels.detach(), *torch.autograd.grad(last.square().sum(), leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("kernel")
def test_single_precision_grows_a_seed_where_it_is_stiff(random_model: ModelFactory) -> None:
    """D Δt/h² of 60, the solver's tolerance that fits the precision, the seed's jump at its cutoff."""
    model = random_model((7, 6, 6), (3.0, 3.5, 4.0), seed=3)
    grid = model.grid
    seed = gaussian_seed(grid.centres(), grid.centres().mean(dim=1))
    assert 0 < int((seed > 0).sum()) < grid.cells
    dt = 60 / max(float(x.max()) for x in coefficients_of(model).values)
    found = [
        run(model.to(dtype), 0.2 / dt, seed.to(dtype), None, dt=dt, tolerance=tolerance, count=60)
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4))
    ]
    torch.testing.assert_close(found[0].levels.float(), found[1].levels, rtol=0, atol=1e-2)
    torch.testing.assert_close(found[0].last.float(), found[1].last, rtol=0, atol=2e-3)


@pytest.mark.usefixtures("kernel")
def test_a_rough_density_is_survived_where_it_is_stiff(uniform_model: ModelFactory) -> None:
    """D Δt/h² of 5 with growth: a checkerboard within [0, 1] is a density like any other."""
    model = uniform_model(40, 1.0)
    c = model.coefficients(5.0, 10.0)
    u0 = 0.5 + 0.4 * (-1.0) ** torch.arange(40, dtype=torch.float64)
    steps = solving(c, 40, 0.3, dt=1.0)
    rho = torch.tensor(0.3, dtype=torch.float64)
    u = sweep(u0, None, c, rho, torch.zeros_like(u0), steps, count=20).levels
    expected = newton(
        u0, torch.zeros(20, 40, dtype=u.dtype), lambda x: model.rate(x, c, 0.3), dt=1.0, sigma=1.0
    )
    assert float(expected.abs().max()) < 1.3
    torch.testing.assert_close(u, expected, rtol=0, atol=1e-8)


@pytest.mark.usefixtures("kernel")
def test_exact_physics_is_second_order_in_time(random_model: ModelFactory) -> None:
    """No model error, against a finely resolved forward run."""
    model = random_model((5, 4, 3), (3.0, 2.5, 2.0), seed=3)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    duration, rho = 30.0, 0.1
    exact = integrate(
        model,
        u0,
        diffusivity=DIFFUSIVITY,
        proliferation_rate=rho,
        wm_gm_ratio=RATIO,
        duration=duration,
        steps=2048,
    )
    errors = []
    for n in (16, 32, 64, 128):
        last = run(model, rho, u0, None, dt=duration / n, count=n).last
        errors.append(float((last - exact).norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.9 <= order <= 2.1 for order in orders), (orders, errors)


@pytest.mark.usefixtures("kernel")
def test_without_diffusion_every_cell_solves_its_own_equation(random_model: ModelFactory) -> None:
    """(1 − g) x + g x² = b in closed form, g = ½Δtρ; without growth either, u⁰ plus the summed model error."""
    model = random_model()
    dt, rho, sigma = 0.5, 0.4, 2.0
    g = dt * rho / 2
    u0 = torch.linspace(0.2, 0.7, model.grid.cells, dtype=torch.float64)
    v = torch.rand(8, model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) - 0.5
    expected = [u0]
    for error in v:
        u = expected[-1]
        b = u + g * u * (1 - u) + dt / sigma * error
        expected.append((g - 1 + ((1 - g) ** 2 + 4 * g * b).sqrt()) / (2 * g))
    still = coefficients_of(model) * 0.0
    outside = torch.zeros_like(u0)
    for growth, levels in (
        (rho, torch.stack(expected)),
        (0.0, torch.cat([u0[None], v * dt / sigma]).cumsum(0)),
    ):
        steps = solving(still, model.grid.cells, growth, dt=dt, sigma=sigma)
        found = sweep(u0, v, still, torch.tensor(growth, dtype=torch.float64), outside, steps).levels
        torch.testing.assert_close(found, levels, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("kernel")
def test_no_cells_enter_impassable_tissue(random_model: ModelFactory) -> None:
    model = random_model((5, 5, 5), seed=1, holes=0.4)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64) * model.passable
    t = run(model, 0.2, u0, None, dt=0.3, count=30)
    assert torch.count_nonzero(t.levels[:, ~model.passable]) == 0
    assert not bool(model.passable.all())


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("tolerance", [0.1, 1e-3, 1e-12])
def test_mass_is_conserved_without_growth(random_model: ModelFactory, tolerance: float) -> None:
    """By every step of the solver, however loose; a model error adds exactly its own mass."""
    model = random_model((5, 4, 4), seed=1)
    u0, v, _ = random_start(model, 25)
    levels = run(model, 0.0, u0, None, dt=0.9, tolerance=tolerance, count=25).levels
    mass = levels.sum(dim=1)
    torch.testing.assert_close(mass, mass[0].expand_as(mass), rtol=1e-13, atol=1e-12)
    assert float((levels[-1] - levels[0]).abs().max()) > 0.1
    forced = run(model, 0.0, u0, v, dt=0.9, sigma=4.0, tolerance=tolerance).levels.sum(dim=1)
    torch.testing.assert_close(forced.diff(), v.sum(dim=1) * 0.9 / 4, rtol=0, atol=1e-12)


def test_memory_layout_does_not_matter(random_model: ModelFactory) -> None:
    """A transposed model error and a non-contiguous start give what contiguous ones give."""
    model = random_model((4, 3, 3), seed=7)
    u0, v, _ = random_start(model, 6)
    expected, gradients = [], []
    for start, error in ((u0, v), (torch.stack([u0, u0]).T[:, 0], v.T.contiguous().T)):
        leaves = [start.detach().requires_grad_(), error.detach().requires_grad_()]
        t = run(model, 0.1, leaves[0], leaves[1], dt=0.2, sigma=3.0)
        loss = t.last.sum() + t.bounds + t.outside
        expected.append(t.levels)
        gradients.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(expected[0], expected[1], rtol=0, atol=0)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_show_in_the_sums(random_model: ModelFactory, bad: float) -> None:
    """A compiled kernel must not optimize the alarm away."""
    model = random_model((4, 3, 3), holes=0)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        u0, v, _ = random_start(model, 5, dtype=dtype)
        v[2, 7] = bad
        t = run(model.to(dtype), 0.1, u0, v, dt=0.2, sigma=3.0, tolerance=tolerance)
        assert not math.isfinite(float(t.bounds))
        assert not math.isfinite(float(t.last.sum()))
