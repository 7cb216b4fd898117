"""A rim whose middle carries no label is filled: what a tumour encloses belongs to it.

Segmentations of enhancement alone show a shell. Left open, its middle would count as healthy tissue: margins would be
laid inwards too, and the middle of the old tumour would pass for new tumour at follow-up. Enclosed is an unlabelled
voxel that the core surrounds

    in three dimensions, or within two of the three planes through it,

so that a rim with a gap is filled, except in its line of sight, while tissue that a tumour embraces in one plane only
is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.label_geometry import bounding_box
from gliodil.data.labels import LabelConvention
from gliodil.data.volume import Volume

NOTABLE_FRACTION = 1e-3
"""Share of the core below which filled specks are not worth a word."""


def enclosed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels that a 3-D mask encloses and does not contain."""
    found = np.zeros_like(mask)
    if not mask.any():
        return found
    box = bounding_box(mask)
    inside = mask[box]
    planes = np.zeros(inside.shape, np.uint8)
    for axis in range(3):
        across = np.moveaxis(planes, axis, 0)
        for plane, filled in zip(np.moveaxis(inside, axis, 0), across, strict=True):
            filled += ndimage.binary_fill_holes(plane)
    found[box] = (ndimage.binary_fill_holes(inside) | (planes >= 2)) & ~inside
    return found


def fill_rims(segmentation: Volume, convention: LabelConvention) -> tuple[Volume, tuple[str, ...]]:
    """Return a segmentation in which what the core encloses without a label is necrotic core, and what to say of it.

    Where the convention has no necrosis, it is core like the rest.
    """
    core = segmentation.mask(convention.enhancing + convention.necrotic)
    # A resection cavity is a middle with a name of its own.
    bare = enclosed(core) & (segmentation.data == 0)
    if not bare.any():
        return segmentation, ()
    label = (convention.necrotic or convention.enhancing)[0]
    filled = segmentation.with_data(np.where(bare, label, segmentation.data).astype(segmentation.data.dtype))
    if np.count_nonzero(bare) < NOTABLE_FRACTION * np.count_nonzero(core):
        return filled, ()
    ml, of_ml = (np.count_nonzero(m) * segmentation.voxel_volume_ml for m in (bare, core))
    return filled, (
        f"labels: {ml:.1f} mL that the core ({of_ml:.1f} mL) encloses carry no label; they are read as its middle",
    )
