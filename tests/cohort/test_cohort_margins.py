"""A cohort, laid out as PREDICT-GBM does, at the volumes of isotropic margins, with maps made elsewhere."""

from __future__ import annotations

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from gliodil.cohort.inputs import find_rows
from gliodil.cohort.margin_table import by_target, margin_results
from gliodil.data.patient import load_patient
from gliodil.data.registration.prepare import restore
from gliodil.errors import InputError

QUICK = ("--cells", 12, "--scheduler", "none")
PLACES = {
    "seg": "tumor_segmentation/tumor_seg",
    "wm": "tissue_segmentation/wm_pbmap",
    "gm": "tissue_segmentation/gm_pbmap",
    "csf": "tissue_segmentation/csf_pbmap",
    "brain": "skull_stripped/brain_mask",
    "t1": "skull_stripped/t1_skullstripped",
}
RECURRENCE = "longitudinal/recurrence_preop.nii.gz"


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def scored(original, cohort, tmp_path_factory):
    """Two patients, the second without follow-up; a map equal to the model's of the first, and a later one."""
    pytest.importorskip("filelock", reason="needs filelock")
    root = tmp_path_factory.mktemp("margins")
    for name in ("a", "b"):
        for role, place in PLACES.items():
            target = root / "in/predict_gbm" / name / "ses-preop" / f"{place}.nii.gz"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(original / f"{role}.nii.gz", target)
    later_file = root / "in/predict_gbm/a/ses-preop" / RECURRENCE
    later_file.parent.mkdir()
    # Later tumour lies in and outside the GTV.
    seg, later = (nib.load(original / f"{name}.nii.gz") for name in ("seg", "recurrence"))
    both = (np.asarray(later.dataobj) != 0) | (np.asarray(seg.dataobj) == 3)
    nib.save(nib.Nifti1Image(both.astype(np.uint8), seg.affine), later_file)
    first = cohort(root / "in", root / "out", "participant", *QUICK)
    (root / "maps").mkdir()
    reach = nib.load(root / "out/a/reach.nii.gz")
    nib.save(nib.Nifti1Image(-np.asarray(reach.dataobj), reach.affine), root / "maps/a_same.nii.gz")
    shutil.copy(later_file, root / "maps/a_oracle.nii.gz")
    before = (root / "out/a/density.nii.gz").stat().st_mtime_ns
    density = [
        f"--density={name}={root}/maps/{{patient}}_{name}.nii.gz" for name in ("same", "oracle", "gone")
    ]
    second = cohort(root / "in", root / "out", "participant", *QUICK, *density)
    assert (root / "out/a/density.nii.gz").stat().st_mtime_ns == before
    group = cohort(root / "in", root / "out", "group", *density)
    return root, first, second, group, density


def test_a_finished_patient_is_scored_with_new_maps_and_not_planned_again(scored, cohort):
    root, first, second, group, density = scored
    assert [run.code for run in (first, second, group)] == [0, 0, 0]
    margins = json.loads((root / "out/a/coverage_margins.json").read_text())
    assert list(margins["coverage"]) == ["standard", "trimmed", "model", "same", "oracle"]
    assert margins["coverage"]["same"] == margins["coverage"]["model"]
    # A map of the recurrence itself finds all of it as soon as there is room.
    assert margins["coverage"]["oracle"]["any"][-1] == 1.0
    assert not (root / "out/b/coverage_margins.json").exists()
    (warning,) = margins["warnings"]
    assert "density gone is not scored" in warning
    assert "a_gone.nii.gz" in warning
    third = cohort(root / "in", root / "out", "participant", *QUICK, *density)
    assert "(2 of them before)" in third.err


def test_the_recipe_names_the_label_convention(scored):
    metrics = json.loads((scored[0] / "out/a/metrics.json").read_text())
    assert metrics["label_convention"] == "brats-2024-post"
    assert set(metrics["inputs"]) == {"seg", "wm", "gm", "csf", "brain", "t1", "recurrence"}


def test_coverage_at_the_rules_margin_is_that_of_the_plans(scored):
    root = scored[0]
    margins = json.loads((root / "out/a/coverage_margins.json").read_text())
    metrics = json.loads((root / "out/a/metrics.json").read_text())
    at = margins["margins_mm"].index(15.0)
    for kind in ("any", "enhancing"):
        for plan in ("standard", "model"):
            assert margins["coverage"][plan][kind][at] == pytest.approx(metrics["coverage"][kind][plan])


