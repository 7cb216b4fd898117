"""Recurrence coverage of a plan folder written earlier, once the follow-up scan exists."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from gliodil.data.labels import LabelConvention, get_convention
from gliodil.data.nifti import read_nifti, write_nifti
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.planning.coverage import Coverage, coverage

logger = logging.getLogger(__name__)

PLANS = ("standard", "trimmed", "model")

NO_LABELS = LabelConvention("none", necrotic=(), oedema=(), enhancing=(), cavity=())


def evaluate_plan_folder(
    out: Path | str, recurrence: Path | str | Volume, *, convention: str | LabelConvention | None = None
) -> Coverage:
    """Return the coverage of a recurrence by the CTVs in a plan folder.

    Parameters
    ----------
    out
        Folder with `ctv_standard.nii.gz`, `ctv_trimmed.nii.gz` and `ctv_model.nii.gz`.
    recurrence
        Label map of the follow-up, registered to the planning scan; on another grid it is resampled (nearest
        voxel, through the affines).
    convention
        What its labels mean; only a binary map can do without.

    Returns
    -------
    dict
        As `gliodil.planning.coverage.coverage` returns it.

    Raises
    ------
    InputError
        If the folder is not a plan folder.
    LabelError
        If the map has several labels and no convention was named.
    GeometryError
        If the recurrence lies outside the plan's images.
    """
    plans = _read_plans(Path(out))
    found = recurrence if isinstance(recurrence, Volume) else read_nifti(recurrence, kind="label")
    placed = onto_plan(found, plans["standard"])
    masks = {name: volume.data > 0 for name, volume in plans.items()}
    result = coverage(placed, masks, label_meaning(found, convention))
    assert result is not None
    return result


def keep_recurrence(out: Path, recurrence: Path) -> Path:
    """Write a follow-up's labels into a plan folder, on its grid, for what is compared with the plan later."""
    grid = read_nifti(out / "ctv_standard.nii.gz", kind="label")
    return write_nifti(read_nifti(recurrence, kind="label").resample_to(grid), out / "recurrence.nii.gz")


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
