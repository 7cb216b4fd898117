"""The forward model: fronts of known speed, conserved mass, order, and where tumour cells cannot go."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import NumericsError
from gliodil.pde.integrate import integrate, rate_, substeps_needed
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.models.fisher_kolmogorov import reaction, reaction_slope

ModelFactory = Callable[..., FisherKolmogorov]
seeds = st.integers(0, 2**31)
D, RHO = 0.12, 0.09
LENGTH, SPEED = math.sqrt(D / RHO), 2 * math.sqrt(D * RHO)


def front_position(u: torch.Tensor, h: float, level: float = 0.5) -> float:
    """Where a decreasing profile crosses a level, by linear interpolation [mm]."""
    i = int((u > level).sum()) - 1
    part = float((u[i] - level) / (u[i] - u[i + 1]))
    return (i + 0.5 + part) * h


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_front_from_a_compact_seed_approaches_the_fisher_speed(
    uniform_model: ModelFactory, axis: int
) -> None:
    """Within 3 % of 2√(Dρ), and where Bramson's law 2 − (3/2) ln(t)/t puts it within 1 %."""
    h = 0.25 * LENGTH
    model = uniform_model(560, h, axis=axis)
    u0 = model.grid.zeros()
    u0[:8] = 1
    positions: dict[int, float] = {}

    def look(level: int, u: torch.Tensor) -> None:
        if level in (40, 60):
            positions[level] = front_position(u, h)

    integrate(
        model,
        u0,
        diffusivity=D,
        proliferation_rate=RHO,
        wm_gm_ratio=20,
        duration=60 / RHO,
        steps=60,
        on_level=look,
    )
    speed = (positions[60] - positions[40]) / (20 / RHO)
    bramson = SPEED * (1 - 0.75 * math.log(60 / 40) / 20)
    assert speed == pytest.approx(SPEED, rel=0.03)
    assert speed == pytest.approx(bramson, rel=0.01)


def travelling_wave(x: torch.Tensor, t: float) -> torch.Tensor:
    """Ablowitz & Zeppetella (1979): exact solution moving at 5/√6 √(Dρ)."""
    return (1 + torch.exp((x - 5 / math.sqrt(6) * math.sqrt(D * RHO) * t) / (math.sqrt(6) * LENGTH))) ** -2


def wave_error(uniform_model: ModelFactory, per_length: int) -> tuple[float, float]:
    """RMS error of the profile, and the relative error of the speed, after two growth times."""
    h = LENGTH / per_length
    model = uniform_model(60 * per_length, h)
    x = model.grid.centres()[0] - 25 * LENGTH
    u = integrate(
        model,
        travelling_wave(x, 0),
        diffusivity=D,
        proliferation_rate=RHO,
        wm_gm_ratio=20,
        duration=2 / RHO,
        steps=20 * per_length,
    )
    exact = travelling_wave(x, 2 / RHO)
    inner = slice(10 * per_length, -10 * per_length)  # away from the ends, where the wave has no zero flux
    moved = front_position(u, h) - front_position(travelling_wave(x, 0), h)
    expected = front_position(exact, h) - front_position(travelling_wave(x, 0), h)
    return float((u - exact)[inner].square().mean().sqrt()), abs(moved / expected - 1)


def test_exact_travelling_wave_at_second_order(uniform_model: ModelFactory) -> None:
    errors = [wave_error(uniform_model, n) for n in (4, 8, 16)]
    orders = [math.log2(a[0] / b[0]) for a, b in itertools.pairwise(errors)]
    assert all(1.8 <= order <= 2.2 for order in orders), orders
    assert errors[-1][1] < 1e-3


def test_second_order_in_space_where_tissue_varies(uniform_model: ModelFactory) -> None:
    """∇·(D∇u) of smooth u and D with a zero-flux boundary, against the exact expression."""

    def error(n: int) -> float:
        length = 10.0
        model = uniform_model(n, length / n, axis=1)
        grid, y = model.grid, model.grid.centres()[1]
        k = math.pi / length
        white = 0.5 + 0.3 * torch.cos(k * y)
        grey = 0.5 - white / 2
        model = FisherKolmogorov.on(grid, white, grey)
        u = 0.5 + 0.4 * torch.cos(2 * k * y)
        ratio = 10.0
        d = D * (white + grey / ratio)
        d_slope = D * (1 - 0.5 / ratio) * (-0.3 * k * torch.sin(k * y))
        exact = d_slope * (-0.8 * k * torch.sin(2 * k * y)) - d * 1.6 * k**2 * torch.cos(2 * k * y)
        exact = exact + reaction(u, RHO)
        found = model.rate(u, model.coefficients(D, ratio), RHO)
        return float((found - exact).square().mean().sqrt())

    errors = [error(n) for n in (16, 32, 64)]
    assert all(1.8 <= math.log2(a / b) <= 2.2 for a, b in itertools.pairwise(errors)), errors


