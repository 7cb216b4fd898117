"""Two images of one head brought to each other: rotation and shift only, by mutual information.

    I(A) = Σ_ij p_ij log(p_ij / (p_i p_j)),    p: joint histogram of one image and the other seen through A

(Mattes et al. 2003, as in SimpleITK), over the cells that both show under the present A. The image that shows less of
the head is the fixed one: cells of the other that it cannot show would pull. Coordinates are in units of 70 mm, so
that a radian and a unit of shift move a head about as far, and L-BFGS needs no other scales (``pose_search``).

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

from gliodil.data.frames import Link
from gliodil.data.registration.pose_search import FINEST_MM, Head, Level, Points, moved, orthogonal
from gliodil.data.registration.transform import GridGeometry, Matrix, Transform
from gliodil.data.volume import Volume
from gliodil.errors import InputError, MissingExtraError, NumericsError

COARSE_MM, MIDDLE_MM = 8.0, 4.0
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
    heads = [Head(volume, name) for volume in (reference, image)]
    # The first of the pair is fixed; `swapped`: that is the image.
    swapped = heads[1].volume_ml < heads[0].volume_ml
    pair = (heads[1], heads[0]) if swapped else (heads[0], heads[1])
    # Cells finer than the voxels of either show nothing more.
    fine_mm = min(MIDDLE_MM, max(FINEST_MM, *(min(volume.spacing) for volume in (reference, image))))
    levels = {mm: Level(sitk, *pair, mm) for mm in {COARSE_MM, MIDDLE_MM, fine_mm}}
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
        centre = moved(np.asarray(np.linalg.inv(matrix)), centre)
    shift = float(np.linalg.norm(moved(matrix, centre) - centre))
    angle = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    transform = Transform(matrix, GridGeometry.of(reference), GridGeometry.of(image))
    return RigidMotion(transform, shift, angle, spread, overlap)


def _starts(fixed: Head, moving: Head) -> list[Matrix]:
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


def _mean(maps: list[Matrix], centre: Points) -> Matrix:
    """Return the mean of rigid maps: the rotation nearest to the mean of theirs, about where they put the centre."""
    matrix = np.eye(4)
    matrix[:3, :3] = orthogonal(np.mean([one[:3, :3] for one in maps], axis=0))
    matrix[:3, 3] = np.mean([moved(one, centre) for one in maps], axis=0) - matrix[:3, :3] @ centre
    return matrix


def _overlap(
    reference: Volume, image: Volume, matrix: Matrix, points: Points, stated: bool, swapped: bool
) -> float:
    """Return the share of the target that the other image shows; `matrix`: reference to image."""
    of_image = stated or swapped
    onto = reference if of_image else image
    there = np.asarray(np.linalg.inv(matrix)) if of_image else matrix
    index = onto.to_index(moved(there, points))
    inside = (index > -0.5) & (index < np.asarray(onto.shape) - 0.5)
    return float(inside.all(axis=1).mean())


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
