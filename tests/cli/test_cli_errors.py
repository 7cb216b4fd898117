"""Bad input and misuse: one clear error, exit code 1, and nothing written."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data.manifest import Owner, listed, write_manifest

Change = Callable[[Path], Sequence[object]]
"""Spoil a patient folder and return further arguments."""


def edit(folder: Path, role: str, function: Callable[[np.ndarray], np.ndarray], affine=None) -> None:
    path = folder / f"{role}.nii.gz"
    image = nib.load(path)
    data = function(np.asarray(image.dataobj).copy())
    nib.save(nib.Nifti1Image(data, image.affine if affine is None else affine), path)


def missing_file(folder: Path) -> Sequence[object]:
    return ["--wm", folder / "white.nii.gz"]


def not_an_image(folder: Path) -> Sequence[object]:
    (folder / "gm.nii.gz").write_text("no image at all")
    return []


def not_an_image_inside_gzip(folder: Path) -> Sequence[object]:
    (folder / "gm.nii.gz").write_bytes(gzip.compress(b"no image at all" * 100))
    return []


def truncated(role: str) -> Change:
    def change(folder: Path) -> Sequence[object]:
        path = folder / f"{role}.nii.gz"
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
        return []

    return change


def empty_segmentation(folder: Path) -> Sequence[object]:
    edit(folder, "seg", np.zeros_like)
    return []


def wrong_convention(folder: Path) -> Sequence[object]:
    return ["--labels", "gliodil"]


def permuted_labels(folder: Path) -> Sequence[object]:
    """Say decathlon (1 oedema, 2 necrotic) of labels that are brats-2023."""
    return ["--labels", "decathlon"]


def unknown_convention(folder: Path) -> Sequence[object]:
    return ["--labels", "brats-1999"]


def foreign_labels(folder: Path) -> Sequence[object]:
    edit(folder, "seg", lambda labels: labels * 10)
    return []


def apart(folder: Path) -> Sequence[object]:
    for role in ("wm", "gm", "csf", "brain", "t1", "pet", "recurrence", "truth_density"):
        affine = nib.load(folder / f"{role}.nii.gz").affine.copy()
        affine[2, 3] += 500
        edit(folder, role, lambda data: data, affine)
    return []


def maps_empty_at_the_tumour(folder: Path) -> Sequence[object]:
    """Tissue maps that cover the tumour's place on paper but have nothing there."""
    tumour = np.asarray(nib.load(folder / "seg.nii.gz").dataobj) > 0
    reach = [slice(max(i.min() - 5, 0), i.max() + 6) for i in np.nonzero(tumour)]

    def blank(data: np.ndarray) -> np.ndarray:
        data[tuple(reach)] = 0
        return data

    for role in ("wm", "gm", "csf", "brain"):
        edit(folder, role, blank)
    return []