@pytest.mark.usefixtures("kernel")
def test_growth_rate_may_differ_from_place_to_place(random_model: ModelFactory) -> None:
    model = random_model()
    generator = torch.Generator().manual_seed(2)
    u, rho = (torch.rand(model.grid.cells, dtype=torch.float64, generator=generator) for _ in range(2))
    coefficients, out = model.coefficients(0.2, 10), torch.empty_like(u)
    rate_(out, u, coefficients, 0.1 * rho, torch.empty_like(u))
    torch.testing.assert_close(out, model.rate(u, coefficients, 0.1 * rho))

    def run(rate: float | torch.Tensor) -> torch.Tensor:
        return integrate(
            model, u, diffusivity=0.2, proliferation_rate=rate, wm_gm_ratio=10, duration=20, steps=4
        )

    torch.testing.assert_close(run(torch.full_like(u, 0.1)), run(0.1))
    assert (run(0.1 * (1 + rho)) > run(0.1)).all()
    assert substeps_needed(coefficients, u.numel(), 20.0, rho) > substeps_needed(
        coefficients, u.numel(), 20.0, 0.0
    )


@pytest.mark.usefixtures("kernel")
def test_second_order_in_time(random_model: ModelFactory) -> None:
    model = random_model((5, 5, 4), (3.0, 2.5, 2.0), seed=3)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def run(steps: int) -> torch.Tensor:
        return integrate(
            model, u0, diffusivity=0.2, proliferation_rate=0.1, wm_gm_ratio=10, duration=40, steps=steps
        )

    assert substeps_needed(model.coefficients(0.2, 10), model.grid.cells, 40 / 40, 0.1) == 1
    reference = run(1280)
    errors = [float((run(n) - reference).norm()) for n in (40, 80, 160)]
    assert all(1.8 <= math.log2(a / b) <= 2.2 for a, b in itertools.pairwise(errors)), errors


@settings(max_examples=25, deadline=None)
@given(
    seed=seeds,
    diffusivity=st.floats(0, 10),
    rho=st.floats(0, 2),
    ratio=st.floats(1, 1000),
    steps=st.integers(1, 6),
)
def test_density_stays_in_the_unit_interval_and_out_of_impassable_tissue(
    random_model: ModelFactory, seed: int, diffusivity: float, rho: float, ratio: float, steps: int
) -> None:
    model = random_model((5, 4, 4), seed=seed, holes=0.3)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u0 = u0 * model.passable
    seen = []
    u = integrate(
        model,
        u0,
        diffusivity=diffusivity,
        proliferation_rate=rho,
        wm_gm_ratio=ratio,
        duration=10,
        steps=steps,
        on_level=lambda level, _: seen.append(level),
    )
    assert seen == list(range(steps + 1))
    assert float(u.min()) >= 0
    assert float(u.max()) <= 1 + 1e-12
    assert torch.count_nonzero(u[~model.passable]) == 0
    assert float(u.sum()) >= float(u0.sum()) * (1 - 1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, diffusivity=st.floats(0.01, 5))
