"""Flows: inverses, mass, what is drawn follows the density, and training reaches the exact maximizer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gliodil.errors import InputError, NumericsError
from gliodil.sampling.cells import GridPartition
from gliodil.sampling.domain import Box
from gliodil.sampling.flows.base import Flow, FlowLaw
from gliodil.sampling.flows.krnet import BoundedKRnet, schedule
from gliodil.sampling.flows.logit import CdfLayer, LogitKRnet
from gliodil.sampling.flows.objectives import h1_ratio, h1_score, kl
from gliodil.sampling.flows.piecewise import PiecewiseLinear, parameter_count
from gliodil.sampling.h1 import maximize
from gliodil.sampling.points import Points
from gliodil.sampling.samplers.flow import FlowSampler
from gliodil.sampling.weights import integral

KINDS = {"bounded": BoundedKRnet, "logit": LogitKRnet}
SQUARE = Box((-1.0, -1.0), (1.0, 1.0))


def centres(n: int, dimension: int) -> torch.Tensor:
    return GridPartition((n,) * dimension, torch.device("cpu")).centres()


def random_flow(kind: str, dimension: int, *, dtype: torch.dtype = torch.float64, size: float = 0.15) -> Flow:
    """A flow with random weights: far from the identity, densities over several orders of magnitude."""
    flow = KINDS[kind](dimension, seed=1, dtype=dtype, couplings=4, width=16)
    g = torch.Generator().manual_seed(2)
    flow.prepare(torch.rand(2000, dimension, dtype=dtype, generator=g))
    for parameter in flow.parameters():
        parameter.data += size * torch.randn(parameter.shape, dtype=torch.float64, generator=g).to(dtype)
    return flow


def peak(x: torch.Tensor) -> torch.Tensor:
    """The squared residual of the zero function on the one-peak problem, −Δu = s."""
    R = ((x - 0.5) ** 2).sum(-1)
    return ((4000 - 4e6 * R) * torch.exp(-1000 * R)) ** 2


@given(st.integers(2, 12), st.floats(0.1, 4), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_piecewise_linear_density(bins, size, seed):
    g = torch.Generator().manual_seed(seed)
    raw = size * torch.randn(20, parameter_count(bins), dtype=torch.float64, generator=g)
    law = PiecewiseLinear.from_parameters(raw, bins)
    assert bool((torch.diff(law.nodes) > 0).all())
    assert bool((law.values > 0).all())
    s = torch.rand(20, dtype=torch.float64, generator=g)
    q, log_slope = law.cdf(s)
    back, log_back = law.quantile(q)
    torch.testing.assert_close(back, s, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_back, log_slope, rtol=0, atol=1e-6)
    for end in (0.0, 1.0):
        at = torch.full((20,), end, dtype=torch.float64)
        torch.testing.assert_close(law.cdf(at)[0], at, rtol=0, atol=1e-12)
        torch.testing.assert_close(law.quantile(at)[0], at, rtol=0, atol=1e-12)
    # F′ is the derivative of F.
    s = s.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(law.cdf(s)[0].sum(), s)
    torch.testing.assert_close(slope, torch.exp(log_slope))


def test_flat_density_inverts_without_cancellation():
    raw = torch.zeros(1, parameter_count(4), dtype=torch.float64)
    raw[0, 3:] = 1e-9 * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    law = PiecewiseLinear.from_parameters(raw.expand(500, -1), 4)
    s = torch.linspace(0, 1, 500, dtype=torch.float64)
    torch.testing.assert_close(law.quantile(law.cdf(s)[0])[0], s, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dimension", [2, 3, 5, 10])
def test_inverse_to_1e_10(kind, dimension):
    flow = random_flow(kind, dimension, size=0.15 if kind == "bounded" else 0.5 / dimension)
    u = torch.rand(2000, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, log_det = flow.encode(u)
        back, log_back = flow.decode(z)
        assert float((back - u).abs().max()) < 1e-10
        assert float((log_back - log_det).abs().max()) < 1e-6
        v = flow.latent_from_uniform(u)
        x, log_there = flow.decode(v)
        again, log_again = flow.encode(x)
        # The logit resolves no positions next to a face: what its points have lost there does not come back.
        clear = (
            ((x > 1e-4) & (x < 1 - 1e-4)).all(-1) if kind == "logit" else torch.ones(2000, dtype=torch.bool)
        )
        assert float(clear.double().mean()) > 0.5
        assert float((again - v)[clear].abs().max()) < 1e-10
        assert float((log_again - log_there)[clear].abs().max()) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_log_determinant_is_that_of_the_jacobian(kind):
    flow = random_flow(kind, 3)
    for u in torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)):
        J = torch.autograd.functional.jacobian(lambda v: flow.encode(v[None])[0][0], u)
        torch.testing.assert_close(torch.linalg.slogdet(J).logabsdet, flow.encode(u[None])[1][0])


def test_faces_and_corners_of_the_cube_map_to_themselves():
    flow = random_flow("bounded", 2)
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(flow.encode(corners)[0], corners, rtol=0, atol=1e-14)
        torch.testing.assert_close(flow.decode(corners)[0], corners, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("kind", "dimension", "cells", "size"),
    [("bounded", 2, 500, 0.15), ("bounded", 3, 80, 0.1), ("logit", 2, 500, 0.1), ("logit", 3, 80, 0.1)],
)
def test_mass_is_one_by_quadrature(kind, dimension, cells, size):
    """Midpoint rule; for the logit flow in the logit, in which its density is smooth up to the faces."""
    box = Box((-2.0,) * dimension, (1.0,) * dimension)
    law = FlowLaw(random_flow(kind, dimension, size=size), box, dtype=torch.float64)
    total = 0.0
    values = []
    for u in centres(cells, dimension).split(100_000):
        change = torch.ones(len(u), dtype=torch.float64)
        if kind == "logit":
            u = torch.sigmoid(36 * (u - 0.5))
            change = (36 * u * (1 - u)).prod(-1)
        values.append(law.density(box.from_unit(u)))
        total += float((values[-1] * change).sum())
    assert float(torch.cat(values).std() / torch.cat(values).mean()) > 0.2  # not a trivial flow
    assert total / cells**dimension * box.volume == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("quasi_random", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_density(kind, quasi_random):
    law = FlowLaw(random_flow(kind, 2), SQUARE, dtype=torch.float64, quasi_random=quasi_random)
    n, count = 12, 8192
    fine = law.density(SQUARE.from_unit(centres(n * 40, 2))).reshape(n, 40, n, 40).mean((1, 3)).reshape(-1)
    expected = fine / fine.sum() * count
    x = law.sample(count, generator=torch.Generator().manual_seed(5))
    cell = (SQUARE.to_unit(x) * n).long().clamp(0, n - 1)
    seen = torch.bincount(cell[:, 0] * n + cell[:, 1], minlength=n * n).double()
    often = expected >= 5
    statistic = float(((seen - expected)[often] ** 2 / expected[often]).sum())
    statistic += float((seen - expected)[~often].sum() ** 2 / expected[~often].sum().clamp_min(1e-9))
    p_value = stats.chi2.sf(statistic, int(often.sum()))
    assert p_value > 1e-3
    if quasi_random:  # evener than independent points could be
        assert p_value > 0.99


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drawn_density_is_the_evaluated_one(kind, dtype):
    flow = random_flow(kind, 2, dtype=dtype).freeze()
    v = torch.rand(3000, 2, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    z = flow.latent_from_uniform(v)
    u, log_det = flow.decode(z)
    assert u.dtype == dtype
    drawn = flow.latent_log_density(z) + log_det
    difference = (drawn - flow.log_density(u)).abs().max()
    assert float(difference) < (1e-6 if dtype == torch.float64 else 2e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_flow_runs_without_data_and_says_shape_and_type(kind):
    flow = KINDS[kind](3, seed=0, dtype=torch.float32).to("meta")
    z, log_det = flow.encode(torch.empty(7, 3, device="meta"))
    assert z.device.type == "meta"
    assert z.shape == (7, 3)
    assert log_det.shape == (7,)


def test_squeezing_is_block_triangular():
    steps = schedule(4, 2, 1)
    assert [sorted(kept + moved) for kept, moved in steps] == [[0, 1, 2, 3]] * 2 + [[0, 1, 2]] * 2 + [
        [0, 1]
    ] * 2
    assert {i for _, moved in steps for i in moved} == {0, 1, 2, 3}


def test_one_dimension_has_no_coupling():
    with pytest.raises(InputError, match="two coordinates"):
        BoundedKRnet(1, seed=0, dtype=torch.float64)


def test_cdf_layer_is_the_identity_outside():
    layer = CdfLayer(2, dtype=torch.float64)
    layer.raw.data += torch.randn(
        layer.raw.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    x = torch.tensor([[60.0, -70.0], [49.9, 3.0], [-50.0, 50.0]], dtype=torch.float64)
    y, log_det = layer.encode(x)
    torch.testing.assert_close(y[0], x[0])
    torch.testing.assert_close(y[2], x[2])
    assert float(log_det[0].detach()) == 0
    torch.testing.assert_close(layer.decode(y)[0], x)


def test_penalty_gradient_matches_differences():
    """The objective differentiates the density twice: once in x, once in the weights."""
    flow = random_flow("bounded", 2)
    g = torch.Generator().manual_seed(3)
    u = torch.rand(50, 2, dtype=torch.float64, generator=g)
    values = torch.rand(50, dtype=torch.float64, generator=g)
    parameter = flow.layers()[0].conditioner.first.weight

    def loss() -> torch.Tensor:
        return h1_ratio(flow, u, values, torch.ones(50, dtype=torch.float64), (0.01, 0.02))

    (gradient,) = torch.autograd.grad(loss(), parameter)
    step = 1e-6
    with torch.no_grad():
        parameter[0, 0] += step
    above = float(loss().detach())
    with torch.no_grad():
        parameter[0, 0] -= 2 * step
    below = float(loss().detach())
    assert float(gradient[0, 0]) == pytest.approx((above - below) / (2 * step), rel=1e-4)


def test_estimators_agree_in_expectation():
    """Ratio with points of any law, and score with points of the flow, have the same mean gradient."""
    flow = random_flow("bounded", 2, size=0.1)
    g = torch.Generator().manual_seed(4)
    n = 40_000
    betas = (1e-3, 1e-3)
    target = flow.layers()[-1].conditioner.last.bias

    def values(u: torch.Tensor) -> torch.Tensor:
        return torch.exp(-3 * ((u - 0.3) ** 2).sum(-1))

    def spread(loss_at, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = torch.stack([torch.autograd.grad(loss_at(part), target)[0] for part in u.split(n // 20)])
        return parts.mean(0), parts.std(0) / 20**0.5

    u = torch.rand(n, 2, dtype=torch.float64, generator=g)
    ratio, e1 = spread(lambda v: h1_ratio(flow, v, values(v), torch.ones(len(v)), betas), u)
    x, _ = flow.freeze().decode(torch.rand(n, 2, dtype=torch.float64, generator=g))

    def score_at(v: torch.Tensor) -> torch.Tensor:
        q = torch.exp(flow.log_density(v)).detach()
        return h1_score(flow, v, values(v), q, betas)

    score, e2 = spread(score_at, x)
    assert bool(((ratio - score).abs() < 5 * (e1**2 + e2**2).sqrt()).all())
    assert float(ratio.norm()) > 5 * float((e1 + e2).norm()) / 2


def test_kl_is_least_at_the_target():
    g = torch.Generator().manual_seed(0)
    flow, other = random_flow("bounded", 2), random_flow("bounded", 2, size=0.3)
    u = torch.rand(20_000, 2, dtype=torch.float64, generator=g)
    with torch.no_grad():
        target = torch.exp(flow.log_density(u))
        one = torch.ones_like(target)
        assert float(kl(flow, u, target, one)) < float(kl(other, u, target, one))


@pytest.mark.slow
@pytest.mark.parametrize("flow", KINDS)
def test_adversary_reaches_the_exact_maximizer(flow):
    """On the one-peak problem's first residual the flow's law is within 0.25 (total variation) of the exact one."""
    beta, n = 1e-3, 128
    x = SQUARE.from_unit(centres(n, 2))
    exact = maximize(peak(x).reshape(n, n), SQUARE, beta=beta, tolerance=1e-5).density.reshape(-1)
    sampler = FlowSampler(SQUARE, dtype=torch.float64, seed=0, flow=flow, beta=beta)
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        sampler.update(peak, generator=g)
    learned = sampler.law.density(x) * SQUARE.volume
    distance = 0.5 * float((learned - exact).abs().mean())
    uniform = 0.5 * float((1 - exact).abs().mean())
    assert uniform > 0.9
    assert distance < 0.25
    # Trained as it is, with densities over many orders of magnitude, it still inverts where it draws.
    x = sampler.law.sample(3000, generator=g)
    with torch.no_grad():
        z, _ = sampler.flow.encode(SQUARE.to_unit(x))
        assert float((sampler.flow.decode(z)[0] - SQUARE.to_unit(x)).abs().max()) < 1e-10


def test_score_estimator_learns_too():
    sampler = FlowSampler(
        SQUARE,
        dtype=torch.float64,
        seed=0,
        estimator="score",
        steps=60,
        batch=256,
        pool=512,
        couplings=4,
        beta=1e-2,
    )
    g = torch.Generator().manual_seed(0)
    broad = lambda x: torch.exp(-8 * ((x - 0.4) ** 2).sum(-1))  # noqa: E731
    exact = maximize(
        broad(SQUARE.from_unit(centres(64, 2))).reshape(64, 64), SQUARE, beta=1e-2
    ).density.reshape(-1)
    for _ in range(2):
        sampler.update(broad, generator=g)
    learned = sampler.law.density(SQUARE.from_unit(centres(64, 2))) * SQUARE.volume
    distance = 0.5 * float((learned - exact).abs().mean())
    assert distance < 0.5 * (0.5 * float((1 - exact).abs().mean()))


def test_a_law_does_not_change_when_training_goes_on():
    sampler = FlowSampler(
        SQUARE, dtype=torch.float64, seed=0, steps=3, batch=64, pool=256, couplings=2, width=8
    )
    g = torch.Generator().manual_seed(0)
    sampler.update(peak, generator=g)
    x = SQUARE.from_unit(centres(10, 2))
    law = sampler.law
    before = law.density(x)
    sampler.update(peak, generator=g)
    assert torch.equal(law.density(x), before)
    assert not torch.equal(sampler.law.density(x), before)


def test_divergence_is_an_error_and_the_flow_is_as_it_was():
    sampler = FlowSampler(
        SQUARE, dtype=torch.float64, seed=0, steps=3, batch=64, pool=256, couplings=2, width=8
    )
    g = torch.Generator().manual_seed(0)
    sampler.update(peak, generator=g)
    before = sampler.law.density(SQUARE.from_unit(centres(10, 2)))
    with torch.no_grad():
        sampler.flow.layers()[0].conditioner.last.bias.fill_(float("nan"))
    with pytest.raises(NumericsError, match="diverged"):
        sampler.update(peak, generator=g)
    assert torch.equal(sampler.law.density(SQUARE.from_unit(centres(10, 2))), before)


def test_weights_from_a_flow_integrate_to_the_volume():
    law = FlowLaw(random_flow("bounded", 2), SQUARE, dtype=torch.float64)
    x = law.sample(5000, generator=torch.Generator().manual_seed(0))
    points = Points(x, law.density(x))
    value, error = integral(points, 1 + x[:, 0])
    assert abs(value - 4) < 4 * error
