"""What registration compares: images stripped of what is not brain, even in scale, on a coarse isotropic grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.affine import box_corners
from gliodil.data.label_geometry import bounding_box
from gliodil.data.volume import Volume
from gliodil.errors import InputError

Mask = NDArray[np.bool_]


def working_grid(reference: Volume, region: Mask, *, spacing_mm: float, margin_mm: float = 10.0) -> Volume:
    """Return an empty volume on an isotropic grid along the world's axes, around a region of `reference`."""
    box = bounding_box(region)
    corners = reference.to_world(box_corners([s.start - 0.5 for s in box], [s.stop - 0.5 for s in box]))
    low, high = corners.min(axis=0) - margin_mm, corners.max(axis=0) + margin_mm
    shape = np.ceil((high - low) / spacing_mm).astype(int)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * spacing_mm
    return Volume(np.zeros(shape, np.uint8), affine, kind="label")


def coarse(image: Volume, grid: Volume) -> Volume:
    """Return an image as scalars on a coarser isotropic grid, smoothed first: nothing finer than a cell is left.

    A cell of n voxels is about as wide as a Gaussian of sigma = 0.42 √(n² − 1) voxels.
    """
    cells = [max(grid.spacing[0] / s, 1.0) for s in image.spacing]
    smooth = ndimage.gaussian_filter(
        image.data.astype(np.float32), [0.42 * (n**2 - 1) ** 0.5 for n in cells], mode="nearest"
    )
    return image.with_data(smooth, kind="scalar").resample_to(grid)


def stripped(image: Volume, brain: Mask, name: str = "image") -> Volume:
    """Return the image in the brain, from 0.05 at its 1st to 1 at its 99.5th percentile there, and 0 outside.

    Dark tissue keeps a little signal, so that the brain's edge shows against the outside.

    Raises
    ------
    InputError
        If the image has no contrast in the brain.
    """
    data = image.data.astype(np.float32)
    low, high = np.percentile(data[brain], (1.0, 99.5)) if brain.any() else (0.0, 0.0)
    if not high > low:
        raise InputError(
            f"The {name} has no contrast in the brain, so nothing can be registered to it.",
            file=image.path,
            expected="an anatomical image that covers the brain",
            found=f"the value {low:.4g} in nearly every voxel of the brain",
            remedy="give another image, or tissue maps with --wm and --gm",
        )
    grey = 0.05 + 0.95 * np.clip((data - float(low)) / float(high - low), 0, 1)
    return image.with_data(np.where(brain, grey, 0).astype(np.float32), kind="scalar")
