"""Resampling onto another grid through world coordinates.

An index r of the reference lies at source index ``inv(A_source) @ A_reference @ r``; both maps are affine,
so one matrix and one offset describe the whole resampling, oblique or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.affine import box_corners

EXACT_TOLERANCE = 1e-3
"""Voxels. A map this close to whole numbers is a flip, permutation or shift blurred by float noise."""


def resample(
    data: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    onto_affine: NDArray[np.float64],
    onto_shape: tuple[int, int, int],
    linear: bool,
) -> NDArray[Any]:
    """Return `data` (on `affine`) on another grid, linearly or by nearest neighbour.

    Each voxel reaches to its outer face; positions outside the field of view become 0. Grids that differ
    by flips, axis order or whole voxels give exact copies.
    """
    matrix, offset = index_map(affine, onto_affine, onto_shape)
    moved = np.zeros(onto_shape, data.dtype)
    low, high = _reached(data.shape, matrix, offset, onto_shape)
    if (low >= high).any():
        return moved
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = ndimage.affine_transform(
        data,
        matrix,
        offset + matrix @ low,
        output_shape=tuple(high - low),
        order=1 if linear else 0,
        mode="nearest",
    )
    grid = np.ogrid[box]
    for axis, size in enumerate(data.shape):
        position = sum(matrix[axis, k] * grid[k] for k in range(3)) + offset[axis]
        there[np.broadcast_to((position < -0.5) | (position >= size - 0.5), there.shape)] = 0
    moved[box] = there
    return moved


def _reached(
    shape: tuple[int, ...],
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    onto: tuple[int, int, int],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the box of the other grid outside of which nothing of the data lies: lowest index, and one beyond."""
    corners = box_corners(np.full(3, -0.5), np.asarray(shape) - 0.5)
    ends = np.linalg.solve(matrix, (corners - offset).T)
    low = np.clip(np.floor(ends.min(axis=1)), 0, onto).astype(np.intp)
    return low, np.clip(np.ceil(ends.max(axis=1)) + 1, 0, onto).astype(np.intp)


def index_map(
    source: NDArray[np.float64], reference: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix and offset taking an index of the reference grid to an index of the source grid.

    Where whole numbers do the same within 1e-3 voxels over the reference's `shape`, they are used.
    """
    full = np.asarray(np.linalg.solve(source, reference), np.float64)
    whole = np.rint(full)
    ends = box_corners(np.zeros(3), np.asarray(shape) - 1.0)
    drift = ends @ (full - whole)[:3, :3].T + (full - whole)[:3, 3]
    chosen = whole if np.abs(drift).max() <= EXACT_TOLERANCE else full
    return chosen[:3, :3], chosen[:3, 3]
