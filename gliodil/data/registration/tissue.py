"""Tissue maps of a patient from the template's:

w, g: the template's white and grey matter, carried by the transform, inside the patient's brain B
c = B − w − g
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from gliodil.data.registration.transform import Transform
from gliodil.data.template import Anatomy
from gliodil.data.volume import Volume


def tissue_maps(transform: Transform, anatomy: Anatomy, brain: Volume) -> dict[str, Volume]:
    """Return `wm`, `gm` and `csf` on the grid of a brain mask (label volume): in [0, 1], summing to the brain."""
    inside = brain.data != 0
    maps = {}
    for role in ("wm", "gm"):
        carried = transform.apply(getattr(anatomy, role), brain).data
        maps[role] = np.where(inside, np.clip(carried, 0, 1), 0).astype(np.float32)
    maps["csf"] = np.clip(inside - maps["wm"] - maps["gm"], 0, 1).astype(np.float32)
    return {role: brain.with_data(data, kind="scalar") for role, data in maps.items()}


def carry_sheets(transform: Transform, sheets: Volume, onto: Volume) -> Volume:
    """Return a label volume of thin sheets (falx, tentorium) on a grid of the fixed space, without holes.

    Looking up the nearest voxel of a thin sheet leaves holes. The signed distance φ to a sheet (below 0 inside) is
    continuous, so it is carried instead, and a voxel takes the label where φ ≤ r. A sheet is at least one voxel of its
    own image thick, so with r = half the diagonal of the new voxels, as long as it gets in the template, less half
    that voxel, no step over a face, an edge or a corner crosses it.
    """
    thinnest = min(sheets.spacing)
    stretch = float(np.linalg.svd(transform.matrix[:3, :3], compute_uv=False)[0])
    reach = max(stretch * float(np.linalg.norm(onto.spacing)) / 2 - thinnest / 2, 0.0)
    nearest = np.full(onto.shape, np.inf, np.float32)
    labels = np.zeros(onto.shape, sheets.data.dtype)
    for label in np.unique(sheets.data[sheets.data != 0]):
        inside = sheets.data == label
        away = ndimage.distance_transform_edt(~inside, sampling=sheets.spacing)
        deep = ndimage.distance_transform_edt(inside, sampling=sheets.spacing)
        signed = np.where(inside, thinnest / 2 - deep, away - thinnest / 2)
        # Positions outside the template's image look up 0, which has to mean "far away".
        far = reach + 10.0
        closeness = sheets.with_data(np.maximum(far - signed, 0).astype(np.float32), kind="scalar")
        distance = far - transform.apply(closeness, onto).data
        closer = (distance <= reach) & (distance < nearest)
        labels[closer], nearest[closer] = label, distance[closer]
    return onto.with_data(labels, kind="label")
