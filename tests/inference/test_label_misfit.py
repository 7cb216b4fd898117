"""The distance between predicted and seen boundaries, and when it means something."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gliodil.inference.case import Case
from gliodil.inference.label_misfit import RESOLVED_CELLS, explained, label_misfit_mm
from gliodil.inference.parameters import Scalars
from gliodil.pde.grid import Grid
from gliodil.pde.models import FisherKolmogorov

CELLS = 40


def ball(spacing: float) -> tuple[Case, torch.Tensor]:
    """A ball of two levels, core within 10 and oedema within 14 cells, and the distance from its centre [mm]."""
    grid = Grid((CELLS, CELLS, CELLS), (spacing, spacing, spacing))
    radius = (grid.centres() - CELLS / 2 * spacing).norm(dim=0)
    core, whole = radius < 10 * spacing, radius < 14 * spacing
    case = Case(
        grid=grid,
        affine=torch.eye(4).double().numpy(),
        model=FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros()),
        core=core,
        oedema=whole & ~core,
        enhancing=core,
        necrotic=torch.zeros_like(core),
        has_necrosis=False,
        pet=None,
        passable_voxels=whole.numpy(),
        warnings=(),
    )
    return case, radius


def density(radius: torch.Tensor, p: Scalars, core_mm: float, whole_mm: float) -> torch.Tensor:
    """One that crosses the thresholds at given radii."""
    high, low = float(p.threshold_core), float(p.threshold_oedema)
    u = torch.zeros_like(radius)
    u[radius < whole_mm] = (high + low) / 2
    u[radius < core_mm] = (high + 1) / 2
    return u


def two(p: Scalars) -> tuple[torch.Tensor, torch.Tensor]:
    """Thresholds of a loss without a necrotic level."""
    return p.threshold_oedema, p.threshold_core


@pytest.fixture
def p() -> Scalars:
    return Scalars.of(diffusivity=0.1, proliferation_rate=0.1, origins=torch.zeros(3))


@pytest.mark.parametrize("spacing", [0.8, 2.0])
def test_is_the_mean_displacement_of_the_boundaries(p: Scalars, spacing: float) -> None:
    case, radius = ball(spacing)
    assert label_misfit_mm(case, density(radius, p, 10 * spacing, 14 * spacing), two(p)) == 0
    for shift in (1.5, -1.5):  # to first order in shift/radius
        moved = density(radius, p, (10 + shift) * spacing, (14 + shift) * spacing)
        assert label_misfit_mm(case, moved, two(p)) == pytest.approx(abs(shift) * spacing, rel=0.2)


def test_a_boundary_missed_by_two_levels_counts_twice(p: Scalars) -> None:
    case, radius = ball(1.0)
    nothing = label_misfit_mm(case, torch.zeros_like(radius), two(p))
    oedema_only = label_misfit_mm(case, density(radius, p, 0, 14), two(p))
    core = float(case.core.sum())
    assert nothing / oedema_only == pytest.approx((2 * core + float(case.oedema.sum())) / core)


def test_necrosis_is_a_third_level_where_it_has_a_threshold(p: Scalars) -> None:
    case, radius = ball(1.0)
    flat = density(radius, p, 10, 14)
    seen = replace(case, necrotic=radius < 5, enhancing=case.core & (radius >= 5))
    dense = torch.where(radius < 5, 0.95, torch.where(case.core, 0.7, flat))
    three = (*two(p), p.threshold_necrotic)
    assert label_misfit_mm(seen, dense, three) == 0
    assert label_misfit_mm(seen, torch.where(case.core, 0.7, flat), three) > 0
    assert label_misfit_mm(seen, torch.where(case.core, 0.7, flat), two(p)) == 0


def test_impassable_cells_do_not_count(p: Scalars) -> None:
    case, radius = ball(1.0)
    half = case.grid.centres()[0] < CELLS / 2
    halved = replace(case, model=FisherKolmogorov.on(case.grid, half.double(), case.grid.zeros()))
    moved = density(radius, p, 12, 16)
    whole, part = (label_misfit_mm(c, moved, two(p)) for c in (case, halved))
    assert part == pytest.approx(whole / 2, rel=1e-6)


def test_what_labels_resolve_is_a_share_of_a_cell() -> None:
    for spacing in (0.8, 2.0):
        case, _ = ball(spacing)
        assert explained(case, 0.99 * RESOLVED_CELLS * spacing)
        assert not explained(case, 1.01 * RESOLVED_CELLS * spacing)
