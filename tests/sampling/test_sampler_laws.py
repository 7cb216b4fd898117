"""What single samplers promise beyond the common checks."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from gliodil.errors import InputError, NumericsError
from gliodil.sampling.domain import Box
from gliodil.sampling.gaussians import GaussianMixtureLaw, fit_gaussians
from gliodil.sampling.h1 import maximize
from gliodil.sampling.residual_map import evaluate
from gliodil.sampling.samplers.growing import FailureInformedSampler, RarDSampler, RarSampler
from gliodil.sampling.samplers.h1 import H1Sampler
from gliodil.sampling.samplers.r3 import R3Sampler
from gliodil.sampling.samplers.rad import RadSampler
from gliodil.sampling.samplers.smc import SmcSampler
from gliodil.sampling.weights import integral

UNIT = Box((0.0, 0.0), (1.0, 1.0))
DOUBLE = torch.float64


def corner(x: torch.Tensor) -> torch.Tensor:
    """Largest at the origin; its superlevel sets are quarter discs."""
    return torch.exp(-4 * x.square().sum(-1))


def grid(n: int) -> torch.Tensor:
    a = (torch.arange(n, dtype=DOUBLE) + 0.5) / n
    return torch.stack([c.reshape(-1) for c in torch.meshgrid(a, a, indexing="ij")], -1)


def test_rad_is_the_published_density():
    g = torch.Generator().manual_seed(0)
    sampler = RadSampler(UNIT, dtype=DOUBLE, k=1.0, c=0.5, budget=16384)
    sampler.update(corner, generator=g)
    x = grid(64)
    r = corner(x).sqrt()
    expected = (r / r.mean() + 0.5) / 1.5
    assert float((sampler.density(x) - expected).abs().mean()) < 0.03


def test_rar_adds_uniform_points_where_the_residual_is_largest():
    g = torch.Generator().manual_seed(0)
    sampler = RarSampler(UNIT, dtype=DOUBLE, fraction=0.1, growth=0.5)
    sampler.draw(1000, generator=g)
    sampler.update(corner, generator=g)
    assert len(sampler.x) == 1500
    added = sampler.x[1000:].norm(dim=-1)
    radius = math.sqrt(0.1 * 4 / math.pi)
    assert float((added <= radius * 1.05).double().mean()) > 0.97
    # Uniform in the quarter disc: half of the points within 1/√2 of the radius.
    assert float((added < radius / math.sqrt(2)).double().mean()) == pytest.approx(0.5, abs=0.07)
    at = sampler.density(torch.tensor([[0.05, 0.05], [0.9, 0.9]], dtype=DOUBLE))
    torch.testing.assert_close(at, torch.tensor([(1000 + 500 / 0.1) / 1500, 1000 / 1500], dtype=DOUBLE))


def test_growing_sets_keep_their_points_and_their_mixture():
    g = torch.Generator().manual_seed(0)
    sampler = RarDSampler(UNIT, dtype=DOUBLE, growth=0.2)
    first = sampler.draw(500, generator=g).x
    for _ in range(3):
        sampler.update(corner, generator=g)
    assert len(sampler.x) == 800
    kept = {tuple(p) for p in sampler.x.tolist()}
    assert all(tuple(p) in kept for p in first.tolist())
    points = sampler.draw(800, generator=g)
    torch.testing.assert_close(points.density, sampler.density(points.x))
    assert float(sampler.density(grid(50)).min()) >= 500 / 800
    more = sampler.draw(1000, generator=g)  # more than there are: filled up with uniform points
    assert len(more.x) == 1000
    assert float(sampler.density(grid(50)).min()) >= 700 / 1000


def test_r3_retains_what_is_above_the_mean_and_weights_stay_unbiased():
    f = lambda x: 1 + x[:, 0] * x[:, 1]  # noqa: E731
    values, masses, kept = [], [], []
    for seed in range(30):
        g = torch.Generator().manual_seed(seed)
        sampler = R3Sampler(UNIT, dtype=DOUBLE, budget=1024, memory=4)
        x = sampler.draw(400, generator=g).x
        for _ in range(6):
            before = {tuple(p) for p in sampler.x.tolist()}
            sampler.update(corner, generator=g)
            kept.append(sum(tuple(p) in before for p in sampler.x.tolist()))
        points = sampler.draw(400, generator=g)
        values.append(integral(points, f(points.x))[0])
        masses.append(float(sampler.density(grid(80)).mean()))
        assert len(x) == len(points.x) == 400
    values, masses = torch.tensor(values), torch.tensor(masses)
    assert abs(float(values.mean()) - 1.25) < 4 * float(values.std()) / 30**0.5
    assert float((masses - 1).abs().max()) < 5 / 400**0.5
    assert 0 < min(kept) < max(kept) < 400


def test_failure_informed_points_end_when_failure_is_rare():
    g = torch.Generator().manual_seed(0)
    sampler = FailureInformedSampler(UNIT, dtype=DOUBLE, threshold=0.8, absolute=True, tolerance=0.01)
    sampler.draw(100, generator=g)
    sampler.update(corner, generator=g)
    assert sampler.failure_probability == pytest.approx(math.pi * math.log(1 / 0.8) / 16, rel=0.1)
    assert bool((corner(sampler.x[100:]) > 0.7).all())
    size = len(sampler.x)
    assert size == 110
    sampler.update(lambda x: 0.5 * corner(x), generator=g)  # everywhere below the threshold
    assert len(sampler.x) == size
    assert sampler.failure_probability == 0


def test_h1_sampler_draws_the_maximizer():
    g = torch.Generator().manual_seed(0)
    sampler = H1Sampler(UNIT, dtype=DOUBLE, cells=48, beta=1e-2)
    sampler.update(corner, generator=g)
    exact = maximize(corner(grid(48)).reshape(48, 48), UNIT, beta=1e-2).density.reshape(-1)
    assert 0.5 * float((sampler.density(grid(48)) - exact).abs().mean()) < 0.01


def test_mixture_of_truncated_gaussians_has_mass_one_also_at_faces():
    law = GaussianMixtureLaw(
        UNIT,
        torch.tensor([0.3, 0.7], dtype=DOUBLE),
        torch.tensor([[0.0, 0.5], [0.8, 1.0]], dtype=DOUBLE),
        torch.tensor([[0.1, 0.2], [0.3, 0.05]], dtype=DOUBLE),
        dtype=DOUBLE,
    )
    assert float(law.density(grid(500)).mean()) == pytest.approx(1, abs=1e-4)
    x = law.sample(4000, generator=torch.Generator().manual_seed(0))
    assert bool(UNIT.contains(x).all())
    inside = float(law.density(grid(500))[grid(500)[:, 1] > 0.75].mean()) / 4
    assert float((x[:, 1] > 0.75).double().mean()) == pytest.approx(inside, abs=0.03)


def test_gaussians_find_separate_peaks():
    g = torch.Generator().manual_seed(0)
    u = torch.cat(
        [0.2 + 0.02 * torch.randn(300, 2, generator=g), 0.8 + 0.05 * torch.randn(700, 2, generator=g)]
    )
    law = fit_gaussians(u.clamp(0, 1), UNIT, parts=2, dtype=DOUBLE, generator=g, widen=1.0)
    order = law.mean[:, 0].argsort()
    torch.testing.assert_close(law.weight[order], torch.tensor([0.3, 0.7], dtype=DOUBLE), atol=0.02, rtol=0)
    torch.testing.assert_close(
        law.deviation[order].mean(-1), torch.tensor([0.02, 0.05], dtype=DOUBLE), atol=0.005, rtol=0
    )


def test_smc_finds_a_peak_in_ten_dimensions_with_exact_weights():
    d = 10
    box = Box((-1.0,) * d, (1.0,) * d)
    g = torch.Generator().manual_seed(0)

    def squared(x: torch.Tensor) -> torch.Tensor:
        """First residual of the linear problem whose solution is exp(−10|x|²)."""
        q = x.square().sum(-1)
        return (torch.exp(-10 * q) * (20 * d - 400 * q)) ** 2

    sampler = SmcSampler(box, dtype=DOUBLE)
    for _ in range(2):
        sampler.update(squared, generator=g)
    assert sampler.reached == 1
    points = sampler.draw(8000, generator=g)
    assert float((points.x.norm(dim=-1) < 1).double().mean()) > 0.9
    # ∫ e^(−20q) (200 − 400 q)² dx on all of space; of it, next to nothing lies outside the box.
    gauss = (math.pi / 20) ** 5
    q1, q2 = d / 40, (d * d + 2 * d) / 1600
    exact = gauss * (200**2 - 2 * 200 * 400 * q1 + 400**2 * q2)
    value, error = integral(points, squared(points.x))
    assert abs(value - exact) < 4 * error
    assert error < 0.1 * exact


def test_a_ladder_in_ten_dimensions_knows_gaussians_of_every_scale():
    """∫ of a normal density from points of one law: 1 within a few percent, from the peak's width to the box's."""
    d = 10
    box = Box((-1.0,) * d, (1.0,) * d)
    g = torch.Generator().manual_seed(0)
    centre = 0.1
    sampler = SmcSampler(box, dtype=DOUBLE, ladder=True)
    sampler.update(lambda x: torch.exp(-20 * (x - centre).square().sum(-1)), generator=g)
    assert sampler.reached == 1
    points = sampler.draw(20_000, generator=g)
    torch.testing.assert_close(points.density, sampler.density(points.x))
    assert float((1 / points.density).mean()) == pytest.approx(box.volume, rel=0.05)
    for deviation in (0.16, 0.22, 0.3, 0.4):
        side = torch.distributions.Normal(centre, deviation)
        inside = side.cdf(torch.tensor(1.0)) - side.cdf(torch.tensor(-1.0))
        value, error = integral(points, side.log_prob(points.x).sum(-1).exp())
        assert value == pytest.approx(float(inside) ** d, rel=0.05)
        assert error < 0.05
    # No scale between the uniform law and the peak is left out: every shell of radius × 1.25 has its share.
    radius = (points.x - centre).norm(dim=-1)
    edges = 0.5 * 1.25 ** torch.arange(7)
    shares = [float(((radius > a) & (radius <= b)).double().mean()) for a, b in pairwise(edges.tolist())]
    assert min(shares) > 0.06


def test_a_ladder_does_not_forget_the_way_when_it_is_made_again():
    g = torch.Generator().manual_seed(0)
    box = Box((-1.0,) * 6, (1.0,) * 6)
    sampler = SmcSampler(box, dtype=DOUBLE, ladder=True)
    rungs = []
    for _ in range(3):
        sampler.update(lambda x: torch.exp(-40 * x.square().sum(-1)), generator=g)
        rungs.append(len(sampler.law.parts))
    assert max(rungs) - min(rungs) <= 1
    assert min(rungs) >= 5


def test_smc_keeps_two_peaks():
    g = torch.Generator().manual_seed(0)

    def two(x: torch.Tensor) -> torch.Tensor:
        return sum(torch.exp(-400 * (x - c).square().sum(-1)) for c in (0.2, 0.8))

    sampler = SmcSampler(UNIT, dtype=DOUBLE)
    sampler.update(two, generator=g)
    x = sampler.draw(2000, generator=g).x
    near = [float(((x - c).norm(dim=-1) < 0.15).double().mean()) for c in (0.2, 0.8)]
    assert min(near) > 0.25
    assert sum(near) > 0.95


def test_settings_out_of_range_are_named():
    for make in (
        lambda: RarSampler(UNIT, dtype=DOUBLE, fraction=0.0),
        lambda: RarDSampler(UNIT, dtype=DOUBLE, growth=0.0),
        lambda: R3Sampler(UNIT, dtype=DOUBLE, memory=0),
    ):
        with pytest.raises(InputError):
            make()


def test_residual_of_the_wrong_shape_is_refused():
    with pytest.raises(NumericsError, match="shape"):
        evaluate(lambda x: x, torch.zeros(3, 2))
