"""RT Dose objects: scaling, geometry of both conventions, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gliodil.errors import GeometryError, GliodilError, ImageFileError, InputError

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian  # noqa: E402

from gliodil.data.dicom.rtdose import RT_DOSE, read_dose  # noqa: E402

FRAME = "1.2.826.0.1.3680043.8.498.1"
PIXELS = np.arange(4 * 3 * 5, dtype=np.uint32).reshape(4, 3, 5)  # planes, rows, columns


def _write(path: Path, *, bits: int = 32, **changes: object) -> Path:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = RT_DOSE
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Modality, data.PatientID, data.FrameOfReferenceUID = "RTDOSE", "P1", FRAME
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    data.ImagePositionPatient, data.ImageOrientationPatient = [-10, 20, -30], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.GridFrameOffsetVector = [2, 3], [0, 4, 8, 12]
    data.NumberOfFrames, data.Rows, data.Columns = PIXELS.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit = bits - 1
    data.DoseGridScaling = "0.5"
    data.PixelData = PIXELS.astype(f"<u{bits // 8}").tobytes()
    for keyword, value in changes.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", [16, 32])
def test_dose_in_gy_and_its_place(tmp_path: Path, bits: int) -> None:
    dose = read_dose(_write(tmp_path / "d.dcm", bits=bits))
    assert dose.volume.shape == (5, 3, 4)
    assert dose.volume.data[4, 2, 3] == 0.5 * PIXELS[3, 2, 4]
    assert dose.volume.frame == FRAME
    assert dose.kind == "physical"
    assert dose.person.identifier == "P1"
    # LPS (-10 + 4*3, 20 + 2*2, -30 + 3*4), in RAS.
    assert dose.volume.to_world([4, 2, 3]) == pytest.approx([-2, -24, -18])


@pytest.mark.parametrize(
    ("orientation", "offsets", "lps"),
    [
        ([1, 0, 0, 0, 1, 0], [0, 4, 8, 12], (-10, 20, -18)),
        ([1, 0, 0, 0, 1, 0], [0, -4, -8, -12], (-10, 20, -42)),
        ([1, 0, 0, 0, 1, 0], [-30, -26, -22, -18], (-10, 20, -18)),  # z coordinates
        ([-1, 0, 0, 0, 1, 0], [0, 4, 8, 12], (-10, 20, -42)),  # the normal points down
        ([-1, 0, 0, 0, 1, 0], [-30, -26, -22, -18], (-10, 20, -18)),  # z coordinates know no normal
        ([0, 1, 0, 0, 0, -1], [0, 4, 8, 12], (-22, 20, -30)),  # sagittal: normal (-1, 0, 0)
    ],
)
def test_both_conventions_of_frame_offsets(
    tmp_path: Path, orientation: list[int], offsets: list[int], lps: tuple[int, ...]
) -> None:
    path = _write(tmp_path / "d.dcm", ImageOrientationPatient=orientation, GridFrameOffsetVector=offsets)
    assert read_dose(path).volume.to_world([0, 0, 3]) == pytest.approx([-lps[0], -lps[1], lps[2]])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"Modality": "CT"}, ImageFileError, "no RT Dose"),
        ({"DoseUnits": "RELATIVE"}, InputError, "no dose in Gy"),
        ({"DoseUnits": None}, InputError, "no dose in Gy"),
        ({"DoseType": "ERROR"}, InputError, "to a patient"),
        ({"DoseSummationType": "BEAM"}, InputError, "whole plan"),
        ({"DoseSummationType": "FRACTION"}, InputError, "whole plan"),
        ({"FrameOfReferenceUID": None}, GeometryError, "frame of reference"),
        ({"DoseGridScaling": None}, ImageFileError, "DoseGridScaling"),
        ({"DoseGridScaling": "0"}, ImageFileError, "DoseGridScaling"),
        ({"DoseGridScaling": "-1"}, ImageFileError, "DoseGridScaling"),
        ({"DoseGridScaling": "1000"}, ImageFileError, "Gy"),
        ({"PixelRepresentation": 1}, ImageFileError, "signed"),
        ({"PixelData": None}, InputError, "no grid"),
        ({"PixelData": b"\0" * 12}, ImageFileError, "cannot be read"),
        ({"GridFrameOffsetVector": None}, ImageFileError, "0 frame offsets for 4 planes"),
        ({"GridFrameOffsetVector": [0, 4, 8]}, ImageFileError, "3 frame offsets"),
        ({"GridFrameOffsetVector": [0, 4, 8, 13]}, GeometryError, "equally far apart"),
        ({"GridFrameOffsetVector": [0, 0, 0, 0]}, GeometryError, "equally far apart"),
        ({"GridFrameOffsetVector": [7, 11, 15, 19]}, GeometryError, "neither convention"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, ImageFileError, "perpendicular"),
        ({"ImagePositionPatient": None}, ImageFileError, "no position"),
        ({"PixelSpacing": [0, 3]}, ImageFileError, "spacing"),
    ],
)
def test_what_is_no_dose_of_a_plan_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], error: type[GliodilError], words: str
) -> None:
    path = _write(tmp_path / "d.dcm", **changes)
    with pytest.raises(error) as caught:
        read_dose(path)
    assert words in str(caught.value)
    assert caught.value.file == path


def test_one_plane_and_no_file_are_refused(tmp_path: Path) -> None:
    one = PIXELS[:1].astype("<u4").tobytes()
    path = _write(tmp_path / "d.dcm", NumberOfFrames=1, GridFrameOffsetVector=[0], PixelData=one)
    with pytest.raises(GeometryError, match="one plane"):
        read_dose(path)
    with pytest.raises(ImageFileError, match="does not exist"):
        read_dose(tmp_path / "none.dcm")
