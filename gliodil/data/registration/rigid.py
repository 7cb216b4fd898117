"""Two images of one head brought to each other: rotation and shift only, by mutual information.

    I(A) = Σ_ij p_ij log(p_ij / (p_i p_j)),    p: joint histogram of one image and the other seen through A

(Mattes et al. 2003, as in SimpleITK), over the cells that both show under the present A. The image that shows less of
the head is the fixed one: cells of the other that it cannot show would pull. Coordinates are in units of HEAD_MM, so
that a radian and a unit of shift move a head about as far, and limited-memory BFGS needs no other scales.

1. On cells of 8 mm the search starts from the coordinates as they are and from the centres of mass on each other,
   upright and shifted along the body, turned by 20° about each axis.
2. The best three, of different places, are refined at 4 and 2 mm, each on cells of its own drawing. Their mean is the
   answer: what is left of noise is less in it.
3. It counts if the three agree at the target to SPREAD_MM and at least half of the target is seen: agreement of several
   starts is what tells a good answer from a bad one, the value of I is not. Otherwise it is refused.

Where nothing beats the coordinates as they are, they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.frames import Link
from gliodil.data.registration.images import coarse, working_grid
from gliodil.data.registration.transform import GridGeometry, Matrix, Transform
from gliodil.data.volume import Volume
from gliodil.errors import InputError, MissingExtraError, NumericsError

COARSE_MM, MIDDLE_MM, FINE_MM = 8.0, 4.0, 2.0
MOST_CELLS = 150_000
"""Cells that count at most: of finer grids a part at random, for each start another one, always the same."""
SPREAD_MM = 2.0
"""Largest distance between the answers of several starts, anywhere in the target, for them to be one."""
SMALLEST_OVERLAP = 0.5
"""Share of the target that both images must show."""
SMALLEST_START = 0.1
"""Share of the fixed image that the other must show under a start for it to be tried."""
TURNS_DEG = 20.0
SHIFTS_MM = (-40.0, 40.0)
"""Starts beside the middle: turned about each axis, shifted along the body."""
NEAR_MM = 15.0
"""Distance of the centres of mass below which the coordinates as they are are the only middle."""
REFINED = 3
APART_MM = 0.5
"""Starts that lie closer than this after the first stage are one."""
HEAD_MM = 70.0
BINS = 32
HOUNSFIELD = (-200.0, 300.0)
"""Window of CTs: in it soft tissues differ, and bone is bone."""

Points = NDArray[np.float64]
_RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class RigidMotion:
    """Where an image of the same head lies (fixed: reference, moving: the image), and how sure that is.

    Attributes
    ----------
    transform
        World mm of the reference to world mm of the image.
    shift_mm
        Distance that the centre of the target moves.
    angle_deg
        Rotation.
    spread_mm
        Largest distance between the answers of several starts, in the target.
    overlap
        Share of the target that both show.
    """

    transform: Transform
    shift_mm: float
    angle_deg: float
    spread_mm: float
    overlap: float

    def link(self, source: str, target: str) -> Link:
        """Return the map from the image (`source`, its frame of reference) to the reference (`target`)."""
        matrix = np.asarray(np.linalg.inv(self.transform.matrix))
        return Link(source, target, matrix, "registered", residual_mm=self.spread_mm)


def align_rigidly(
    reference: Volume, image: Volume, name: str = "image", *, target: Points | None = None
) -> RigidMotion:
    """Return the rigid motion between an image and the reference.

    Parameters
    ----------
    reference, image
        Scalars of any contrasts and grids that show the same head.
    name
        Of the image, for messages.
    target
        Points of the image [world mm], shape (n, 3), that must be right: the brain. By default the head that the one
        that shows less of it shows.

    Raises
    ------
    InputError
        If an image is constant, or the two share too little.
    MissingExtraError
        If SimpleITK is not installed.
    NumericsError
        If several starts end in different places, so that none can be believed.
    """
    sitk = _simpleitk()
    heads = [_Head(volume, name) for volume in (reference, image)]
    # The first of the pair is fixed; `swapped`: that is the image.
    swapped = heads[1].volume_ml < heads[0].volume_ml
    pair = (heads[1], heads[0]) if swapped else (heads[0], heads[1])
    # Cells finer than the voxels of either show nothing more.
    fine_mm = min(MIDDLE_MM, max(FINE_MM, *(min(volume.spacing) for volume in (reference, image))))
    levels = {mm: _Level(sitk, *pair, mm) for mm in {COARSE_MM, MIDDLE_MM, fine_mm}}
    points = pair[0].points if target is None else np.asarray(target, np.float64)
    of_fixed = target is None or swapped  # whether `points` are the fixed image's

    def between(one: Matrix, other: Matrix) -> float:
        """Return how far two maps, fixed to moving, put a point of the target apart at most."""
        a, b = (one, other) if of_fixed else (np.linalg.inv(one), np.linalg.inv(other))
        return _largest(points, a - b)

    starts = _starts(*pair)
    tried = [
        levels[COARSE_MM].search(start)
        for start in starts
        if levels[COARSE_MM].shared(start) >= SMALLEST_START
    ]
    tried = sorted((one for one in tried if np.isfinite(one[1])), key=lambda answer: -answer[1])
    kept: list[tuple[Matrix, float]] = []
    for answer in tried:
        if all(between(answer[0], other[0]) > APART_MM for other in kept):
            kept.append(answer)
        if len(kept) == REFINED:
            break
    kept += tried[1 : 1 + REFINED - len(kept)]  # where all ended in one place they agree
    if len(kept) < 2:  # nothing to compare an answer with
        raise _too_little(image, name, SMALLEST_START)
    refined = [levels[MIDDLE_MM].search(matrix) for matrix, _ in kept]
    ends = [levels[fine_mm].search(matrix, seed=seed)[0] for seed, (matrix, _) in enumerate(refined, start=1)]
    best = _mean(ends, pair[0].centre)
    still = np.eye(4)
    if levels[fine_mm].shared(still) >= SMALLEST_OVERLAP and levels[fine_mm].information(still) >= levels[
        fine_mm
    ].information(best):
        best = still
    spread = max(between(best, matrix) for matrix in ends)
    matrix = np.asarray(np.linalg.inv(best)) if swapped else best
    overlap = _overlap(reference, image, matrix, points, target is not None, swapped)
    if overlap < SMALLEST_OVERLAP:
        raise _too_little(image, name, SMALLEST_OVERLAP, overlap)
    if spread > SPREAD_MM:
        raise NumericsError(
            f"The {name} image cannot be aligned with the reference: several starts end in different places.",
            file=image.path,
            expected=f"answers within {SPREAD_MM:g} mm of each other at the target",
            found=f"answers up to {spread:.1f} mm apart",
            remedy="check that both show the same head; a registration object (--reg FILE) can say how they lie",
        )
    centre = points.mean(axis=0)
    if target is not None or swapped:  # the points are the image's: where they are in the reference
        centre = _moved(np.asarray(np.linalg.inv(matrix)), centre)
    shift = float(np.linalg.norm(_moved(matrix, centre) - centre))
    angle = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    transform = Transform(matrix, GridGeometry.of(reference), GridGeometry.of(image))
    return RigidMotion(transform, shift, angle, spread, overlap)


class _Head:
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
        grid = working_grid(image, region, spacing_mm=FINE_MM, margin_mm=5.0)
        self.fine = coarse(even, grid)
        self.seen = grid.with_data(_between_slices(image, grid), kind="label")


class _Level:
    """Both images on cells of one size, fixed and moving, in the registration library's terms."""

    def __init__(self, sitk: Any, fixed: _Head, moving: _Head, spacing_mm: float) -> None:
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
        index = np.rint(moving.to_index(_moved(matrix, points))).astype(int)
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
        euler.SetMatrix(_orthogonal(lps[:3, :3]).ravel().tolist())
        euler.SetTranslation((lps[:3, 3] / HEAD_MM + lps[:3, :3] @ centre - centre).tolist())
        return euler


