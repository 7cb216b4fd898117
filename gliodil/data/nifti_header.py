"""What a NIfTI header says about geometry.

The header states the affine up to twice, as sform (a matrix) and as qform (rotation, spacing, offset).
Each counts only if its code is positive and its matrix can be inverted:

    both, agreeing -> sform     both, disagreeing -> sform and a note     one -> that one     none -> error
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from gliodil.data.affine import box_corners, check_affine
from gliodil.errors import GeometryError

_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
FORM_TOLERANCE_MM = 0.1
"""Largest distance between the places sform and qform give a corner voxel that passes without a note."""


def image_shape(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Drop trailing singletons; what remains must be 3-D, with more than one voxel along each axis."""
    spatial = tuple(int(n) for n in shape)
    while len(spatial) > 3 and spatial[-1] == 1:
        spatial = spatial[:-1]
    if len(spatial) > 3:
        raise GeometryError(
            f"The image has {len(spatial)} dimensions.",
            file=path,
            expected="one 3-D volume",
            found=f"shape {spatial}",
            remedy="extract the volume you mean into a file of its own",
        )
    if len(spatial) < 3 or min(spatial) < 2:
        raise GeometryError(
            "The image is not a volume.",
            file=path,
            expected="a 3-D image with at least two voxels along each axis",
            found=f"shape {spatial}",
            remedy="give the whole volume, not one slice of it",
        )
    return spatial[0], spatial[1], spatial[2]


def image_affine(
    header: Any, shape: tuple[int, int, int], path: Path
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine the header states, and what is odd about it."""
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, "a unit of unknown code")
    if unit not in ("mm", "unknown"):
        raise GeometryError(
            "The header states lengths in another unit.",
            file=path,
            expected="millimetres",
            found=unit,
            remedy="convert the header to millimetres",
        )
    forms: dict[str, NDArray[np.float64]] = {}
    faults: list[str] = []
    for name, read in (("sform", header.get_sform), ("qform", header.get_qform)):
        try:
            matrix, code = read(coded=True)
            if code > 0 and matrix is not None:
                forms[name] = check_affine(matrix, path)
        except (GeometryError, ValueError, HeaderDataError) as error:
            faults.append(f"{name}: {error.found if isinstance(error, GeometryError) else error}")
    if not forms:
        raise GeometryError(
            "The header does not place the image in space.",
            file=path,
            expected="an sform or qform with a positive code and an invertible matrix",
            found="; ".join(faults) or "sform code 0 and qform code 0",
            remedy="export the image again, or copy the geometry from the scan it was made from",
        )
    notes = [f"{path.name}: unusable {fault}; the other affine of the header is used" for fault in faults]
    if len(forms) == 2 and (gap := corner_gap(forms["sform"], forms["qform"], shape)) > FORM_TOLERANCE_MM:
        notes.append(f"{path.name}: sform and qform disagree by up to {gap:.3g} mm; the sform is used")
    return next(iter(forms.values())), tuple(notes)


def corner_gap(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, int, int]) -> float:
    """Largest distance (mm) between the places two affines give the corner voxels."""
    ends = box_corners(np.zeros(3), np.asarray(shape) - 1.0)
    difference = a - b
    return float(np.linalg.norm(ends @ difference[:3, :3].T + difference[:3, 3], axis=1).max())
