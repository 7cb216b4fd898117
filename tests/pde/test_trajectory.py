"""The sweep: one to one with the field, the right gradient, stable where it claims to be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import NumericsError
from gliodil.pde.integrate import integrate
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.odil.steps import Steps, rkl2_weights, stages_needed, stiffness_limit
from gliodil.pde.odil.trajectory import Trajectory, sweep, unroll
from gliodil.pde.operators import Faces, spectral_bound
from gliodil.pde.residual import theta_residual

ModelFactory = Callable[..., FisherKolmogorov]
STAGES = [1, 3, 5]


def random_start(
    model: FisherKolmogorov, steps: int, *, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """u⁰ reaching beyond [0, 1], v of order one, and the impassable cells."""
    generator = torch.Generator().manual_seed(seed)
    u0 = 1.4 * torch.rand(model.grid.cells, dtype=torch.float64, generator=generator) - 0.2
    u0[0], u0[-1] = -0.3, 1.3
    v = torch.randn(steps, model.grid.cells, dtype=torch.float64, generator=generator)
    return u0.to(dtype), v.to(dtype), (~model.passable).to(dtype)


def run(model: FisherKolmogorov, rho: float, u0: torch.Tensor, v: torch.Tensor, steps: Steps) -> Trajectory:
    c = model.coefficients(0.6, 12.0)
    outside = (~model.passable).to(u0.dtype)
    return sweep(u0, v, c, torch.tensor(rho, dtype=torch.float64), outside, steps)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize("shape", [(4, 3, 2), (5, 1, 3), (1, 1, 6), (3, 3, 3)])
def test_equals_the_plain_definition(
    random_model: ModelFactory, stages: int, shape: tuple[int, int, int]
) -> None:
    model = random_model(shape, seed=2, holes=0.3)
    u0, v, outside = random_start(model, 7)
    steps = Steps(dt=0.3, sigma=5.0, stages=stages)
    t = run(model, 0.2, u0, v, steps)
    c = model.coefficients(0.6, 12.0)

    def rate(u: torch.Tensor) -> torch.Tensor:
        return model.rate(u, c, 0.2)

    u = unroll(u0, v, rate, steps)
    assert float(u.min()) < -0.01  # the penalties are not trivially zero
    assert float(u.max()) > 1.01
    torch.testing.assert_close(t.levels, u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(t.last, u[-1], rtol=1e-12, atol=1e-12)
    pde = (5.0 * theta_residual(u, rate, 0.3)).square().sum()
    assert float(t.pde) == pytest.approx(float(pde), rel=1e-11)
    assert float(t.bounds) == pytest.approx(float((u - u.clamp(0, 1)).square().sum()), rel=1e-11)
    assert float(t.outside) == pytest.approx(float((u * outside).square().sum()), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("stages", STAGES)
def test_a_field_is_reached_by_exactly_one_model_error(random_model: ModelFactory, stages: int) -> None:
    """Any field at all: invert the recursion for v, sweep, and get the field back."""
    model = random_model((3, 3, 2), seed=6)
    u0, _, _ = random_start(model, 1)
    generator = torch.Generator().manual_seed(5)
    field = torch.cat([u0[None], torch.rand(5, model.grid.cells, dtype=torch.float64, generator=generator)])
    steps = Steps(dt=0.25, sigma=3.0, stages=stages)
    c = model.coefficients(0.6, 12.0)

    def rate(u: torch.Tensor) -> torch.Tensor:
        return model.rate(u, c, 0.1)

    v = torch.zeros(5, model.grid.cells, dtype=torch.float64)
    for n in range(5):
        reached = unroll(u0, v[: n + 1], rate, steps)[-1]
        v[n] = (field[n + 1] - reached) / steps.dt * steps.sigma
    torch.testing.assert_close(run(model, 0.1, u0, v, steps).levels, field, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stages", STAGES)
def test_gradient(random_model: ModelFactory, stages: int) -> None:
    """Every output against every input by finite differences."""
    model = random_model((3, 2, 2), seed=3, holes=0.2)
    u0, v, outside = random_start(model, 4, seed=1)
    steps = Steps(dt=0.4, sigma=2.0, stages=stages)
    values = model.coefficients(0.6, 12.0).values
    inputs = [x.clone().requires_grad_() for x in (u0, v, *values, torch.tensor(0.3, dtype=torch.float64))]

    def outputs(
        u: torch.Tensor, e: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, rho: torch.Tensor
    ):  # type: ignore[no-untyped-def]
        return tuple(sweep(u, e, Faces((x, y, z), model.grid.strides), rho, outside, steps)[:4])

    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stages", STAGES)
def test_gradient_equals_automatic_differentiation_of_the_definition(
    random_model: ModelFactory, stages: int
) -> None:
    model = random_model((4, 3, 3), seed=7, holes=0.2)
    u0, v, outside = random_start(model, 9, seed=2)
    steps = Steps(dt=0.3, sigma=4.0, stages=stages)
    weight = torch.randn(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

    def leaves() -> list[torch.Tensor]:
        scalars = [torch.tensor(x, dtype=torch.float64) for x in (0.6, 12.0, 0.2)]
        return [x.clone().requires_grad_() for x in (u0, v, *scalars)]

    by_hand, by_tape = leaves(), leaves()
    t = sweep(by_hand[0], by_hand[1], model.coefficients(by_hand[2], by_hand[3]), by_hand[4], outside, steps)
    (t.last @ weight + 0.7 * t.pde + 0.4 * t.bounds + 0.3 * t.outside).backward()

    c = model.coefficients(by_tape[2], by_tape[3])

    def rate(u: torch.Tensor) -> torch.Tensor:
        return model.rate(u, c, by_tape[4])

    u = unroll(by_tape[0], by_tape[1], rate, steps)
    pde = (4.0 * theta_residual(u, rate, 0.3)).square().sum()
    bounds, csf = (u - u.clamp(0, 1)).square().sum(), (u * outside).square().sum()
    (u[-1] @ weight + 0.7 * pde + 0.4 * bounds + 0.3 * csf).backward()
    for hand, tape in zip(by_hand, by_tape, strict=True):
        assert hand.grad is not None
        assert tape.grad is not None
        torch.testing.assert_close(hand.grad, tape.grad, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stages", STAGES)
def test_single_precision_agrees(random_model: ModelFactory, stages: int) -> None:
    model = random_model((6, 5, 4), seed=3)
    results = []
    for dtype in (torch.float64, torch.float32):
        u0, v, _ = random_start(model, 40, dtype=dtype)
        u0, v = u0.requires_grad_(), v.requires_grad_()
        t = run(model.to(dtype), 0.1, u0, v, Steps(dt=0.25, sigma=30.0, stages=stages))
        (t.last.double().sum() + t.pde + t.bounds + t.outside).backward()
        assert t.last.dtype == u0.grad.dtype == v.grad.dtype == dtype  # type: ignore[union-attr]
        assert t.pde.dtype == torch.float64
        results.append((t, u0.grad, v.grad))
    (a, a_u, a_v), (b, b_u, b_v) = results
    torch.testing.assert_close(a.levels.float(), b.levels, rtol=0, atol=3e-5)
    for x, y in ((a.pde, b.pde), (a.bounds, b.bounds), (a.outside, b.outside)):
        assert x.item() == pytest.approx(y.item(), rel=1e-4)
    for x, y in ((a_u, b_u), (a_v, b_v)):
        assert float((x - y).norm()) <= 1e-4 * float(x.norm())  # type: ignore[operator, union-attr]


def test_inputs_are_not_changed(random_model: ModelFactory) -> None:
    model = random_model()
    u0, v, _ = random_start(model, 5)
    before = u0.clone(), v.clone()
    for stages in STAGES:
        t = run(model, 0.1, u0, v, Steps(dt=0.2, sigma=3.0, stages=stages))
        assert torch.equal(u0, before[0])
        assert torch.equal(v, before[1])
        assert torch.equal(t.levels[0], u0)
        assert not t.levels.requires_grad


@pytest.mark.parametrize("stages", [1, 3, 5, 7, 11])
@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_stable_close_to_the_limit(uniform_model: ModelFactory, stages: int, rho: float) -> None:
    """From the grid's fastest mode at 0.95 of the limit: no growth over 600 steps, and the mode dies out."""
    model = uniform_model(40, 1.0)
    c = model.coefficients(1.0, 10.0)
    bound = float(spectral_bound(c, 40)) + rho
    dt = 0.95 * stiffness_limit(stages) / bound
    assert stages_needed(bound * dt) == stages
    checkerboard = 0.5 + 0.5 * (-1.0) ** torch.arange(40, dtype=torch.float64)
    v = torch.zeros(600, 40, dtype=torch.float64)
    steps = Steps(dt=dt, sigma=1.0, stages=stages)
    levels = sweep(
        checkerboard,
        v,
        c,
        torch.tensor(rho, dtype=torch.float64),
        torch.zeros(40, dtype=torch.float64),
        steps,
    ).levels
    assert torch.isfinite(levels).all()
    assert float(levels.abs().max()) <= 1.5
    rough = (levels[:, 1:] - levels[:, :-1]).square().sum(dim=1).sqrt()
    assert float(rough[50:].max()) < 0.01 * float(rough[0])
    assert float(levels[-1].min()) > 0.48
    assert float(levels[-1].max()) < 1 + 1e-6


