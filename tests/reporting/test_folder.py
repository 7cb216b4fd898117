from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data.nifti import write_nifti
from gliodil.errors import InputError, OutputError
from gliodil.planning.plan import plan
from gliodil.reporting.folder import ensure_writable, update_coverage, write_plan_folder

# The contract of a plan folder.
FILES = [
    "density.nii.gz",
    "ctv_standard.nii.gz",
    "ctv_trimmed.nii.gz",
    "ctv_model.nii.gz",
    "margin.nii.gz",
    "plan_difference.nii.gz",
    "surfaces/gtv.stl",
    "surfaces/ctv_standard.stl",
    "surfaces/ctv_model.stl",
    "surfaces/ctv_model.vtu",
    "metrics.json",
    "provenance.json",
    "report.html",
    "log.txt",
]


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def write(case):
    patient, fit, plans = case

    def run(out: Path, **changes) -> Path:
        values = {"patient": patient, "fit": fit, "plans": plans, "config": {"seed": 1}, "wall_s": 4.0}
        return write_plan_folder(out, **{**values, **changes})

    return run


@pytest.fixture(scope="module")
def written(write, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("plan") / "out"
    write(out, log_text="a line\n")
    return out


@pytest.fixture
def folder(written, tmp_path) -> Path:
    """A plan folder to do with as a test likes."""
    return shutil.copytree(written, tmp_path / "out")


def test_the_folder_has_every_file_of_the_contract(folder, case):
    assert set(FILES) <= set(files(folder))
    assert (folder / "figures/plans.png").is_file()
    assert (folder / "log.txt").read_text() == "a line\n"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["wall_s"] == 4.0
    assert metrics["peak_memory_mb"] > 0
    density, standard, model = (
        np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj)
        for name in ("density", "ctv_standard", "ctv_model")
    )
    assert density.shape == case[0].shape
    assert np.count_nonzero(standard) == np.count_nonzero(model)


def test_nothing_but_the_folder_is_left_behind(written):
    assert [path.name for path in written.parent.iterdir()] == ["out"]
    assert not [name for name in files(written) if Path(name).name.startswith(".")]


def test_the_log_is_asked_for_last(write, tmp_path):
    seen = []

    def log() -> str:
        (stage,) = [path for path in tmp_path.iterdir() if path.name.startswith(".gliodil-")]
        seen.extend(files(stage / "new"))
        return "done"

    write(tmp_path / "out", log_text=log)
    assert "report.html" in seen
    assert (tmp_path / "out/log.txt").read_text() == "done"


def test_a_failure_on_the_way_leaves_nothing(write, tmp_path):
    with pytest.raises(TypeError):
        write(tmp_path / "a" / "out", config={"seed": object()})
    assert files(tmp_path) == []
    assert not (tmp_path / "a" / "out").exists()


def test_a_failure_leaves_an_earlier_result_as_it_was(write, folder):
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    with pytest.raises(TypeError):
        write(folder, config={"seed": object()})
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_a_second_run_replaces_the_first_whole(write, folder, make_patient, make_fit):
    assert (folder / "figures/pet.png").exists()
    patient = make_patient(pet=False, recurrence=False)
    fit = make_fit(patient)
    write(folder, patient=patient, fit=fit, plans=plan(patient, fit), wall_s=9.0)
    assert json.loads((folder / "metrics.json").read_text())["wall_s"] == 9.0
    assert not (folder / "figures/pet.png").exists()
    assert "Fit to PET" not in (folder / "report.html").read_text()


class TestEnsureWritable:
    def test_accepts_a_folder_that_does_not_exist_and_creates_nothing(self, tmp_path):
        out = tmp_path / "a" / "b" / "out"
        assert ensure_writable(out) == out
        assert list(tmp_path.iterdir()) == []

    def test_accepts_a_plan_folder(self, folder):
        before = files(folder)
        ensure_writable(folder)
        assert files(folder) == before

    @pytest.mark.parametrize("below", ["", "sub/out"])
    def test_refuses_a_file_in_the_way(self, tmp_path, below):
        (tmp_path / "occupied").write_text("a file")
        with pytest.raises(OutputError, match="is a file"):
            ensure_writable(tmp_path / "occupied" / below)

    def test_refuses_a_folder_that_takes_no_files(self):
        place = Path("/proc")
        if not place.is_dir():
            pytest.skip("needs /proc, a folder in which nobody can create files")
        with pytest.raises(OutputError, match="--out"):
            ensure_writable(place / "out")


class TestUpdateCoverage:
    COVERAGE = {  # noqa: RUF012
        "enhancing": None,
        "any": {"standard": 0.8125, "trimmed": 0.75, "model": 0.9375},
    }

    def test_shows_in_metrics_and_report_and_nowhere_else(self, folder):
        before = {name: (folder / name).read_bytes() for name in files(folder)}
        update_coverage(folder, self.COVERAGE)
        assert json.loads((folder / "metrics.json").read_text())["coverage"] == self.COVERAGE
        report = (folder / "report.html").read_text()
        assert "81.2 %" in report
        assert "none seen" in report
        changed = {name for name in files(folder) if before.get(name) != (folder / name).read_bytes()}
        assert changed == {"metrics.json", "report.html", "manifest.json"}

    def test_names_the_follow_up_in_the_provenance_once(self, folder, case, tmp_path):
        path = write_nifti(case[0].recurrence, tmp_path / "follow-up.nii.gz")
        for _ in range(2):
            update_coverage(folder, self.COVERAGE, recurrence=path)
        inputs = json.loads((folder / "provenance.json").read_text())["inputs"]
        assert [(entry["key"], entry["name"]) for entry in inputs] == [("recurrence", "follow-up.nii.gz")]
        assert "follow-up.nii.gz" in (folder / "report.html").read_text()

    def test_refuses_what_is_not_a_plan_folder(self, tmp_path):
        with pytest.raises(InputError, match="gliodil plan"):
            update_coverage(tmp_path, None)
        assert list(tmp_path.iterdir()) == []
