"""How close an estimated density comes to a known one.

With the estimate u, the truth u* and sums over the voxels of their common grid:

    relative_l2          √(Σ (u − u*)²) / √(Σ u*²)
    dice_at_θ            2 |{u > θ} ∩ {u* > θ}| / (|{u > θ}| + |{u* > θ}|),     θ = 0.1, 0.01
    rmse_outside_visible √(mean (u − u*)²) over the voxels outside the visible tumour, up to 20 mm from it

The last one asks what an estimate adds to the scan: its region depends on the visible tumour alone, so that
two estimates are compared on the same voxels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.label_geometry import bounding_box
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError

LEVELS = (0.1, 0.01)

SURROUNDINGS_MM = 20.0
"""How far around the visible tumour `rmse_outside_visible` looks."""


def score(density: Volume, truth: Volume, visible: NDArray[np.bool_]) -> dict[str, float | None]:
    """Return the scores of a density against the truth.

    Parameters
    ----------
    density, truth
        Tumour-cell densities in [0, 1] on the same grid.
    visible
        The segmented tumour, of the same shape.

    Returns
    -------
    `relative_l2` (0 is perfect), `dice_at_0.1` and `dice_at_0.01` (1 is perfect) and `rmse_outside_visible`
    (0 is perfect), defined at the top of this file; None where a score is not defined: no truth, nothing
    above the level in either, nothing visible.

    Raises
    ------
    GeometryError
        If the three do not lie on one grid.
    """
    if not density.same_grid(truth) or visible.shape != truth.shape:
        raise GeometryError(
            "The density and the truth do not lie on one grid.",
            file=truth.path,
            expected=repr(truth),
            found=f"{density!r}, visible tumour of shape {visible.shape}",
            remedy="resample the truth with Volume.resample_to(density)",
        )
    u, known = density.data.astype(np.float64), truth.data.astype(np.float64)
    size = float(np.linalg.norm(known))
    around = _surroundings(visible, truth.spacing)
    return {
        "relative_l2": float(np.linalg.norm(u - known)) / size if size > 0 else None,
        **{f"dice_at_{level:g}": _dice(u > level, known > level) for level in LEVELS},
        "rmse_outside_visible": (
            float(np.sqrt(np.mean((u[around] - known[around]) ** 2))) if around.any() else None
        ),
    }


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float | None:
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / total if total else None


def _surroundings(visible: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Return the voxels outside `visible` whose centres lie within 20 mm of one of its centres."""
    around = np.zeros(visible.shape, dtype=bool)
    if not visible.any():
        return around
    pad = [int(np.ceil(SURROUNDINGS_MM / h)) for h in spacing]
    box = tuple(
        slice(max(s.start - p, 0), s.stop + p) for s, p in zip(bounding_box(visible), pad, strict=True)
    )
    distance = ndimage.distance_transform_edt(~visible[box], sampling=spacing)
    around[box] = (distance > 0) & (distance <= SURROUNDINGS_MM)
    return around
