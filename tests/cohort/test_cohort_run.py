"""A cohort from folder to report: states, resuming, locks, exit codes, group results."""

from __future__ import annotations

import csv
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from killed import kill_in_the_fit

from gliodil.cohort.status import locked, read_status, write_status

pytest.importorskip("filelock", reason="needs filelock")
ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--cells", 12, "--labels", "brats-2023", "--scheduler", "none")


def statuses(out: Path) -> dict[str, str]:
    return {path.parent.name: json.loads(path.read_text())["state"] for path in out.glob("*/status.json")}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign_labels(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 10, image.affine), path)


@pytest.fixture(scope="module")
def planned(original, cohort, tmp_path_factory):
    """Three patients: one good, one truncated, one with labels of no convention. Not to be changed."""
    root = tmp_path_factory.mktemp("cohort")
    for name in ("good", "torn", "odd"):
        shutil.copytree(original, root / "in" / name)
    damage(root / "in/torn/wm.nii.gz")
    foreign_labels(root / "in/odd/seg.nii.gz")
    run = cohort(root / "in", root / "out", "participant", *QUICK)
    return root, run


@pytest.fixture
def copied(planned, tmp_path) -> Path:
    """The same, to do with as a test likes."""
    for name in ("in", "out"):
        shutil.copytree(planned[0] / name, tmp_path / name)
    return tmp_path


def test_the_broken_ones_fail_with_reasons_and_the_good_one_is_done(planned):
    root, run = planned
    assert run.code == 2
    assert run.out == f"{root / 'out'}\n"
    assert statuses(root / "out") == {"good": "done", "torn": "failed", "odd": "failed"}
    assert "1 done, 2 failed" in run.err
    assert "wm.nii.gz" in run.err
    assert "copy or download the file again" in run.err
    torn = read_status(root / "out/torn")
    assert torn["stage"] == "check"
    assert torn["error"]["type"] == "ImageFileError"
    assert torn["error"]["file"] == "wm.nii.gz"
    assert "load" in torn["error"]["traceback"]
    assert torn["inputs"]["wm"]["name"] == "wm.nii.gz"
    assert len(torn["inputs"]["wm"]["sha256"]) == 64
    assert not (root / "out/torn/report.html").exists()


def test_status_says_what_was_done_with_what(planned):
    root, _ = planned
    status = read_status(root / "out/good")
    assert status["stage"] == "done"
    assert status["seconds"] > 0
    assert status["peak_memory_mb"] > 10
    assert status["error"] is None
    provenance = json.loads((root / "out/good/provenance.json").read_text())
    assert status["fingerprint"] == provenance["config"]["fingerprint"]
    hashes = {entry["key"]: entry["sha256"] for entry in provenance["inputs"]}
    assert {role: entry["sha256"] for role, entry in status["inputs"].items()} == hashes
    assert "Plans(" in (root / "out/good/run.log").read_text()
    text = (root / "out/good/status.json").read_text() + (root / "out/torn/status.json").read_text()
    assert str(root) not in text  # where the patients lie is nobody's business


def test_every_row_is_in_the_check_table(planned):
    root, _ = planned
    rows = {row["patient_id"]: row for row in rows_of(root / "out/cohort_check.tsv")}
    assert {name: (row["valid"], row["decision"]) for name, row in rows.items()} == {
        "good": ("yes", "run"),
        "torn": ("no", "invalid"),
        "odd": ("no", "invalid"),
    }
    assert rows["good"]["label_convention"] == "brats-2023"
    assert "label 10" in rows["odd"]["found"]
    assert rows["torn"]["label_convention"] == "n/a"


def test_a_rerun_does_exactly_what_was_mended(copied, cohort, original):
    shutil.copy(original / "wm.nii.gz", copied / "in/torn/wm.nii.gz")
    before = (copied / "out/good/density.nii.gz").stat().st_mtime_ns
    run = cohort(copied / "in", copied / "out", "participant", *QUICK)
    assert run.code == 2
    assert statuses(copied / "out") == {"good": "done", "torn": "done", "odd": "failed"}
    assert (copied / "out/good/density.nii.gz").stat().st_mtime_ns == before
    assert "2 done, 1 failed (1 of them before)" in run.err
    one, two = (nib.load(copied / f"out/{name}/ctv_model.nii.gz") for name in ("good", "torn"))
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj))


def test_a_stale_result_is_planned_again_and_a_settled_failure_is_not(copied, cohort):
    """`later` failed in an earlier run at its fit: it is tried again when told to, or when its inputs change."""
    shutil.rmtree(copied / "in/torn")
    shutil.rmtree(copied / "in/odd")
    status = read_status(copied / "out/good")
    write_status(copied / "out/good", {**status, "state": "failed", "error": {"problem": "It was too dark."}})
    run = cohort(copied / "in", copied / "out", "participant", *QUICK)
    assert run.code == 2
    assert "It was too dark. (before)" in run.err
    dry = cohort(copied / "in", copied / "out", "participant", *QUICK, "--retry-failed", "--dry-run")
    assert (dry.code, "to be planned" in dry.err) == (0, True)
    assert read_status(copied / "out/good")["state"] == "failed"
    # The plan itself is finished and fits: only its state was wrong, so this takes no time.
    assert cohort(copied / "in", copied / "out", "participant", *QUICK, "--retry-failed").code == 0
    assert read_status(copied / "out/good")["state"] == "done"
    for change in (("--cells", 16), ("--force",)):
        dry = cohort(copied / "in", copied / "out", "participant", *QUICK, *change, "--dry-run")
        assert "to be planned" in dry.err, change
    (copied / "in/good/pet.nii.gz").unlink()
    dry = cohort(copied / "in", copied / "out", "participant", *QUICK, "--dry-run")
    assert "to be planned" in dry.err