def flat(role: str) -> Change:
    def change(folder: Path) -> Sequence[object]:
        edit(folder, role, lambda data: data[:, :, data.shape[2] // 2])
        return []

    return change


def not_a_number(folder: Path) -> Sequence[object]:
    def spoil(data: np.ndarray) -> np.ndarray:
        data[20, 20, 20] = np.nan
        return data

    edit(folder, "gm", spoil)
    return []


def percentages(folder: Path) -> Sequence[object]:
    edit(folder, "wm", lambda data: 100 * data)
    return []


def negative_probabilities(folder: Path) -> Sequence[object]:
    edit(folder, "gm", lambda data: data - np.float32(0.2))
    return []


def no_core(folder: Path) -> Sequence[object]:
    edit(folder, "seg", lambda labels: np.where(labels > 0, 2, 0).astype(np.uint8))
    return ["--labels", "brats-2023"]


def no_core_and_no_convention(folder: Path) -> Sequence[object]:
    no_core(folder)
    return []


def two_candidates(folder: Path) -> Sequence[object]:
    shutil.copy(folder / "pet.nii.gz", folder / "patient_007_fet.nii.gz")
    return []


def no_tissue(folder: Path) -> Sequence[object]:
    (folder / "wm.nii.gz").unlink()
    (folder / "gm.nii.gz").unlink()
    (folder / "t1.nii.gz").unlink()  # from which they would be made
    return []


def no_grey_matter(folder: Path) -> Sequence[object]:
    (folder / "gm.nii.gz").unlink()
    return []


def no_segmentation(folder: Path) -> Sequence[object]:
    (folder / "seg.nii.gz").unlink()
    return []


def empty_folder(folder: Path) -> Sequence[object]:
    for path in folder.iterdir():
        path.unlink()
    return []


def empty_brain(folder: Path) -> Sequence[object]:
    edit(folder, "brain", np.zeros_like)
    return []


def sheared(folder: Path) -> Sequence[object]:
    """A gantry tilt: distances in mm would be wrong."""
    for path in folder.glob("*.nii.gz"):
        affine = nib.load(path).affine.copy()
        affine[1, 2] += 1
        edit(folder, path.name.removesuffix(".nii.gz"), lambda data: data, affine)
    return []


def arguments(*words: object) -> Change:
    return lambda folder: words


# What is wrong; words that the message must hold: the file, what was found, what to do.
BAD_INPUT: dict[str, tuple[Change, list[str]]] = {
    "missing file": (missing_file, ["white.nii.gz", "does not exist", "remedy:"]),
    "not an image": (not_an_image, ["gm.nii.gz", "not a readable NIfTI image", "remedy:"]),
    "not an image in gzip": (not_an_image_inside_gzip, ["gm.nii.gz", "NIfTI", "remedy:"]),
    "truncated segmentation": (truncated("seg"), ["seg.nii.gz", "remedy:"]),
    "truncated tissue map": (truncated("wm"), ["wm.nii.gz", "damaged", "expected:", "found:", "again"]),
    "truncated picture": (truncated("t1"), ["t1.nii.gz", "damaged", "again"]),
    "all-zero segmentation": (empty_segmentation, ["seg.nii.gz", "empty", "only background", "remedy:"]),
    "wrong convention": (wrong_convention, ["seg.nii.gz", "gliodil", "label 2", "--labels brats-2023"]),
    "permuted labels": (permuted_labels, ["seg.nii.gz", "decathlon", "--labels brats-2023"]),
    "unknown convention": (unknown_convention, ["brats-1999", "brats-2017", "decathlon", "--labels"]),
    "foreign labels": (foreign_labels, ["seg.nii.gz", "label 10", "brats-2017", "relabel"]),
    "tissue maps elsewhere": (apart, ["wm.nii.gz", "same place", "expected:", "found:", "register"]),
    "tissue maps empty at the tumour": (maps_empty_at_the_tumour, ["same place", "register"]),
    "2-D segmentation": (flat("seg"), ["seg.nii.gz", "3-D", "(50, 59)", "remedy:"]),
    "2-D tissue map": (flat("wm"), ["wm.nii.gz", "3-D", "(50, 59)", "remedy:"]),
    "NaN in a tissue map": (not_a_number, ["gm.nii.gz", "1 of 141600 voxels", "remedy:"]),
    "percentages": (percentages, ["wm.nii.gz", "0 to 1", "to 100", "divide the map by 100"]),
    "negative probabilities": (negative_probabilities, ["gm.nii.gz", "0 to 1", "-0.2", "remedy:"]),
    "no core": (no_core, ["seg.nii.gz", "no tumour core", "label 1, 3", "label 2:", "remedy:"]),
    "no core, no convention": (no_core_and_no_convention, ["seg.nii.gz", "label 2:", "--labels"]),
    "two candidates": (two_candidates, ["pet.nii.gz", "patient_007_fet.nii.gz", "--pet FILE"]),
    "no tissue maps": (no_tissue, ["wm", "gm", "--wm FILE --gm FILE"]),
    "no grey matter": (no_grey_matter, ["no gm", "--wm FILE --gm FILE"]),
    "no segmentation": (no_segmentation, ["segmentation is missing", "wm.nii.gz", "--seg FILE"]),
    "empty folder": (empty_folder, ["no images", "an empty folder", "remedy:"]),
    "empty brain mask": (empty_brain, ["brain.nii.gz", "empty", "remedy:"]),
    "sheared axes": (sheared, ["not perpendicular", "degrees apart", "resample"]),
    "unknown rule": (arguments("--rule", "generous"), ["generous", "expected:", "benchmark-15mm"]),
    "unknown device": (arguments("--device", "abacus"), ["abacus", "auto, cpu"]),
    "device of no use": (arguments("--device", "meta"), ["meta", "auto, cpu", "--device"]),
    "device that is not here": (arguments("--device", "cuda:99"), ["cuda:99", "--device"]),
    "more cells than memory": (arguments("--cells", "512"), ["memory", "GB", "--cells"]),
}


def assert_one_clear_error(run, *words: str, patient: str | None = "patient_007") -> None:
    assert run.code == 1
    assert run.out == ""
    lines = run.err.splitlines()
    (start,) = (number for number, line in enumerate(lines) if line.startswith("gliodil: "))
    message = lines[start:]
    # The error ends what is said; only its particulars follow, indented.
    assert all(line.startswith("  ") for line in message[1:]), run.err
    assert "Traceback" not in run.err
    text = "\n".join(message)
    assert [word for word in words if word not in text] == [], text
    if patient is not None:
        assert f"  patient:  {patient}\n" in text


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gets_one_error_and_leaves_nothing(cli, patient, tmp_path, contents, name):
    change, words = BAD_INPUT[name]
    further = change(patient)
    before = contents(tmp_path)
    run = cli("plan", patient, "--out", tmp_path / "new" / "out", *further)
    assert_one_clear_error(run, *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["no grey matter", "unknown rule", "sheared axes", "device of no use"])
def test_a_dry_run_refuses_what_the_plan_would(cli, patient, tmp_path, contents, name):
    change, words = BAD_INPUT[name]
    further = change(patient)
    before = contents(tmp_path)
    assert_one_clear_error(cli("plan", patient, "--dry-run", "--out", tmp_path / "out", *further), *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["NaN in a tissue map", "unknown rule"])
def test_bad_input_leaves_an_earlier_result_as_it_was(cli, patient, planned, tmp_path, contents, name):
    change, words = BAD_INPUT[name]
    further = change(patient)
    before = contents(tmp_path)
    assert_one_clear_error(cli("plan", patient, "--out", planned, *further), *words)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("out", ["occupied", "occupied/below", "/proc/gliodil-out"])
def test_an_output_folder_that_cannot_be_written(cli, patient, tmp_path, contents, out):
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("needs /proc, a folder in which nobody can create files")
    (tmp_path / "occupied").write_text("a file")
    before = contents(tmp_path)
    words = ["cannot be written", out.split("/")[-1], "expected:", "found:", "--out"]
    assert_one_clear_error(cli("plan", patient, "--out", tmp_path / out), *words)
    # These two must not compute for minutes first.
    for command in ("demo", "simulate"):
        assert_one_clear_error(cli(command, "--out", tmp_path / out), *words, patient=None)
    assert contents(tmp_path) == before


def test_a_patient_folder_that_is_not_there(cli, tmp_path):
    run = cli("plan", tmp_path / "nobody", "--out", tmp_path / "out")
    assert_one_clear_error(run, "does not exist", "nobody", "expected:", "remedy:", patient="nobody")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_a_patient_folder(cli, patient, tmp_path):
    run = cli("plan", patient / "seg.nii.gz", "--out", tmp_path / "out")
    assert_one_clear_error(run, "seg.nii.gz", "not a patient folder", "--seg", patient=None)


def test_no_patient_at_all(cli, patient):
    assert_one_clear_error(cli("plan"), "no patient", "--seg", "gliodil plan --help", patient=None)
    run = cli("plan", "--wm", patient / "wm.nii.gz")
    assert_one_clear_error(run, "no patient", "--wm", "--seg", patient=None)


@pytest.mark.parametrize("command", [["plan", "somewhere"], ["demo"]])
@pytest.mark.parametrize("cells", ["7", "513", "-12"])
def test_cells_out_of_range(cli, command, cells):
    run = cli(*command, "--cells", cells)
    assert_one_clear_error(run, "cells", "8 to 512", cells, patient=None)


@pytest.mark.parametrize(
    ("words", "found"), [(["--foci", "2"], "1 or 3"), (["--seed", "-1"], "0, 1, 2, ...")]
)
def test_simulate_refuses_what_it_cannot_make(cli, tmp_path, words, found):
    assert_one_clear_error(cli("simulate", "--out", tmp_path / "out", *words), found, words[1], patient=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["no/such/folder/run.log", ""])
def test_a_log_file_that_cannot_be_written(cli, patient, tmp_path, contents, where):
    before = contents(tmp_path)
    run = cli("plan", patient, "--out", tmp_path / "out", "--log-file", tmp_path / where)
    assert_one_clear_error(run, "log file", str(tmp_path), "expected:", "found:", "--log-file", patient=None)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("loudness", [[], ["-v"], ["-q"]])
def test_an_error_is_said_once_and_kept_in_the_log(cli, patient, tmp_path, loudness):
    log = tmp_path / "run.log"
    earlier = "2026-11-30 23:59:59,999 INFO gliodil 0.1.0: plan\n"
    log.write_text(earlier)
    run = cli("plan", patient, "--labels", "brats-1999", "--log-file", log, *loudness)
    assert_one_clear_error(run, "brats-1999")
    assert run.err.count("brats-1999") == 1
    text = log.read_text(encoding="utf-8")
    assert text.startswith(earlier)
    assert "ERROR" in text
    assert "brats-1999" in text


class TestEvaluate:
    def refused(self, cli, contents, planned: Path, recurrence: Path, *words: str, **expected) -> None:
        before = contents(planned.parent)
        assert_one_clear_error(cli("evaluate", planned, "--recurrence", recurrence), *words, **expected)
        assert contents(planned.parent) == before

    def test_what_is_not_a_plan_folder(self, cli, contents, original, tmp_path):
        (tmp_path / "empty").mkdir()
        for folder in ("empty", "nowhere"):
            words = ("not a finished plan folder", folder, "expected:", "gliodil plan")
            recurrence = original / "recurrence.nii.gz"
            self.refused(cli, contents, tmp_path / folder, recurrence, *words, patient=None)

    def test_a_plan_folder_without_its_plans(self, cli, contents, planned, original):
        (planned / "ctv_trimmed.nii.gz").unlink()
        words = ("not a finished plan folder", "without ctv_trimmed.nii.gz")
        self.refused(cli, contents, planned, original / "recurrence.nii.gz", *words, patient=None)

    def test_a_recurrence_that_is_missing_damaged_or_elsewhere(self, cli, contents, planned, patient):
        recurrence = patient / "recurrence.nii.gz"
        self.refused(cli, contents, planned, patient / "none.nii.gz", "none.nii.gz", "does not exist")
        edit(patient, "recurrence", lambda data: data, affine=np.diag([4.0, 4, 4, 1]) + 500 * np.eye(4, k=3))
        self.refused(cli, contents, planned, recurrence, "outside the plan's images", "register")
        truncated("recurrence")(patient)
        self.refused(cli, contents, planned, recurrence, "recurrence.nii.gz", "damaged")
        recurrence.write_text("text")
        self.refused(cli, contents, planned, recurrence, "recurrence.nii.gz", "not a readable NIfTI image")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dance"],
        ["plan", "--margin", "20"],
        ["plan", "a", "b"],
        ["plan", "a", "--cells", "many"],
        ["plan", "a", "--method", "guess"],
        ["plan", "a", "-q", "-v"],
        ["simulate"],
        ["evaluate", "out"],
    ],
)
def test_misuse_ends_with_1_and_says_how_it_is_meant(cli, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = cli(*words)
    assert run.code == 1
    assert run.out == ""
    assert run.err.startswith("usage: gliodil")
    assert "Traceback" not in run.err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_an_error_without_traceback(cli, patient, tmp_path, monkeypatch, contents):
    import gliodil.inference.fit

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    before = contents(tmp_path)
    monkeypatch.setattr(gliodil.inference.fit, "fit", interrupted)
    run = cli("plan", patient, "--out", tmp_path / "out")
    assert_one_clear_error(run, "Interrupted", patient=None)
    assert contents(tmp_path) == before


def test_running_out_of_memory_says_what_to_do(cli, patient, tmp_path, monkeypatch, contents):
    import gliodil.inference.fit

    def full(*_args, **_options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")

    before = contents(tmp_path)
    monkeypatch.setattr(gliodil.inference.fit, "fit", full)
    run = cli("plan", patient, "--out", tmp_path / "out")
    assert_one_clear_error(run, "not enough memory", "7 bytes", "--cells")
    assert contents(tmp_path) == before


def test_a_log_is_not_written_over_other_files_nor_into_results(cli, tmp_path, contents):
    result = tmp_path / "result"
    result.mkdir()
    (result / "log.txt").write_text("2026-11-30 23:59:59,999 INFO gliodil: a log, but one that is listed\n")
    write_manifest(result, Owner("plan", "a"), listed(result))
    (tmp_path / "seg.nii.gz").write_text("the clinic's")
    (tmp_path / "link.log").symlink_to("seg.nii.gz")
    before = contents(tmp_path)
    for where in ("result/log.txt", "result/new.log", "seg.nii.gz", "link.log", "/dev/full"):
        run = cli("doctor", "--log-file", tmp_path / where)
        assert_one_clear_error(run, "log file", "--log-file", patient=None)
        assert contents(tmp_path) == before
