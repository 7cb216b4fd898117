"""Two things are used together only if they belong together: one patient, one frame of reference or a registration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from planning import rigid, write_reg

from gliodil.data import Volume, load_patient, write_nifti
from gliodil.data.dicom.scan import find_series
from gliodil.errors import GeometryError, InputError

rtstruct = pytest.importorskip("gliodil.data.dicom.rtstruct")
OTHER_FRAME = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture
def folder(tmp_path: Path, head: dict[str, Volume]) -> Path:
    """A T1c with a segmentation beside it."""
    folder = tmp_path / "patient_007"
    write_series(folder / "t1c", 10 * head["t1c"].data, head["t1c"].affine, description="t1 +c", number=1)
    write_nifti(head["seg"], folder / "seg.nii.gz")
    return folder


def structures(folder: Path, head: Mapping[str, Volume], series: Path) -> Path:
    labels = head["seg"].data
    layers = {"Oedema": (1, 2, 4), "GTV": (1, 4)}
    drawn = {name: head["seg"].with_data(np.isin(labels, values)) for name, values in layers.items()}
    (one,) = find_series(series)
    path = folder / "rs.dcm"
    data = pydicom.dcmread(rtstruct.write_rtstruct(path, drawn, one.files))
    data.Manufacturer = "another"
    data.save_as(path)
    return path


def owned_by(path: Path, patient: str) -> None:
    data = pydicom.dcmread(path)
    data.PatientID = patient
    data.save_as(path)


def test_structures_of_another_patient_are_refused(folder: Path, head: Mapping[str, Volume]) -> None:
    (folder / "seg.nii.gz").unlink()
    path = structures(folder, head, folder / "t1c")
    assert load_patient(folder).core.any()
    owned_by(path, "somebody else")
    with pytest.raises(InputError, match="of another patient") as refused:
        load_patient(folder)
    assert refused.value.patient == "patient_007"
    assert refused.value.file == path
    assert "--same-patient" in str(refused.value.remedy)
    assert "somebody" not in str(refused.value)  # identifiers are compared, not shown
    assert load_patient(folder, same_patient=True).core.any()
    owned_by(path, "")  # nothing stated: nothing contradicts
    assert load_patient(folder).core.any()


def test_a_pet_of_another_patient_is_refused(folder: Path, head: Mapping[str, Volume]) -> None:
    files = write_series(
        folder / "pet", 100 * head["t1c"].data, head["t1c"].affine, modality="PT", description="fet", number=5
    )
    assert "pet" in load_patient(folder).volumes
    for file in files:
        owned_by(file, "other")
    with pytest.raises(InputError, match=r"pet \(series 5 .* of another patient"):
        load_patient(folder)


def test_a_series_of_two_patients_is_none(folder: Path) -> None:
    files = sorted((folder / "t1c").iterdir())
    for file in files[::2]:
        owned_by(file, "other")
    with pytest.raises(InputError, match="several patients are mixed"):
        load_patient(folder)


def other_frame(
    folder: Path, head: Mapping[str, Volume], name: str, matrix: np.ndarray, **more: object
) -> Path:
    """Write the head as another series, in a frame in which it lies elsewhere."""
    write_series(
        folder / name,
        10 * head["t1c"].data,
        matrix @ head["t1c"].affine,
        frame_of_reference=OTHER_FRAME,
        **more,
    )
    return folder / name


def test_structures_drawn_in_a_frame_that_nothing_relates_are_refused(
    folder: Path, head: Mapping[str, Volume]
) -> None:
    (folder / "seg.nii.gz").unlink()
    moved = rigid(8, (4, -9, 6))
    series = other_frame(folder, head, "flair", moved, description="flair", number=2)
    drawn = {name: volume.carried(moved, "") for name, volume in head.items()}
    path = structures(folder, drawn, series)
    with pytest.raises(GeometryError, match="another frame of reference") as refused:
        load_patient(folder)
    assert OTHER_FRAME in str(refused.value.found)
    assert "--reg" in str(refused.value.remedy)
    assert refused.value.file == path

    # The clinic's registration relates the two: the structures come to lie on the T1c.
    reference = find_series(folder / "t1c")[0].frame_of_reference
    write_reg(folder / "reg.dcm", reference, [(OTHER_FRAME, [np.linalg.inv(moved)]), (reference, [])])
    patient = load_patient(folder)
    labels = head["seg"].data
    here, true = patient.segmentation.data != 0, labels != 0
    assert patient.segmentation.same_grid(head["seg"])
    assert 2 * np.count_nonzero(here & true) / (here.sum() + true.sum()) > 0.95
    assert any("clinic's registration" in warning for warning in patient.warnings)


def test_a_pet_in_another_frame_is_refused_or_carried(folder: Path, head: Mapping[str, Volume]) -> None:
    moved = rigid(6, (10, 3, -5))
    other_frame(folder, head, "pet", moved, modality="PT", description="fet", number=5)
    with pytest.raises(GeometryError, match=r"pet image .* another frame of reference"):
        load_patient(folder)
    assert "pet" in load_patient(folder, register=True).volumes  # aligned later
    reference = find_series(folder / "t1c")[0].frame_of_reference
    write_reg(folder / "reg.dcm", reference, [(OTHER_FRAME, [np.linalg.inv(moved)]), (reference, [])])
    pet = load_patient(folder).volumes["pet"]
    inside = head["brain"].data > 0
    assert np.corrcoef(pet.data[inside], head["t1c"].data[inside])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("one", "other", "another"),
    [
        (("1", "19500101", "a"), ("2", "19500101", "a"), True),
        (("1", "19500101", "a"), ("1", "19510101", "b"), False),
        (("", "19500101", "a"), ("2", "19510101", "a"), True),
        (("", "", "Doe^Jane"), ("2", "", "DOE JANE"), False),
        (("", "", "Doe^Jane"), ("", "", "Roe^Jane"), True),
        (("1", "", ""), ("", "19500101", "a"), False),
    ],
)
def test_two_headers_are_of_two_persons_by_the_first_field_that_both_state(one, other, another) -> None:
    from gliodil.data.dicom.person import person_of

    persons = []
    for identifier, born, name in (one, other):
        header = pydicom.Dataset()
        header.PatientID, header.PatientBirthDate, header.PatientName = identifier, born, name
        persons.append(person_of(header))
    assert persons[0].is_another_than(persons[1]) == persons[1].is_another_than(persons[0]) == another
