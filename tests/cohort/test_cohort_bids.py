"""BIDS datasets: which files make a patient, and what the official validator says of input and output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gliodil.cohort.bids import find_subjects
from gliodil.cohort.inputs import find_rows
from gliodil.cohort.run import describe_dataset
from gliodil.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    return tmp_path


def names(root: Path) -> dict[str, dict[str, str]]:
    subjects = find_subjects(root, root / "out")
    return {s.identity: {role: path.name for role, path in s.files.items()} for s in subjects}


def test_each_role_is_found_where_bids_puts_it(as_bids):
    root = as_bids(["01", "02"])
    found = names(root)
    assert list(found) == ["sub-01", "sub-02"]
    assert found["sub-01"] == {
        "seg": "sub-01_space-T1w_desc-tumor_dseg.nii.gz",
        "wm": "sub-01_space-T1w_label-WM_probseg.nii.gz",
        "gm": "sub-01_space-T1w_label-GM_probseg.nii.gz",
        "csf": "sub-01_space-T1w_label-CSF_probseg.nii.gz",
        "brain": "sub-01_space-T1w_desc-brain_mask.nii.gz",
        "t1": "sub-01_T1w.nii.gz",
        "pet": "sub-01_trc-FET_pet.nii.gz",
        "recurrence": "sub-01_space-T1w_desc-recurrence_dseg.nii.gz",
    }


def test_a_session_with_a_segmentation_is_a_patient_and_takes_the_recurrence_of_a_later_one(root):
    touch(
        root,
        "sub-1/ses-preop/anat/sub-1_ses-preop_ce-gadolinium_T1w.nii.gz",
        "sub-1/ses-late/anat/sub-1_ses-late_T1w.nii.gz",
        "derivatives/x/sub-1/ses-preop/anat/sub-1_ses-preop_desc-tumor_dseg.nii.gz",
        "derivatives/x/sub-1/ses-late/anat/sub-1_ses-late_desc-recurrence_dseg.nii.gz",
    )
    found = names(root)
    assert list(found) == ["sub-1_ses-preop"]
    assert found["sub-1_ses-preop"]["t1c"] == "sub-1_ses-preop_ce-gadolinium_T1w.nii.gz"
    assert found["sub-1_ses-preop"]["recurrence"] == "sub-1_ses-late_desc-recurrence_dseg.nii.gz"
    assert "t1" not in found["sub-1_ses-preop"]
    assert find_rows(root, root / "out")[0].place == "sub-1/ses-preop"
    assert len(find_rows(root, root / "out", only=["1"])) == 1


def test_derivatives_go_before_raw_images_and_the_space_of_the_segmentation_before_others(root):
    touch(
        root,
        "sub-1/anat/sub-1_FLAIR.nii.gz",
        "derivatives/x/sub-1/anat/sub-1_space-MNI_FLAIR.nii.gz",
        "derivatives/x/sub-1/anat/sub-1_space-T1w_FLAIR.nii.gz",
        "derivatives/x/sub-1/anat/sub-1_space-T1w_desc-tumor_dseg.nii.gz",
    )
    assert names(root)["sub-1"]["flair"] == "sub-1_space-T1w_FLAIR.nii.gz"


def test_what_is_wrong_with_one_subject_is_that_subjects_error(root):
    touch(
        root,
        "sub-1/anat/sub-1_T1w.nii.gz",
        "sub-2/anat/sub-2_run-1_T1w.nii.gz",
        "sub-2/anat/sub-2_run-2_T1w.nii.gz",
        "derivatives/x/sub-2/anat/sub-2_desc-tumor_dseg.nii.gz",
        "out/sub-3/anat/sub-3_desc-tumor_dseg.nii.gz",
    )
    missing, ambiguous = find_subjects(root, root / "out")
    assert "segmentation is missing" in str(missing.problem)
    assert "sub-2_run-1_T1w.nii.gz" in str(ambiguous.problem)
    with pytest.raises(InputError, match="Several files could be the t1 image"):
        find_rows(root, root / "out", only=["2"])[0].load()


def test_a_dataset_has_to_describe_itself_unless_told_otherwise(root):
    touch(root, "derivatives/x/sub-1/anat/sub-1_desc-tumor_dseg.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x"}')
    with pytest.raises(InputError, match="BIDSVersion"):
        find_rows(root, root / "out")
    assert len(find_rows(root, root / "out", validate_bids=False)) == 1


def test_the_bids_validator_passes_the_dataset(as_bids):
    """So that what is tested above is BIDS, and not what we take for it."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    validator = shutil.which("bids-validator-deno", path=places)
    if validator is None:
        pytest.skip("needs bids-validator-deno")
    command = [validator, str(as_bids(["01", "02"])), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = json.loads(done.stdout)
    assert sorted(found["summary"]["subjects"]) == ["01", "02"]
    assert [issue for issue in found["issues"]["issues"] if issue["severity"] == "error"] == []


def test_results_are_a_bids_derivative(tmp_path):
    describe_dataset(tmp_path)
    found = json.loads((tmp_path / "dataset_description.json").read_text())
    assert found["DatasetType"] == "derivative"
    assert found["GeneratedBy"][0]["Name"] == "gliodil"
