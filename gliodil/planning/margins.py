"""The margin a CTV grants: per voxel, and summarised in the patient's directions.

Distance is that of `distance.py`: from the nearest voxel centre of the GTV, in mm. For the standard plan the
margin at the boundary is therefore the rule's margin, less what falls between two voxels.

Summary, over the boundary voxels of the CTV (those with a face neighbour outside it) that do not lie on the
edge of the brain mask, because there the anatomy and not the plan sets the margin:

    mean, min, max    of their distance from the GTV (0 where the boundary runs inside the GTV)
    left, right, ...  mean distance of those that lie within 30 degrees of that direction, as seen from their
                      nearest GTV voxel; None if there are none
    left_min, left_max, ...  smallest and largest distance of the same

Directions are the patient's, through the affine (world RAS+: left is -x, anterior +y, superior +z).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from gliodil.planning.distance import Mask, boundary, bounding_box

DIRECTIONS = {
    "left": (-1, 0, 0),
    "right": (1, 0, 0),
    "anterior": (0, 1, 0),
    "posterior": (0, -1, 0),
    "superior": (0, 0, 1),
    "inferior": (0, 0, -1),
}
"""Unit vectors in world coordinates (RAS+)."""

HALF_ANGLE_DEGREES = 30.0
"""Half opening angle of the cone that counts as one direction."""


def margin_map(ctv: Mask, gtv: Mask, gtv_distance: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the distance from the GTV [mm] for voxels of the CTV outside the GTV, and 0 elsewhere.

    Parameters
    ----------
    ctv, gtv
        3-D masks.
    gtv_distance
        Distance from the GTV [mm], finite in the CTV.
    """
    return np.where(ctv & ~gtv, gtv_distance, 0.0).astype(np.float32)


def margin_summary(ctv: Mask, gtv: Mask, brain: Mask, affine: ArrayLike) -> dict[str, float | None]:
    """Return the margins of a CTV [mm]; definitions at the head of the file.

    Parameters
    ----------
    ctv, gtv, brain
        3-D masks; `ctv` and `gtv` not empty.
    affine
        4x4, voxel index to world mm (RAS+).

    Returns
    -------
    dict
        Keys `mean`, `min`, `max`, `left`, `right`, `anterior`, `posterior`, `superior`, `inferior`, then for each
        of these `left_min`, `left_max`, ...; None where no boundary voxel counts.
    """
    edge = _boundary_indices(ctv, within=brain)
    if len(edge) == 0:
        ranges = (f"{name}_{end}" for name in DIRECTIONS for end in ("min", "max"))
        return dict.fromkeys(("mean", "min", "max", *DIRECTIONS, *ranges))
    matrix = np.asarray(affine, np.float64)[:3, :3]
    # Seen from outside, the nearest voxel of the GTV is on its boundary. The origin cancels in differences.
    shell = _boundary_indices(gtv) @ matrix.T
    distance, nearest = cKDTree(shell).query(edge @ matrix.T)
    offset = edge @ matrix.T - shell[nearest]
    distance[gtv[tuple(edge.T)]] = 0.0

    summary: dict[str, float | None] = {
        "mean": float(distance.mean()),
        "min": float(distance.min()),
        "max": float(distance.max()),
    }
    ends: dict[str, float | None] = {}
    cosine = np.cos(np.radians(HALF_ANGLE_DEGREES))
    for name, direction in DIRECTIONS.items():
        there = distance[(distance > 0) & (offset @ np.array(direction, float) >= cosine * distance)]
        summary[name] = float(there.mean()) if there.size else None
        ends[f"{name}_min"] = float(there.min()) if there.size else None
        ends[f"{name}_max"] = float(there.max()) if there.size else None
    return summary | ends


def _boundary_indices(mask: Mask, *, within: Mask | None = None) -> NDArray[np.intp]:
    """Return the boundary voxels of `mask`, less those on the boundary of `within`, as indices (n, 3)."""
    box = bounding_box(mask, pad=(1, 1, 1))
    edge = boundary(mask[box])
    if within is not None:
        edge &= ~boundary(within[box])
    return np.asarray(np.argwhere(edge) + [side.start for side in box], np.intp)
