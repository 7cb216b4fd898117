"""File names: the synonym table, folders, candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from gliodil.data import find_files
from gliodil.data.discover import role_of_name
from gliodil.errors import InputError

NAMES = {
    "seg": ["seg", "segm", "BraTS20_Training_001_seg", "BraTS-GLI-00000-000-seg", "tumor_segmentation",
            "sub-01_ses-preop_space-T1w_desc-tumor_dseg", "patient_tumorSeg", "tumour_mask", "Tumor"],
    "wm": ["wm", "t1_wm", "p1_t1_wm_001", "sub-01_space-MNI_label-WM_probseg", "WM_seg"],
    "gm": ["gm", "t1_gm", "sub-01_label-GM_probseg", "Grey-Matter"],
    "csf": ["csf", "t1_csf", "sub-01_ses-recurrence_label-CSF_probseg"],
    "brain": ["brainMask", "brain_mask", "brainmask", "mask", "brain", "t1_brain_mask",
              "sub-01_space-T1w_desc-brain_mask"],
    "t1": ["t1", "BraTS20_Training_001_t1", "BraTS-GLI-00000-000-t1n", "UPENN-GBM-00001_11_T1", "t1_brain",
           "sub-01_ses-preop_T1w", "sub-01_rec-norm_T1w", "sub-01_ses-recurrence_T1w"],
    "t1c": ["t1c", "BraTS20_Training_001_t1ce", "BraTS-GLI-00000-000-t1c", "UPENN-GBM-00001_11_T1GD", "t1_Gd",
            "RHUH-0001_t1ce", "sub-01_ses-preop_ce-gadolinium_T1w", "T1Gd"],
    "t2": ["t2", "BraTS20_Training_001_t2", "BraTS-GLI-00000-000-t2w", "sub-01_ses-preop_T2w"],
    "flair": ["flair", "FLAIR", "BraTS-GLI-00000-000-t2f", "t2_flair", "sub-01_ses-preop_FLAIR"],
    "pet": ["pet", "FET", "fet-pet", "p_pet_1", "sub-01_trc-FET_pet"],
    "recurrence": ["segm_rec", "recurrence", "rec", "seg-recurrence", "recurrence_seg"],
    "truth": ["truth_density", "sub-01_truth_density"],
    "output": ["standardPlan", "recurrencePrediction", "density", "ctv_model", "ctv_standard", "margin",
               "plan_difference", "truth"],
    None: ["adc", "dti_fa", "t10", "1t1c2", "segmx", "petal", "scan"],
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize(("role", "name"), [(role, name) for role, names in NAMES.items() for name in names])
def test_synonyms(role: str | None, name: str, suffix: str) -> None:
    assert role_of_name(name + suffix) == role


@pytest.mark.parametrize("role", ["seg", "wm", "gm", "csf", "t1", "t1c", "t2", "flair", "pet", "recurrence"])
def test_case_does_not_matter(role: str) -> None:
    for name in (role, role.upper(), role.capitalize()):
        assert role_of_name(f"{name}.nii.gz") == role


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_folder_is_sorted_by_role(tmp_path: Path) -> None:
    names = ("segm.nii.gz", "t1_wm.nii", "T1_GM.NII.GZ", "adc.nii.gz", "standardPlan.nii.gz", "notes.txt")
    found = find_files(touch(tmp_path, *names, "._segm.nii.gz", "t1.nii", "t1.nii.gz"))
    assert {role: [p.name for p in paths] for role, paths in found.roles.items()} == {
        "seg": ["segm.nii.gz"],
        "wm": ["t1_wm.nii"],
        "gm": ["T1_GM.NII.GZ"],
        "t1": ["t1.nii", "t1.nii.gz"],
    }
    assert [path.name for path in found.unknown] == ["adc.nii.gz"]
    assert [path.name for path in found.outputs] == ["standardPlan.nii.gz"]


def test_subfolders_count_only_without_images_on_top(tmp_path: Path) -> None:
    touch(tmp_path, "anat/sub-01_T1w.nii.gz", "pet/sub-01_trc-FET_pet.nii.gz")
    assert set(find_files(tmp_path).roles) == {"t1", "pet"}
    touch(tmp_path, "seg.nii.gz")
    assert set(find_files(tmp_path).roles) == {"seg"}


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_files(tmp_path / "none")
    with pytest.raises(InputError, match="no images"):
        find_files(tmp_path)
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match=r"notes\.txt"):
        find_files(tmp_path)
    with pytest.raises(InputError, match="--seg"):
        find_files(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["series/IM0001.dcm", "series/IM0001"])
def test_a_folder_of_dicom_has_no_nifti_files(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    with pytest.raises(InputError, match="no images"):
        find_files(tmp_path)
    (tmp_path / name).write_bytes(bytes(128) + b"DICM" + bytes(10))
    assert not find_files(tmp_path).roles
