"""How much of a recurrence a plan covers as its volume grows: coverage at equal volumes, not at one volume.

    standard   the voxels of the brain in order of distance from the GTV
    model      ... as the model CTV ranks them, ties by distance from the GTV, then by index
    c(v)       |R and first v·k voxels| / |R|,     k = |standard CTV|,  v in [0, 2]
    area       mean of c over v

So c(1) is the published coverage of both plans. Source: ecosystem of published protocols, Balcerak et al. 2025.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.nifti import read_nifti
from gliodil.data.patient import Patient
from gliodil.planning.coverage import recurrence_masks
from gliodil.planning.ctv import gtv_mask
from gliodil.planning.distance import Mask, distance_from, orthogonal_spacing
from gliodil.planning.maps import model_ranking
from gliodil.planning.rules import get_rule
from gliodil.reporting.jsonable import write_json

CURVE_FILE = "coverage_volume.json"
RELATIVE_VOLUMES = np.linspace(0.0, 2.0, 41)
"""Volume of a plan over that of the standard plan."""


def ranked(values: NDArray[np.floating], distance: NDArray[np.floating], brain: Mask) -> NDArray[np.intp]:
    """Return the voxels of `brain` (flat indices), highest value first, ties by distance [mm], then index."""
    inside = np.flatnonzero(brain)
    order = np.lexsort((inside, distance.ravel()[inside], -values.ravel()[inside]))
    return inside[order]


def covered(
    recurrence: Mask, order: NDArray[np.intp], counts: NDArray[np.intp]
) -> NDArray[np.float64] | None:
    """Return the fraction of `recurrence` among the first `counts` voxels of `order`; None if it is empty."""
    total = int(np.count_nonzero(recurrence))
    if total == 0:
        return None
    found = np.concatenate([[0], np.cumsum(recurrence.ravel()[order])])
    return found[np.minimum(counts, order.size)] / total


def coverage_curves(
    patient: Patient, ranking: NDArray[np.floating], standard: Mask, rule: str
) -> dict[str, Any] | None:
    """Return the coverage-volume curves of a patient with a recurrence; None without one.

    Parameters
    ----------
    ranking
        On the patient's grid: what the model CTV was ranked by.
    standard
        The standard CTV; its volume is the unit of volume.
    rule
        Name of the plan rule, for the GTV.
    """
    if patient.recurrence is None:
        return None
    gtv, brain = gtv_mask(patient, get_rule(rule)), patient.brain
    distance = distance_from(gtv, orthogonal_spacing(patient.affine), region=brain)
    unit = int(np.count_nonzero(standard))
    counts = np.rint(RELATIVE_VOLUMES * unit).astype(np.intp)
    orders = {
        "standard": ranked(-distance, distance, brain),
        "model": ranked(ranking, distance, brain),
    }
    per_voxel = patient.segmentation.voxel_volume_ml
    masks = zip(("enhancing", "any"), recurrence_masks(patient.recurrence, patient.convention), strict=True)
    result: dict[str, Any] = {
        "schema_version": 1,
        "standard_ml": unit * per_voxel,
        "relative_volume": RELATIVE_VOLUMES,
    }
    for name, mask in masks:
        curves = {plan: covered(mask, order, counts) for plan, order in orders.items()}
        result[name] = {
            "recurrence_ml": int(np.count_nonzero(mask)) * per_voxel,
            "coverage": curves if mask.any() else None,
            "area": {
                plan: np.trapezoid(curve, RELATIVE_VOLUMES) / RELATIVE_VOLUMES[-1]
                for plan, curve in curves.items()
                if curve is not None
            }
            or None,
        }
    return result


def write_curves(patient: Patient, out: Path, rule: str) -> None:
    """Write `coverage_volume.json` into a finished plan folder, or remove a stale one if there is no recurrence.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    target = out / CURVE_FILE
    if patient.recurrence is None:
        target.unlink(missing_ok=True)
        return
    standard = read_nifti(out / "ctv_standard.nii.gz", kind="label").data != 0
    curves = coverage_curves(patient, model_ranking(out), np.asarray(standard), rule)
    assert curves is not None
    write_json(curves, target)