def test_two_stages_beyond_the_limit_do_blow_up(uniform_model: ModelFactory) -> None:
    """The test above can fail: well beyond its interval the same scheme explodes."""
    model = uniform_model(40, 1.0)
    c = model.coefficients(1.0, 10.0)
    u0 = 0.5 + 0.5 * (-1.0) ** torch.arange(40, dtype=torch.float64)
    for stages in (1, 3, 5):
        dt = 1.4 * stiffness_limit(stages) / float(spectral_bound(c, 40))
        steps = Steps(dt=dt, sigma=1.0, stages=stages)
        v = torch.zeros(400, 40, dtype=torch.float64)
        zero = torch.zeros((), dtype=torch.float64)
        assert not float(sweep(u0, v, c, zero, torch.zeros_like(u0), steps).last.abs().max()) < 10


@settings(max_examples=50, deadline=None)
@given(stiffness=st.floats(0, 2000), factor=st.floats(1, 3))
def test_stages_needed_is_the_smallest_sufficient_and_monotone(stiffness: float, factor: float) -> None:
    stages = stages_needed(stiffness)
    assert stages % 2 == 1
    assert stiffness <= stiffness_limit(stages)
    assert stages == 1 or stiffness > stiffness_limit(stages - 2)
    assert stages_needed(stiffness * factor) >= stages


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_stages_needed_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(NumericsError, match="not finite"):
        stages_needed(bad)


