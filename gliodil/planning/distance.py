"""Distances in millimetres on a voxel grid.

The distance of a voxel from a mask is the Euclidean distance between its centre and the nearest voxel centre
of the mask: 0 inside, the spacing next to it. All margins of the package use this definition, so a surface
drawn at a margin of m lies m from the outermost centres of the GTV, about half a voxel less from its faces.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gliodil.errors import GeometryError

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

TOLERANCE_MM = 1e-6
"""A distance exceeds a margin only beyond this: sums of spacings carry rounding errors."""

MAX_SHEAR = 1e-3
"""Largest cosine between two voxel axes that still counts as a right angle (0.06 degrees)."""


def orthogonal_spacing(affine: ArrayLike) -> tuple[float, float, float]:
    """Return the voxel spacing [mm] of a 4x4 affine whose axes meet at right angles.

    Oblique axes are fine; sheared ones are not, because distances would depend on more than spacing.

    Raises
    ------
    GeometryError
        If two voxel axes are not perpendicular.
    """
    axes = np.asarray(affine, np.float64)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    units = axes / lengths
    shear = float(np.abs(units.T @ units - np.eye(3)).max())
    if not shear <= MAX_SHEAR:
        raise GeometryError(
            "The voxel axes are not perpendicular.",
            expected="an affine without shear",
            found=f"axes {np.degrees(np.arccos(shear)):.1f} degrees apart",
            remedy="resample the images onto a grid without shear (undo the gantry tilt)",
        )
    x, y, z = lengths
    return float(x), float(y), float(z)


def bounding_box(mask: Mask, *, pad: Sequence[int] = (0, 0, 0)) -> Box:
    """Return the smallest box around the true voxels, enlarged by `pad` voxels per axis and cut to the array.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    slices = []
    for axis, extra in enumerate(pad):
        others = tuple(i for i in range(3) if i != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        if hits.size == 0:
            raise ValueError("an empty mask has no bounding box")
        slices.append(slice(max(int(hits[0]) - extra, 0), min(int(hits[-1]) + 1 + extra, mask.shape[axis])))
    return slices[0], slices[1], slices[2]


def margin_box(mask: Mask, spacing: Sequence[float], margin_mm: float) -> Box:
    """Return a box that holds every voxel within `margin_mm` of the mask, and one voxel more."""
    return bounding_box(mask, pad=[int(np.ceil(margin_mm / h)) + 1 for h in spacing])


def distance_from(mask: Mask, spacing: Sequence[float], *, region: Mask | None = None) -> NDArray[np.float64]:
    """Return the distance [mm] of every voxel from `mask`.

    Parameters
    ----------
    mask
        3-D, not empty.
    spacing
        Voxel spacing [mm] per array axis.
    region
        Where the distance is needed; outside the common bounding box of `region` and `mask` it is left
        infinite, which saves time. By default everywhere.
    """
    if region is None:
        return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing), np.float64)
    box = bounding_box(mask | region)
    distance = np.full(mask.shape, np.inf)
    distance[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing)
    return distance


def boundary(mask: Mask) -> Mask:
    """Return the voxels of `mask` with a face neighbour outside it; the array's edge counts as outside."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask))
