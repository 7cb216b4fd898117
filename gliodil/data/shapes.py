"""Masks and labels carried to another grid by their signed distance, so that outlines pass between voxels.

    s(x) = dist(x, mask) − dist(x, complement)        between voxel centres, mm; zero midway between in and out

is interpolated linearly and cut at zero: the nearest voxel would move outlines by up to half a voxel, and interpolated
occupancies would leave steps where slices are thick.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gliodil.data.resample import resample
from gliodil.data.volume import Volume

Mask = NDArray[np.bool_]

LIMIT_MM = 30.0
"""Distances beyond this are cut: only the zero level is used, and slices lie closer."""


def carry_mask(mask: Volume, onto: Volume, matrix: ArrayLike | None = None) -> Mask:
    """Return where a mask (label volume, not 0 is inside) lies on another grid.

    Parameters
    ----------
    onto
        The grid.
    matrix
        4x4, world mm of the mask to world mm of the grid; by default they share one world.
    """
    inside = mask.data != 0
    if not inside.any():
        return np.zeros(onto.shape, bool)
    affine = mask.affine if matrix is None else np.asarray(matrix, np.float64) @ mask.affine
    pad = np.ceil(LIMIT_MM / np.asarray(mask.spacing)).astype(int) + 1
    found = np.argwhere(inside)
    low = np.maximum(found.min(axis=0) - pad, 0)
    high = np.minimum(found.max(axis=0) + 1 + pad, inside.shape)
    part = inside[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    depth = LIMIT_MM - np.clip(signed_distance(part, mask.spacing), -LIMIT_MM, LIMIT_MM)
    start = affine.copy()
    start[:3, 3] += affine[:3, :3] @ low
    # Depth is 0 far outside, which is what resampling puts where there is no data.
    moved = resample(depth, start, onto_affine=onto.affine, onto_shape=onto.shape, linear=True)
    return np.asarray(moved >= LIMIT_MM)


def carry_labels(labels: Volume, onto: Volume, matrix: ArrayLike | None = None) -> Volume:
    """Return a label volume on another grid, each label by its own outline; the larger label wins where two meet."""
    carried = np.zeros(onto.shape, labels.data.dtype)
    for label in np.unique(labels.data[labels.data != 0]):
        one = labels.with_data((labels.data == label).astype(np.uint8))
        carried[carry_mask(one, onto, matrix)] = label
    # Between two labels neither may reach half: what the whole covers goes to the nearest one.
    gap = carry_mask(labels, onto, matrix) & (carried == 0)
    if gap.any() and carried.any():
        nearest = ndimage.distance_transform_edt(
            carried == 0, sampling=onto.spacing, return_distances=False, return_indices=True
        )
        carried[gap] = carried[tuple(nearest[:, gap])]
    return Volume(carried, onto.affine, kind="label", path=labels.path, notes=labels.notes, frame=onto.frame)


def signed_distance(mask: Mask, spacing: ArrayLike) -> NDArray[np.float32]:
    """Return the signed distance [mm] from a mask that is not empty: negative inside, zero midway at its outline."""
    steps = np.asarray(spacing, np.float64)
    outside = ndimage.distance_transform_edt(~mask, sampling=steps)
    if mask.all():
        return np.full(mask.shape, -LIMIT_MM, np.float32)
    return np.asarray(outside - ndimage.distance_transform_edt(mask, sampling=steps), np.float32)
