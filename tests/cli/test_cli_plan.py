"""`gliodil plan`, `evaluate`, `simulate`, `demo`: what they write and what they say."""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data.patient import load_patient
from gliodil.fingerprint import fingerprint, finished

FILES = [
    "density.nii.gz",
    "ctv_standard.nii.gz",
    "ctv_trimmed.nii.gz",
    "ctv_model.nii.gz",
    "margin.nii.gz",
    "plan_difference.nii.gz",
    "gtv.nii.gz",
    "brain.nii.gz",
    "surfaces/gtv.stl",
    "surfaces/ctv_standard.stl",
    "surfaces/ctv_model.stl",
    "surfaces/ctv_model.vtu",
    "metrics.json",
    "provenance.json",
    "report.html",
    "log.txt",
]
KEYS = {
    "": "schema_version status wall_s peak_memory_mb warnings volumes_ml equal_volume_voxel_difference "
    "parameters loss fit margin_mm coverage truth",
    "volumes_ml": "gtv ctv_standard ctv_trimmed ctv_model",
    "parameters": "diffusivity_wm_mm2_per_day proliferation_rate_per_day wm_gm_ratio infiltration_length_mm "
    "threshold_core threshold_oedema origin_mm",
    "loss": "total terms evaluations",
    "fit": "method grid steps spacing_mm device dtype",
    "margin_mm": "mean min max left right anterior posterior superior inferior",
}
TERMS = "parameters pde initial seg_lower seg_upper bounds csf pet"


def voxels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)


