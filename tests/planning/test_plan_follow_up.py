"""A recurrence is read from whatever file, and belongs to the plan or is refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from gliodil.data.dicom.rtstruct import write_rtstruct
from gliodil.data.dicom.scan import find_series
from gliodil.data.dicom.seg import write_seg
from gliodil.data.nifti import write_nifti
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.planning.evaluate import evaluate_recurrence

AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])
AFFINE[:3, 3] = (36.0, 36.0, -30.0)
SHAPE = (24, 24, 20)


def box(low, high):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return Volume(mask, AFFINE, kind="label")


GTV, LATER = box((8, 8, 8), (12, 12, 12)), box((10, 8, 8), (14, 12, 12))


@pytest.fixture
def plan(tmp_path):
    """A plan folder on a DICOM series, as far as an evaluation looks at it."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("standard", "trimmed", "model"):
        write_nifti(box((6, 6, 6), (12, 14, 14)), out / f"ctv_{name}.nii.gz")
    write_nifti(GTV, out / "gtv.nii.gz")
    write_nifti(box((3, 3, 3), (20, 20, 17)), out / "brain.nii.gz")
    write_series(tmp_path / "t1c", np.zeros(SHAPE), AFFINE, description="t1 +c", number=1)
    (series,) = find_series(tmp_path / "t1c")
    write_rtstruct(out / "rtstruct.dcm", {"GTV": GTV}, series.files)
    return out


def drawn(plan, kind, structures, change=None):
    (series,) = find_series(plan.parent / "t1c")
    write = {"rtstruct": write_rtstruct, "seg": write_seg}[kind]
    path = write(plan.parent / f"later_{kind}.dcm", structures, series.files)
    if change is not None:
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
@pytest.mark.parametrize("name", ["Recurrence", "Rezidiv 2021", "recidiva", "GTV", "Volume 1"])
def test_drawn_recurrences_count_like_nifti(plan, kind, name):
    expected = evaluate_recurrence(plan, LATER).coverage
    assert expected["any"]["model"] == 0.5
    path = drawn(plan, kind, {name: LATER})
    assert evaluate_recurrence(plan, path, convention="brats-2023").coverage == expected


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_a_cavity_is_not_recurrence_and_organs_are_left_out(plan, kind):
    structures = {
        "Recurrence": LATER,
        "Resection cavity": box((4, 4, 4), (8, 8, 8)),
        "Brainstem": box((4, 15, 4), (8, 19, 8)),
    }
    found = evaluate_recurrence(plan, drawn(plan, kind, structures), convention="brats-2023")
    assert found.coverage["any"]["model"] == 0.5
    assert any("Brainstem" in note and "not used" in note for note in found.notes)


def test_structures_of_no_known_name_are_refused_until_one_is_named(plan):
    path = drawn(plan, "rtstruct", {"A": LATER, "B": GTV})
    with pytest.raises(LabelError, match="None of the structures") as caught:
        evaluate_recurrence(plan, path)
    assert "--roi" in str(caught.value)
    assert evaluate_recurrence(plan, path, parts={"A": "core"}).coverage["any"]["model"] == 0.5


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_another_patient_is_refused_unless_said_to_be_the_same(plan, kind):
    path = drawn(plan, kind, {"Recurrence": LATER}, lambda data: setattr(data, "PatientID", "somebody else"))
    with pytest.raises(InputError, match="another patient") as caught:
        evaluate_recurrence(plan, path)
    assert "somebody" not in str(caught.value)
    assert evaluate_recurrence(plan, path, same_patient=True).coverage["any"]["model"] == 0.5


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_another_frame_of_reference_is_refused(plan, kind):
    def move(data):
        data.FrameOfReferenceUID = "1.2.3"
        for reference in data.get("ReferencedFrameOfReferenceSequence", ()):
            reference.FrameOfReferenceUID = "1.2.3"
        for roi in data.get("StructureSetROISequence", ()):
            roi.ReferencedFrameOfReferenceUID = "1.2.3"

    with pytest.raises(GeometryError, match="another frame of reference") as caught:
        evaluate_recurrence(plan, drawn(plan, kind, {"Recurrence": LATER}, move))
    assert caught.value.found == "frame 1.2.3"


@pytest.mark.parametrize(
    "later",
    [
        box((0, 0, 0), (3, 3, 3)),  # in the corner of the images
        box((19, 8, 8), (23, 12, 12)),  # three quarters outside
        Volume(LATER.data, AFFINE + np.eye(4, k=3) * 70, kind="label"),  # beyond the images but for a part
    ],
    ids=["corner", "edge", "beyond"],
)
def test_a_recurrence_outside_the_brain_is_refused(plan, later):
    before = {path.name: path.read_bytes() for path in plan.iterdir()}
    with pytest.raises(GeometryError, match="outside"):
        evaluate_recurrence(plan, later)
    assert {path.name: path.read_bytes() for path in plan.iterdir()} == before


def test_a_recurrence_partly_outside_or_far_away_is_said(plan):
    assert not evaluate_recurrence(plan, LATER).notes
    (partly,) = evaluate_recurrence(plan, box((10, 8, 8), (25, 9, 9))).notes
    assert "outside the brain" in partly
    (far,) = evaluate_recurrence(plan, box((17, 17, 13), (19, 19, 15))).notes
    assert "mm from the GTV" in far
