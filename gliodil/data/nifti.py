"""NIfTI files in and out. Reading takes the header at once and the voxels on first use."""

from __future__ import annotations

import gzip
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError as NibabelFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import DTypeLike, NDArray

from gliodil.data.atomic import atomic_path
from gliodil.data.nifti_header import FORM_TOLERANCE_MM, corner_gap, image_affine, image_shape
from gliodil.data.volume import Kind, Volume
from gliodil.errors import ImageFileError, InputError

# What reading a damaged file can raise: truncated or corrupt gzip, short files, nonsense headers.
_DAMAGE = (OSError, EOFError, ValueError, OverflowError, zlib.error, HeaderDataError)


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
    image = _open(path)
    shape = image_shape(image.shape, path)
    affine, notes = image_affine(image.header, shape, path)
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


def _open(path: Path) -> Any:
    if not path.is_file():
        raise ImageFileError(
            "The file does not exist." if not path.exists() else "This is a folder, not an image file.",
            file=path,
            expected="a NIfTI image",
            remedy="check the path",
        )
    try:
        image = nib.load(path, mmap=False)
    except (*_DAMAGE, NibabelFileError) as error:
        raise _not_an_image(path, str(error)) from error
    if not isinstance(image, nib.Nifti1Image):
        raise _not_an_image(path, f"a {type(image).__name__}")
    kind = image.get_data_dtype().kind
    if kind not in "iufb":
        raise _not_an_image(path, "an image of colours or complex numbers")
    return image


def _not_an_image(path: Path, found: str) -> ImageFileError:
    return ImageFileError(
        "The file is not a readable NIfTI image.",
        file=path,
        expected="NIfTI (.nii or .nii.gz)",
        found=found,
        remedy="convert or copy the image again",
    )


def _read_voxels(path: Path, shape: tuple[int, int, int], kind: Kind) -> NDArray[Any]:
    image = _open(path)
    stored = image.get_data_dtype().newbyteorder("=")
    try:
        if path.name.lower().endswith(".gz"):
            # To the end of the stream, where its checksum stands: damage inside would pass otherwise.
            with gzip.open(path) as stream:
                image = type(image).from_bytes(stream.read())
        if kind == "label":
            data = np.asanyarray(image.dataobj)
        else:
            exact_in_float32 = stored.itemsize <= 2 or stored == np.float32
            data = image.get_fdata(dtype=np.float32 if exact_in_float32 else np.float64, caching="unchanged")
    except _DAMAGE as error:
        raise ImageFileError(
            "The file is damaged: it ends before its last voxel, or its compressed data are broken.",
            file=path,
            expected=f"{int(np.prod(shape))} voxels",
            found=str(error),
            remedy="copy or download the file again",
        ) from error
    data = data.reshape(shape)
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
