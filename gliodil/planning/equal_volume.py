"""Rankings of tissue compared at equal volume: how much later tumour each reaches first.

    S(m)   = { x in brain : dist(x, GTV) <= m }                 the isotropic margin of m mm
    P(r,m) = the |S(m)| voxels of the brain that ranking r puts first
    c      = |T and P(r,m)| / |T|                               T: a target; 1 = all of it is reached

Targets are all later tumour, and new tumour: what lies outside the GTV. A segmented rim is filled first, for its
middle is no new place. Ties of a ranking are broken by distance from the GTV, then by index, as for the model CTV.
A target without voxels has no coverage: None. Source: design sections 4 and 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gliodil.data.rim_filling import enclosed
from gliodil.errors import GeometryError
from gliodil.planning.bootstrap import RESAMPLES, bootstrap_interval
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import Mask, distance_from

MARGINS_MM = (3.0, 5.0, 8.0, 10.0, 15.0)
"""Isotropic margins whose volumes rankings are compared at [mm]."""
ISOTROPIC = "isotropic"
"""Name of the isotropic margin among the rankings."""

Curve = dict[float, float | None]
"""Margin [mm] to coverage, a fraction; None where the target is empty."""


def filled(gtv: Mask) -> Mask:
    """Return a GTV with the spaces it encloses (`gliodil.data.rim_filling`), so that a rim has a middle."""
    return np.asarray(gtv | enclosed(gtv))


def coverages(
    rankings: Mapping[str, NDArray[np.floating]],
    *,
    gtv: Mask,
    brain: Mask,
    spacing: Sequence[float],
    later: Mask,
    margins_mm: Sequence[float] = MARGINS_MM,
) -> dict[str, dict[str, Curve]]:
    """Return how much of all and of new later tumour rankings cover at the volumes of isotropic margins.

    Parameters
    ----------
    rankings
        Name to a 3-D array, finite in the brain; what is higher is treated earlier. `isotropic` is added.
    gtv
        3-D, not empty; spaces it encloses are filled.
    brain
        Where a plan may lie.
    spacing
        Voxel spacing [mm] per array axis.
    later
        Later tumour; all of it counts, in and outside the brain.
    margins_mm
        Margins [mm].

    Returns
    -------
    dict
        `{ranking: {"all": {mm: fraction}, "new": {mm: fraction}}}`.

    Raises
    ------
    GeometryError
        If the arrays have different shapes, or the GTV lies outside the brain.
    NumericsError
        If a ranking is not finite in the brain.
    """
    _check_shapes({"the brain mask": brain, "the later tumour": later}, gtv)
    whole = filled(gtv)
    targets = {"all": later, "new": later & ~whole}
    return target_coverages(
        rankings, gtv=whole, brain=brain, spacing=spacing, targets=targets, margins_mm=margins_mm
    )


def target_coverages(
    rankings: Mapping[str, NDArray[np.floating]],
    *,
    gtv: Mask,
    brain: Mask,
    spacing: Sequence[float],
    targets: Mapping[str, Mask],
    margins_mm: Sequence[float] = MARGINS_MM,
) -> dict[str, dict[str, Curve]]:
    """Return how much of each of several targets rankings cover, as `coverages`; the GTV is taken as it is."""
    _check_shapes({"the brain mask": brain, **targets, **rankings}, gtv)
    distance = distance_from(gtv, spacing, region=brain)
    found: dict[str, dict[str, Curve]] = {
        name: {target: {} for target in targets} for name in (ISOTROPIC, *rankings)
    }
    for margin_mm in margins_mm:
        standard = standard_ctv(gtv, brain, spacing, margin_mm)
        voxels = int(np.count_nonzero(standard))
        for name, curves in found.items():
            plan = standard if name == ISOTROPIC else model_ctv(rankings[name], brain, distance, voxels)
            for target, mask in targets.items():
                curves[target][margin_mm] = _fraction(mask, plan)
    return found


def paired_difference(
    a: Sequence[float | None], b: Sequence[float | None], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """Return the mean of a − b over patients, with its 95 % bootstrap interval.

    Patients for whom either is None are left out.

    Parameters
    ----------
    a, b
        One entry per patient, in one order.
    resamples, seed
        Number of bootstrap samples, and the seed that makes them repeatable.

    Returns
    -------
    (mean, low, high)
        The interval is None for fewer than two patients, the mean too for none.
    """
    d = np.array([x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None], float)
    if not d.size:
        return None, None, None
    low, high = bootstrap_interval(d, resamples=resamples, seed=seed)
    return float(d.mean()), low, high


def _fraction(target: Mask, plan: Mask) -> float | None:
    total = int(np.count_nonzero(target))
    return int(np.count_nonzero(target & plan)) / total if total else None


def _check_shapes(arrays: Mapping[str, NDArray[np.generic]], gtv: Mask) -> None:
    for name, array in arrays.items():
        if array.shape != gtv.shape:
            raise GeometryError(
                "What is compared at equal volume lies on different grids.",
                expected=f"shape {gtv.shape} of the GTV",
                found=f"shape {array.shape} of {name}",
                remedy="resample it onto the grid of the segmentation",
            )
