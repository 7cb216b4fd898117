"""Images of one patient brought to each other: rotation and shift only, by mutual information.

Found at 4 mm from the scanner's coordinates as they are, and where the centres of mass are far apart also from those
on each other; the better one is refined at 3 mm. Where nothing beats the coordinates as they are, they are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gliodil.data.registration.images import Mask, coarse, working_grid
from gliodil.data.registration.linear import Aligned, align, centres_of_mass
from gliodil.data.registration.transform import GridGeometry, Matrix, Transform
from gliodil.data.volume import Volume
from gliodil.errors import InputError

COARSE_MM, FINE_MM = 4.0, 3.0

NEAR_MM = 15.0
"""Distance of the centres of mass below which the coordinates as they are are the only start."""

SMALLEST_OVERLAP = 0.1
"""Share of the reference that an image must show under a start for it to be tried."""


@dataclass(frozen=True, eq=False)
class RigidMotion:
    """Where an image of the same head lies (fixed: reference, moving: the image), and how far it was off.

    Attributes
    ----------
    shift_mm
        Distance that the centre of the reference moves.
    angle_deg
        Rotation.
    """

    transform: Transform
    shift_mm: float
    angle_deg: float


def align_rigidly(reference: Volume, image: Volume, name: str = "image") -> RigidMotion:
    """Return the rigid motion that brings an image onto the reference.

    Parameters
    ----------
    reference, image
        Scalars of any contrasts and grids that show the same head.
    name
        Of the image, for messages.

    Raises
    ------
    InputError
        If an image is constant, or the two share too little.
    MissingExtraError
        If dipy is not installed.
    NumericsError
        If the images cannot be aligned.
    """
    fixed, moving = (_on_grid(volume, COARSE_MM, name) for volume in (reference, image))
    still = np.eye(4)
    found: list[Aligned] = []
    starts, centred = [still], centres_of_mass(fixed, moving)
    if np.linalg.norm(centred[:3, 3]) > NEAR_MM:
        starts.append(centred)
    for start in starts:
        seen = _seen(fixed, image, start)
        if np.count_nonzero(seen) >= SMALLEST_OVERLAP * seen.size:
            found.append(align(fixed, moving, start=start, freedom=("translation", "rigid"), keep=seen))
    if not found:
        raise InputError(
            f"The {name} image shares too little with the reference to be aligned with it.",
            file=image.path,
            expected=f"at least {SMALLEST_OVERLAP:.0%} of the reference",
            found="less, as the images lie and with their centres on each other",
            remedy="check that both show the same head",
        )
    best = max(found, key=lambda one: one.information)
    fixed, moving = (_on_grid(volume, FINE_MM, name) for volume in (reference, image))
    seen = _seen(fixed, image, best.matrix)
    best = align(fixed, moving, start=best.matrix, freedom=("rigid",), keep=seen, factors=(1,))
    before = align(fixed, moving, start=still, freedom=("rigid",), keep=seen, factors=(1,), iterations=0)
    matrix = best.matrix if best.information > before.information else still
    centre = reference.to_world((np.asarray(reference.shape) - 1) / 2)
    shift = matrix[:3, :3] @ centre + matrix[:3, 3] - centre
    angle = np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    transform = Transform(matrix, GridGeometry.of(reference), GridGeometry.of(image))
    return RigidMotion(transform, float(np.linalg.norm(shift)), float(angle))


def _on_grid(image: Volume, spacing_mm: float, name: str) -> Volume:
    """Return the image on a coarse grid around what is not air."""
    if not image.data.max() > image.data.min():
        raise InputError(
            f"The {name} image or its reference has one value only, so nothing can be aligned with it.",
            file=image.path,
            found=f"the value {float(image.data.flat[0]):.4g} everywhere",
            remedy="give another image",
        )
    low, high = np.percentile(image.data, (1.0, 99.5))
    head: Mask = np.asarray(image.data > low + 0.05 * (high - low))
    if not head.any():
        head = np.asarray(image.data > image.data.min())
    return coarse(image, working_grid(image, head, spacing_mm=spacing_mm))


def _seen(fixed: Volume, image: Volume, start: Matrix) -> Mask:
    """Return which cells of the fixed grid lie in the image's field of view under a start."""
    whole = image.with_data(np.ones(image.shape, np.uint8), kind="label")
    grids = GridGeometry.of(fixed), GridGeometry.of(image)
    return np.asarray(Transform(start, *grids).apply(whole, fixed).data > 0)