@pytest.mark.parametrize("stages", [3, 5, 7, 9])
def test_runge_kutta_legendre_polynomial(stages: int) -> None:
    """Stability polynomial of RKL2: 1 + z + z²/2 + O(z³), and within [−1, 1] on its interval."""

    def amplification(z: float) -> float:
        mu_1, weights = rkl2_weights(stages)
        earlier, y = 1.0, 1 + mu_1 * z
        for mu, nu, mu_t, gamma_t in weights:
            earlier, y = y, mu * y + nu * earlier + (1 - mu - nu) + mu_t * z * y + gamma_t * z
        return y

    z = 1e-3
    assert amplification(z) - (1 + z + z * z / 2) == pytest.approx(0, abs=z**3)
    end = (stages**2 + stages - 2) / 2
    assert max(abs(amplification(-end * k / 400)) for k in range(401)) <= 1 + 1e-9


@pytest.mark.parametrize("stages", STAGES)
def test_hard_physics_is_second_order_in_time(random_model: ModelFactory, stages: int) -> None:
    """v = 0 against a finely resolved forward run."""
    model = random_model((5, 4, 3), (3.0, 2.5, 2.0), seed=3)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    duration, diffusivity, ratio, rho = 30.0, 0.6, 12.0, 0.1
    exact = integrate(
        model,
        u0,
        diffusivity=diffusivity,
        proliferation_rate=rho,
        wm_gm_ratio=ratio,
        duration=duration,
        steps=2048,
    )
    errors = []
    for n in (32, 64, 128):
        v = torch.zeros(n, model.grid.cells, dtype=torch.float64)
        last = run(model, rho, u0, v, Steps(dt=duration / n, sigma=1.0, stages=stages)).last
        errors.append(float((last - exact).norm()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(1.8 <= order <= 2.2 for order in orders), (orders, errors)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stages", STAGES)
def test_no_cells_enter_impassable_tissue(random_model: ModelFactory, stages: int) -> None:
    model = random_model((5, 5, 5), seed=1, holes=0.4)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64) * model.passable
    v = torch.zeros(30, model.grid.cells, dtype=torch.float64)
    t = run(model, 0.2, u0, v, Steps(dt=0.3, sigma=1.0, stages=stages))
    assert torch.count_nonzero(t.levels[:, ~model.passable]) == 0
    assert float(t.outside) == 0


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stages", STAGES)
def test_mass_is_conserved_without_growth(random_model: ModelFactory, stages: int) -> None:
    model = random_model((5, 4, 4), seed=1)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64)
    v = torch.zeros(25, model.grid.cells, dtype=torch.float64)
    mass = run(model, 0.0, u0, v, Steps(dt=0.3, sigma=1.0, stages=stages)).levels.sum(dim=1)
    torch.testing.assert_close(mass, mass[0].expand_as(mass), rtol=1e-12, atol=0)


def test_memory_layout_does_not_matter(random_model: ModelFactory) -> None:
    """A transposed model error and a non-contiguous start give what contiguous ones give."""
    model = random_model((4, 3, 3), seed=7)
    u0, v, _ = random_start(model, 6)
    steps = Steps(dt=0.2, sigma=3.0)
    expected, gradients = [], []
    for start, error in ((u0, v), (torch.stack([u0, u0]).T[:, 0], v.T.contiguous().T)):
        leaves = [start.detach().requires_grad_(), error.detach().requires_grad_()]
        t = run(model, 0.1, leaves[0], leaves[1], steps)
        loss = t.last.sum() + t.pde + t.bounds + t.outside
        expected.append(t.levels)
        gradients.append(torch.autograd.grad(loss, leaves))
    torch.testing.assert_close(expected[0], expected[1], rtol=0, atol=0)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_show_in_the_loss(random_model: ModelFactory, bad: float) -> None:
    """A compiled kernel must not optimize the alarm away."""
    model = random_model((4, 3, 3), holes=0)
    for stages in STAGES:
        u0, v, _ = random_start(model, 5)
        v[2, 7] = bad
        assert not math.isfinite(float(run(model, 0.1, u0, v, Steps(dt=0.2, sigma=3.0, stages=stages)).pde))
