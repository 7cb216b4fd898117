"""Slices left out of a structure, between slices that show it.

Whoever contours every other slice, or forgets one, means the body in between too. A gap of n slices between slices a and
b is filled where the sections on both sides are one body: they share at least half of the smaller one, and the gap is no
higher than a limit. The section at the fraction f of the way is where

    (1 − f) sₐ(x) + f s_b(x) ≤ 0        s: signed distance to the section's outline [mm], negative inside

(shape-based interpolation). Other gaps separate two bodies, and stay.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SHARED = 0.5
"""Part of the smaller section that both sides of a gap must share to be one body."""

Mask = NDArray[np.bool_]


def bridge(mask: NDArray[np.uint8], spacing: tuple[float, float, float], limit_mm: float) -> list[str]:
    """Fill gaps along the last axis of a mask, in place; return what was done and what was left, in words.

    Parameters
    ----------
    mask
        0 or 1, shape (columns, rows, slices).
    spacing
        Distances between its voxels [mm].
    limit_mm
        Height of the missing slices up to which a gap is filled.
    """
    drawn = np.flatnonzero(mask.any(axis=(0, 1)))
    filled, left = [], []
    for low, high in pairwise(map(int, drawn)):
        missing = high - low - 1
        if not missing:
            continue
        below, above = mask[:, :, low] != 0, mask[:, :, high] != 0
        smaller = min(np.count_nonzero(below), np.count_nonzero(above))
        if np.count_nonzero(below & above) < SHARED * smaller:
            continue
        if missing * spacing[2] > limit_mm:
            left.append(f"{missing} slices in a row from slice {low + 2} on")
            continue
        filled += list(range(low + 1, high))
        depths = [_signed_mm(section, spacing[:2]) for section in (below, above)]
        for k in range(low + 1, high):
            f = (k - low) / (high - low)
            mask[:, :, k] = (1 - f) * depths[0] + f * depths[1] <= 0
    notes = []
    if filled:
        shown = ", ".join(str(k + 1) for k in filled[:8]) + (", ..." if len(filled) > 8 else "")
        notes.append(f"has no contour on {len(filled)} slices between others ({shown}); interpolated there")
    if left:
        notes.append(f"has no contour on {', '.join(left)}, too many to interpolate: read as two bodies")
    return notes


def _signed_mm(section: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Return the signed distance [mm] from a section that is neither empty nor everything."""
    outside = ndimage.distance_transform_edt(~section, sampling=spacing)
    return np.asarray(outside - ndimage.distance_transform_edt(section, sampling=spacing))
