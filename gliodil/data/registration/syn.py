"""Symmetric normalisation (SyN, Avants et al. 2008, as in dipy) by local cross-correlation.

Fixed and moving image are both warped to a middle until they correlate in every window of 9³ cells. Where the fixed
image is not to be believed (a lesion that the template does not have) its forces can be left out: the displacement
there then follows from the smoothing alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from gliodil.data.registration.images import Mask
from gliodil.data.registration.transform import Matrix, Warp
from gliodil.data.volume import Volume
from gliodil.errors import MissingExtraError, NumericsError

RADIUS = 4
"""Half-width of the windows, cells."""

SMOOTHING = 2.0
"""Sigma of the Gaussian that smooths each step, cells."""


def syn(
    fixed: Volume,
    moving: Volume,
    *,
    start: Matrix,
    iterations: Sequence[int],
    keep: Mask | None = None,
) -> Warp:
    """Return the displacement fields, on the fixed grid, that follow the affine map `start`.

    Parameters
    ----------
    fixed, moving
        Scalars on coarse grids.
    start
        World mm of the fixed to world mm of the moving image.
    iterations
        At each level, coarsest first; a level has half the cells of the next along each axis. Levels with too few
        cells for a window are left out.
    keep
        Where the fixed image acts; everywhere by default.

    Raises
    ------
    MissingExtraError
        If dipy is not installed.
    NumericsError
        If the grid is too small.
    """
    try:
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration
    except ImportError as error:
        raise MissingExtraError("dipy", "register") from error
    metric = _cross_correlation(fixed, keep)
    levels = [
        count
        for coarser, count in zip(reversed(range(len(iterations))), iterations, strict=True)
        if min(*fixed.shape, *moving.shape) >> coarser > 2 * RADIUS
    ]
    if not levels:
        raise NumericsError(
            "The image has too few voxels for the template to be registered to it.",
            expected=f"a brain of more than {2 * RADIUS} voxels along each axis",
            found=f"{' x '.join(map(str, fixed.shape))} cells around the brain",
            remedy="give tissue maps with --wm FILE and --gm FILE",
        )
    search = SymmetricDiffeomorphicRegistration(metric, level_iters=levels)
    search.verbosity = 0
    found = search.optimize(
        np.array(fixed.data, np.float32),
        np.array(moving.data, np.float32),
        static_grid2world=np.array(fixed.affine),
        moving_grid2world=np.array(moving.affine),
        prealign=np.array(start),
    )
    return Warp(np.asarray(found.get_forward_field()), np.asarray(found.get_backward_field()), fixed.affine)


def _cross_correlation(fixed: Volume, keep: Mask | None) -> Any:
    """Return dipy's metric, with its forces weighted by the mask if there is one."""
    from dipy.align.metrics import CCMetric

    if keep is None:
        return CCMetric(3, sigma_diff=SMOOTHING, radius=RADIUS)
    weight = keep.astype(np.float32)
    to_index = np.linalg.inv(fixed.affine)

    class Masked(CCMetric):  # type: ignore[misc]
        """Cross-correlation whose forces vanish where the fixed image is masked, wherever it is warped to."""

        def use_static_image_dynamics(self, original_static_image: Any, transformation: Any) -> None:
            self.weight = transformation.inverse().transform_inverse(
                weight,
                image_world2grid=to_index,
                out_shape=np.array(self.static_image.shape, np.int32),
                out_grid2world=self.static_affine,
            )

        def compute_forward(self) -> Any:
            step = self.compute_forward_step(self.gradient_static, self.factors, self.radius)
            return self.smoothed(*step)

        def compute_backward(self) -> Any:
            step = self.compute_backward_step(self.gradient_moving, self.factors, self.radius)
            return self.smoothed(*step)

        def smoothed(self, step: Any, energy: float) -> Any:
            self.energy = energy
            forces = np.asarray(step) * np.asarray(self.weight)[..., None]
            return np.stack([ndimage.gaussian_filter(forces[..., k], self.sigma_diff) for k in range(3)], -1)

    return Masked(3, sigma_diff=SMOOTHING, radius=RADIUS)
