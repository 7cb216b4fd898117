"""Segmentations on the slices of a CT with a tilted gantry: frames shifted sideways, one step like the other.

p_k = p_0 + k Δ        Δ the smallest step between two frames; frames in which nothing is drawn may be missing
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.objects import MisplacedError

TOLERANCE_MM = 0.1
"""How far a frame may be off the line of the others."""


def sheared_voxels(data: Any, number: int, largest: int) -> tuple[NDArray[Any], NDArray[np.float64]] | None:
    """Return the voxels (column, row, slice) of a segment and their affine to LPS; None if frames are in no line.

    Parameters
    ----------
    data
        A SEG as pydicom dataset.
    largest
        Voxels that may be asked for.
    """
    shared = data.SharedFunctionalGroupsSequence[0]
    groups = list(data.PerFrameFunctionalGroupsSequence)

    def macro(group: Any, keyword: str) -> Any:
        return (group if keyword in group else shared)[keyword][0]

    places = np.array([macro(g, "PlanePositionSequence").ImagePositionPatient for g in groups], np.float64)
    axes = np.array(
        [macro(g, "PlaneOrientationSequence").ImageOrientationPatient for g in groups], np.float64
    )
    rows, columns = (float(v) for v in macro(groups[0], "PixelMeasuresSequence").PixelSpacing)
    if np.abs(axes - axes[0]).max() > 1e-4:
        return None
    steps = axes[0].reshape(2, 3) * ((columns,), (rows,))
    normal = np.cross(axes[0, :3], axes[0, 3:])
    heights = places @ normal
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    apart = gaps[gaps > TOLERANCE_MM]
    first, last = places[order[0]], places[order[-1]]
    if apart.size == 0:
        return None
    count = round(float(heights[order[-1]] - heights[order[0]]) / float(apart.min()))
    step = (last - first) / count
    slices = np.rint((heights - heights[order[0]]) / float(step @ normal)).astype(int)
    if np.abs(places - first - slices[:, None] * step).max() > TOLERANCE_MM:
        return None
    shape = (int(data.Columns), int(data.Rows), count + 1)
    if np.prod([float(n) for n in shape]) > largest:
        return None
    kind = str(data.SegmentationType)
    pixels = np.asarray(data.pixel_array).reshape(len(groups), shape[1], shape[0])
    voxels = np.zeros(shape, np.float32 if kind == "FRACTIONAL" else np.uint8)
    scale = 1 / float(data.MaximumFractionalValue) if kind == "FRACTIONAL" else 1
    for frame, group, k in zip(pixels, groups, slices, strict=True):
        if kind == "LABELMAP":
            voxels[:, :, k] |= number == frame.T
            continue
        named = int(macro(group, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        if named == number:
            voxels[:, :, k] = np.maximum(voxels[:, :, k], frame.T * scale)
    if not np.isfinite(step).all():
        raise MisplacedError("frames that are nowhere")
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2], affine[:3, 3] = steps[0], steps[1], step, first
    return voxels, affine
