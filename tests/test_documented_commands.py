"""Every command and every Python block in README and docs is run, on tiny synthetic patients.

Documented lines are run as they stand, in a folder that holds the files they name. Two things are smaller than what a
reader gets: simulated voxels are 6 mm, and the default grid has 8³ cells. One plan and one cohort are computed; the
other lines of `gliodil plan` and `gliodil cohort ... participant` are run with `--dry-run`, which reads and checks
everything and computes nothing. What cannot be run is in `NOT_RUN`, with the reason.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import gliodil
from gliodil import FitConfig
from gliodil.arguments import EXAMPLES
from gliodil.cli import main
from gliodil.data import synthetic

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("gliodil", "make", "pip", "python", "dask", "OMP_NUM_THREADS=4", "antsApplyTransforms")

FULL = "gliodil plan patient_001/ --out result_001"
"""The plan that is computed; others differ in options that tests/cli computes."""
COHORT = "gliodil cohort patients/ results participant"
"""The cohort that is planned, as far as one of its patients."""

NOT_RUN = {
    "dask scheduler --port 8786": "a cluster; two worker processes are used in tests/cohort/test_cohort_workers.py",
    "OMP_NUM_THREADS=4 dask worker tcp://node1:8786 --nthreads 1 --memory-limit 8GB": "the same",
    "gliodil cohort patients/ results participant --scheduler tcp://node1:8786": "the same",
    "gliodil cohort dataset/ results participant --participant-label 01 --scheduler none": "needs a BIDS dataset; "
    "run in tests/cohort/test_cohort_bids.py",
    "gliodil demo --seed 7": "the demo with another patient; `gliodil demo` is run",
    "gliodil demo --out result": "the same, elsewhere",
    "gliodil plan MR/ --ct CT/ --reg reg.dcm": "needs a planning CT; run in tests/cli/test_cli_planning_ct.py",
    "antsApplyTransforms": "another program",
}
NOT_RUN_PYTHON = {"SLURMCluster": "needs a batch system"}


@dataclass(frozen=True)
class Block:
    """A fenced block: page, line, language, text."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page.name, line, match[1], match[2]))
    return found


def commands() -> list[str]:
    """Return every command line shown: in fenced and indented blocks, in backticks, and by --help."""
    lines = [line for block in blocks() if not block.language for line in block.text.splitlines()]
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
        lines += re.findall(r"^ {4}(\w.*)", text, re.M)
        lines += [inline.replace("\n", " ") for inline in re.findall(r"`([^`]+? [^`]+)`", text)]
    lines += "\n".join(EXAMPLES.values()).splitlines()
    found: dict[str, None] = {}
    for line in lines:
        command = re.split(r"\s+#|\s{3,}|\s+then:", line.strip())[0]
        words = command.split()
        if (
            len(words) > 1
            and words[0] in PROGRAMS
            and not re.search(r"\[--|\[PATIENT|\.\.\.|\||OUT\b|NAME\b", command)
        ):
            found[command] = None
    return list(found)


LINES = commands()
GLIODIL = [
    line
    for line in LINES
    if line.startswith("gliodil ") and line not in NOT_RUN and line not in ("gliodil plan", "gliodil cohort")
]


