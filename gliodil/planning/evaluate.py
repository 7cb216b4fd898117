"""Recurrence coverage of a plan folder written earlier, once the follow-up scan exists.

A recurrence belongs to the plan if most of it lies in the brain that was planned, and no file says that it is another
person's or lies in another frame of reference. NIfTI states neither: that far it is taken at its word.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from gliodil.data.follow_up import read_follow_up
from gliodil.data.identity import Owned, require_one_patient
from gliodil.data.labels import LabelConvention, get_convention
from gliodil.data.nifti import read_nifti, write_nifti
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.planning.coverage import Coverage, coverage, recurrence_masks
from gliodil.planning.distance import distance_from, orthogonal_spacing
from gliodil.planning.plans import FURTHER

logger = logging.getLogger(__name__)

PLANS = ("standard", "trimmed", "model")

MOST_OUTSIDE = 0.5
"""Share of a recurrence outside the brain beyond which it is another person's, or not registered."""
NOTABLE_OUTSIDE = 0.1
FAR_MM = 10.0
"""Distance between GTV and recurrence from which on the recurrence deserves a second look."""

NO_LABELS = LabelConvention("none", necrotic=(), oedema=(), enhancing=(), cavity=())


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Coverage of a recurrence, its labels on the grid of the plan, and what to know."""

    coverage: Coverage
    recurrence: Volume
    notes: tuple[str, ...] = ()


def evaluate_recurrence(
    out: Path | str,
    recurrence: Path | str | Volume,
    *,
    convention: str | LabelConvention | None = None,
    same_patient: bool = False,
    parts: Mapping[str, str] | None = None,
) -> Evaluation:
    """Return the coverage of a recurrence by the CTVs in a plan folder, and the recurrence on its grid.

    Parameters
    ----------
    out
        Folder with `ctv_standard.nii.gz`, `ctv_trimmed.nii.gz` and `ctv_model.nii.gz`.
    recurrence
        Labels of the follow-up, registered to the planning scan: NIfTI on any grid (nearest voxel), DICOM SEG or
        RTSTRUCT.
    convention
        What its labels mean; only a binary map can do without.
    same_patient
        Whether the user says that it is this patient's, whatever its PatientID.
    parts
        What its structures or segments are, by name, where the user says it.

    Raises
    ------
    InputError
        If the folder is not a plan folder, or the recurrence is another patient's.
    LabelError
        If the map has several labels and no convention was named, or no structure can be told to be the recurrence.
    GeometryError
        If the recurrence lies outside the plan's images or the brain, or in another frame of reference.
    """
    out = Path(out)
    plans = _read_plans(out)
    grid = plans["standard"]
    notes: tuple[str, ...] = ()
    if isinstance(recurrence, Volume):
        found = recurrence
    else:
        path, owner, frame = Path(recurrence), _exported(out), ""
        if owner is not None:
            planned = Owned.of_file("plan", owner)
            frame = planned.frame
            require_one_patient((planned, Owned.of_file("recurrence", path)), stated=same_patient)
        named = convention if isinstance(convention, str | None) else convention.name
        read = read_follow_up(path, grid, frame=frame, convention=named, parts=parts)
        found, notes = read.labels, read.notes
    meaning = label_meaning(found, convention)
    placed = onto_plan(found, grid)
    notes = (*notes, *_check_place(found, placed, meaning, out))
    masks = {name: volume.data > 0 for name, volume in plans.items()}
    for name in FURTHER:  # the clinic's CTV, and those of its volume
        if (file := out / f"ctv_{name}.nii.gz").is_file():
            masks[name] = read_nifti(file, kind="label").data > 0
    result = coverage(placed, masks, meaning)
    assert result is not None
    return Evaluation(result, placed, notes)


def evaluate_plan_folder(
    out: Path | str, recurrence: Path | str | Volume, *, convention: str | LabelConvention | None = None
) -> Coverage:
    """Return the coverage of a recurrence by the CTVs in a plan folder; see `evaluate_recurrence`.

    Returns
    -------
    dict
        As `gliodil.planning.coverage.coverage` returns it.
    """
    evaluation = evaluate_recurrence(out, recurrence, convention=convention)
    for note in evaluation.notes:
        logger.warning("%s", note)
    return evaluation.coverage


def keep_recurrence(out: Path, recurrence: Volume) -> Path:
    """Write a follow-up's labels into a plan folder, on its grid, for what is compared with the plan later."""
    return write_nifti(recurrence, out / "recurrence.nii.gz")


