"""A patient whose images are DICOM series: recognised, overridden, ambiguous, without identity."""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from dicom_series import IDENTIFIERS, SUV_FIELDS, suv_edit, write_series

from gliodil.data import Volume, load_patient, write_nifti
from gliodil.errors import GeometryError, GliodilError, InputError, MissingExtraError
from gliodil.fingerprint import fingerprint
from gliodil.reporting.provenance import series_record

DESCRIPTIONS = {
    "t1": "t1_mpr_tra_iso",
    "t1c": "t1_mpr_tra_iso +KM",
    "t2": "t2_tse_tra",
    "flair": "t2_tirm dark-fluid",
}
SECRETS = {part for value in IDENTIFIERS.values() for part in (value, *value.split("^")) if len(part) > 4}


@pytest.fixture
def clinic(tmp_path: Path, head: dict[str, Volume]) -> Path:
    """Four contrasts as DICOM; segmentation and tissue maps as NIfTI beside them."""
    folder = tmp_path / "patient_007"
    for role in ("seg", "wm", "gm", "csf"):
        write_nifti(head[role], folder / f"{role}.nii.gz")
    for number, description in enumerate(DESCRIPTIONS.values(), 1):
        write_series(
            folder / "DICOM" / f"S{number}",
            100 * head["t1c"].data + number,
            head["t1c"].affine,
            description=description,
            number=number,
            names="IM_{:05d}",
        )
    return folder


def test_series_are_recognised_and_used(clinic: Path, head: Mapping[str, Volume]) -> None:
    patient = load_patient(clinic)
    assert {*patient.volumes} == {"wm", "gm", "csf", "t1", "t1c", "t2", "flair"}
    for number, role in enumerate(DESCRIPTIONS, 1):
        assert patient.series[role].description == DESCRIPTIONS[role]
        np.testing.assert_allclose(patient.volumes[role].data, 100 * head["t1c"].data + number)
    assert patient.reference is patient.series["t1c"]
    row = next(row for row in patient.describe() if row["role"] == "t1c")
    assert row["file"] == 'series 2 "t1_mpr_tra_iso +KM", 36 files'
    assert (row["shape"], row["spacing"], row["note"]) == ("40 x 44 x 36", "4 x 4 x 4", "")


def test_nifti_patients_have_no_reference(head: Mapping[str, Volume], save: object) -> None:
    assert load_patient(save(head)).reference is None  # type: ignore[operator]


@pytest.mark.parametrize("given", ["DICOM/S4", "DICOM/S4/IM_00007"])
def test_a_role_can_be_given_another_series(clinic: Path, given: str) -> None:
    patient = load_patient(clinic, files={"t2": clinic / given})
    assert patient.series["t2"].description == DESCRIPTIONS["flair"]
    assert "flair" not in patient.volumes
    assert 'series 3 "t2_tse_tra" (looks like t2)' in "\n".join(patient.warnings)


def test_a_folder_without_images_is_no_series(clinic: Path) -> None:
    empty = clinic.parent / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no series of images for t2"):
        load_patient(clinic, files={"t2": empty})
    with pytest.raises(InputError, match="Several series could be the t2 image"):
        load_patient(clinic, files={"t2": clinic / "DICOM"})


def test_two_candidates_are_listed_with_how_to_choose(clinic: Path, head: Mapping[str, Volume]) -> None:
    again = clinic / "DICOM" / "S9"
    write_series(again, head["t1c"].data, head["t1c"].affine, number=9, description="MPRAGE post Gd")
    with pytest.raises(InputError, match="Several series could be the t1c image") as raised:
        load_patient(clinic)
    message = str(raised.value)
    assert 'series 2 "t1_mpr_tra_iso +KM", 40 x 44 x 36 voxels of 4 x 4 x 4 mm: DICOM/S2/IM_00036' in message
    assert 'series 9 "MPRAGE post Gd"' in message
    assert "--t1c PATH" in message
    chosen = load_patient(clinic, files={"t1c": again})
    assert chosen.series["t1c"].number == 9
    assert chosen.reference is chosen.series["t1c"]


def test_nifti_comes_before_dicom(clinic: Path, head: Mapping[str, Volume]) -> None:
    write_nifti(head["t1c"], clinic / "t1c.nii.gz")
    patient = load_patient(clinic)
    assert "t1c" not in patient.series
    assert patient.files["t1c"].name == "t1c.nii.gz"
    assert any("series 2" in warning for warning in patient.warnings)
    assert patient.reference is patient.series["t1"]


