"""`gliodil plan` on a folder of DICOM series: what it shows, what it writes, and that neither names the patient."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import IDENTIFIERS, SUV_FIELDS, suv_edit, write_series

from gliodil.data import read_nifti, write_nifti

SECRETS = {part for value in IDENTIFIERS.values() for part in (value, *value.split("^")) if len(part) > 4}
IMAGES = {"t1c": "t1 mprage +C", "flair": "t2 flair", "pet": "FET"}


@dataclass(frozen=True)
class Planned:
    """A plan made from DICOM, and everything that was said on the way."""

    out: Path
    said: str


@pytest.fixture(scope="session")
def dicom_patient(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic patient with its images as DICOM series; not to be changed."""
    folder = tmp_path_factory.mktemp("dicom") / "patient_008"
    for role in ("seg", "wm", "gm", "csf", "brain"):
        write_nifti(
            read_nifti(original / f"{role}.nii.gz", kind="label" if role in ("seg", "brain") else "scalar"),
            folder / f"{role}.nii.gz",
        )
    for number, (role, description) in enumerate(IMAGES.items(), 1):
        image = read_nifti(original / f"{'t1' if role != 'pet' else 'pet'}.nii.gz", kind="scalar")
        more = {**SUV_FIELDS, "edit": suv_edit, "modality": "PT"} if role == "pet" else {}
        voxels = 30000 * (image.data / image.data.max())
        write_series(
            folder / "DICOM", voxels, image.affine, number=number, names=role + "{:03d}",
            **{**more, "description": description},
        )  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def planned_dicom(dicom_patient: Path, cli: Callable, tmp_path_factory: pytest.TempPathFactory) -> Planned:
    root = tmp_path_factory.mktemp("planned-dicom")
    run = cli(
        "plan", dicom_patient, "--out", root / "out", "--cells", 12, "-v", "--log-file", root / "run.log"
    )
    assert run.code == 0, run.err
    return Planned(root / "out", run.out + run.err + (root / "run.log").read_text(encoding="utf-8"))


def test_dry_run_shows_series(dicom_patient: Path, cli: Callable, tmp_path: Path) -> None:
    run = cli("plan", dicom_patient, "--out", tmp_path / "out", "--cells", 12, "--dry-run")
    assert run.code == 0, run.err
    assert 't1c        series 1 "t1 mprage +C", ' in run.err
    assert 'flair      series 2 "t2 flair", ' in run.err
    (line,) = [line for line in run.err.splitlines() if line.lstrip().startswith("pet ")]
    assert line.endswith(" SUV")
    assert not (tmp_path / "out").exists()


def test_a_plan_from_dicom_is_the_plan_from_nifti(
    planned_dicom: Planned, dicom_patient: Path, cli: Callable, tmp_path: Path
) -> None:
    """The fit scales PET to its maximum, so that SUV or not makes no difference beyond 16-bit rounding."""
    folder = tmp_path / "patient_008"
    for path in dicom_patient.glob("*.nii.gz"):
        (folder / path.name).parent.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    from gliodil.data import load_patient

    patient = load_patient(dicom_patient)
    for role in IMAGES:
        write_nifti(patient.volumes[role], folder / f"{role}.nii.gz")
    run = cli("plan", folder, "--out", tmp_path / "out", "--cells", 12)
    assert run.code == 0, run.err
    for name in ("density", "ctv_model", "ctv_standard"):
        a, b = (
            read_nifti(f / f"{name}.nii.gz", kind="scalar").data
            for f in (planned_dicom.out, tmp_path / "out")
        )
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_nothing_written_or_said_names_the_patient(planned_dicom: Planned) -> None:
    everything = {"what was said": planned_dicom.said.encode()}
    for path in planned_dicom.out.rglob("*"):
        everything[f"name of {path}"] = path.name.encode()
        if path.is_file() and path.suffix != ".dcm":  # what goes back to the clinic belongs to the patient
            content = path.read_bytes()
            everything[str(path)] = gzip.decompress(content) if path.suffix == ".gz" else content
    assert len(everything) > 15
    for where, content in everything.items():
        for secret in SECRETS:
            for encoding in ("utf-8", "utf-16-le"):
                assert secret.lower().encode(encoding) not in content.lower(), where


def test_provenance_names_the_series(planned_dicom: Planned) -> None:
    inputs = {i["key"]: i for i in json.loads((planned_dicom.out / "provenance.json").read_text())["inputs"]}
    assert inputs["t1c"]["name"] == 'series 1 "t1 mprage +C"'
    assert len(inputs["t1c"]["sha256"]) == 64
    assert inputs["pet"]["unit"] == "SUV"
    assert inputs["t1c"]["files"] == inputs["t1c"]["shape"][2]


def test_a_plan_from_dicom_ends_in_a_structure_set(planned_dicom: Planned) -> None:
    """Read with pydicom alone: it belongs to the patient's study and refers to images of the t1c series."""
    written = json.loads((planned_dicom.out / "metrics.json").read_text())["dicom"]
    data = pydicom.dcmread(planned_dicom.out / "rtstruct.dcm")
    assert str(data.PatientName) == IDENTIFIERS["PatientName"]
    assert [roi.ROIName for roi in data.StructureSetROISequence] == list(written["structures"])
    assert all(entry["dice"] == entry["seg_dice"] == 1 for entry in written["structures"].values())
    assert "CTV model      Dice 1.0000" in planned_dicom.said