@pytest.mark.parametrize("text", ["[1", '{"state": 7, "schema_version": 1}', "\0" * 40])
def test_a_damaged_record_is_set_aside_and_the_patient_looked_at_again(copied, cohort, text):
    for name in ("torn", "odd"):
        shutil.rmtree(copied / "in" / name)
    (copied / "out/good/status.json").write_text(text)
    before = (copied / "out/good/density.nii.gz").stat().st_mtime_ns
    group = cohort(copied / "in", copied / "out", "group")
    assert group.code == 1
    assert "1 failed" in group.err
    assert cohort(copied / "in", copied / "out", "participant", *QUICK).code == 0
    status = read_status(copied / "out/good")
    assert status["state"] == "done"
    assert "status.json was damaged" in status["warnings"][0]
    assert (copied / "out/good/status.damaged.json").read_text() == text
    assert (copied / "out/good/density.nii.gz").stat().st_mtime_ns == before  # the result itself was whole
    assert cohort(copied / "in", copied / "out", "participant", *QUICK, "--force", "--dry-run").code == 0


def test_what_is_somebody_elses_fails_its_patient_alone(planned, cohort, tmp_path):
    for name, file in (("good", "status.json"), ("odd", "notes.txt")):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / file).write_text("mine")
    run = cohort(planned[0] / "in", tmp_path / "out", "participant", *QUICK)
    assert run.code == 2
    assert "3 failed" in run.err
    for name, file in (("good", "status.json"), ("odd", "notes.txt")):
        assert [(p.name, p.read_text()) for p in (tmp_path / "out" / name).iterdir()] == [(file, "mine")]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("too deep"), ValueError("a\x1b[2Jb")])
def test_whatever_goes_wrong_is_one_patients_failure(copied, cohort, monkeypatch, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr("gliodil.cohort.task.plan_patient", failing)
    run = cohort(copied / "in", copied / "out", "participant", *QUICK, "--force")
    assert run.code == 2
    assert statuses(copied / "out") == dict.fromkeys(("good", "torn", "odd"), "failed")
    assert type(error).__name__ in run.err
    assert "\x1b" not in run.err
    assert "Traceback" not in run.err
    assert "failing" in (copied / "out/good/run.log").read_text()


def test_a_dry_run_writes_nothing_and_tells_what_is_wrong(planned, cohort, tmp_path):
    run = cohort(planned[0] / "in", tmp_path / "out", "participant", *QUICK, "--dry-run")
    assert run.code == 2
    assert "good  to be planned" in run.err
    assert "torn  cannot be planned: The file is damaged" in run.err
    assert not (tmp_path / "out").exists()


def test_stop_on_first_error_leaves_the_others_alone(planned, cohort, tmp_path):
    run = cohort(planned[0] / "in", tmp_path / "out", "participant", *QUICK, "--stop-on-first-error")
    assert run.code == 2
    assert "2 failed, 1 skipped" in run.err
    assert set(statuses(tmp_path / "out")) == {"torn", "odd"}


def test_only_chooses_patients(planned, cohort, tmp_path):
    run = cohort(planned[0] / "in", tmp_path / "out", "participant", *QUICK, "--only", "odd")
    assert run.code == 2
    assert statuses(tmp_path / "out") == {"odd": "failed"}


def test_misuse_is_one_error_and_exit_code_1(planned, cohort, tmp_path):
    for arguments in (
        (tmp_path / "nowhere", tmp_path / "out", "participant"),
        (tmp_path, tmp_path / "out", "everything"),
        (tmp_path, tmp_path / "out", "group"),
        (planned[0] / "in", tmp_path / "out", "participant", "--rule", "none-such"),
        (planned[0] / "in", tmp_path / "out", "participant", "--labels", "none-such"),
        (planned[0] / "in", tmp_path / "out", "participant", "--mem-mb", 100),
    ):
        assert cohort(*arguments).code == 1
    assert not (tmp_path / "out").exists()


def test_a_patient_under_way_elsewhere_is_waited_for_and_not_done_twice(copied, cohort):
    """Another runner holds the lock, finishes, and lets go; this one takes over its result, even with --force."""
    done = read_status(copied / "out/good")
    write_status(copied / "out/good", {**done, "state": "running", "stage": "plans"})
    before = (copied / "out/good/density.nii.gz").stat().st_mtime_ns
    check = copied / "out/cohort_check.tsv"
    check.unlink()
    with ThreadPoolExecutor(1) as pool:
        with locked(copied / "out/good") as mine:
            assert mine
            arguments = (copied / "in", copied / "out", "participant", *QUICK, "--only", "good", "--force")
            waiting = pool.submit(cohort, *arguments)
            deadline = time.monotonic() + 60
            while not check.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.5)
            assert not waiting.done()
            write_status(copied / "out/good", {**done, "started_s": time.time(), "seconds": 1.0})
        run = waiting.result(timeout=60)
    assert run.code == 0, run.err
    assert "(before)" in run.err
    assert (copied / "out/good/density.nii.gz").stat().st_mtime_ns == before


