"""NIfTI files in and out. Reading takes the header at once and the voxels on first use."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import DTypeLike, NDArray

from gliodil.data.atomic import atomic_path
from gliodil.data.gate import Stream, check_file, open_stream, parsing
from gliodil.data.nifti_header import FORM_TOLERANCE_MM, corner_gap, image_affine, image_shape
from gliodil.data.volume import Kind, Volume
from gliodil.errors import ImageFileError, InputError

LARGEST_VOXELS = 1 << 28
"""Voxels of an image that is read: 645 along each axis."""
LARGEST_UNPACKED = 300_000_000
"""Bytes to which any compressed file may unpack; a larger one at most to `LARGEST_RATIO` times its size."""
LARGEST_RATIO = 100
_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}


def read_nifti(path: Path | str, *, kind: Kind) -> Volume:
    """Return the volume in a `.nii` or `.nii.gz` file; voxels are read on first access.

    Trailing singleton dimensions are dropped. Integers with slope and intercept become floats (scalar);
    float label maps become integers if they are integers. What is odd but usable stands in
    `Volume.notes`.

    Parameters
    ----------
    path
        NIfTI-1 or NIfTI-2 file.
    kind
        `"scalar"` or `"label"`.

    Raises
    ------
    ImageFileError
        If the file is missing, is not a NIfTI image, or is damaged (voxels: on first access).
    GeometryError
        If the image is not 3-D, or its header does not place it in space.
    InputError
        If a scalar map holds NaN or infinite values (on first access).
    LabelError
        If a label map holds fractions (on first access).
    """
    path = Path(path)
    stored = _read_header(path)
    with _refusing(path):
        shape = image_shape(stored.shape, path)
        affine, notes = image_affine(stored.header, shape, path)
    load = partial(_read_voxels, path, shape, kind)
    return Volume.lazy(load, shape=shape, affine=affine, kind=kind, path=path, notes=notes)


def write_nifti(volume: Volume, path: Path | str, *, dtype: DTypeLike | None = None) -> Path:
    """Write a volume as NIfTI-1: complete or not at all, and equal content gives equal bytes.

    Parameters
    ----------
    volume
        What to write.
    path
        Name ending in `.nii` or `.nii.gz`. Missing folders are created.
    dtype
        Type on disk. By default float32 for scalars, the smallest integer that holds all labels for labels.
        Integers are refused for scalars, because they would need rounding.

    Raises
    ------
    OutputError
        If the file cannot be written.
    ValueError
        If the name has another suffix, or the values do not fit `dtype`.
    """
    path = Path(path)
    if not is_nifti_name(path.name):
        raise ValueError(f"a NIfTI file name ends in .nii or .nii.gz, not {path.name!r}")
    data = _typed(volume, dtype)
    image = nib.Nifti1Image(data, volume.affine)
    header = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = b"gliodil"
    header["cal_min"] = min(0.0, float(data.min()))
    header["cal_max"] = max(0.0, float(data.max()))
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    # A qform cannot express shear; better none than one that contradicts the sform.
    if corner_gap(volume.affine, header.get_qform(), volume.shape) > FORM_TOLERANCE_MM:
        image.set_qform(None, code=0)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return path


def is_nifti_name(name: str) -> bool:
    """Whether a file name ends in `.nii` or `.nii.gz`, in any case."""
    return name.lower().endswith((".nii", ".nii.gz"))


@dataclass(frozen=True)
class _Stored:
    """What a header promises: the voxels, where they begin, and how they are scaled."""

    header: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float | None
    intercept: float | None


def _read_header(path: Path) -> _Stored:
    """Return what the header of a file promises, checked against what the file can hold."""
    size = check_file(path, expected="a NIfTI image", error=ImageFileError)
    with _refusing(path), open_stream(path, size) as stream:
        return _header_of(stream)


def _header_of(stream: Stream) -> _Stored:
    start = stream.read(4)
    kind = _HEADERS.get(min(int.from_bytes(start, "little"), int.from_bytes(start, "big")))
    if kind is None:
        raise ValueError("no NIfTI header")
    header = kind.from_fileobj(BytesIO(start + stream.read(kind.sizeof_hdr - 4)), check=True)
    if not bytes(header["magic"]).startswith(b"n+"):
        raise ValueError("a header without its image")
    dtype, shape = header.get_data_dtype(), tuple(int(n) for n in header.get_data_shape())
    if dtype.kind not in "iufb":
        raise ValueError("an image of colours or complex numbers")
    if dtype.itemsize > 8:
        raise ValueError(f"numbers of {8 * dtype.itemsize} bits")
    if not shape or min(shape) < 1:
        raise ValueError(f"shape {shape}")
    count, first = math.prod(shape), kind.sizeof_hdr + 4
    offset = max(int(header.get_data_offset()), first)
    promised = offset + count * dtype.itemsize
    if count > LARGEST_VOXELS:
        raise ValueError(f"{count:.3g} voxels; at most {LARGEST_VOXELS:.3g} are read")
    if promised > stream.longest:
        raise ValueError(
            f"{promised} bytes are promised, and the file cannot hold more than {stream.longest}"
        )
    if promised > LARGEST_UNPACKED and promised > LARGEST_RATIO * stream.size:
        raise ValueError(f"it unpacks to {promised / stream.size:.0f} times its size")
    slope, intercept = header.get_slope_inter()
    return _Stored(header, shape, dtype, offset, slope, intercept)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    with parsing(
        "The file is not a readable NIfTI image.",
        file=path,
        expected="NIfTI (.nii or .nii.gz)",
        remedy="convert or copy the image again",
        error=ImageFileError,
    ):
        yield


def _read_voxels(path: Path, shape: tuple[int, int, int], kind: Kind) -> NDArray[Any]:
    stored = _read_header(path)
    with parsing(
        "The file is damaged: its voxels end too early or go on, or its compressed data are broken.",
        file=path,
        expected=f"{math.prod(shape)} voxels",
        remedy="copy or download the file again",
        error=ImageFileError,
    ):
        data = _scaled(_raw(path, stored), stored, kind).reshape(shape)
    if kind == "scalar" and not np.isfinite(data).all():
        bad = int(np.count_nonzero(~np.isfinite(data)))
        raise InputError(
            "The image holds values that are not numbers.",
            file=path,
            expected="a number in every voxel",
            found=f"{bad} of {data.size} voxels are NaN or infinite",
            remedy="set those voxels to 0 if they are background; otherwise make the map again",
        )
    data = np.ascontiguousarray(data)
    data.flags.writeable = False
    return data


def _raw(path: Path, stored: _Stored) -> NDArray[Any]:
    """Return the voxels as stored, in Fortran order; to the end of the stream, where its checksum stands."""
    flat = np.empty(math.prod(stored.shape), stored.dtype)
    with open_stream(path, path.stat().st_size) as stream:
        stream.skip(stored.offset)
        if (there := stream.fill(flat.view(np.uint8))) < flat.nbytes:
            raise ValueError(f"{there} of {flat.nbytes} bytes")
        stream.finish()
    return flat.reshape(stored.shape, order="F")


def _scaled(raw: NDArray[Any], stored: _Stored, kind: Kind) -> NDArray[Any]:
    slope = 1.0 if stored.slope is None else stored.slope
    scaled = apply_read_scaling(raw, np.float64(slope), np.float64(stored.intercept or 0.0))
    if kind == "label":
        return np.asarray(scaled)
    native = stored.dtype.newbyteorder("=")
    exact_in_float32 = native.itemsize <= 2 or native == np.float32
    return np.asarray(scaled, np.float32 if exact_in_float32 else np.float64)


def _typed(volume: Volume, dtype: DTypeLike | None) -> NDArray[Any]:
    """Return the voxels in the type they are to have on disk."""
    data = volume.data
    if volume.kind == "scalar":
        target = np.dtype(np.float32 if dtype is None else dtype)
        if target.kind != "f":
            raise ValueError(f"scalar volumes are written as floats, not {target}")
        return data.astype(target)
    low, high = int(data.min()), int(data.max())
    if dtype is None:
        choices = (np.uint8, np.int8, np.int16, np.int32)
        dtype = next((t for t in choices if np.iinfo(t).min <= low and high <= np.iinfo(t).max), np.int64)
    target = np.dtype(dtype)
    if target.kind in "iu" and not (np.iinfo(target).min <= low and high <= np.iinfo(target).max):
        raise ValueError(f"labels from {low} to {high} do not fit {target}")
    return data.astype(target)