def _starts(fixed: _Head, moving: _Head) -> list[Matrix]:
    still, centred = np.eye(4), np.eye(4)
    centred[:3, 3] = moving.centre - fixed.centre
    middles = [still] if np.linalg.norm(centred[:3, 3]) < NEAR_MM else [still, centred]
    middle, starts = middles[-1], list(middles)
    for shift in SHIFTS_MM:
        starts.append(_turned(middle, fixed.centre, 0, 0.0, shift))
    for shift in (0.0, *SHIFTS_MM):
        for axis in range(3):
            for sign in (1, -1):
                starts.append(_turned(middle, fixed.centre, axis, sign * TURNS_DEG, shift))
    return starts


def _turned(middle: Matrix, centre: Points, axis: int, degrees: float, shift_mm: float) -> Matrix:
    """Return a map turned about an axis through the centre, and shifted along the body."""
    a, b = (k for k in range(3) if k != axis)
    turn, angle = np.eye(4), np.radians(degrees)
    turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    moved = middle @ turn
    moved[2, 3] += shift_mm
    return np.asarray(moved)


def _between_slices(image: Volume, grid: Volume) -> NDArray[np.uint8]:
    """Return which cells lie between the outermost voxel centres of an image: beyond them its values are made up."""
    to_index = np.linalg.inv(image.affine) @ grid.affine
    inside = np.ones(grid.shape, bool)
    cells = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grid.shape), indexing="ij", sparse=True)
    for axis in range(3):
        index = to_index[axis, 3] + sum(to_index[axis, k] * cells[k] for k in range(3))
        inside &= (index >= 0) & (index <= image.shape[axis] - 1)
    return inside.astype(np.uint8)