def test_there_is_something_to_run() -> None:
    assert len(GLIODIL) > 30
    assert len([block for block in blocks() if block.language == "python"]) > 8
    assert set(NOT_RUN) - {"antsApplyTransforms"} <= set(LINES), "no longer documented"
    assert {FULL, COHORT} <= set(LINES)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Make what is the default smaller: voxels of simulated patients, and the grid."""
    patch = pytest.MonkeyPatch()
    _, _, *others = FitConfig.__init__.__defaults__
    patch.setattr(FitConfig.__init__, "__defaults__", (8, 24, *others))
    patch.setitem(synthetic.simulate.__kwdefaults__, "resolution_mm", 6.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture(scope="module")
def desk(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that the documentation names."""
    pytest.importorskip("pydicom")
    from dicom_series import write_series

    from gliodil.data.dicom.rtstruct import write_rtstruct
    from gliodil.data.registration.transform import GridGeometry, Transform
    from gliodil.data.registration.transform_files import save_transform

    desk = tmp_path_factory.mktemp("desk")
    one = synthetic.simulate(seed=3).patient
    seg, volumes = one.segmentation, one.volumes
    files = {"seg": seg, **{role: v for role, v in volumes.items() if role not in ("barriers", "recurrence")}}
    for name, volume in files.items():
        gliodil.write_nifti(volume, desk / "patient_001" / f"{name}.nii.gz")
    gliodil.write_nifti(seg, desk / "patient_001" / "seg_corrected.nii.gz")
    named = {
        "s": seg,
        "segmentation": seg,
        "atlas_labels": seg,
        "recurrence": volumes["recurrence"],
        "later": seg,
    }
    for name, volume in {**named, "atlas": volumes["t1"]}.items():
        gliodil.write_nifti(volume, desk / f"{name}.nii.gz")
    for role in ("seg", "wm", "gm", "csf"):
        gliodil.write_nifti(files[role], desk / f"{role}.nii.gz")
    for number, organ in enumerate(("bs", "chiasm")):
        mask = np.zeros(seg.shape, np.uint8)
        mask[10 + number, 10:12, 5:8] = 1
        gliodil.write_nifti(seg.with_data(mask), desk / f"{organ}.nii.gz")
    for folder in ("patient_007", "DICOM"):
        grey = volumes["t1"].data.astype(np.int16)
        write_series(desk / folder / "S5", grey, volumes["t1"].affine, description="t1_mpr +KM", number=5)
        for role in ("wm", "gm", "csf", "brain"):
            gliodil.write_nifti(files[role], desk / folder / f"{role}.nii.gz")
    gliodil.write_nifti(seg, desk / "DICOM" / "seg.nii.gz")
    gliodil.write_nifti(seg, desk / "patient_007" / "seg.nii.gz")
    shutil.copytree(desk / "patient_001", desk / "patients" / "patient_001")
    (desk / "patients" / "patient_001" / "seg_corrected.nii.gz").unlink()
    shutil.copytree(desk / "patients" / "patient_001", desk / "patients" / "patient_007")
    structures = {"GTV": one.core, "Necrosis": one.necrotic, "Oedema": one.oedema}
    masks = {name: seg.with_data(mask.astype(np.uint8)) for name, mask in structures.items()}
    series = sorted((desk / "DICOM" / "S5").iterdir())
    write_rtstruct(desk / "RS.dcm", masks, series)
    shutil.copy(desk / "RS.dcm", desk / "s.dcm")
    rule = (ROOT / "gliodil/planning/rules/benchmark-15mm.toml").read_text(encoding="utf-8")
    (desk / "ours.toml").write_text(rule.replace('"benchmark-15mm"', '"ours"'), encoding="utf-8")
    rows = [
        f"p{n}\t{plan}\t{50 + n + (5 + n) * m}\t0.1"
        for n in range(4)
        for m, plan in enumerate(("Standard", "Model"))
    ]
    (desk / "coverage_per_patient.txt").write_text(
        "\n".join(["Patient_Code\tModel_Name\tCoverage[%]\tIoU", *rows]) + "\n"
    )
    space = GridGeometry.of(seg)
    save_transform(Transform(np.eye(4), space, space), desk / "result/preprocess/transforms/template")
    gliodil.write_nifti(seg, desk / "result" / "ctv_model.nii.gz")
    gliodil.write_nifti(files["wm"], desk / "density.nii.gz")
    _published(desk, files)
    return desk


def _published(desk: Path, files: dict[str, gliodil.Volume]) -> None:
    """Write the data sets that the documentation names."""
    name, seg = "UPENN-GBM-00001_11", files["seg"]
    of_2017 = seg.with_data(np.where(seg.data == 3, 4, seg.data))
    gliodil.write_nifti(of_2017, desk / f"upenn/images_segm/{name}_segm.nii.gz")
    stripped = files["t1"].with_data(files["t1"].data * (files["brain"].data != 0))
    gliodil.write_nifti(stripped, desk / f"upenn/images_structural/{name}/{name}_T1.nii.gz")
    derivatives = {"tumor_seg": "seg.nii.gz", "wm_pbmap": "wm.nii.gz", "gm_pbmap": "gm.nii.gz"}
    (desk / "predict_gbm.json").write_text(
        json.dumps({"patients": [{"patient_id": "1", "derivatives": derivatives}]})
    )


