"""How far the boundaries of a density are from those of the labels, and whether that can be seen at all.

    misfit = Σ |level predicted − level seen| · V_cell / (area between levels)          [mm]

is the mean distance between predicted and seen boundaries, levels being counted outwards in: nothing, oedema,
enhancing and, where the loss has a threshold for it, necrotic. Labels that are read at cell centres place a boundary to
within half a cell, on average a quarter. A misfit below 0.3 cells is therefore within what the labels resolve, and
nothing in them speaks against the equation (discrepancy principle; Morozov 1966).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gliodil.inference.agreement import area_mm2
from gliodil.inference.case import Case

RESOLVED_CELLS = 0.3
"""Largest mean boundary misfit that labels read at cell centres cannot tell from none, in cells."""


def label_misfit_mm(case: Case, last: torch.Tensor, thresholds: Sequence[torch.Tensor]) -> float:
    """Return the mean distance between the boundaries of ``last`` and of the labels [mm].

    ``thresholds`` are the densities at these boundaries, outwards in (``ReferenceLoss.thresholds``).
    """
    within = (case.oedema | case.core, case.core, case.necrotic)[: len(thresholds)]
    seen = torch.stack(within).sum(dim=0)
    predicted = torch.stack([last > t for t in thresholds]).sum(dim=0)
    volume = case.grid.cell_volume_mm3
    wrong = float((predicted - seen).abs()[case.model.passable].sum()) * volume
    area = area_mm2(case.grid.box(seen).cpu().numpy(), case.grid.spacing)
    return wrong / max(area, 1e-9)


def explained(case: Case, misfit_mm: float) -> bool:
    """Whether a misfit is within what the labels resolve."""
    return misfit_mm <= RESOLVED_CELLS * sum(case.grid.spacing) / 3
