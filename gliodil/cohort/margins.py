"""How much later tumour rankings of tissue cover at the volumes of isotropic margins, for one patient of a cohort.

    standard   by distance from the GTV: the isotropic margin itself
    trimmed    by length of the path through what the rule's barriers leave open
    model      by what the model CTV ranks by
    NAME       by a map made elsewhere

Targets are the enhancing and any recurrence, all of it and what lies outside the GTV (`new`); see
`gliodil.planning.equal_volume`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.nifti import read_nifti
from gliodil.data.patient import Patient
from gliodil.errors import GliodilError, InputError
from gliodil.planning.barriers import domain
from gliodil.planning.coverage import recurrence_masks
from gliodil.planning.ctv import gtv_mask
from gliodil.planning.distance import Mask, orthogonal_spacing
from gliodil.planning.equal_volume import ISOTROPIC, MARGINS_MM, filled, target_coverages
from gliodil.planning.geodesic import geodesic_distance
from gliodil.planning.maps import model_ranking, put_first, read_map
from gliodil.planning.rules import PlanRule, get_rule
from gliodil.reporting.jsonable import read_json, write_json

logger = logging.getLogger(__name__)

MARGIN_FILE = "coverage_margins.json"
RECURRENCES = ("enhancing", "any")
PATHS_MM = 1.5 * max(MARGINS_MM)
"""How far paths are followed [mm]; what they do not reach comes last, by distance."""


def score_margins(patient: Patient, out: Path, rule: str, densities: Mapping[str, Path]) -> dict[str, Any]:
    """Return the content of `coverage_margins.json` for a finished plan folder.

    A map that cannot be read or ranks nothing is left out, with a warning.

    Parameters
    ----------
    patient
        With its recurrence, and with the tissue maps the plan was made with.
    out
        Its plan folder.
    rule
        Name of the plan rule.
    densities
        Maps made elsewhere, by name.
    """
    assert patient.recurrence is not None
    known = get_rule(rule)
    gtv = filled(gtv_mask(patient, known))
    brain = np.asarray(read_nifti(out / "brain.nii.gz", kind="label").data != 0)
    # A cavity holds no cells, yet the model CTV begins with it where it is part of the target.
    cavity = patient.cavity if "cavity" in known.gtv else np.zeros(patient.shape, bool)
    rankings: dict[str, NDArray[np.floating]] = {
        "trimmed": _by_path(patient, known, gtv, brain),
        "model": put_first(cavity, model_ranking(out)),
    }
    warnings = []
    for name, path in densities.items():
        try:
            rankings[name] = put_first(cavity, read_map(path, patient.segmentation, brain).data)
        except GliodilError as error:
            warnings.append(f"density {name} is not scored: {error.for_patient(patient.identity)}")
            logger.warning("%s: %s", patient.identity, warnings[-1])
    targets: dict[str, Mask] = {}
    for kind, mask in zip(RECURRENCES, recurrence_masks(patient.recurrence, patient.convention), strict=True):
        targets |= {kind: mask, f"{kind}_new": mask & ~gtv}
    found = target_coverages(
        rankings, gtv=gtv, brain=brain, spacing=orthogonal_spacing(patient.affine), targets=targets
    )
    curves = {"standard": found.pop(ISOTROPIC), **found}
    per_voxel = patient.segmentation.voxel_volume_ml
    return {
        "schema_version": 1,
        "margins_mm": MARGINS_MM,
        "target_ml": {name: int(np.count_nonzero(mask)) * per_voxel for name, mask in targets.items()},
        "coverage": {
            ranking: {target: list(curve.values()) for target, curve in by_target.items()}
            for ranking, by_target in curves.items()
        },
        "densities": {name: _hash(path) for name, path in densities.items()},
        "warnings": warnings,
    }


def write_margins(patient: Patient, out: Path, rule: str, densities: Mapping[str, Path]) -> tuple[str, ...]:
    """Write `coverage_margins.json`, or remove a stale one if there is no recurrence; return its warnings.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    target = out / MARGIN_FILE
    if patient.recurrence is None:
        target.unlink(missing_ok=True)
        return ()
    content = score_margins(patient, out, rule, densities)
    write_json(content, target)
    return tuple(content["warnings"])


def are_scored(out: Path, densities: Mapping[str, Path]) -> bool:
    """Whether `coverage_margins.json` is there and was made from these files."""
    try:
        known = read_json(out / MARGIN_FILE).get("densities")
    except InputError:
        return False
    return known == {name: _hash(path) for name, path in densities.items()}


def _by_path(patient: Patient, rule: PlanRule, gtv: Mask, brain: Mask) -> NDArray[np.float64]:
    """Return minus the length of the path from the GTV [mm]; the same for all that no path reaches."""
    where = domain(patient, rule, ~brain, [])
    path = geodesic_distance(gtv, where.passable, orthogonal_spacing(patient.affine), limit_mm=PATHS_MM)
    return -np.where(np.isfinite(path), path, 10 * PATHS_MM)


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
