"""Maps of tumour made elsewhere, as rankings of tissue: what is higher is treated earlier.

A map may have any scale, for only its order counts, and any grid: it is interpolated linearly onto that of the plan.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliodil.data.nifti import read_nifti
from gliodil.data.volume import Volume
from gliodil.errors import InputError
from gliodil.planning.distance import Mask

TAKEN = ("isotropic", "standard", "trimmed", "model")
"""Names of rankings that no map may have."""


def check_map_name(name: str) -> str:
    """Return the name of a map, which becomes part of columns and keys.

    Raises
    ------
    InputError
        If it has other characters than letters, digits and `._+-`, or is that of a plan.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) or name in TAKEN:
        raise InputError(
            "A density map cannot have this name.",
            expected=f"letters, digits, and . _ + -; not {', '.join(TAKEN)}",
            found=repr(name),
            remedy="choose another NAME for it",
        )
    return name


def read_map(path: Path, grid: Volume, brain: Mask) -> Volume:
    """Return a map on a grid.

    Parameters
    ----------
    path
        NIfTI file.
    grid
        Any volume on the grid wanted.
    brain
        Where the map is to rank voxels, 3-D on that grid.

    Raises
    ------
    ImageFileError, InputError
        If the file cannot be read, holds NaN or infinities, or has one value throughout the brain.
    """
    volume = read_nifti(path, kind="scalar")
    placed = volume.resample_to(grid)
    values = placed.data[brain]
    low, high = float(values.min()), float(values.max())
    if not low < high:
        raise InputError(
            "The density map has one value throughout the brain.",
            file=path,
            expected="values that tell likelier from less likely tissue, in the space of the segmentation",
            found=f"{low:g} everywhere",
            remedy="check that it is of this patient, and in the same space",
        )
    return placed


def model_ranking(out: Path) -> NDArray[np.floating]:
    """Return what the model CTV of a plan folder ranks the voxels of the brain by: expected reach, or density."""
    reach = out / "reach.nii.gz"
    if not reach.is_file():
        return read_nifti(out / "density.nii.gz", kind="scalar").data
    mm = read_nifti(reach, kind="scalar").data
    return -np.where(mm < 0, mm.max() + 1, mm)  # negative outside the brain


def put_first(where: Mask, ranking: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a ranking that begins with some voxels, such as a resection cavity that is part of the target."""
    return np.where(where, np.float64(ranking.max()) + 1, ranking) if where.any() else ranking
