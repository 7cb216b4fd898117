"""Pixels compressed in every usual way are the pixels that were written; without a decoder the error names the extra."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_series import ramp, write_series

from gliodil.data.dicom.pixels import MissingDecoderError
from gliodil.data.dicom.scan import find_series

gdcm = pytest.importorskip("gdcm")
SYNTAXES = (
    "JPEGLosslessProcess14_1",
    "JPEGLosslessProcess14",
    "JPEGLSLossless",
    "JPEG2000Lossless",
    "RLELossless",
    "DeflatedExplicitVRLittleEndian",
    "ImplicitVRLittleEndian",
)


def convert(path: Path, syntax: str) -> None:
    """Rewrite a file in another transfer syntax."""
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    assert writer.Write()


@pytest.mark.parametrize("signed", [0, 1], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_compressed_pixels_are_read(tmp_path: Path, syntax: str, signed: int) -> None:
    voxels = ramp((14, 16, 3)) - 300 * signed
    for path in write_series(tmp_path, voxels, PixelRepresentation=signed):
        convert(path, syntax)
    (series,) = find_series(tmp_path)
    np.testing.assert_array_equal(series.volume().data, voxels)


def test_a_missing_decoder_is_one_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLosslessSV1

    for path in write_series(tmp_path, ramp((14, 16, 3))):
        convert(path, "JPEGLosslessProcess14_1")
    monkeypatch.setattr(get_decoder(JPEGLosslessSV1), "_available", {})
    (series,) = find_series(tmp_path)
    with pytest.raises(MissingDecoderError, match=r"gliodil\[dicom\]") as refused:
        _ = series.volume().data
    assert "JPEG Lossless" in str(refused.value)
