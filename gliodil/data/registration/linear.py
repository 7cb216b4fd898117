"""Rigid and affine alignment by mutual information (Mattes et al. 2003, as in dipy).

    I(A) = Σ_ij p_ij log(p_ij / (p_i p_j)),    p: joint histogram of the fixed image and the moving one seen through A

Every voxel is used, so equal input gives equal output. The search runs in coordinates about the images' centres and
in units of HEAD_MM: a radian and a unit of shift then move a head about as far, and turning does not shift it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gliodil.data.registration.images import Mask
from gliodil.data.registration.transform import Matrix
from gliodil.data.volume import Volume
from gliodil.errors import MissingExtraError, NumericsError

Freedom = Literal["translation", "rigid", "affine"]

BINS = 32

HEAD_MM = 70.0
"""Distance of a brain's surface from its centre, about."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """An affine map, fixed to moving world mm, and the mutual information it reaches (nats)."""

    matrix: Matrix
    information: float


def align(
    fixed: Volume,
    moving: Volume,
    *,
    start: Matrix,
    freedom: Sequence[Freedom],
    keep: Mask | None = None,
    factors: Sequence[int] = (2, 1),
    iterations: int = 100,
) -> Aligned:
    """Return the map of the last freedom, each one started from the one before.

    Parameters
    ----------
    fixed, moving
        Scalars on coarse grids.
    start
        World mm of the fixed to world mm of the moving image.
    keep
        Where the fixed image counts; everywhere by default.
    factors
        How much coarser than the fixed grid each level is.
    iterations
        Evaluations at each level, at most.

    Raises
    ------
    MissingExtraError
        If dipy is not installed.
    NumericsError
        If the images cannot be aligned.
    """
    try:
        from dipy.align import imaffine, transforms
    except ImportError as error:
        raise MissingExtraError("dipy", "register") from error
    kinds: dict[Freedom, Any] = {
        "translation": transforms.TranslationTransform3D,
        "rigid": transforms.RigidTransform3D,
        "affine": transforms.AffineTransform3D,
    }
    search = imaffine.AffineRegistration(
        metric=imaffine.MutualInformationMetric(nbins=BINS),
        level_iters=[iterations] * len(factors),
        factors=list(factors),
        sigmas=[0.5 * f for f in factors],
        verbosity=0,
    )
    centre = fixed.to_world((np.asarray(fixed.shape) - 1) / 2)
    own, other = _unit(centre), _unit(start[:3, :3] @ centre + start[:3, 3])
    matrix, information = other @ start @ np.linalg.inv(own), float("nan")
    for name in freedom:
        try:
            found, _, cost = search.optimize(
                np.array(fixed.data, np.float64),
                np.array(moving.data, np.float64),
                kinds[name](),
                None,
                static_grid2world=own @ fixed.affine,
                moving_grid2world=other @ moving.affine,
                starting_affine=matrix,
                ret_metric=True,
                static_mask=None if keep is None else keep.astype(np.int32),
            )
        except (imaffine.AffineInversionError, imaffine.AffineInvalidValuesError) as error:
            raise _lost(str(error)) from error
        matrix, information = np.asarray(found.affine, np.float64), -float(cost)
        if not (np.isfinite(matrix).all() and np.isfinite(information)):
            raise _lost("a map that is not finite")
    return Aligned(np.linalg.inv(other) @ matrix @ own, information)


def _unit(centre: Any) -> Matrix:
    """Return the map from world mm to coordinates about a centre, in units of HEAD_MM."""
    matrix = np.eye(4)
    matrix[:3, 3] = -centre
    return np.diag([1 / HEAD_MM] * 3 + [1.0]) @ matrix


def centres_of_mass(fixed: Volume, moving: Volume) -> Matrix:
    """Return the translation that takes the brightness-weighted centre of one image to that of the other."""
    matrix = np.eye(4)
    matrix[:3, 3] = _centre(moving) - _centre(fixed)
    return matrix


def _centre(image: Volume) -> Any:
    weight = np.maximum(image.data - image.data.min(), 0).astype(np.float64)
    axes = [weight.sum(axis=tuple(k for k in range(3) if k != axis)) for axis in range(3)]
    return image.to_world([float((a * np.arange(len(a))).sum() / a.sum()) for a in axes])


def _lost(found: str) -> NumericsError:
    return NumericsError(
        "The images could not be aligned.",
        expected="two images of one head, or of a head and the template",
        found=found,
        remedy="check that the images show the same region; or give tissue maps with --wm and --gm",
    )
