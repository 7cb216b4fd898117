"""Named masks on the grid of a series, ready to be written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gliodil.data.dicom.contours import area, trace
from gliodil.data.dicom.reference import Reference
from gliodil.data.volume import Volume
from gliodil.errors import InputError


def place(structures: Mapping[str, Volume], reference: Reference) -> dict[str, Volume]:
    """Return the masks on the grid of a series (uint8, 0 or 1), or refuse names and masks that cannot be written.

    Raises
    ------
    InputError
        If there is none, or a name is empty, longer than 64 characters or holds a backslash, or a mask is empty.
    """
    if not structures:
        raise InputError("There is no structure to write.", expected="at least one mask")
    placed = {}
    grid = reference.grid
    for name, volume in structures.items():
        if not (0 < len(name.strip()) <= 64 and name.isascii() and name.isprintable()) or "\\" in name:
            raise InputError(
                "This cannot be the name of a structure.",
                expected="1 to 64 printable ASCII characters without backslash",
                found=repr(name),
            )
        mask = (volume.data != 0).astype(np.uint8)
        placed[name] = volume.with_data(mask, kind="label").resample_to(grid)
        if not placed[name].data.any():
            raise InputError(
                f"The structure {name} is empty on the slices of the series.",
                expected="at least one voxel inside",
                found=f"{np.count_nonzero(mask)} voxels on its own grid",
                remedy="leave it out, or refer to the series it was drawn on",
            )
    return placed


def outlined_pixels(volume: Volume) -> float:
    """Return the area inside the outlines of a mask, summed over its slices [pixels²]."""
    slices = np.flatnonzero(volume.data.any(axis=(0, 1)))
    return sum(area(loop) for k in slices for loop in trace(volume.data[:, :, k] != 0))


def interpreted_type(name: str) -> str:
    """Return GTV, CTV or PTV if the name of a structure begins so, else an empty string (unknown)."""
    return name[:3].upper() if name[:3].upper() in ("GTV", "CTV", "PTV") else ""
