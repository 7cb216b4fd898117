"""REG objects: every way to say the same registration gives the same link; what is not rigid is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from planning import CT_FRAME, MR_FRAME, THIRD_FRAME, rigid, write_reg

from gliodil.data.dicom.reference import read_reference
from gliodil.data.dicom.registration_object import read_registration, write_registration
from gliodil.data.frames import FrameGraph, Link
from gliodil.errors import GeometryError, ImageFileError

MR_TO_CT = rigid(12.0, (14.0, -22.0, 31.0))
CT_TO_MR = np.linalg.inv(MR_TO_CT)
HALF = rigid(40.0, (5.0, 60.0, -7.0), (1.0, 0.0, 0.2))
REST = MR_TO_CT @ np.linalg.inv(HALF)
STILL = np.eye(4)

SAME = {
    "usual": (CT_FRAME, [(CT_FRAME, [STILL]), (MR_FRAME, [MR_TO_CT])]),
    "items swapped": (CT_FRAME, [(MR_FRAME, [MR_TO_CT]), (CT_FRAME, [STILL])]),
    "one item": (CT_FRAME, [(MR_FRAME, [MR_TO_CT])]),
    "no matrix where nothing moves": (CT_FRAME, [(CT_FRAME, []), (MR_FRAME, [MR_TO_CT])]),
    "from CT to MR": (MR_FRAME, [(MR_FRAME, [STILL]), (CT_FRAME, [CT_TO_MR])]),
    "third frame": (THIRD_FRAME, [(CT_FRAME, [HALF]), (MR_FRAME, [HALF @ MR_TO_CT])]),
    "two matrices": (CT_FRAME, [(CT_FRAME, [STILL]), (MR_FRAME, [HALF, REST])]),
}


@pytest.mark.parametrize("way", SAME)
def test_every_way_to_say_it_gives_the_same_link(tmp_path: Path, way: str) -> None:
    links = read_registration(write_reg(tmp_path / "reg.dcm", *SAME[way]))
    found = FrameGraph(links).path(MR_FRAME, CT_FRAME)
    assert found is not None
    assert found.origin == "REG"
    np.testing.assert_allclose(found.matrix, MR_TO_CT, atol=1e-7)


@pytest.mark.parametrize(
    ("common", "items", "more", "says"),
    [
        (CT_FRAME, [(MR_FRAME, [np.diag([1.03, 1.03, 1.03, 1])])], {}, "not rigid"),
        (CT_FRAME, [(MR_FRAME, [np.diag([-1.0, 1, 1, 1])])], {"kind": "AFFINE"}, "not rigid"),
        (CT_FRAME, [(MR_FRAME, [STILL + np.eye(4, k=1) * 0.1 * (np.arange(4) < 2)])], {}, "not rigid"),
        (CT_FRAME, [(MR_FRAME, [MR_TO_CT])], {"sop_class": "1.2.840.10008.5.1.4.1.1.66.3"}, "deformable"),
        (CT_FRAME, [(CT_FRAME, [STILL])], {}, "no two frames"),
        (CT_FRAME, [(CT_FRAME, [MR_TO_CT])], {}, "against itself"),
        (CT_FRAME, [], {}, "no two frames"),
    ],
)  # fmt: skip
def test_what_is_no_rigid_registration_is_refused(
    tmp_path: Path, common: str, items: list, more: dict, says: str
) -> None:
    path = write_reg(tmp_path / "reg.dcm", common, items, **more)
    with pytest.raises(GeometryError, match=r"reg\.dcm") as caught:
        read_registration(path)
    assert says in str(caught.value)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("numbers", [["nan"] * 16, ["1"] * 12, ["1", "0", "0", "0"] * 4])
def test_a_damaged_matrix_is_refused(tmp_path: Path, numbers: list[str]) -> None:
    path = write_reg(tmp_path / "reg.dcm", CT_FRAME, [(MR_FRAME, [MR_TO_CT])])
    data = pydicom.dcmread(path)
    step = data.RegistrationSequence[0].MatrixRegistrationSequence[0].MatrixSequence[0]
    step.FrameOfReferenceTransformationMatrix = numbers
    data.save_as(path)
    with pytest.raises((ImageFileError, GeometryError)):
        read_registration(path)


def test_an_image_is_no_registration(tmp_path: Path) -> None:
    path, *_ = write_series(tmp_path)
    with pytest.raises(ImageFileError, match="no registration object"):
        read_registration(path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    ct = write_series(tmp_path / "ct", modality="CT", frame_of_reference=CT_FRAME)
    mr = write_series(tmp_path / "mr", frame_of_reference=MR_FRAME)
    link = Link(MR_FRAME, CT_FRAME, MR_TO_CT, "registered", 0.4)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in mr]
    path = write_registration(tmp_path / "reg.dcm", link, read_reference(ct), moving=headers)
    (found,) = read_registration(path)
    assert (found.source, found.target) == (MR_FRAME, CT_FRAME)
    np.testing.assert_allclose(found.matrix, MR_TO_CT, atol=1e-8)
    data = pydicom.dcmread(path)
    assert data.FrameOfReferenceUID == CT_FRAME
    assert [len(item.ReferencedImageSequence) for item in data.RegistrationSequence] == [len(ct), len(mr)]
    again = write_registration(tmp_path / "again.dcm", link, read_reference(ct), moving=headers)
    assert again.read_bytes() == path.read_bytes()
