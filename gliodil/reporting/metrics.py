"""The numbers of one plan, as written to `metrics.json`.

The keys are a contract that other programs read: they may grow, never change. What is not known is None.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gliodil import __version__
from gliodil.data.patient import Patient
from gliodil.inference.result import Fit, Parameter
from gliodil.planning.acceptance import accept
from gliodil.planning.later_tumour import COEFFICIENTS, MEANING, PATIENTS, SOURCE
from gliodil.reporting.jsonable import jsonable
from gliodil.reporting.summary import summary

if TYPE_CHECKING:
    from gliodil.planning.dose import DoseFigures
    from gliodil.planning.export import Exported
    from gliodil.planning.plans import Plans

SCHEMA_VERSION = 1
STATEMENT = "Research use only. Not a medical device."

PARAMETER_UNITS = {
    "diffusivity_wm_mm2_per_day": "mm²/day",
    "proliferation_rate_per_day": "1/day",
    "wm_gm_ratio": "1",
    "infiltration_length_mm": "mm",
    "threshold_core": "1",
    "threshold_oedema": "1",
    "origin_mm": "mm",
}
LOSS_TERMS = ("parameters", "pde", "initial", "seg_lower", "seg_upper", "bounds", "csf", "pet")
TRUTH_KEYS = ("relative_l2", "dice_at_0.1", "dice_at_0.01", "rmse_outside_visible")


def build_metrics(
    patient: Patient,
    fit: Fit,
    plans: Plans,
    *,
    wall_s: float,
    peak_memory_mb: float | None,
    truth: Mapping[str, float | None] | None = None,
    comparison: Mapping[str, Any] | None = None,
    exported: Exported | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    ct: Mapping[str, Any] | None = None,
    dose: DoseFigures | None = None,
) -> dict[str, Any]:
    """Return the content of `metrics.json`.

    Parameters
    ----------
    wall_s
        Time from reading the input to writing the plan, s.
    peak_memory_mb
        Largest resident memory of the process, MB; None if the system does not tell.
    truth
        Scores against a known density (`relative_l2`, `dice_at_0.1`, `dice_at_0.01`,
        `rmse_outside_visible`), for simulated patients.
    comparison
        What another method makes of the patient (``planning.compare``).
    exported
        What was written as DICOM and read back, if there was a series to write it on.
    preprocessing
        How brain mask and tissue maps were made, where they were not given.
    ct
        What was written on the planning CT (``reporting.ct``), with its `warnings`.
    dose
        Figures of the clinic's dose.
    """
    notes = (*(() if exported is None else exported.warnings), *(() if ct is None else ct["warnings"]))
    if dose is not None:
        notes += tuple(f"no dose of {name}: {why}" for name, why in dose.missing.items())
    acceptance = accept(patient, fit, plans, registration=preprocessing)
    if not acceptance.accepted:
        notes = (f"Not accepted: {'; '.join(acceptance.reasons)}.", *notes)
    change, per_voxel = plans.difference.data, plans.difference.voxel_volume_ml
    metrics = {
        "schema_version": SCHEMA_VERSION,
        "statement": STATEMENT,
        "gliodil_version": __version__,
        "patient": patient.identity,
        "label_convention": patient.convention.name,
        "inputs": ["seg", *sorted(patient.volumes)],
        "rule": {
            "name": plans.rule.name,
            "version": plans.rule.version,
            "gtv": plans.rule.gtv,
            "margin_mm": plans.rule.margin_mm,
            "barriers": plans.rule.barriers,
            "description": plans.rule.description,
            "source": plans.rule.source,
            "scan": plans.rule.scan,
            "reach_mm": plans.rule.reach_mm,
            "ptv_mm": plans.rule.ptv_mm,
            "smoothing_mm": plans.rule.smoothing_mm,
            "min_island_mm3": plans.rule.min_island_mm3,
            "min_hole_mm3": plans.rule.min_hole_mm3,
            "dose": plans.rule.dose,
            "verify": plans.rule.verify,
            "gtv_ml": plans.gtv_ml,
            "initial": _initial(plans),
        },
        "summary": summary(plans, acceptance),
        "acceptance": {"accepted": acceptance.accepted, "reasons": list(acceptance.reasons)},
        "rank": plans.rank,
        "ctv_end": dict(plans.ctv_end),
        "level_at_ctv_end": plans.ctv_end.get("density"),
        "contours": plans.contours,
        "last_density": plans.last_density,
        "probability": None
        if plans.probability is None
        else {"of": MEANING, "patients": PATIENTS, "source": SOURCE, "coefficients": COEFFICIENTS},
        "status": fit.status,
        "status_message": fit.message,
        "wall_s": wall_s,
        "peak_memory_mb": peak_memory_mb,
        # The same warning can reach us along several paths; once is enough.
        "warnings": list(dict.fromkeys((*patient.warnings, *fit.warnings, *plans.warnings, *notes))),
        "volumes_ml": dict(plans.volumes_ml),
        "equal_volume_voxel_difference": plans.equal_volume_voxel_difference,
        "difference_ml": {
            "gained": float((change > 0).sum()) * per_voxel,
            "given_up": float((change < 0).sum()) * per_voxel,
        },
        "parameters": _parameters(fit.parameters),
        "loss": {
            "total": fit.loss_total,
            "terms": {**dict.fromkeys(LOSS_TERMS), **fit.loss_terms},
            "evaluations": fit.evaluations,
        },
        "fit": {
            "method": fit.method,
            "optimizer": fit.optimizer,
            "physics": fit.physics,
            "growth": fit.growth,
            "label_misfit_mm": fit.label_misfit_mm,
            "core_below_level": None if fit.agreement is None else fit.agreement.core_below_level,
            "lesions": None
            if fit.agreement is None
            else {"found": fit.agreement.lesions_found, "explained": fit.agreement.lesions_explained},
            "origins_mm": fit.origins_mm,
            "grid": fit.grid_shape,
            "steps": fit.steps,
            "spacing_mm": fit.spacing_mm,
            "device": fit.device,
            "dtype": fit.dtype,
            "wall_s": fit.wall_s,
        },
        "margin_mm": dict(plans.margin_mm),
        "coverage": plans.coverage,
        "organs_ml": plans.organs_ml,
        "organs_excluded": plans.organs_excluded,
        "crossings": None if plans.crossings is None else plans.crossings.to_dict(),
        "dicom": None if exported is None else exported.to_dict(),
        "frames": patient.links.to_records(),
        "ct": None if ct is None else {key: value for key, value in ct.items() if key != "warnings"},
        "dose": None if dose is None else dose.to_dict(),
        "truth": None if truth is None else {**dict.fromkeys(TRUTH_KEYS), **truth},
        "comparison": comparison,
        "preprocessing": preprocessing,
    }
    cleaned: dict[str, Any] = jsonable(metrics)
    return cleaned


def _initial(plans: Plans) -> dict[str, Any] | None:
    """What the rule says of the phase before the one to the full dose, with the margin that was taken."""
    phase = plans.rule.initial
    if phase is None or plans.initial is None:
        return None
    return {"gtv": phase.gtv, "margin_mm": plans.initial.margin_mm, "dose": phase.dose}


def _parameters(parameters: Mapping[str, Parameter]) -> dict[str, dict[str, Any]]:
    blank = {"value": None, "low": None, "high": None}
    unknown = {name: {**blank, "unit": unit} for name, unit in PARAMETER_UNITS.items()}
    known = {
        name: {"value": entry.value, "low": entry.low, "high": entry.high, "unit": entry.unit}
        for name, entry in parameters.items()
    }
    return {**unknown, **known}


def peak_memory_mb() -> float | None:
    """Return the largest resident memory of this process so far, in MB (10⁶ bytes); None if unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, everyone else kibibytes.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
