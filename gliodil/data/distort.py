"""Smooth random fields, and what they do to images: carry them elsewhere, move the boundaries of masks.

noise      q = G_σ * white noise, standard deviation 1 (over the image);  σ = FWHM / 2.355
carried    v'(x) = v(x + d(x)),  d a displacement in mm along the array's axes
shifted    {x : s(x) < n(x)},  s the signed distance to a mask's boundary (negative inside), n a shift, both in mm
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.label_geometry import bounding_box

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

CLEAR_MM = 15.0
"""From this depth below the brain's surface a push is whole."""

Spacing = tuple[float, float, float]
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]


def blurred_noise(
    rng: np.random.Generator, shape: Sequence[int], spacing: Spacing, sigma_mm: float
) -> NDArray[np.float64]:
    """Return noise smoothed by a Gaussian; drawn on voxels of a third of its width, so that size hardly costs."""
    step = [max(1, int(sigma_mm / 3 / h)) for h in spacing]
    coarse_shape = [-(-n // s) + 1 for n, s in zip(shape, step, strict=True)]
    sigma = [sigma_mm / (h * s) for h, s in zip(spacing, step, strict=True)]
    coarse = ndimage.gaussian_filter(rng.standard_normal(coarse_shape), sigma)
    scale = np.diag([1 / s for s in step])
    return np.asarray(
        ndimage.affine_transform(coarse, scale, output_shape=tuple(shape), order=1, mode="nearest")
    )


def smooth_field(rng: np.random.Generator, shape: Sequence[int], spacing: Spacing, fwhm_mm: float) -> Field:
    """Return smooth noise of mean 0 and standard deviation 1; full width at half maximum of its blur in mm."""
    field = blurred_noise(rng, shape, spacing, fwhm_mm / FWHM_PER_SIGMA)
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def carried(image: NDArray[Any], displacement_mm: Field, spacing: Spacing) -> Field:
    """Return image(x + d(x)), linearly; beyond the image its border goes on.

    Parameters
    ----------
    image
        3-D.
    displacement_mm
        d, shape (3, ...), along the array's axes.
    spacing
        Voxel spacing [mm].
    """
    position = [
        np.arange(n, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)]) + d / np.float32(h)
        for axis, (n, d, h) in enumerate(zip(image.shape, displacement_mm, spacing, strict=True))
    ]
    found = ndimage.map_coordinates(image.astype(np.float32), np.stack(position), order=1, mode="nearest")
    return np.asarray(found, np.float32)


def mass_effect(core: Mask, brain: Mask, largest_mm: float, spacing: Spacing) -> Field:
    """Return the displacement d of x + d(x), where tissue at x came from [mm], around a core that is not empty."""
    voxels = np.argwhere(core)
    radius = (3 * len(voxels) * math.prod(spacing) / (4 * math.pi)) ** (1 / 3)
    away = np.stack(
        np.meshgrid(
            *(
                (np.arange(n, dtype=np.float32) - np.float32(c)) * np.float32(h)
                for n, c, h in zip(core.shape, voxels.mean(axis=0), spacing, strict=True)
            ),
            indexing="ij",
        )
    )
    distance = np.maximum(np.sqrt((away**2).sum(axis=0)), 1e-3)
    depth = ndimage.distance_transform_edt(brain, sampling=spacing)
    pull = largest_mm * np.exp(-0.5 * (np.maximum(distance - radius, 0) / radius) ** 2)
    pull = np.minimum(pull, 0.6 * distance) * np.minimum(depth / CLEAR_MM, 1)
    return np.asarray(-away * (pull / distance), np.float32)


def signed_distance(mask: Mask, spacing: Spacing) -> Field:
    """Return the distance to the boundary of a mask, half-way between voxels [mm]; negative inside.

    The mask must not be empty; where it has no outside, the distance is that to the image's border.
    """
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    half = np.float32(sum(spacing) / 6)
    return np.asarray(np.where(mask, half - inside, outside - half), np.float32)


def shifted(mask: Mask, shift_mm: Field, spacing: Spacing) -> Mask:
    """Return the mask with its boundary moved outwards by a shift that varies in space [mm]."""
    moved = np.zeros(mask.shape, bool)
    if not mask.any():
        return moved
    pad = [math.ceil(max(float(shift_mm.max()), 0.0) / h) + 1 for h in spacing]
    box = tuple(slice(max(s.start - p, 0), s.stop + p) for s, p in zip(bounding_box(mask), pad, strict=True))
    moved[box] = signed_distance(mask[box], spacing) < shift_mm[box]
    return moved