def _exported(out: Path) -> Path | None:
    """Return an object of the plan folder that states whose it is, and in which frame; None if it was all NIfTI."""
    return next((path for name in ("rtstruct.dcm", "seg.dcm") if (path := out / name).is_file()), None)


def _check_place(found: Volume, placed: Volume, meaning: LabelConvention, out: Path) -> tuple[str, ...]:
    """Refuse a recurrence of which most lies outside the brain; return what is odd about its place."""
    whole = np.count_nonzero(recurrence_masks(found, meaning)[1]) * found.voxel_volume_ml
    inside = recurrence_masks(placed, meaning)[1]
    if not whole or not (out / "brain.nii.gz").is_file():
        return ()
    gtv = read_nifti(out / "gtv.nii.gz", kind="label").data != 0
    head = ndimage.binary_fill_holes((read_nifti(out / "brain.nii.gz", kind="label").data != 0) | gtv)
    kept = np.count_nonzero(inside & head) * placed.voxel_volume_ml
    outside = 1 - min(kept / whole, 1.0)
    if outside > MOST_OUTSIDE:
        raise GeometryError(
            "The recurrence lies outside the brain.",
            file=found.path,
            expected="labels of this patient's follow-up, registered to the planning scan",
            found=f"{100 * outside:.0f} % of {whole:.2f} mL outside the brain of the plan",
            remedy="register the follow-up to the planning scan first, or give the right patient's",
        )
    notes = []
    if outside > NOTABLE_OUTSIDE:
        notes.append(
            f"{100 * outside:.0f} % of the recurrence lie outside the brain of the plan: is the follow-up "
            "registered to the planning scan?"
        )
    if gtv.any() and inside.any():
        gap = float(distance_from(gtv, orthogonal_spacing(placed.affine))[inside].min())
        if gap > FAR_MM:
            notes.append(
                f"the recurrence lies {gap:.0f} mm from the GTV at its nearest: is it this patient's, and registered?"
            )
    return tuple(notes)


def _read_plans(out: Path) -> dict[str, Volume]:
    files = {name: out / f"ctv_{name}.nii.gz" for name in PLANS}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise InputError(
            "This is not a plan folder.",
            file=out,
            expected=", ".join(file.name for file in files.values()),
            found="a folder without " + ", ".join(missing) if out.is_dir() else "no such folder",
            remedy="give the folder that `gliodil plan --out` wrote",
        )
    return {name: read_nifti(file, kind="label") for name, file in files.items()}


def onto_plan(recurrence: Volume, plan: Volume) -> Volume:
    """Return the recurrence on the plan's grid; refuse one that lies elsewhere."""
    placed = recurrence.resample_to(plan)
    before = np.count_nonzero(recurrence.data) * recurrence.voxel_volume_ml
    after = np.count_nonzero(placed.data) * plan.voxel_volume_ml
    if before > 0 and after == 0:
        raise GeometryError(
            "The recurrence lies outside the plan's images.",
            file=recurrence.path,
            expected="a label map registered to the planning scan",
            found="no labelled voxel inside the plan's field of view",
            remedy="register the follow-up to the planning scan first",
        )
    if abs(after - before) > 0.1 * before:
        logger.warning("the recurrence has %.1f mL on its own grid and %.1f mL on the plan's", before, after)
    return placed


def label_meaning(recurrence: Volume, convention: str | LabelConvention | None) -> LabelConvention:
    """Return the convention of a follow-up's labels; only a binary map can do without a name."""
    if convention is not None:
        return get_convention(convention) if isinstance(convention, str) else convention
    labels = np.unique(recurrence.data[recurrence.data != 0])
    if labels.size > 1:
        raise LabelError(
            "The recurrence has several labels, and their meaning was not given.",
            file=recurrence.path,
            expected="a binary map, or a label convention",
            found=f"labels {', '.join(map(str, labels))}",
            remedy="name the convention with --labels",
        )
    return NO_LABELS
