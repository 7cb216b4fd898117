"""The seed: its formula, its cutoff, and the ramp that replaces it."""

from __future__ import annotations

import math

import pytest
import torch

from gliodil.pde.grid import Grid
from gliodil.pde.seed import gaussian_seed, radius_mm


def test_equals_its_formula() -> None:
    grid = Grid((9, 8, 7), (2.0, 2.5, 3.0))
    origin = torch.tensor([8.0, 11.0, 10.0], dtype=torch.float64)
    g = gaussian_seed(grid.centres(), origin)
    for i, (x, y, z) in enumerate(grid.centres().T.tolist()):
        r2 = (x - 8) ** 2 + (y - 11) ** 2 + (z - 10) ** 2
        value = 1500 * (4 * math.pi * 15) ** -1.5 * math.exp(-r2 / 60)
        assert float(g[i]) == pytest.approx(value if value >= 0.1 else 0.0, abs=1e-14)
    assert 0.5 < float(g.max()) < 0.58
    assert 0 < int((g > 0).sum()) < grid.cells


@pytest.mark.parametrize("density", [0.101, 0.2, 0.4, 0.57])
def test_radius_is_where_the_seed_has_that_density(density: float) -> None:
    at = torch.tensor([[radius_mm(density)], [0.0], [0.0]], dtype=torch.float64)
    assert float(gaussian_seed(at, torch.zeros(3, dtype=torch.float64))[0]) == pytest.approx(density)


def test_ramp_is_smooth_and_approaches_the_cutoff() -> None:
    x = torch.linspace(0, 20, 400, dtype=torch.float64)
    at = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)])
    origin = torch.zeros(3, dtype=torch.float64)
    sharp = gaussian_seed(at, origin)
    errors = [
        float((gaussian_seed(at, origin, cutoff_width=w) - sharp).abs().mean()) for w in (0.3, 0.1, 0.03)
    ]
    assert errors[0] > errors[1] > errors[2]
    steps = gaussian_seed(at, origin, cutoff_width=0.15).diff().abs().max()
    assert float(steps) < 0.02 < float(sharp.diff().abs().max())


@pytest.mark.parametrize("width", [0.0, 0.15])
def test_differentiable_in_the_origin(width: float) -> None:
    centres = Grid((6, 6, 6), (2.0, 2.0, 2.0)).centres()
    origin = torch.tensor([5.3, 6.1, 6.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda o: gaussian_seed(centres, o, cutoff_width=width), (origin,))


@pytest.mark.parametrize("width", [0.15, 0.25, 0.95])
def test_the_ramp_ends(width: float) -> None:
    """A faint tail would outrun the front that grows from the seed."""
    x = torch.linspace(0, 40, 400, dtype=torch.float64)
    at = torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)])
    g = gaussian_seed(at, torch.zeros(3, dtype=torch.float64), cutoff_width=width)
    assert float(g[x > 17.5].abs().max()) == 0.0
