"""The search for the pose of one head image on another: mutual information on cells of one size, by L-BFGS (SimpleITK).

Cells count that lie between the voxel centres of both under the present pose. Coordinates are in units of HEAD_MM.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.registration.images import coarse, working_grid
from gliodil.data.registration.transform import Matrix
from gliodil.data.volume import Volume
from gliodil.errors import InputError

MOST_CELLS = 150_000
"""Cells that count at most: of finer grids a part at random, for each start another one, always the same."""
HEAD_MM = 70.0
BINS = 32
FINEST_MM = 2.0
"""Cells on which images are kept; levels are made from them."""
HOUNSFIELD = (-200.0, 300.0)
"""Window of CTs: in it soft tissues differ, and bone is bone."""

Points = NDArray[np.float64]
_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Head:
    """An image with contrast evened out, where its head is, and points in that."""

    def __init__(self, image: Volume, name: str) -> None:
        data = np.asarray(image.data, np.float32)
        lowest, highest = float(data.min()), float(data.max())
        if not highest > lowest:
            raise InputError(
                f"The {name} image or its reference has one value only, so nothing can be aligned with it.",
                file=image.path,
                found=f"the value {lowest:.4g} everywhere",
                remedy="give another image",
            )
        low, high = HOUNSFIELD if lowest < -500 else np.percentile(data, (1.0, 99.5))
        if not high > low:
            low, high = lowest, highest
        even = image.with_data(np.clip(data - low, 0, high - low), kind="scalar")
        step = [max(1, round(3.0 / s)) for s in image.spacing]
        part = tuple(slice(None, None, k) for k in step)
        head = np.asarray(even.data[part] > 0.1 * (high - low))
        opened = ndimage.binary_opening(head)
        head = opened if opened.any() else head if head.any() else np.ones_like(head)
        corners = np.argwhere(head)
        region = np.zeros(image.shape, bool)
        low_corner, high_corner = corners.min(axis=0) * step, (corners.max(axis=0) + 1) * step
        region[tuple(slice(a, b) for a, b in zip(low_corner, high_corner, strict=True))] = True
        self.points: Points = image.to_world(corners[:: max(1, len(corners) // 2000)] * step)
        self.volume_ml = len(corners) * float(np.prod(step)) * image.voxel_volume_ml
        weight = np.asarray(even.data[part], np.float64)[head]
        self.centre: Points = image.to_world(
            (corners * step * weight[:, None]).sum(axis=0) / max(weight.sum(), 1e-9)
        )
        grid = working_grid(image, region, spacing_mm=FINEST_MM, margin_mm=5.0)
        self.fine = coarse(even, grid)
        self.seen = grid.with_data(_between_slices(image, grid), kind="label")


class Level:
    """Both images on cells of one size, fixed and moving, in the registration library's terms."""

    def __init__(self, sitk: Any, fixed: Head, moving: Head, spacing_mm: float) -> None:
        self._sitk = sitk
        self._images: list[Any] = []
        self._masks: list[Any] = []
        self._cells: list[Volume] = []
        for head in (fixed, moving):
            whole = np.ones(head.fine.shape, bool)
            grid = working_grid(head.fine, whole, spacing_mm=spacing_mm, margin_mm=0.0)
            seen = head.seen.resample_to(grid)
            self._images.append(_in_units(sitk, coarse(head.fine, grid), np.float32))
            self._masks.append(_in_units(sitk, seen, np.uint8))
            self._cells.append(seen)
        self._centre = fixed.centre

    def shared(self, matrix: Matrix) -> float:
        """Return the share of the fixed image's cells that the moving one shows."""
        fixed, moving = self._cells
        points = fixed.to_world(np.argwhere(fixed.data > 0)[::7])
        index = np.rint(moving.to_index(moved(matrix, points))).astype(int)
        inside = ((index >= 0) & (index < np.asarray(moving.shape))).all(axis=1)
        return float((moving.data[tuple(index[inside].T)] > 0).sum() / len(points))

    def information(self, matrix: Matrix) -> float:
        """Return I under a map, fixed to moving world mm."""
        search = self._method()
        search.SetInitialTransform(self._euler(matrix), True)
        return -float(search.MetricEvaluate(*self._images))

    def search(self, start: Matrix, *, seed: int = 1) -> tuple[Matrix, float]:
        """Return the map that a start leads to, and its I."""
        search, euler = self._method(seed), self._euler(start)
        search.SetOptimizerAsLBFGSB(1e-5, 60, 5, 200, 1e7)
        search.SetInitialTransform(euler, True)
        try:
            search.Execute(*self._images)
            value = -float(search.GetMetricValue())
        except RuntimeError:  # the two no longer meet
            return start, -np.inf
        matrix = np.eye(4)
        turn = np.array(euler.GetMatrix()).reshape(3, 3)
        centre = np.array(euler.GetCenter())
        matrix[:3, :3] = turn
        matrix[:3, 3] = HEAD_MM * (np.array(euler.GetTranslation()) + centre - turn @ centre)
        found = _RAS_LPS @ matrix @ _RAS_LPS
        return (found, value) if np.isfinite(found).all() and np.isfinite(value) else (start, -np.inf)

    def _method(self, seed: int = 1) -> Any:
        search = self._sitk.ImageRegistrationMethod()
        search.SetMetricAsMattesMutualInformation(BINS)
        search.SetMetricFixedMask(self._masks[0])
        search.SetMetricMovingMask(self._masks[1])
        cells = int(np.count_nonzero(self._cells[0].data))
        if cells > MOST_CELLS:
            search.SetMetricSamplingStrategy(search.RANDOM)
            search.SetMetricSamplingPercentage(MOST_CELLS / cells, seed)
        search.SetInterpolator(self._sitk.sitkLinear)
        search.SetNumberOfThreads(1)  # sums in one order: equal input, equal output
        return search

    def _euler(self, matrix: Matrix) -> Any:
        lps = _RAS_LPS @ matrix @ _RAS_LPS
        centre = (_RAS_LPS @ np.append(self._centre, 1.0))[:3] / HEAD_MM
        euler = self._sitk.Euler3DTransform()
        euler.SetCenter(centre.tolist())
        euler.SetMatrix(orthogonal(lps[:3, :3]).ravel().tolist())
        euler.SetTranslation((lps[:3, 3] / HEAD_MM + lps[:3, :3] @ centre - centre).tolist())
        return euler


