"""Every sampler: its density is a law, what is drawn follows it, and weighted sums are unbiased."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from scipy import stats

from gliodil.errors import InputError, NumericsError
from gliodil.sampling.domain import Box
from gliodil.sampling.samplers.registry import MAKERS, make_sampler
from gliodil.sampling.weights import integral

BOX = Box((-1.0, 0.0), (1.0, 3.0))
NAMES = list(MAKERS)
FLOW = {"steps": 25, "batch": 256, "pool": 1024, "couplings": 4, "width": 16}
QUICK: dict[str, dict[str, object]] = {name: FLOW for name in ("das-g", "das-r", "aas", "aas-logit")}
# Samplers whose density integrates to 1 only up to a random deviation, and how far.
MASS: dict[str, float] = {"r3": 0.04}


def bump(x: torch.Tensor) -> torch.Tensor:
    """A peaked squared residual over a low floor."""
    return 0.01 + 100 * torch.exp(-60 * ((x[:, 0] - 0.4) ** 2 + (x[:, 1] - 2.0) ** 2))


def adapted(name: str, *, dtype: torch.dtype = torch.float64, rounds: int = 2, count: int = 2000):
    """A sampler that has seen the bump, and a generator for what follows."""
    return copy.deepcopy(trained(name, dtype, rounds, count)), torch.Generator().manual_seed(4)


@functools.cache
def trained(name: str, dtype: torch.dtype, rounds: int, count: int):
    g = torch.Generator().manual_seed(3)
    sampler = make_sampler(name, BOX, dtype=dtype, seed=0, **QUICK.get(name, {}))
    for _ in range(rounds):
        sampler.draw(count, generator=g)
        sampler.update(bump, generator=g)
    return sampler


def midpoints(box: Box, n: int) -> torch.Tensor:
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n] * box.dimension
    return box.from_unit(torch.stack([a.reshape(-1) for a in torch.meshgrid(*axes, indexing="ij")], -1))


@pytest.mark.parametrize("name", NAMES)
def test_points_lie_in_the_box_and_carry_the_density_of_the_law(name):
    sampler, g = adapted(name)
    points = sampler.draw(777, generator=g)
    assert points.x.shape == (777, 2)
    assert points.density.shape == (777,)
    assert bool(BOX.contains(points.x).all())
    assert bool((points.density > 0).all())
    torch.testing.assert_close(points.density, sampler.density(points.x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_has_mass_one_and_is_never_negative(name):
    sampler, _ = adapted(name)
    p = sampler.density(midpoints(BOX, 384))
    assert bool((p >= 0).all())
    assert float(p.mean()) * BOX.volume == pytest.approx(1, abs=MASS.get(name, 2e-3))


@pytest.mark.parametrize("name", NAMES)
def test_points_follow_the_density(name):
    sampler, g = adapted(name)
    fine = sampler.density(midpoints(BOX, 384)).reshape(12, 32, 12, 32).mean((1, 3)).reshape(-1)
    expected = (fine / fine.sum()).numpy()
    points = sampler.draw(2000, generator=g)
    cell = (BOX.to_unit(points.x) * 12).long().clamp(0, 11)
    seen = torch.bincount(cell[:, 0] * 12 + cell[:, 1], minlength=144).numpy()
    rare = expected * 2000 < 5
    statistic = ((seen - expected * 2000) ** 2 / (expected * 2000 + 1e-300))[~rare].sum()
    statistic += (seen[rare].sum() - expected[rare].sum() * 2000) ** 2 / (expected[rare].sum() * 2000 + 1e-9)
    assert stats.chi2.sf(statistic, (~rare).sum()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_weighted_sums_are_unbiased(name):
    sampler, g = adapted(name)
    x0, y0 = 0.2, 1.2

    def f(x: torch.Tensor) -> torch.Tensor:
        return torch.cos(2 * (x[:, 0] - x0)) + (x[:, 1] - y0) ** 2

    exact = float(f(midpoints(BOX, 400)).mean()) * BOX.volume
    found, error = integral(points := sampler.draw(2000, generator=g), f(points.x))
    assert abs(found - exact) < 4 * error + MASS.get(name, 0) * abs(exact)
    assert error < 0.15 * abs(exact)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("uniform", "sobol")])
def test_points_move_to_the_residual(name):
    sampler, g = adapted(name, rounds=6 if name == "r3" else 2)  # it gains one uniform share at each update
    x = sampler.draw(2000, generator=g).x
    near = ((x[:, 0] - 0.4) ** 2 + (x[:, 1] - 2.0) ** 2).sqrt() < 0.25
    assert float(near.double().mean()) > 3 * (3.1416 * 0.25**2 / BOX.volume)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_points(name):
    first = trained(name, torch.float32, 1, 300)
    second = trained.__wrapped__(name, torch.float32, 1, 300)
    x1, x2 = (s.draw(300, generator=torch.Generator().manual_seed(0)).x for s in (first, second))
    assert torch.equal(x1, x2)


@pytest.mark.parametrize("name", NAMES)
def test_points_have_the_type_asked_for(name):
    sampler, g = adapted(name, dtype=torch.float32, rounds=1, count=300)
    points = sampler.draw(300, generator=g)
    assert points.x.dtype == points.density.dtype == torch.float32


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("uniform", "sobol")])
def test_a_residual_that_is_not_a_number_is_refused(name):
    sampler = make_sampler(name, BOX, dtype=torch.float64, seed=0, **QUICK.get(name, {}))
    g = torch.Generator().manual_seed(0)
    with pytest.raises(NumericsError, match="cannot guide"):
        sampler.update(lambda x: x[:, 0] * float("nan"), generator=g)


@pytest.mark.parametrize("name", NAMES)
def test_a_residual_of_zero_leaves_a_law(name):
    sampler = make_sampler(name, BOX, dtype=torch.float64, seed=0, **QUICK.get(name, {}))
    g = torch.Generator().manual_seed(0)
    sampler.update(lambda x: torch.zeros(len(x)), generator=g)
    assert bool((sampler.draw(100, generator=g).density > 0).all())


def test_defensive_mixture_bounds_the_weights_and_remembers():
    g = torch.Generator().manual_seed(0)
    sampler = make_sampler("rad", BOX, dtype=torch.float64, seed=0, c=0.0, uniform=0.3, history=0.2, memory=2)
    for _ in range(4):
        sampler.update(bump, generator=g)
    x = midpoints(BOX, 100)
    assert float(sampler.density(x).min()) >= 0.3 / BOX.volume
    assert len(sampler.earlier) == 2
    p = 0.3 / BOX.volume + 0.5 * sampler.inner.density(x) + 0.1 * sum(e.density(x) for e in sampler.earlier)
    torch.testing.assert_close(sampler.density(x), p)


@pytest.mark.parametrize("name", ["aas", "das-r", "h1", "smc"])
def test_laws_that_may_vanish_are_mixed_unless_asked_not_to(name):
    settings = QUICK.get(name, {})
    mixed = make_sampler(name, BOX, dtype=torch.float64, seed=0, **settings)
    plain = make_sampler(name, BOX, dtype=torch.float64, seed=0, uniform=0, **settings)
    for sampler in (mixed, plain):
        sampler.update(bump, generator=torch.Generator().manual_seed(0))
    x = midpoints(BOX, 60)
    torch.testing.assert_close(mixed.density(x), 0.2 / BOX.volume + 0.8 * plain.density(x))
    assert float(plain.density(x).min()) < 0.2 / BOX.volume


def test_settings_that_make_no_sense_are_named():
    with pytest.raises(InputError, match="no sampler"):
        make_sampler("nothing", BOX, dtype=torch.float64, seed=0)
    with pytest.raises(InputError, match="settings"):
        make_sampler("rad", BOX, dtype=torch.float64, seed=0, exponent=2)
    with pytest.raises(InputError, match="defensive"):
        make_sampler("rad", BOX, dtype=torch.float64, seed=0, uniform=0.1)
    with pytest.raises(InputError, match="exact maximizer"):
        make_sampler("h1", Box((0.0,) * 4, (1.0,) * 4), dtype=torch.float64, seed=0)
