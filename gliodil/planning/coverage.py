"""Recurrence coverage of a plan, at whatever volume the plan has.

    coverage(P) = |R and P| / |R|        R: recurrence voxels; 1 = all of it lies inside the plan

It is None where R is empty: nothing to cover is not perfect coverage. Source: design section 4; protocol in
Balcerak et al., and "enhancing" and "any" as published there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gliodil.data.labels import LabelConvention
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError
from gliodil.planning.distance import Mask

Coverage = dict[str, dict[str, float] | None]


def coverage(
    recurrence: Volume | None, masks: Mapping[str, Mask], convention: LabelConvention
) -> Coverage | None:
    """Return the fraction of the recurrence inside each mask.

    Parameters
    ----------
    recurrence
        Label volume of the follow-up, on the grid of the masks; None if there is no follow-up.
    masks
        Plans by name, 3-D.
    convention
        What the labels mean. A map with a single non-zero value is binary and counts as every recurrence.

    Returns
    -------
    dict or None
        `{"enhancing": {name: fraction}, "any": {name: fraction}}`, with None for a recurrence without voxels;
        None if `recurrence` is. "any" is every label but the resection cavity.

    Raises
    ------
    GeometryError
        If the recurrence is not on the grid of the masks.
    """
    if recurrence is None:
        return None
    for name, mask in masks.items():
        if mask.shape != recurrence.shape:
            raise GeometryError(
                "Recurrence and plan are on different grids.",
                file=recurrence.path,
                expected=f"shape {mask.shape} of plan {name}",
                found=f"shape {recurrence.shape}",
                remedy="resample the recurrence onto the plan",
            )
    enhancing, anything = recurrence_masks(recurrence, convention)
    return {"enhancing": _fractions(enhancing, masks), "any": _fractions(anything, masks)}


def recurrence_masks(recurrence: Volume, convention: LabelConvention) -> tuple[Mask, Mask]:
    """Return the enhancing recurrence and any recurrence (all labels but the cavity), as masks."""
    labels = recurrence.data
    anything = (labels != 0) & ~np.isin(labels, convention.cavity)
    if np.unique(labels[labels != 0]).size == 1:
        return anything, anything
    return np.isin(labels, convention.enhancing), anything


def _fractions(target: Mask, masks: Mapping[str, Mask]) -> dict[str, float] | None:
    total = int(np.count_nonzero(target))
    if total == 0:
        return None
    return {name: int(np.count_nonzero(mask & target)) / total for name, mask in masks.items()}