def _between_slices(image: Volume, grid: Volume) -> NDArray[np.uint8]:
    """Return which cells lie between the outermost voxel centres of an image: beyond them its values are made up."""
    to_index = np.linalg.inv(image.affine) @ grid.affine
    inside = np.ones(grid.shape, bool)
    cells = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grid.shape), indexing="ij", sparse=True)
    for axis in range(3):
        index = to_index[axis, 3] + sum(to_index[axis, k] * cells[k] for k in range(3))
        inside &= (index >= 0) & (index <= image.shape[axis] - 1)
    return inside.astype(np.uint8)


def _in_units(sitk: Any, volume: Volume, dtype: Any) -> Any:
    """Return a volume as an image of the library, in LPS and units of HEAD_MM."""
    out = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(volume.data).T.astype(dtype)))
    affine = _RAS_LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    out.SetSpacing((spacing / HEAD_MM).tolist())
    out.SetOrigin((affine[:3, 3] / HEAD_MM).tolist())
    out.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return out


def orthogonal(matrix: Matrix) -> Matrix:
    """Return the rotation nearest to a matrix that round-off made nearly one."""
    u, _, v = np.linalg.svd(matrix)
    return np.asarray(u @ v)


def moved(matrix: Matrix, points: Points) -> Points:
    """Return where a map puts points [mm]."""
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])