def test_mass_is_conserved_without_growth(random_model: ModelFactory, seed: int, diffusivity: float) -> None:
    model = random_model((5, 4, 4), seed=seed)
    u0 = torch.rand(model.grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u = integrate(
        model, u0, diffusivity=diffusivity, proliferation_rate=0, wm_gm_ratio=10, duration=20, steps=10
    )
    assert float(u.sum()) == pytest.approx(float(u0.sum()), rel=1e-12)
    assert float((u - u0).abs().max()) > 1e-6 or not bool(model.coefficients(1, 10).values[0].any())


@pytest.mark.usefixtures("kernel")
def test_barrier_is_never_crossed(uniform_model: ModelFactory) -> None:
    """A sheet of CSF, one cell thick, with WM + GM just below the threshold."""
    line = uniform_model(30, 1.0, axis=2)
    white = line.white.clone()
    white[15] = 0.0999999
    model = FisherKolmogorov.on(line.grid, white, line.grey)
    u0 = line.grid.zeros()
    u0[:5] = 0.5
    u = integrate(model, u0, diffusivity=1.0, proliferation_rate=0.2, wm_gm_ratio=10, duration=200, steps=20)
    assert float(u[:15].min()) > 0.99
    assert torch.count_nonzero(u[15:]) == 0


@pytest.mark.parametrize(("w", "g", "open_"), [(0.1, 0.0, True), (0.05, 0.05, True), (0.09, 0.0099, False)])
def test_tissue_threshold(uniform_model: ModelFactory, w: float, g: float, open_: bool) -> None:
    line = uniform_model(3, 1.0)
    model = FisherKolmogorov.on(line.grid, line.grid.zeros() + w, line.grid.zeros() + g)
    assert bool(model.passable.all()) is open_
    assert bool(model.white_faces.values[0].any()) is (open_ and w > 0)


def test_nothing_happens_without_diffusion_and_growth(random_model: ModelFactory) -> None:
    model = random_model()
    u0 = torch.rand(model.grid.cells, dtype=torch.float64)
    u = integrate(model, u0, diffusivity=0, proliferation_rate=0, wm_gm_ratio=10, duration=100, steps=7)
    assert torch.equal(u, u0)
    assert u is not u0


def test_growth_alone_is_logistic(random_model: ModelFactory) -> None:
    model = random_model()
    u0 = torch.linspace(0, 1, model.grid.cells, dtype=torch.float64)
    u = integrate(model, u0, diffusivity=0, proliferation_rate=0.1, wm_gm_ratio=10, duration=30, steps=300)
    e = math.exp(3.0)
    torch.testing.assert_close(u, u0 * e / (1 + u0 * (e - 1)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirror_images_grow_alike(random_model: ModelFactory, axis: int) -> None:
    model = random_model((6, 5, 4), seed=5)
    grid = model.grid

    def flip(field: torch.Tensor) -> torch.Tensor:
        return grid.box(field).flip(axis).reshape(-1)

    mirrored = FisherKolmogorov.on(grid, flip(model.white), flip(model.grey))
    u0 = torch.rand(grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    settings_ = dict(diffusivity=0.5, proliferation_rate=0.1, wm_gm_ratio=10.0, duration=30.0, steps=5)
    u, v = integrate(model, u0, **settings_), integrate(mirrored, flip(u0), **settings_)  # type: ignore[arg-type]
    torch.testing.assert_close(flip(v), u, rtol=0, atol=1e-13)


def test_stops_where_told(random_model: ModelFactory) -> None:
    model = random_model()
    u0 = torch.rand(model.grid.cells, dtype=torch.float64)
    common = dict(diffusivity=0.1, proliferation_rate=0.1, wm_gm_ratio=10.0)
    stopped = integrate(model, u0, **common, duration=10.0, steps=10, on_level=lambda n, _: n == 4)  # type: ignore[arg-type]
    direct = integrate(model, u0, **common, duration=4.0, steps=4)  # type: ignore[arg-type]
    torch.testing.assert_close(stopped, direct, rtol=0, atol=1e-14)
    at_once = integrate(model, u0, **common, duration=10.0, steps=10, on_level=lambda n, _: True)  # type: ignore[arg-type]
    assert torch.equal(at_once, u0)


def test_infinite_diffusivity_is_an_error(random_model: ModelFactory) -> None:
    model = random_model()
    with pytest.raises(NumericsError, match="not finite"):
        integrate(
            model,
            model.grid.zeros(),
            diffusivity=math.inf,
            proliferation_rate=0.1,
            wm_gm_ratio=10,
            duration=1,
            steps=1,
        )


@pytest.mark.usefixtures("kernel")
def test_rate_in_place_is_the_model_s_rate(random_model: ModelFactory) -> None:
    model = random_model(seed=9)
    u = torch.randn(model.grid.cells, dtype=torch.float64)
    c = model.coefficients(0.3, 12)
    out, scratch = torch.empty_like(u), torch.empty_like(u)
    rate_(out, u, c, 0.08, scratch)
    torch.testing.assert_close(out, model.rate(u, c, 0.08), rtol=1e-13, atol=1e-14)


def test_reaction_slope_is_the_derivative() -> None:
    u = torch.tensor([-0.4, 0.1, 0.5, 1.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(reaction(u, 2.0).sum(), u)
    torch.testing.assert_close(2 * reaction_slope(u.detach()), slope)


def test_model_in_another_precision(random_model: ModelFactory) -> None:
    model = random_model().to(torch.float32)
    assert model.grid.dtype == torch.float32
    u = model.grid.zeros() + 0.5
    rate = model.rate(u, model.coefficients(1.0, 10.0), torch.tensor(0.1, dtype=torch.float64))
    assert rate.dtype == torch.float32
