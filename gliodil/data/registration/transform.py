"""Transforms between two spaces, in world millimetres (RAS+), each with both directions.

A transform takes points x of the fixed space (the patient) to points y of the moving space (the template, or
another image), and back::

    y = A (x + d(x))                x = q + e(q),  q = A⁻¹ y

A is a 4x4 affine map, d and e are displacement fields in mm on one grid of the fixed space (absent in rigid and
affine transforms). To carry an image from the moving to the fixed space, the fixed grid's points are looked up
through the first line; the other way, through the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gliodil.data.affine import check_affine
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError

Field = NDArray[np.float32]
Matrix = NDArray[np.float64]

_SLAB_VOXELS = 2_000_000
"""Voxels looked up at a time; bounds memory."""


@dataclass(frozen=True, eq=False)
class GridGeometry:
    """Shape and affine of a grid, without voxels."""

    shape: tuple[int, int, int]
    affine: Matrix

    @classmethod
    def of(cls, volume: Volume) -> GridGeometry:
        """Return the geometry of a volume's grid."""
        return cls(volume.shape, volume.affine)

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", check_affine(self.affine))


@dataclass(frozen=True, eq=False)
class Warp:
    """Displacement fields of both directions on one grid of the fixed space.

    Attributes
    ----------
    forward, backward
        d and e above: displacement in world mm, float32, shape (nx, ny, nz, 3).
    affine
        4x4, index of the fields' grid to world mm of the fixed space.
    """

    forward: Field
    backward: Field
    affine: Matrix

    def __post_init__(self) -> None:
        object.__setattr__(self, "affine", check_affine(self.affine))
        for name in ("forward", "backward"):
            field = np.array(getattr(self, name), np.float32)
            if field.ndim != 4 or field.shape[3] != 3 or not np.isfinite(field).all():
                raise GeometryError(
                    "This is not a displacement field.",
                    expected="finite vectors, shape (nx, ny, nz, 3)",
                    found=f"shape {field.shape}",
                )
            field.flags.writeable = False
            object.__setattr__(self, name, field)
        if self.forward.shape != self.backward.shape:
            raise GeometryError("The displacement fields of the two directions have different shapes.")


@dataclass(frozen=True, eq=False)
class Transform:
    """A map between a fixed and a moving space; see the top of this file.

    Attributes
    ----------
    matrix
        A, world mm of the fixed space to world mm of the moving space.
    fixed, moving
        Grids of the two images it was made from; where results go unless another grid is named.
    warp
        Displacement fields, or None.
    """

    matrix: Matrix
    fixed: GridGeometry
    moving: GridGeometry
    warp: Warp | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "matrix", check_affine(self.matrix))

    def points(self, world: ArrayLike, *, inverse: bool = False) -> NDArray[np.float64]:
        """Return where points go: fixed to moving space, or back; world mm, shape (..., 3)."""
        start = np.asarray(world, np.float64)
        if inverse:
            start = _affine_points(_inverse(self.matrix), start)
        if self.warp is not None:
            field = self.warp.backward if inverse else self.warp.forward
            index = _affine_points(_inverse(self.warp.affine), start).reshape(-1, 3).T
            moved = [ndimage.map_coordinates(field[..., k], index, order=1, mode="nearest") for k in range(3)]
            start = start + np.stack(moved, axis=-1).reshape(start.shape)
        return start if inverse else _affine_points(self.matrix, start)

    def apply(
        self, volume: Volume, onto: Volume | GridGeometry | None = None, *, inverse: bool = False
    ) -> Volume:
        """Return an image of the moving space on a grid of the fixed space, or the other way.

        Scalars are interpolated linearly, labels take the nearest voxel; outside the image they become 0.

        Parameters
        ----------
        volume
            Image in the moving space (with `inverse`: in the fixed space), on any grid.
        onto
            Grid of the result; by default that of the fixed (with `inverse`: the moving) image.
        """
        grid = onto or (self.moving if inverse else self.fixed)
        back = _inverse(self.matrix)
        if self.warp is None:
            # The image is moved by changing its affine, so that whole-voxel shifts stay exact.
            moved = Volume(volume.data, (self.matrix if inverse else back) @ volume.affine, kind=volume.kind)
            return moved.resample_to(_frame(grid))
        field = self.warp.backward if inverse else self.warp.forward
        start = back @ grid.affine if inverse else grid.affine
        finish = _inverse(volume.affine) @ (np.eye(4) if inverse else self.matrix)
        to_field = _inverse(self.warp.affine) @ start
        out = np.zeros(grid.shape, volume.data.dtype)
        for slab in _slabs(grid.shape):
            out[slab] = _look_up(volume, field, start, to_field, finish, slab, grid.shape)
        return Volume(out, grid.affine, kind=volume.kind)


def _look_up(
    volume: Volume,
    field: Field,
    start: Matrix,
    to_field: Matrix,
    finish: Matrix,
    slab: slice,
    shape: tuple[int, int, int],
) -> NDArray[Any]:
    """Return the volume at finish(start(i) + field(to_field(i))) for the grid's indices i in a slab."""
    size = (slab.stop - slab.start, *shape[1:])
    shift = np.array([slab.start, 0, 0], np.float64)
    # ndimage takes positions beyond the field's last voxel as the last voxel's.
    displacement = [
        ndimage.affine_transform(
            field[..., k],
            to_field[:3, :3],
            to_field[:3, 3] + to_field[:3, :3] @ shift,
            output_shape=size,
            order=1,
            mode="nearest",
        )
        for k in range(3)
    ]
    whole = finish @ start
    index = [np.arange(n, dtype=np.float64).reshape(np.roll((n, 1, 1), k)) for k, n in enumerate(size)]
    index[0] = index[0] + slab.start
    position = np.empty((3, *size))
    for axis in range(3):
        position[axis] = whole[axis, 3]
        for k in range(3):
            position[axis] += whole[axis, k] * index[k] + finish[axis, k] * displacement[k]
    order = 1 if volume.kind == "scalar" else 0
    values = ndimage.map_coordinates(volume.data, position, order=order, mode="nearest")
    limits = np.asarray(volume.shape).reshape(3, 1, 1, 1) - 0.5
    values[((position < -0.5) | (position >= limits)).any(axis=0)] = 0
    return np.asarray(values)


def _slabs(shape: tuple[int, int, int]) -> Iterator[slice]:
    step = max(1, _SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], step):
        yield slice(first, min(first + step, shape[0]))


def _affine_points(matrix: Matrix, points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _frame(grid: Volume | GridGeometry) -> Volume:
    """Return a volume on the grid whose voxels nobody reads."""
    if isinstance(grid, Volume):
        return grid
    return Volume.lazy(
        lambda: np.zeros(grid.shape, np.uint8), shape=grid.shape, affine=grid.affine, kind="label"
    )
