"""The exact maximizer: a manufactured cosine solution, and the optimality conditions where the sign binds."""

from __future__ import annotations

import math

import pytest
import torch

from gliodil.errors import InputError
from gliodil.sampling.cells import GridPartition
from gliodil.sampling.domain import Box
from gliodil.sampling.h1 import CosineTransform, maximize

BOX = Box((-1.0, 0.0), (1.0, 0.5))


def centres(shape: tuple[int, ...]) -> torch.Tensor:
    return GridPartition(shape, torch.device("cpu")).centres()


def cosine_case(n: int, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """P = 1 + a cos πu cos 2πv and the r² whose penalized maximizer it is, with fixed β in the box's units."""
    u = centres((n, n))
    wave = (torch.cos(math.pi * u[:, 0]) * torch.cos(2 * math.pi * u[:, 1])).reshape(n, n)
    a = 0.7
    k2 = (math.pi / BOX.edges[0]) ** 2 + (2 * math.pi / BOX.edges[1]) ** 2
    squared = 50.0 + 2 * beta * k2 * a / BOX.volume * wave
    return squared, 1 + a * wave


def test_cosine_solution_with_second_order_accuracy():
    errors = []
    for n in (16, 32, 64):
        squared, P = cosine_case(n, 0.05)
        assert float(squared.min()) > 0
        found = maximize(squared, BOX, beta=0.05, kind="fixed")
        errors.append(float((found.density - P).abs().max()))
        assert found.level == pytest.approx(1)
    assert errors[2] < 1e-3
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("shape", [(200,), (48, 48), (16, 16, 16)])
@pytest.mark.parametrize("beta", [1e-1, 1e-3, 1e-5])
def test_optimality_conditions(shape, beta):
    u = centres(shape)
    squared = (
        torch.exp(-200 * ((u - 0.3) ** 2).sum(-1)) + 0.3 * torch.exp(-80 * ((u - 0.8) ** 2).sum(-1))
    ).reshape(shape)
    box = Box((0.0,) * len(shape), (1.0,) * len(shape))
    found = maximize(squared, box, beta=beta)
    P, mu = found.density, found.sign
    g = squared / squared.mean()
    assert found.converged
    assert bool((P >= 0).all())
    assert bool((mu >= 0).all())
    assert float(P.mean()) == pytest.approx(1, abs=1e-12)
    assert float((P * mu).abs().max()) <= 1e-9 * float(P.max() * max(1.0, float(mu.max())))
    # Stationarity, with differences written out anew.
    gap = -g + found.level - mu
    for axis, n in enumerate(shape):
        flux = torch.diff(P, dim=axis) * n
        edge = torch.zeros_like(flux.narrow(axis, 0, 1))
        gap = gap - 2 * beta * torch.diff(torch.cat([edge, flux, edge], axis), dim=axis) * n
    assert float(gap.norm() / (g - 1).norm()) < 2e-4
    if found.iterations:  # the sign binds: the level is above the mean, as the theory says
        assert float((P == 0).double().mean()) > 0.05
        assert found.level > 1


def test_no_other_density_does_better():
    u = centres((40, 40))
    g = torch.exp(-150 * ((u - 0.4) ** 2).sum(-1)).reshape(40, 40)
    box, beta = Box((0.0, 0.0), (1.0, 1.0)), 1e-3
    best = maximize(g, box, beta=beta).density

    def objective(P: torch.Tensor) -> float:
        slopes = sum(float((torch.diff(P, dim=axis) * 40).square().sum()) for axis in (0, 1)) / P.numel()
        return float((g / g.mean() * P).mean()) - beta * slopes

    gen = torch.Generator().manual_seed(1)
    clipped = maximize(g, box, beta=1.0).density
    others = [torch.ones_like(g), g / g.mean(), clipped]
    for _ in range(20):
        bumped = (best * (1 + 0.3 * torch.randn(best.shape, generator=gen, dtype=best.dtype))).clamp_min(0)
        others.append(bumped / bumped.mean())
    assert all(objective(best) > objective(other) for other in others)


def test_relative_penalty_does_not_see_the_scale_and_fixed_penalty_fades():
    u = centres((32, 32))
    squared = torch.exp(-50 * ((u - 0.5) ** 2).sum(-1)).reshape(32, 32)
    torch.testing.assert_close(
        maximize(squared, BOX, beta=1e-2).density, maximize(1e-8 * squared, BOX, beta=1e-2).density
    )
    spread = [
        float(maximize(scale * squared, BOX, beta=1e-3, kind="fixed").density.std())
        for scale in (1, 1e-2, 1e-4)
    ]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 0.05


def test_cosine_transform_is_orthonormal():
    t = CosineTransform((5, 8), torch.device("cpu"))
    f = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(t.inverse(t.forward(f)), f)
    assert float(t.forward(f).norm()) == pytest.approx(float(f.norm()))


def test_penalty_of_zero_is_refused():
    with pytest.raises(InputError, match="penalty"):
        maximize(torch.ones(4, 4), BOX, beta=0.0)
