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

    Nearest-neighbour look-up of a sheet one voxel thick leaves holes. The distance to each sheet is continuous, so
    it is carried instead: voxels within half a voxel diagonal of the sheet carry its label, and no path over faces,
    edges or corners slips through.
    """
    reach = float(np.linalg.norm(onto.spacing)) / 2
    nearest = np.full(onto.shape, np.inf, np.float32)
    labels = np.zeros(onto.shape, sheets.data.dtype)
    for label in np.unique(sheets.data[sheets.data != 0]):
        away = ndimage.distance_transform_edt(sheets.data != label, sampling=sheets.spacing)
        # Outside the template's image a distance of 0 would mean a sheet; its complement means none.
        closeness = np.maximum(2 * reach + 10 - away, 0).astype(np.float32)
        distance = 2 * reach + 10 - transform.apply(sheets.with_data(closeness, kind="scalar"), onto).data
        closer = (distance <= reach) & (distance < nearest)
        labels[closer], nearest[closer] = label, distance[closer]
    return onto.with_data(labels, kind="label")