def test_a_broken_series_matters_only_if_it_is_wanted(clinic: Path) -> None:
    write_series(clinic / "DICOM" / "S0", number=99, description="localizer")[3].unlink()
    assert any("no regular volume" in warning for warning in load_patient(clinic).warnings)
    (clinic / "DICOM" / "S2" / "IM_00012").unlink()
    with pytest.raises(GeometryError, match='Series 2 "t1_mpr_tra_iso \\+KM" has gaps') as raised:
        load_patient(clinic)
    assert raised.value.patient == "patient_007"


def test_an_image_of_another_frame_of_reference_is_not_taken_as_aligned(
    clinic: Path, head: Mapping[str, Volume]
) -> None:
    assert not any("frame of reference" in warning for warning in load_patient(clinic).warnings)
    later = clinic.parent / "later"
    write_series(
        later, head["t1c"].data, head["t1c"].affine, number=8, description="t2", frame_of_reference="1.2.9"
    )
    with pytest.raises(GeometryError, match="another frame of reference") as refused:  # it was asked for
        load_patient(clinic, files={"t2": later})
    assert "--register" in str(refused.value.remedy)
    assert "t2" in load_patient(clinic, files={"t2": later}, register=True).volumes
    shutil.rmtree(clinic / "DICOM" / "S3")
    shutil.move(later, clinic / "later")
    patient = load_patient(clinic)  # it would only be shown
    assert "t2" not in patient.volumes
    assert any('series 8 "t2" is left out' in warning for warning in patient.warnings)


def test_without_pydicom(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliodil.data.dicom.headers.find_spec", lambda _: None)
    patient = load_patient(clinic)
    assert not patient.series
    assert any("pip install 'gliodil[dicom]'" in warning for warning in patient.warnings)
    (clinic / "seg.nii.gz").unlink()
    with pytest.raises(MissingExtraError, match=r"gliodil\[dicom\]"):
        load_patient(clinic)


def test_missing_segmentation_says_what_was_seen(clinic: Path) -> None:
    (clinic / "seg.nii.gz").unlink()
    with pytest.raises(InputError, match="segmentation is missing") as raised:
        load_patient(clinic)
    assert 't1c: series 2 "t1_mpr_tra_iso +KM"' in str(raised.value)


def test_fingerprint_covers_every_slice(clinic: Path) -> None:
    before = fingerprint(load_patient(clinic), {})
    assert fingerprint(load_patient(clinic), {}) == before
    path = clinic / "DICOM" / "S3" / "IM_00020"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(load_patient(clinic), {}) != before


def test_pet_in_suv(clinic: Path, head: Mapping[str, Volume]) -> None:
    write_series(
        clinic / "PET",
        1000 * head["pet"].data,
        head["pet"].affine,
        modality="PT",
        edit=suv_edit,
        **SUV_FIELDS,
    )
    patient = load_patient(clinic)
    assert patient.series["pet"].unit == "SUV"
    assert next(row for row in patient.describe() if row["role"] == "pet")["note"] == "SUV"


def test_no_message_names_the_patient(
    clinic: Path,
    head: Mapping[str, Volume],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    write_series(clinic / "X", number=50, description="Plantedname scout PLANTEDID-4711 of Quirin")
    patient = load_patient(clinic)
    said = [repr(patient), patient._repr_html_(), str(patient.describe()), *patient.warnings]
    said += [str(series_record(role, series)) + repr(series) for role, series in patient.series.items()]

    def refused(error: type[GliodilError]) -> None:
        with pytest.raises(error) as raised:
            load_patient(clinic)
        said.append("".join(traceback.format_exception(raised.value)))

    path = clinic / "DICOM" / "S2" / "IM_00012"
    whole = path.read_bytes()
    for end in (200, 700, 1100, len(whole) - 10):
        path.write_bytes(whole[:end])
        refused(GliodilError)
    for old, new in (
        (b"19330417", b"PLANTED?"),
        (b"DA\x08\x00", b"DS\x08\x00"),
        (b"LO\x0e\x00", b"UL\x0e\x00"),
    ):
        path.write_bytes(whole.replace(old, new))
        said += load_patient(clinic).warnings
    path.unlink()
    refused(GeometryError)
    write_series(
        clinic / "DICOM" / "S2b", head["t1c"].data, head["t1c"].affine, number=2, description="t1 +c"
    )
    (clinic / "Y").write_bytes(whole[:400])
    said += load_patient(
        clinic
    ).warnings  # the whole series is taken, the torn one and the torn file are said
    assert "Y (" in "".join(said)
    captured = capfd.readouterr()
    everything = "\n".join([*said, caplog.text, captured.out, captured.err]).lower()
    assert "series 50" in everything
    assert not [secret for secret in SECRETS if secret.lower() in everything]
