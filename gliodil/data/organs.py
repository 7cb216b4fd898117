"""Organs at risk: one mask each, brought onto the grid of a patient's segmentation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gliodil.data.nifti import read_nifti
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, GliodilError, InputError


def load_organs(named: Iterable[tuple[str, Path | str]], patient: Patient) -> dict[str, Volume]:
    """Read masks of organs (anything but 0 is inside) by name; on another grid they take the nearest voxel.

    Raises
    ------
    InputError
        If a name comes twice or a mask is empty, in the narrower types `ImageFileError` and `GeometryError` if a
        file cannot be read or lies elsewhere. Names the patient.
    """
    organs: dict[str, Volume] = {}
    try:
        for name, file in named:
            if name in organs:
                raise InputError(
                    f"There are two masks of {name}.", file=file, remedy="give each organ a name of its own"
                )
            organs[name] = _organ(name, Path(file), patient.segmentation)
    except GliodilError as error:
        error.for_patient(patient.identity)
        raise
    return organs


def _organ(name: str, file: Path, grid: Volume) -> Volume:
    mask = read_nifti(file, kind="label")
    if not mask.data.any():
        raise InputError(f"The mask of {name} is empty.", file=file, expected="voxels other than 0")
    placed = mask.resample_to(grid)
    if not placed.data.any():
        raise GeometryError(
            f"The mask of {name} lies outside the segmentation's image.",
            file=file,
            expected="a mask registered to the planning scan",
            found="no voxel inside its field of view",
            remedy="register it first",
        )
    inside = (placed.data != 0).astype(np.uint8)
    return Volume(inside, grid.affine, kind="label", path=file)