def test_new_tumour_is_what_lies_outside_the_gtv(scored):
    root = scored[0]
    margins = json.loads((root / "out/a/coverage_margins.json").read_text())
    later, gtv = (
        np.asarray(nib.load(path).dataobj) != 0
        for path in (root / "in/predict_gbm/a/ses-preop" / RECURRENCE, root / "out/a/gtv.nii.gz")
    )
    per_voxel = margins["target_ml"]["any"] / later.sum()
    assert margins["target_ml"]["any_new"] == pytest.approx((later & ~gtv).sum() * per_voxel)
    assert 0 < margins["target_ml"]["any_new"] < margins["target_ml"]["any"]


def test_the_group_tells_differences_by_margin(scored):
    root, _, _, group, _ = scored
    rows = rows_of(root / "out/cohort_margins.tsv")
    assert len(rows) == 5 * 4 * 5
    assert {row["ranking"] for row in rows} >= {"standard", "density:same", "density:oracle"}
    for row in rows:
        if row["ranking"] == "standard":
            assert row["difference"] in ("0", "n/a")
    assert list(json.loads((root / "out/cohort_margins.json").read_text())) == list(rows[0])
    found = json.loads((root / "out/cohort_statistics.json").read_text())["margins"]
    assert {entry["n"] for entry in found} == {1}
    assert "density:oracle" in group.err
    page = (root / "out/cohort.html").read_text()
    assert "At the volumes of isotropic margins" in page
    assert "density:oracle" in page


def test_the_group_says_what_is_not_scored_yet(scored, cohort, tmp_path):
    root = scored[0]
    shutil.copytree(root / "out", tmp_path / "out")
    run = cohort(
        root / "in", tmp_path / "out", "group", f"--density=other={root}/maps/{{patient}}_same.nii.gz"
    )
    assert "1 patient not scored with these maps yet (a)" in run.err


def test_a_table_names_maps_in_columns(tmp_path):
    table = tmp_path / "cohort.tsv"
    table.write_text("patient_id\tseg\tdensity:mine\tdensity:yours\n1\ts.nii\tm.nii\tn/a\n")
    (row,) = find_rows(table, tmp_path / "out", densities={"third": str(tmp_path / "{patient}/d.nii")})
    assert row.densities == {"mine": tmp_path / "m.nii", "third": tmp_path / "1/d.nii"}
    assert row.files == {"seg": tmp_path / "s.nii"}
    for name in ("model", "a b", ""):
        with pytest.raises(InputError, match="cannot have this name"):
            find_rows(table, tmp_path / "out", densities={name: "x"})


def margins(**coverage):
    return {
        "margins_mm": [5.0, 10.0],
        "coverage": {
            ranking: {
                "any": values,
                "any_new": [None, None],
                "enhancing": values,
                "enhancing_new": [None, None],
            }
            for ranking, values in coverage.items()
        },
    }


def test_differences_are_over_the_patients_that_have_both():
    followed = [
        margins(standard=[0.5, 0.8], model=[0.6, 0.8], mine=[0.4, 0.9]),
        margins(standard=[0.4, 0.6], model=[0.7, 0.6]),
    ]
    found = {(r.ranking, r.margin_mm): r for r in margin_results(followed) if r.target == "any"}
    model, mine = found["model", 5.0], found["density:mine", 10.0]
    assert (model.n, model.mean) == (2, pytest.approx(0.65))
    assert (model.difference, model.low, model.high) == pytest.approx((0.2, 0.1, 0.3))
    assert (mine.n, mine.difference, mine.low) == (1, pytest.approx(0.1), None)
    # No patient has new tumour, and all tumour enhances: one table is left.
    assert list(by_target(margin_results(followed))) == ["any recurrence"]


def test_maps_that_were_made_for_a_plan_are_found_again(original, tmp_path):
    for role in ("wm", "gm", "csf", "brain", "barriers"):
        if (original / f"{role}.nii.gz").exists():
            shutil.copy(original / f"{role}.nii.gz", tmp_path / f"{role}.nii.gz")
    bare = load_patient(files={"seg": original / "seg.nii.gz", "t1": original / "t1.nii.gz"})
    with pytest.raises(InputError, match="tell brain from the rest"):
        _ = bare.brain
    whole = load_patient(original)
    restored = restore(bare, tmp_path)
    assert np.array_equal(restored.brain, whole.brain)
    np.testing.assert_array_equal(restored.volumes["wm"].data, whole.volumes["wm"].data)
    assert restore(bare, tmp_path / "no") is bare