def _mean(maps: list[Matrix], centre: Points) -> Matrix:
    """Return the mean of rigid maps: the rotation nearest to the mean of theirs, about where they put the centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = _orthogonal(np.mean([one[:3, :3] for one in maps], axis=0))
    matrix[:3, 3] = np.mean([_moved(one, centre) for one in maps], axis=0) - matrix[:3, :3] @ centre
    return matrix


def _overlap(
    reference: Volume, image: Volume, matrix: Matrix, points: Points, stated: bool, swapped: bool
) -> float:
    """Return the share of the target that the other image shows; `matrix`: reference to image."""
    of_image = stated or swapped
    onto = reference if of_image else image
    there = np.asarray(np.linalg.inv(matrix)) if of_image else matrix
    index = onto.to_index(_moved(there, points))
    inside = (index > -0.5) & (index < np.asarray(onto.shape) - 0.5)
    return float(inside.all(axis=1).mean())


def _in_units(sitk: Any, volume: Volume, dtype: Any) -> Any:
    """Return a volume as an image of the library, in LPS and units of HEAD_MM."""
    out = sitk.GetImageFromArray(np.ascontiguousarray(np.asarray(volume.data).T.astype(dtype)))
    affine = _RAS_LPS @ volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    out.SetSpacing((spacing / HEAD_MM).tolist())
    out.SetOrigin((affine[:3, 3] / HEAD_MM).tolist())
    out.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return out


def _orthogonal(matrix: Matrix) -> Matrix:
    """Return the rotation nearest to a matrix that round-off made nearly one."""
    u, _, v = np.linalg.svd(matrix)
    return np.asarray(u @ v)


def _moved(matrix: Matrix, points: Points) -> Points:
    return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])


def _largest(points: Points, change: Matrix) -> float:
    return float(np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1).max())


def _too_little(image: Volume, name: str, wanted: float, found: float | None = None) -> InputError:
    return InputError(
        f"The {name} image shares too little with the reference to be aligned with it.",
        file=image.path,
        expected=f"at least {wanted:.0%} of what is to be aligned",
        found="less, from any start" if found is None else f"{found:.0%}",
        remedy="check that both show the same head, and enough of it",
    )


def _simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingExtraError("SimpleITK", "register") from error
    return SimpleITK