def test_a_run_killed_at_any_moment_is_taken_up_again_with_the_same_result(planned, cohort, tmp_path):
    """kill -9 of the runner and of all it started, in the middle of a fit, which is then continued."""
    source, out = planned[0] / "in", tmp_path / "out"
    kill_in_the_fit("cohort", source, out, "participant", *QUICK, "--only", "good", times=9)
    assert read_status(out / "good")["state"] == "running"
    assert not (out / "good/report.html").exists()
    assert (out / ".good.odil.checkpoint.npz").exists()
    assert cohort(source, out, "participant", *QUICK, "--only", "good").code == 0
    assert "an interrupted fit is continued" in (out / "good/run.log").read_text("utf-8")
    assert not list(out.glob(".*"))
    masks = sorted((planned[0] / "out/good").glob("*.nii.gz"))
    assert len(masks) == 11
    for path in masks:
        assert (out / "good" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_group_has_every_patient_and_counts_the_failed(copied, cohort):
    run = cohort(copied / "in", copied / "out", "group")
    assert (run.code, run.out) == (0, f"{copied / 'out/cohort.html'}\n")
    assert "1 done, 2 failed" in run.err
    rows = rows_of(copied / "out/cohort.tsv")
    assert [(row["patient_id"], row["plan"]) for row in rows] == [
        ("good", "standard"),
        ("good", "trimmed"),
        ("good", "model"),
        ("odd", "n/a"),
        ("torn", "n/a"),
    ]
    sidecar = json.loads((copied / "out/cohort.json").read_text())
    assert list(sidecar) == list(rows[0])
    metrics = json.loads((copied / "out/good/metrics.json").read_text())
    for row in rows[:3]:
        kind = metrics["coverage"]["any"]
        assert float(row["coverage_any"]) == pytest.approx(kind[row["plan"]], rel=1e-5)
        assert float(row["difference_any"]) == pytest.approx(kind[row["plan"]] - kind["standard"], abs=1e-5)
        missed = float(row["recurrence_any_ml"]) * (1 - kind[row["plan"]])
        assert float(row["missed_any_ml"]) == pytest.approx(missed, abs=1e-4)
    # The same from the voxels.
    later, plan = (
        np.asarray(nib.load(path).dataobj) != 0
        for path in (copied / "in/good/recurrence.nii.gz", copied / "out/good/ctv_model.nii.gz")
    )
    assert float(rows[2]["iou_any"]) == pytest.approx((later & plan).sum() / (later | plan).sum(), rel=1e-4)
    statistics = json.loads((copied / "out/cohort_statistics.json").read_text())
    assert statistics["patients"] == {"done": 1, "failed": 2}
    assert statistics["analyses"][1]["primary"]["Model CTV"]["n"] == 1
    page = (copied / "out/cohort.html").read_text()
    assert "<strong>1 of 3 patients are done.</strong>" in page
    assert "The file is damaged" in page
    assert 'href="good/report.html"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_coverage_curves_pass_through_the_plans(planned):
    root, _ = planned
    curves = json.loads((root / "out/good/coverage_volume.json").read_text())
    metrics = json.loads((root / "out/good/metrics.json").read_text())
    at_one = curves["relative_volume"].index(1.0)
    for kind in ("enhancing", "any"):
        found = curves[kind]["coverage"]
        # The model CTV is the first |standard| voxels by density, whatever the curve's own code does.
        assert found["model"][at_one] == pytest.approx(metrics["coverage"][kind]["model"])
        for curve in found.values():
            assert curve[0] == 0
            assert (np.diff(curve) >= 0).all()
        assert found["standard"][at_one] == pytest.approx(metrics["coverage"][kind]["standard"], abs=0.02)


def test_the_published_table_is_a_group_of_its_own(cohort, tmp_path):
    table = tmp_path / "table.txt"
    lines = ["Patient_Code\tModel_Name\tCoverage[%]\tIoU"]
    for patient, (standard, new) in enumerate([(50, 70), (80, 75), (100, 100), (20, 90)]):
        lines += [f"{patient}\tStandard\t{standard}\t0.1", f"{patient}\tNew\t{new}\t0.1"]
    table.write_text("\n".join(lines))
    run = cohort(table, tmp_path / "out", "group")
    assert run.code == 0
    assert "difference +21.25" in run.err
    assert "2/1/1 better/equal/worse" in run.err
    page = (tmp_path / "out/cohort.html").read_text()
    assert "+21.25" in page
    assert page.count("<img") == 1
