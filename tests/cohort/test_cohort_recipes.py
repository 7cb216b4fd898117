"""Layouts of published data sets: recognised, read by a recipe, and what is missing told patient by patient."""

from __future__ import annotations

import json
import logging

import pytest

from gliodil.cohort.inputs import find_rows
from gliodil.cohort.recipes import get_recipe, packaged, parse_recipe
from gliodil.data.discover import FILE_ROLES
from gliodil.errors import InputError


def tree(root, *places):
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).touch()
    return root


def named(rows, root):
    """Files of each row by role, as paths below the root."""
    return {
        row.identity: {role: path.resolve().relative_to(root).as_posix() for role, path in row.files.items()}
        for row in rows
    }


PREDICT = [
    f"ses-preop/{place}"
    for place in (
        "tumor_segmentation/tumor_seg.nii.gz",
        "tissue_segmentation/wm_pbmap.nii.gz",
        "tissue_segmentation/gm_pbmap.nii.gz",
        "tissue_segmentation/csf_pbmap.nii.gz",
        "skull_stripped/t1c_skullstripped.nii.gz",
    )
]

LAYOUTS = {
    "predict-gbm": (
        [
            *(f"predict_gbm/A-1/{place}" for place in PREDICT),
            "predict_gbm/A-1/ses-preop/longitudinal/recurrence_preop.nii.gz",
        ],
        {
            "A-1": {
                "seg": "predict_gbm/A-1/ses-preop/tumor_segmentation/tumor_seg.nii.gz",
                "wm": "predict_gbm/A-1/ses-preop/tissue_segmentation/wm_pbmap.nii.gz",
                "gm": "predict_gbm/A-1/ses-preop/tissue_segmentation/gm_pbmap.nii.gz",
                "csf": "predict_gbm/A-1/ses-preop/tissue_segmentation/csf_pbmap.nii.gz",
                "t1c": "predict_gbm/A-1/ses-preop/skull_stripped/t1c_skullstripped.nii.gz",
                "recurrence": "predict_gbm/A-1/ses-preop/longitudinal/recurrence_preop.nii.gz",
            }
        },
    ),
    "brats": (
        [
            "HGG/BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz",
            "HGG/BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz",
            "HGG/BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii",
            "HGG/BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii",
        ],
        {
            "BraTS20_Training_001": {
                "seg": "HGG/BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz",
                "t1c": "HGG/BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz",
            },
            "BraTS-GLI-00001-000": {
                "seg": "HGG/BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii",
                "flair": "HGG/BraTS-GLI-00001-000/BraTS-GLI-00001-000-t2f.nii",
            },
        },
    ),
    "brats-2013": (
        [
            "brats_2013_pat0001_1/VSD.Brain_3more.XX.O.OT.54512/VSD.Brain_3more.XX.O.OT.54512.nii.gz",
            "brats_2013_pat0001_1/VSD.Brain.XX.O.MR_T1.54513/VSD.Brain.XX.O.MR_T1.54513.nii.gz",
            "brats_2013_pat0001_1/VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514.nii.gz",
        ],
        {
            "brats_2013_pat0001_1": {
                "seg": "brats_2013_pat0001_1/VSD.Brain_3more.XX.O.OT.54512/VSD.Brain_3more.XX.O.OT.54512.nii.gz",
                "t1": "brats_2013_pat0001_1/VSD.Brain.XX.O.MR_T1.54513/VSD.Brain.XX.O.MR_T1.54513.nii.gz",
                "t1c": "brats_2013_pat0001_1/VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514.nii.gz",
            }
        },
    ),
    "upenn-gbm": (
        [
            "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz",
            "images_structural/UPENN-GBM-00001_21/UPENN-GBM-00001_21_T1GD.nii.gz",
            "images_structural/UPENN-GBM-00002_11/UPENN-GBM-00002_11_T1.nii.gz",
            "images_structural_unstripped/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD_unstripped.nii.gz",
            "automated_segm/UPENN-GBM-00001_11_automated_approx_segm.nii.gz",
            "automated_segm/UPENN-GBM-00002_11_automated_approx_segm.nii.gz",
            "images_segm/UPENN-GBM-00001_11_segm.nii.gz",
        ],
        {
            "UPENN-GBM-00001_11": {
                "seg": "images_segm/UPENN-GBM-00001_11_segm.nii.gz",
                "t1c": "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz",
            },
            "UPENN-GBM-00002_11": {
                "seg": "automated_segm/UPENN-GBM-00002_11_automated_approx_segm.nii.gz",
                "t1": "images_structural/UPENN-GBM-00002_11/UPENN-GBM-00002_11_T1.nii.gz",
            },
        },
    ),
    "ucsf-pdgm": (
        [
            "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_tumor_segmentation.nii.gz",
            "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_brain_segmentation.nii.gz",
            "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c_bias.nii.gz",
            "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c.nii.gz",
            "UCSF-PDGM-0004_FU003d_nifti/UCSF-PDGM-0004_FU003d_T1c.nii.gz",
        ],
        {
            "UCSF-PDGM-0004": {
                "seg": "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_tumor_segmentation.nii.gz",
                "brain": "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_brain_segmentation.nii.gz",
                "t1c": "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c_bias.nii.gz",
            }
        },
    ),
    "lumiere": (
        [
            f"Imaging/{place}"
            for place in (
                "Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",
                "Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/skull_strip/ct1_skull_strip.nii.gz",
                "Patient-001/week-000-2/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",
                "Patient-001/week-044/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",
                "Patient-001/week-056/CT1.nii.gz",
                "Patient-002/week-000/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",
            )
        ],
        {
            "Patient-001": {
                "seg": "Imaging/Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz",
                "t1c": "Imaging/Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/skull_strip/"
                "ct1_skull_strip.nii.gz",
                "recurrence": "Imaging/Patient-001/week-044/DeepBraTumIA-segmentation/atlas/segmentation/"
                "seg_mask.nii.gz",
            },
            "Patient-002": {
                "seg": "Imaging/Patient-002/week-000/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz"
            },
        },
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_is_recognised_and_read(name, tmp_path, caplog):
    places, expected = LAYOUTS[name]
    root = tree(tmp_path / "data", *places)
    with caplog.at_level(logging.INFO, "gliodil"):
        rows = find_rows(root, tmp_path / "out")
    assert named(rows, root) == expected
    assert f"recipe {name}" in caplog.text
    assert {row.labels for row in rows} == {get_recipe(name).labels or None}
    assert all(row.problem is None for row in rows)
    assert named(find_rows(root, tmp_path / "out", recipe=name), root) == expected


def test_every_packaged_layout_is_tried():
    assert set(LAYOUTS) == set(packaged())
    for recipe in packaged().values():
        assert recipe.description
        assert recipe.source
        assert set(recipe.files) <= set(FILE_ROLES)


def test_a_patient_without_a_needed_file_names_itself_and_the_pattern(tmp_path):
    whole = [f"predict_gbm/1/{place}" for place in PREDICT]
    root = tree(tmp_path / "data", *whole, "predict_gbm/2/ses-followup/a.nii.gz")
    tree(root, *(f"predict_gbm/3/{place}" for place in PREDICT if "wm_" not in place))
    first, second, third = find_rows(root, tmp_path / "out")
    assert first.problem is None
    with pytest.raises(InputError, match=r"ses-preop/tumor_segmentation/tumor_seg.nii.gz") as error:
        second.load()
    assert error.value.patient == "2"
    with pytest.raises(InputError, match=r"wm: ses-preop/tissue_segmentation/wm_pbmap.nii.gz"):
        third.load()


def test_several_files_for_one_pattern_are_that_patients_problem(tmp_path):
    folder = "BraTS20_Training_00"
    root = tree(
        tmp_path / "data",
        f"{folder}1/{folder}1_seg.nii.gz",
        f"{folder}1/{folder}1_seg.nii",
        f"{folder}2/{folder}2_seg.nii",
    )
    first, second = find_rows(root, tmp_path / "out")
    assert "Several files could be the seg image" in str(first.problem)
    assert f"{folder}1_seg.nii.gz" in str(first.problem)
    assert second.problem is None


def test_a_folder_beside_the_patients_keeps_a_layout_from_being_assumed(tmp_path, caplog):
    root = tree(tmp_path / "data", "BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz", "mine/seg.nii.gz")
    assert [row.identity for row in find_rows(root, tmp_path / "out")] == ["BraTS20_Training_001", "mine"]
    (row,) = find_rows(root, tmp_path / "out", recipe="brats")
    assert row.identity == "BraTS20_Training_001"
    assert "left out, not named like patients: mine" in caplog.text


def test_plain_patients_follow_no_recipe(tmp_path):
    root = tree(tmp_path / "data", "a/seg.nii.gz", "b/seg.nii.gz")
    rows = find_rows(root, tmp_path / "out")
    assert [row.folder for row in rows] == [root / "a", root / "b"]
    with pytest.raises(InputError, match="finds no patients"):
        find_rows(root, tmp_path / "out", recipe="ucsf-pdgm")


def test_labels_given_take_precedence(tmp_path):
    root = tree(tmp_path / "data", *LAYOUTS["upenn-gbm"][0])
    assert {row.labels for row in find_rows(root, tmp_path / "out", labels="brats-2023")} == {"brats-2023"}


OWN = """
labels = "decathlon"
patients = ["cases/{patient}"]
[files]
seg = ["../../labels/{patient}_v?.nii.gz"]
t1c = ["ce.nii.gz"]
"""


def test_a_recipe_of_ones_own(tmp_path):
    root = tree(tmp_path / "data", "cases/x[1]/ce.nii.gz", "labels/x[1]_v2.nii.gz", "cases/y/ce.nii.gz")
    (tmp_path / "mine.toml").write_text(OWN)
    first, second = find_rows(root, tmp_path / "out", recipe=str(tmp_path / "mine.toml"))
    # Brackets in a folder's name are no pattern, and no name for a result.
    assert named([first], root) == {"x_1": {"seg": "labels/x[1]_v2.nii.gz", "t1c": "cases/x[1]/ce.nii.gz"}}
    assert first.labels == "decathlon"
    assert "../../labels/{patient}_v?.nii.gz (recipe mine)" in str(second.problem)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patients = [", "not valid"),
        ('patient = ["{patient}"]', "patient = "),
        ('patients = "{patient}"', "patients = "),
        ('patients = ["{patient}"]', "neither patients"),
        ('patients = ["{patient}"]\nnamed = "("\n[files]\nseg = ["s"]', "not valid"),
        ('patients = ["{patient}"]\nlabels = "brats"\n[files]\nseg = ["s"]', "brats"),
        ('patients = ["{patient}"]\n[files]\nseg = ["s"]\nt3 = ["t"]', "unknown t3"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(text, "mine")


def test_no_recipe_of_that_name(tmp_path):
    with pytest.raises(InputError, match="predict-gbm"):
        get_recipe("predictgbm")
    with pytest.raises(InputError, match="does not exist"):
        get_recipe(str(tmp_path / "no.toml"))


def dataset(tmp_path, patients, root="/elsewhere/GBM"):
    file = tmp_path / "set.json"
    file.write_text(json.dumps({"dataset_id": "GBM", "root_dir": root, "patients": patients}))
    return file


def test_a_data_set_as_json_wherever_it_was_moved(tmp_path):
    root = tree(tmp_path, "P1/seg.nii.gz", "P1/wm.nii.gz", "P1/gm.nii.gz", "P1/rec.nii.gz", "P1/t1c.nii.gz")
    at = "/elsewhere/GBM/P1"
    patient = {
        "patient_id": "P1",
        "patient_dir": at,
        "exams": [
            {"timepoint": "postop", "t1c": f"{at}/no.nii.gz"},
            {"timepoint": "preop", "t1c": f"{at}/t1c.nii.gz", "t1": None},
            {"timepoint": "followup", "t1c": f"{at}/no.nii.gz"},
        ],
        "derivatives": {
            "tumor_seg": f"{at}/seg.nii.gz",
            "wm_pbmap": "P1/wm.nii.gz",
            "gm_pbmap": str(root / "P1/gm.nii.gz"),
            "recurrence_seg": f"{at}/rec.nii.gz",
        },
    }
    (row,) = find_rows(dataset(tmp_path, [patient]), tmp_path / "out")
    assert row.problem is None
    assert row.labels == "brats-2024-post"
    assert named([row], root) == {
        "P1": {
            "seg": "P1/seg.nii.gz",
            "wm": "P1/wm.nii.gz",
            "gm": "P1/gm.nii.gz",
            "t1c": "P1/t1c.nii.gz",
            "recurrence": "P1/rec.nii.gz",
        }
    }


def test_exams_by_type_with_their_paths_in_a_block(tmp_path):
    root = tree(tmp_path, "s.nii.gz", "w.nii.gz", "g.nii.gz", "r.nii.gz")
    preop = {"images": {"seg": "s.nii.gz", "wm": "w.nii.gz", "gm": "g.nii.gz"}}
    patients = {"P 1": {"exams": {"ses-preop": preop, "follow-up": [{"tumorseg": "r.nii.gz"}]}}}
    (row,) = find_rows(dataset(tmp_path, patients, root=""), tmp_path / "out")
    expected = {"seg": "s.nii.gz", "wm": "w.nii.gz", "gm": "g.nii.gz", "recurrence": "r.nii.gz"}
    assert named([row], root) == {"P_1": expected}


def test_what_the_json_lacks_is_told_by_patient_and_key(tmp_path):
    tree(tmp_path, "s.nii.gz", "w.nii.gz", "g.nii.gz")
    whole = {"tumor_seg": "s.nii.gz", "wm_pbmap": "w.nii.gz", "gm_pbmap": "g.nii.gz"}
    patients = [
        {"patient_id": "1", "derivatives": whole},
        {"patient_id": "2", "derivatives": {**whole, "csf_pbmap": "gone.nii.gz"}},
        {"patient_id": "3", "exams": [{"timepoint": "preop", "t1c": "s.nii.gz"}]},
        "nonsense",
    ]
    rows = find_rows(dataset(tmp_path, patients), tmp_path / "out")
    assert [row.problem is None for row in rows] == [True, False, False, False]
    assert "derivatives.csf_pbmap" in str(rows[1].problem)
    assert "derivatives.tumor_seg or " in str(rows[2].problem)


@pytest.mark.parametrize("text", ["{", "{}", '"abc"', "[]", '{"patients": []}'])
def test_a_json_without_patients_is_refused(tmp_path, text):
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(InputError, match=r"lists no patients|not valid JSON"):
        find_rows(tmp_path / "set.json", tmp_path / "out")
