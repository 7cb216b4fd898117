"""Voxel values: labels are integers, scalars are float32 or float64, and nobody can write to either."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gliodil.errors import GeometryError, LabelError

Kind = Literal["scalar", "label"]

INTEGRALITY_TOLERANCE = 1e-3
"""Largest distance to the next integer that a label stored as a float may have."""


def integral(data: NDArray[Any], path: Path | None = None) -> NDArray[Any]:
    """Return labels as integers; refuse values that lie between integers (labels resampled linearly)."""
    if data.dtype == np.bool_:
        return data.astype(np.uint8)
    if np.issubdtype(data.dtype, np.integer):
        return data
    if not np.issubdtype(data.dtype, np.floating):
        raise LabelError("A label map must hold numbers.", file=path, found=str(data.dtype))
    rounded: NDArray[Any] = np.rint(data)
    low, high = float(rounded.min(initial=0)), float(rounded.max(initial=0))
    # NaN and infinity spread to the extremes, so that clean maps need no further look at each voxel.
    if not np.isfinite([low, high]).all():
        bad = int(np.count_nonzero(~np.isfinite(data)))
        raise LabelError(
            "The label map holds values that are not numbers.",
            file=path,
            expected="integers",
            found=f"{bad} voxels are NaN or infinite",
            remedy="set those voxels to 0",
        )
    if not np.array_equal(data, rounded) and (off := np.abs(data - rounded) > INTEGRALITY_TOLERANCE).any():
        examples = ", ".join(f"{value:.4g}" for value in np.unique(data[off])[:4])
        raise LabelError(
            "The label map holds fractions: it looks as if it was resampled linearly.",
            file=path,
            expected="integers",
            found=f"{int(off.sum())} voxels between integers, such as {examples}",
            remedy="resample the original label map with nearest-neighbour interpolation",
        )
    return rounded.astype(np.int16 if low >= -32768 and high <= 32767 else np.int64)


def freeze(array: NDArray[Any], kind: Kind, path: Path | None) -> NDArray[Any]:
    """Return the array in the type of its kind, C-ordered and read-only."""
    typed: NDArray[Any]
    array = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if kind == "label":
        typed = integral(array, path)
    elif array.dtype in (np.float32, np.float64):
        typed = array
    elif np.issubdtype(array.dtype, np.complexfloating) or not (
        np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_
    ):
        raise GeometryError("A scalar volume must hold real numbers.", file=path, found=str(array.dtype))
    else:
        wide = np.result_type(array.dtype, np.float32)
        typed = array.astype(wide if wide in (np.float32, np.float64) else np.float64)
    # A caller may go on writing to the array it handed in; what nobody can write to needs no copy.
    shared = typed is array and array.flags.writeable
    frozen: NDArray[Any] = np.array(typed, order="C", copy=True) if shared else np.asarray(typed, order="C")
    frozen.flags.writeable = False
    return frozen
