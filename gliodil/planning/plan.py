"""From a patient and a density to the plans: targets, margins, differences, coverage.

Everything lives on the grid of the patient's segmentation. Volumes are in mL, margins in mm.
"""

from __future__ import annotations

import logging

import numpy as np

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GliodilError, NumericsError
from gliodil.inference.result import Fit
from gliodil.planning.coverage import coverage
from gliodil.planning.ctv import gtv_mask, model_ctv, standard_ctv
from gliodil.planning.distance import Mask, distance_from, orthogonal_spacing
from gliodil.planning.geodesic import csf_barrier, trimmed_ctv
from gliodil.planning.margins import margin_map, margin_summary
from gliodil.planning.plans import Plans
from gliodil.planning.rules import PlanRule, get_rule

__all__ = ["Plans", "plan"]

logger = logging.getLogger(__name__)

NOTABLE_FRACTION = 0.01
"""Share of the GTV outside the brain mask, or left out by the model CTV, that deserves a warning."""


def plan(patient: Patient, source: Fit | Volume, *, rule: str | PlanRule = "benchmark-15mm") -> Plans:
    """Return the standard, trimmed and model plans of a patient.

    Parameters
    ----------
    patient
        Segmentation, brain mask, and tissue maps if there are any (they make the barriers).
    source
        A fit, or a density in [0, 1] as scalar volume; on another grid it is resampled.
    rule
        A rule, or the name of a packaged one.

    Raises
    ------
    LabelError
        If there is no visible tumour.
    GeometryError
        If the affine is sheared, or the tumour lies outside the brain mask.
    NumericsError
        If the density is not finite or leaves [0, 1].
    InputError
        If the rule does not exist.
    """
    rule = get_rule(rule) if isinstance(rule, str) else rule
    density = source.density if isinstance(source, Fit) else source
    try:
        return _plan(patient, density, rule)
    except GliodilError as error:
        error.for_patient(patient.identity)
        raise


def _plan(patient: Patient, density: Volume, rule: PlanRule) -> Plans:
    grid = patient.segmentation
    spacing = orthogonal_spacing(grid.affine)
    warnings: list[str] = []
    density = _checked_density(density, grid, warnings)
    gtv, brain = gtv_mask(patient, rule), patient.brain
    _warn_outside(gtv, brain, grid, warnings)

    standard = standard_ctv(gtv, brain, spacing, rule.margin_mm)
    trimmed = trimmed_ctv(gtv, _passable(patient, brain, rule, warnings), standard, spacing, rule.margin_mm)
    distance = distance_from(gtv, spacing, region=brain)
    model = model_ctv(density.data, brain, distance, int(np.count_nonzero(standard)))
    _warn_model(model, gtv & brain, density, warnings)

    masks = {"standard": standard, "trimmed": trimmed, "model": model}
    volumes_ml = {"gtv": _volume_ml(gtv, grid)}
    volumes_ml |= {f"ctv_{name}": _volume_ml(mask, grid) for name, mask in masks.items()}
    for warning in warnings:
        logger.warning("%s: %s", patient.identity, warning)
    return Plans(
        rule=rule,
        gtv=_label(gtv, grid),
        standard=_label(standard, grid),
        trimmed=_label(trimmed, grid),
        model=_label(model, grid),
        density=density,
        margin=grid.with_data(margin_map(model, gtv, distance), kind="scalar"),
        difference=grid.with_data(model.astype(np.int8) - standard.astype(np.int8), kind="label"),
        volumes_ml=volumes_ml,
        equal_volume_voxel_difference=int(np.count_nonzero(model)) - int(np.count_nonzero(standard)),
        margin_mm=margin_summary(model, gtv, brain, grid.affine),
        coverage=coverage(patient.recurrence, masks, patient.convention),
        warnings=tuple(warnings),
    )


def _checked_density(density: Volume, grid: Volume, warnings: list[str]) -> Volume:
    """Return the density as it will be saved and is ranked: float32 in [0, 1], on the grid."""
    if not density.same_grid(grid):
        density = density.resample_to(grid)
        warnings.append("the density was resampled onto the grid of the segmentation")
    values = density.data.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise NumericsError(
            "The density is not a fraction of the carrying capacity.",
            file=density.path,
            expected="values in [0, 1]",
            found=f"values from {low:.3g} to {high:.3g}",
        )
    return grid.with_data(np.clip(values, 0.0, 1.0), kind="scalar")


def _passable(patient: Patient, brain: Mask, rule: PlanRule, warnings: list[str]) -> Mask:
    """Return where cells can spread under the rule's barriers."""
    passable = (
        patient.brain if "brain-surface" in rule.barriers else np.ones(patient.segmentation.shape, bool)
    )
    if "csf" not in rule.barriers:
        return passable
    maps = {name: v.data if (v := patient.volumes.get(name)) else None for name in ("wm", "gm", "csf")}
    barrier = csf_barrier(**maps)
    if barrier is None:
        warnings.append("no tissue maps: the trimmed plan stops at the brain surface only, not at CSF")
        return passable
    return passable & ~barrier


def _warn_outside(gtv: Mask, brain: Mask, grid: Volume, warnings: list[str]) -> None:
    outside = gtv & ~brain
    fraction = np.count_nonzero(outside) / np.count_nonzero(gtv)
    if fraction > NOTABLE_FRACTION:
        warnings.append(
            f"{100 * fraction:.1f} % of the GTV ({_volume_ml(outside, grid):.1f} mL) lies outside the brain "
            "mask, and so outside every CTV"
        )


def _warn_model(model: Mask, gtv: Mask, density: Volume, warnings: list[str]) -> None:
    empty = model & (density.data <= 0)
    if empty.any():
        warnings.append(
            f"{np.count_nonzero(empty)} voxels of the model CTV ({_volume_ml(empty, density):.1f} mL) have "
            "no predicted cell; they were added by distance from the GTV to reach the standard volume"
        )
    missed = gtv & ~model
    if np.count_nonzero(missed) > NOTABLE_FRACTION * np.count_nonzero(gtv):
        warnings.append(f"the model CTV leaves out {_volume_ml(missed, density):.1f} mL of the GTV")


def _volume_ml(mask: Mask, grid: Volume) -> float:
    return int(np.count_nonzero(mask)) * grid.voxel_volume_ml


def _label(mask: Mask, grid: Volume) -> Volume:
    return grid.with_data(mask.astype(np.uint8), kind="label")