def metrics_of(folder: Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"), parse_constant=refuse)


def check_contract(folder: Path, reference: Path) -> dict:
    """Check a plan folder against the contract and return its metrics."""
    assert [name for name in FILES if not (folder / name).is_file()] == []
    assert list((folder / "figures").glob("*.png"))
    metrics = metrics_of(folder)
    for part, names in KEYS.items():
        assert set(names.split()) <= set(metrics[part] if part else metrics), part
    assert set(metrics["loss"]["terms"]) >= set(TERMS.split())
    for name, entry in metrics["parameters"].items():
        assert {"value", "low", "high", "unit"} <= set(entry), name
        assert np.isfinite(entry["value"]).all()
    assert len(metrics["parameters"]["origin_mm"]["value"]) == 3
    assert metrics["wall_s"] > 0
    assert metrics["peak_memory_mb"] > 0
    assert metrics["equal_volume_voxel_difference"] == 0

    density = voxels(folder, "density")
    standard, trimmed, model = (voxels(folder, f"ctv_{n}") for n in ("standard", "trimmed", "model"))
    difference, margin = voxels(folder, "plan_difference"), voxels(folder, "margin")
    types = (density, standard, trimmed, model, margin, difference)
    assert [v.dtype for v in types] == [np.float32, np.uint8, np.uint8, np.uint8, np.float32, np.int8]
    seg = nib.load(reference / "seg.nii.gz")
    for name in FILES[:6]:
        image = nib.load(folder / name)
        assert image.shape == seg.shape
        np.testing.assert_allclose(image.affine, seg.affine, atol=1e-5)
    assert density.min() >= 0
    assert 0.5 < density.max() <= 1
    assert standard.sum() == model.sum() > 0
    assert set(np.unique(model)) == {0, 1}
    assert not (trimmed & ~standard).any()
    reach, brain = voxels(folder, "reach"), voxels(folder, "brain") > 0
    # The nearest voxels by reach, but for the specks and pin-holes that cleaning exchanges.
    end = np.sort(reach[brain])[np.count_nonzero(model) - 1]
    assert (reach[model > 0] <= end).mean() > 0.97
    assert metrics["ctv_end"]["reach_mm"] == pytest.approx(end)
    assert metrics["level_at_ctv_end"] == metrics["ctv_end"]["density"]
    assert set(metrics["acceptance"]) == {"accepted", "reasons"}
    assert metrics["summary"].startswith("At the standard CTV's volume")
    np.testing.assert_array_equal(difference, model.astype(np.int8) - standard.astype(np.int8))
    gtv = np.isin(np.asarray(seg.dataobj), (1, 3))
    assert margin[gtv | (model == 0)].max() == 0
    assert margin[~gtv & (model > 0)].min() > 0
    return metrics


def test_a_plan_has_every_file_and_key_of_the_contract(planned_once, original):
    metrics = check_contract(planned_once.folder, original)
    assert metrics["loss"]["terms"]["pet"] > 0
    assert metrics["fit"]["grid"] == [12, 12, 12]
    for kind in ("enhancing", "any"):
        assert set(metrics["coverage"][kind]) == {"standard", "trimmed", "model"}
        assert all(0 < value <= 1 for value in metrics["coverage"][kind].values())
    assert set(FILES) < set(json.loads((planned_once.folder / "manifest.json").read_text())["files"])


def test_a_simulated_patient_is_scored_against_its_truth(planned_once):
    truth = metrics_of(planned_once.folder)["truth"]
    assert set(truth) >= {"relative_l2", "dice_at_0.1", "dice_at_0.01", "rmse_outside_visible"}
    assert truth["dice_at_0.1"] > 0.7  # voxels of 4 mm, 12 cells, so a coarse estimate
    assert 0 < truth["relative_l2"] < 0.5


def test_the_report_path_is_all_that_stands_on_stdout(planned_once):
    assert planned_once.run.out == f"{planned_once.folder / 'report.html'}\n"
    said = planned_once.run.err
    assert "labels read as brats-2023" in said
    assert "Dice" in said
    assert "CTV" in said


def test_the_plan_is_logged_to_file_and_folder(planned_once):
    log = planned_once.log.read_text(encoding="utf-8")
    assert "Fit(" in log
    assert log.rstrip().endswith("done")
    assert "Plans(" in (planned_once.folder / "log.txt").read_text(encoding="utf-8")


def test_nothing_but_the_plan_is_left_behind(planned_once):
    root = planned_once.folder.parent
    assert sorted(path.name for path in root.iterdir()) == ["out", "run.log"]
    assert not [path for path in root.rglob(".*")]


def test_resume_keeps_a_result_and_says_so(cli, planned, original):
    before = {name: (planned / name).stat().st_mtime_ns for name in FILES}
    run = cli("plan", original, "--out", planned, "--cells", 12, "--resume")
    assert run.code == 0
    assert run.out == f"{planned / 'report.html'}\n"
    assert "kept" in run.err.lower()
    assert {name: (planned / name).stat().st_mtime_ns for name in FILES} == before


def test_quiet_prints_the_report_path_only(cli, planned, original):
    run = cli("plan", original, "--out", planned, "--cells", 12, "--resume", "--quiet")
    assert (run.code, run.out, run.err) == (0, f"{planned / 'report.html'}\n", "")


def test_resume_plans_again_when_an_input_is_gone(narrow_terminal, planned, patient):
    """Three runs in one, for the time they take: resume, without PET, in a narrow terminal without stdout."""
    os.utime(planned / "density.nii.gz", (0, 0))
    (patient / "pet.nii.gz").unlink()
    code, said = narrow_terminal("plan", patient, "--out", planned, "--cells", 12, "--resume")
    assert code == 0, said
    assert "Traceback" not in said
    assert "\x1b" in said  # a bar was drawn
    assert "CTV" in said
    assert (planned / "density.nii.gz").stat().st_mtime > 0
    metrics = check_contract(planned, patient)
    assert not metrics["loss"]["terms"]["pet"]
    assert "pet" not in metrics["inputs"]
    assert not (planned / "figures/pet.png").exists()


def test_the_fingerprint_follows_everything_a_result_depends_on(patient):
    settings = {"fit": {"cells": 12}, "rule": "benchmark-15mm"}
    loaded = load_patient(patient)
    first = fingerprint(loaded, settings)
    assert fingerprint(load_patient(patient), dict(reversed(settings.items()))) == first
    assert fingerprint(loaded, {**settings, "fit": {"cells": 16}}) != first
    assert fingerprint(loaded, {**settings, "rule": "another"}) != first
    assert fingerprint(load_patient(patient, identity="someone"), settings) != first
    assert fingerprint(load_patient(patient, labels="brats-2024-post"), settings) != first
    shutil.copy(patient / "gm.nii.gz", patient / "csf.nii.gz")
    assert fingerprint(load_patient(patient), settings) != first


def test_the_fingerprint_of_a_patient_in_memory_follows_its_voxels(synthetic):
    patient = synthetic.patient
    first = fingerprint(patient, {})
    assert fingerprint(patient, {}) == first
    labels = patient.segmentation.data.copy()
    labels[labels == 1] = 3
    changed = type(patient)(
        patient.identity, patient.segmentation.with_data(labels), patient.convention, patient.volumes
    )
    assert fingerprint(changed, {}) != first


@pytest.mark.parametrize("missing", ["density.nii.gz", "surfaces/ctv_model.vtu", "metrics.json"])
def test_resume_does_not_keep_what_is_incomplete(planned, original, missing):
    wanted = json.loads((planned / "provenance.json").read_text())["config"]["fingerprint"]
    assert finished(planned, wanted) is not None
    assert finished(planned, "another") is None
    (planned / missing).unlink()
    assert finished(planned, wanted) is None


def test_a_dry_run_shows_the_inputs_and_writes_nothing(cli, patient, tmp_path, monkeypatch, contents):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    run = cli("plan", patient, "--dry-run")
    assert (run.code, run.out) == (0, "")
    for name in ("patient_007", "seg.nii.gz", "wm.nii.gz", "4 x 4 x 4 mm", "brats-2023", "gliodil-out"):
        assert name in run.err
    assert contents(tmp_path) == before


def test_files_can_be_named_one_by_one(cli, patient, tmp_path):
    flags = [word for role in ("seg", "wm", "gm") for word in (f"--{role}", patient / f"{role}.nii.gz")]
    run = cli("plan", *flags, "--labels", "brats-2023", "--dry-run", "--out", tmp_path / "out")
    assert run.code == 0
    assert "not given: brain, csf, pet, recurrence" in run.err
    assert not (tmp_path / "out").exists()


def test_evaluate_adds_the_coverage_of_a_recurrence(cli, planned, original, tmp_path):
    before = metrics_of(planned)
    recurrence = nib.load(original / "recurrence.nii.gz")
    (tmp_path / "later").mkdir()
    later = tmp_path / "later" / "follow_up.nii.gz"
    inside = voxels(planned, "ctv_trimmed")
    nib.save(nib.Nifti1Image(inside, recurrence.affine), later)
    run = cli("evaluate", planned, "--recurrence", later)
    assert (run.code, run.out) == (0, f"{planned / 'report.html'}\n")
    after = metrics_of(planned)
    for kind in ("enhancing", "any"):  # a binary map counts as both
        assert after["coverage"][kind]["trimmed"] == after["coverage"][kind]["standard"] == 1
        assert 0 < after["coverage"][kind]["model"] <= 1
    assert after.pop("coverage_history") == [before["coverage"]]
    assert {**after, "coverage": None} == {**before, "coverage": None}
    assert "follow_up.nii.gz" in (planned / "report.html").read_text(encoding="utf-8")


def test_evaluate_says_when_part_of_the_recurrence_lies_outside(cli, planned, original, tmp_path):
    recurrence = nib.load(original / "recurrence.nii.gz")
    inside = voxels(planned, "ctv_trimmed") > 0
    data = np.pad(inside.astype(np.uint8), ((0, 40), (0, 0), (0, 0)))
    data[-20:].flat[: np.count_nonzero(inside) // 4] = 1  # beyond the images
    nib.save(nib.Nifti1Image(data, recurrence.affine), tmp_path / "wide.nii.gz")
    run = cli("evaluate", planned, "--recurrence", tmp_path / "wide.nii.gz")
    assert run.code == 0
    assert run.err.count("mL on its own grid") == 1
    assert cli("evaluate", planned, "--recurrence", tmp_path / "wide.nii.gz", "-q").err == ""


def test_evaluate_of_an_empty_recurrence_is_unknown_not_perfect(cli, planned, original, tmp_path):
    recurrence = nib.load(original / "recurrence.nii.gz")
    empty = np.zeros(recurrence.shape, np.uint8)
    nib.save(nib.Nifti1Image(empty, recurrence.affine), tmp_path / "none.nii.gz")
    run = cli("evaluate", planned, "--recurrence", tmp_path / "none.nii.gz")
    assert run.code == 0
    assert metrics_of(planned)["coverage"] == {"enhancing": None, "any": None}
    assert run.err.count("none to cover") == 2


@pytest.fixture
def coarse(monkeypatch):
    """Let `demo` and `simulate` make their patients on voxels of 4 mm, not 1 mm: seconds, not minutes."""
    from gliodil.data import synthetic

    monkeypatch.setattr(synthetic, "simulate", functools.partial(synthetic.simulate, resolution_mm=4))


@pytest.mark.usefixtures("coarse")
def test_demo_goes_from_nothing_to_a_scored_report(cli, original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = cli("demo", "--cells", 8)
    assert (run.code, run.out) == (0, f"{Path('gliodil-demo/report.html')}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["gliodil-demo"]
    metrics = check_contract(tmp_path / "gliodil-demo", original)
    assert metrics["patient"] == "demo-0"
    assert 0 < metrics["truth"]["dice_at_0.1"] <= 1
    assert json.loads((tmp_path / "gliodil-demo/provenance.json").read_text())["seed"] == 0


@pytest.mark.usefixtures("coarse")
def test_simulate_writes_a_patient_that_plan_accepts(cli, original, tmp_path, contents):
    out = tmp_path / "new" / "patient"
    run = cli("simulate", "--out", out)
    assert (run.code, run.out, run.err) == (0, f"{out}\n", "")
    assert contents(out) == contents(original)
    assert {"seg.nii.gz", "truth_density.nii.gz", "truth.json"} <= set(contents(out))
    assert cli("plan", out, "--dry-run").code == 0