@pytest.fixture
def here(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(desk)
    return desk


def call(line: str) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(shlex.split(line)[1:])
    return code, out.getvalue() + err.getvalue()


def once(line: str, result: str) -> Path:
    """Run a command whose result others go on with, unless it is there."""
    if not Path(result).exists():
        code, said = call(line)
        assert code == 0, said
    return Path(result)


def folder_001() -> Path:
    """Return the finished plan."""
    return once(f"{FULL} --seg patient_001/seg.nii.gz", "result_001/report.html").parent


def cohort_results() -> Path:
    """Return the folder of the planned cohort."""
    line = f"{COHORT} --only patient_001 --scheduler none"
    return once(line, "results/patient_001/report.html").parents[1]


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Move a folder of the desk away: who follows the documentation writes where nothing is yet."""
    aside = folder.with_name(f"{folder.name}.aside")
    if not folder.exists():
        yield
        return
    folder.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def target(words: list[str]) -> Path | None:
    """Return the folder or file that a command writes anew."""
    if words[1] not in ("plan", "simulate", "apply-transform"):
        return None
    if "--out" in words:
        return Path(words[words.index("--out") + 1])
    return Path("gliodil-out", Path(words[2]).name)


@pytest.mark.parametrize("line", GLIODIL)
def test_a_documented_command(line: str, here: Path) -> None:
    words = line.split()
    if line == FULL:
        assert (folder_001() / "metrics.json").exists()
        return
    if line == COHORT:
        assert (cohort_results() / "cohort_check.tsv").exists()
        return
    if "patient_001/" in words and "--seg" not in words:  # seg_corrected is there for another line
        line += " --seg patient_001/seg.nii.gz"
    if "synthetic_3" in words:
        once("gliodil simulate --out synthetic_3 --seed 3", "synthetic_3/seg.nii.gz")
    out = target(words)
    if finished := words[1] in ("evaluate", "compare") and words[2] != str(folder_001()):
        out = Path(words[2])
    if words[1] == "cohort":
        cohort_results()
        line += " --scheduler none" if "participant" in words and "--scheduler" not in words else ""
    computes = words[1] == "plan" or "participant" in words
    if computes and not {"--help", "--dry-run"} & set(words):
        line += " --dry-run"
    with away(out) if out else nullcontext():
        if finished and out:
            shutil.copytree(folder_001(), out)
        code, said = call(line)
    assert code == 0, said


@pytest.mark.parametrize(
    "block", [block for block in blocks() if block.language == "python"], ids=lambda block: str(block)
)
def test_a_documented_block_of_python(block: Block, here: Path) -> None:
    for mark, reason in NOT_RUN_PYTHON.items():
        if mark in block.text:
            pytest.skip(reason)
    text = re.sub(r"cells=\d+", "cells=8", block.text).replace(
        "load_anatomy()", "load_anatomy(resolution_mm=6)"
    )
    text = re.sub(r"budget_s=\d+", "budget_s=0.5", text)
    text = re.sub(r"max_evaluations=\d+", "max_evaluations=2", text).replace(
        '"patient_001/"', '"patients/patient_001"'
    )
    for name in ("s", "wm", "gm"):
        assert (here / f"{name}.nii.gz").exists()
    known: dict[str, object] = {"gliodil": gliodil, "Path": Path}
    if {"patient", "fit", "plans", "gtv"} & set(re.findall(r"\w+", text)):
        patient = gliodil.load_patient("patients/patient_001", labels="brats-2023")
        density = patient.segmentation.with_data(
            np.where(patient.core, 0.9, 0.0).astype(np.float32), kind="scalar"
        )
        plans = gliodil.plan(patient, density)
        known |= {"patient": patient, "fit": density, "plans": plans, "rule": plans.rule, "gtv": plans.gtv}
        known |= {"brainstem": plans.trimmed, "organs": {}, "volume": plans.gtv}
        known |= {"series_volume": gliodil.read_nifti("atlas.nii.gz", kind="scalar")}
    known["atlas"] = gliodil.read_nifti("atlas.nii.gz", kind="scalar")
    with away(Path("result")) if '"result")' in text else nullcontext():
        exec(compile(text, str(block), "exec"), known)


def test_other_programs_and_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    others = SimpleNamespace(make=0, pip=0, python=0)
    for line in LINES:
        words = shlex.split(line)
        if words[0] == "make":
            target = next(word for word in words[1:] if "=" not in word)
            assert re.search(rf"^{target}:", makefile, re.M), line
            others.make += 1
        elif words[0] == "pip":
            extras = re.search(r"\[(.+)\]", line)
            for extra in extras[1].split(",") if extras else ():
                assert extra in project["optional-dependencies"], line
            others.pip += 1
        elif words[0] == "python":
            script = ROOT / words[1]
            assert script.is_file(), line
            text = script.read_text(encoding="utf-8")
            for option in (word for word in words[2:] if word.startswith("--")):
                # accuracy.py makes an option of the name of each cohort
                assert f'"{option}"' in text or f'("{option[2:]}", ' in text, line
            others.python += 1
    assert min(vars(others).values()) > 1
