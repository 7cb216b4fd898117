"""The voxels of a series: pixels decoded by pydicom, times the rescale slope, plus the intercept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.frames import Frame
from gliodil.data.dicom.headers import damaged, open_dicom, quietly, require_pydicom
from gliodil.errors import ImageFileError, InputError


class MissingDecoderError(ImageFileError):
    """Pixels are compressed, and nothing installed reads them."""


def read_voxels(frames: Sequence[Frame], factor: float, name: str) -> NDArray[Any]:
    """Return the voxels of ordered frames, shape (columns, rows, slices).

    float32 where that holds the stored values exactly (16 bits or fewer), else float64.

    Raises
    ------
    ImageFileError
        If pixels are missing, damaged, or compressed in a way that cannot be read.
    InputError
        If values are not finite.
    """
    voxels: NDArray[Any] | None = None
    decoded: tuple[Path | None, NDArray[Any]] = (None, np.empty(0))
    for k, frame in enumerate(frames):
        if decoded[0] != frame.path:
            decoded = frame.path, _pixels(frame, name)
        plane = decoded[1][frame.index].T
        if voxels is None:
            exact = plane.dtype.itemsize <= 2 or plane.dtype == np.float32
            voxels = np.empty((*frame.shape, len(frames)), np.float32 if exact else np.float64)
        voxels[:, :, k] = plane
        scale, shift = frame.slope * factor, frame.intercept * factor
        if scale != 1.0 or shift:
            voxels[:, :, k] = plane.astype(np.float64) * scale + shift
    assert voxels is not None
    if not np.isfinite(voxels).all():
        raise InputError(
            f"Voxels of {name} are not numbers.",
            file=frames[0].path.parent,
            expected="a number in every voxel",
            found=f"{int(np.count_nonzero(~np.isfinite(voxels)))} of {voxels.size} voxels NaN or infinite",
            remedy="export the series again",
        )
    return voxels


def _require_decoder(encoding: Any, name: str, path: Path) -> None:
    """Raise MissingDecoderError if pixels stored like this need a library that is not installed."""
    from pydicom.pixels import get_decoder

    if not encoding.is_compressed or encoding.is_deflated:
        return
    try:
        known = get_decoder(encoding)
    except NotImplementedError:
        raise MissingDecoderError(
            f"The pixels of {name} are compressed in a way that is not known.",
            file=path,
            expected="uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000",
            found=str(encoding.name),
            remedy="convert the series to uncompressed DICOM",
        ) from None
    if not known.is_available:
        raise MissingDecoderError(
            f"The pixels of {name} are compressed, and the library that reads them is not installed.",
            file=path,
            expected=f"a decoder for {encoding.name}",
            found="none",
            remedy="pip install 'gliodil[dicom]' (it brings python-gdcm), or convert the series to uncompressed DICOM",
        )


def _pixels(frame: Frame, name: str) -> NDArray[Any]:
    """Return all frames of a file as stored, shape (frames, rows, columns)."""
    require_pydicom()
    path, (columns, rows) = frame.path, frame.shape
    syntax = "an unknown encoding"
    try:
        with quietly():
            data = open_dicom(path)
            encoding = data.file_meta.TransferSyntaxUID
            if encoding.is_transfer_syntax:  # anything else is damage, not to be quoted
                syntax = str(encoding.name)
                _require_decoder(encoding, name, path)
            pixels = np.asarray(data.pixel_array)
    except MissingDecoderError:
        raise
    except OSError as error:
        raise damaged(path, error) from None
    except Exception as error:  # whatever a decoder raises
        raise ImageFileError(
            f"The pixels of {name} cannot be read.",
            file=path,
            expected=f"{columns} x {rows} pixels in each image",
            found=f"{syntax}; decoding stopped with {type(error).__name__}",
            remedy="copy the series again, or convert it to uncompressed DICOM",
        ) from None
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[1:] != (rows, columns) or frame.index >= len(pixels):
        raise ImageFileError(
            f"The pixels of {name} do not match their header.",
            file=path,
            expected=f"{columns} x {rows} pixels in each image",
            found=f"an array of shape {pixels.shape}",
            remedy="copy the series again",
        )
    return pixels
