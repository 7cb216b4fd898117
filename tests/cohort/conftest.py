"""Tiny patients as folders, the same laid out as BIDS, and the command line on them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gliodil.cli import main
from gliodil.data.synthetic import simulate

BIDS_NAMES = {
    "t1": "anat/sub-{0}_T1w",
    "pet": "pet/sub-{0}_trc-FET_pet",
    "seg": "../derivatives/labels/sub-{0}/anat/sub-{0}_space-T1w_desc-tumor_dseg",
    "recurrence": "../derivatives/labels/sub-{0}/anat/sub-{0}_space-T1w_desc-recurrence_dseg",
    "brain": "../derivatives/labels/sub-{0}/anat/sub-{0}_space-T1w_desc-brain_mask",
    "wm": "../derivatives/labels/sub-{0}/anat/sub-{0}_space-T1w_label-WM_probseg",
    "gm": "../derivatives/labels/sub-{0}/anat/sub-{0}_space-T1w_label-GM_probseg",
    "csf": "../derivatives/labels/sub-{0}/anat/sub-{0}_space-T1w_label-CSF_probseg",
}
PET_SIDECAR = {
    "Manufacturer": "none",
    "ManufacturersModelName": "simulated",
    "Units": "Bq/mL",
    "TracerName": "FET",
    "TracerRadionuclide": "F18",
    "InjectedRadioactivity": 200,
    "InjectedRadioactivityUnits": "MBq",
    "InjectedMass": 1,
    "InjectedMassUnits": "ug",
    "SpecificRadioactivity": 200,
    "SpecificRadioactivityUnits": "MBq/ug",
    "ModeOfAdministration": "bolus",
    "TimeZero": "10:00:00",
    "ScanStart": 1200,
    "InjectionStart": 0,
    "FrameTimesStart": [0],
    "FrameDuration": [1200],
    "AcquisitionMode": "list mode",
    "ImageDecayCorrected": True,
    "ImageDecayCorrectionTime": 0,
    "ReconMethodName": "simulated",
    "ReconMethodParameterLabels": ["none"],
    "ReconMethodParameterUnits": ["none"],
    "ReconMethodParameterValues": [0],
    "ReconFilterType": ["none"],
    "AttenuationCorrection": "none",
}


@dataclass(frozen=True)
class Run:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cohort() -> Callable[..., Run]:
    """Run `gliodil cohort` in this process."""

    def call(*arguments: object) -> Run:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["cohort", *map(str, arguments)])
        return Run(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of one tiny patient with a recurrence; not to be changed."""
    return simulate(resolution_mm=6).save(tmp_path_factory.mktemp("original") / "patient")


@pytest.fixture
def patients(original: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of copies of the patient."""

    def make(*names: str) -> Path:
        for name in names:
            shutil.copytree(original, tmp_path / "patients" / name)
        return tmp_path / "patients"

    return make


@pytest.fixture
def as_bids(original: Path, tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Lay the patient out as a BIDS dataset, once per label."""

    def make(labels: Sequence[str]) -> Path:
        root = tmp_path / "bids"
        for folder, kind in ((root, "raw"), (root / "derivatives/labels", "derivative")):
            folder.mkdir(parents=True)
            description = {"Name": "Tiny", "BIDSVersion": "1.10.0", "DatasetType": kind, "License": "CC0"}
            if kind == "derivative":
                description["GeneratedBy"] = [{"Name": "simulation"}]
            (folder / "dataset_description.json").write_text(json.dumps(description))
            (folder / "README").write_text("Simulated patients.\n" * 10)
        for label in labels:
            for role, name in BIDS_NAMES.items():
                target = (root / f"sub-{label}" / f"{name.format(label)}.nii.gz").resolve()
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(original / f"{role}.nii.gz", target)
            sidecar = root / f"sub-{label}/pet/sub-{label}_trc-FET_pet.json"
            sidecar.write_text(json.dumps(PET_SIDECAR))
        return root

    return make
