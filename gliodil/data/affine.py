"""Affines: the 4x4 matrices that place voxels in the head (index to world millimetres, RAS+)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gliodil.errors import GeometryError


def check_affine(affine: ArrayLike, path: Path | None = None) -> NDArray[np.float64]:
    """Return a read-only float64 copy of a 4x4 affine, or raise GeometryError if it places nothing."""
    matrix = np.array(affine, dtype=np.float64)
    problem = None
    if matrix.shape != (4, 4):
        problem = f"shape {matrix.shape}"
    elif not np.isfinite(matrix).all():
        problem = "values that are not finite"
    elif not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6):
        problem = f"last row {matrix[3].tolist()}"
    else:
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        # The determinant over the product of lengths is 1 for right angles and 0 for coplanar axes.
        if lengths.min() < 1e-6 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-4:
            problem = f"a singular matrix {matrix[:3, :3].round(6).tolist()}"
    if problem:
        raise GeometryError(
            "The affine does not place the voxels in space.",
            file=path,
            expected="an invertible 4x4 matrix, voxel index to millimetres",
            found=problem,
            remedy="export the image again with its geometry",
        )
    matrix[3] = (0.0, 0.0, 0.0, 1.0)
    matrix.flags.writeable = False
    return matrix


def box_corners(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Return the eight corners of an axis-aligned box, shape (8, 3)."""
    ends = np.stack([np.asarray(low, np.float64), np.asarray(high, np.float64)])
    return np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
