"""A coarse synthetic patient as files, its plan made by the real command line, and ways to call that."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from gliodil.cli import main
from gliodil.data.synthetic import SyntheticPatient, simulate

ROOT = Path(__file__).resolve().parents[2]
CELLS = "12"


@dataclass(frozen=True)
class Run:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def call(*arguments: object) -> Run:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Run(code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cli() -> Callable[..., Run]:
    return call


@pytest.fixture(scope="session")
def shell() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a line of bash in which $GLIODIL is the command line, as users start it."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash, to close and redirect streams")

    def run(line: str, *, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        values = {**os.environ, "PYTHONPATH": str(ROOT), "GLIODIL": f"'{sys.executable}' -m gliodil"}
        values |= {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **environment}
        line = line.replace("$GLIODIL", values["GLIODIL"])
        return subprocess.run(
            ["bash", "-c", line],
            cwd=cwd,
            env=values,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def narrow_terminal() -> Callable[..., tuple[int, str]]:
    """Run the command line in a terminal of 20 columns, with stdout closed; return its code and what it said.

    Only a terminal gets the progress bar.
    """
    pty = pytest.importorskip("pty", reason="needs pseudo-terminals")

    def run(*arguments: object) -> tuple[int, str]:
        leader, follower = pty.openpty()
        environment = {**os.environ, "COLUMNS": "20", "LINES": "5", "TERM": "xterm", "PYTHONPATH": str(ROOT)}
        command = ["bash", "-c", 'exec "$@" >&-', "bash", sys.executable, "-m", "gliodil"]
        with subprocess.Popen(
            [*command, *map(str, arguments)], stderr=follower, env={**environment, "OMP_NUM_THREADS": "1"}
        ) as process:
            os.close(follower)
            said = b""
            with suppress(OSError):  # how Linux says that the other end has closed
                while block := os.read(leader, 4096):
                    said += block
            os.close(leader)
            return process.wait(timeout=300), said.decode("utf-8", "replace")

    return run


@pytest.fixture(scope="session")
def synthetic() -> SyntheticPatient:
    return simulate(resolution_mm=4)


@pytest.fixture(scope="session")
def original(synthetic: SyntheticPatient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the patient with its truth; not to be changed."""
    return synthetic.save(tmp_path_factory.mktemp("patients") / "patient_007")


@pytest.fixture
def patient(original: Path, tmp_path: Path) -> Path:
    """Folder of the patient to do with as a test likes."""
    return shutil.copytree(original, tmp_path / "patient_007")


@dataclass(frozen=True)
class PlannedOnce:
    """One run of `gliodil plan`."""

    folder: Path
    run: Run
    log: Path


@pytest.fixture(scope="session")
def planned_once(original: Path, tmp_path_factory: pytest.TempPathFactory) -> PlannedOnce:
    """The patient's plan, and what the command said; not to be changed."""
    root = tmp_path_factory.mktemp("planned")
    out, log = root / "out", root / "run.log"
    run = call("plan", original, "--out", out, "--cells", CELLS, "--log-file", log)
    assert run.code == 0, run.err
    return PlannedOnce(out, run, log)


@pytest.fixture
def planned(planned_once: PlannedOnce, tmp_path: Path) -> Path:
    """The patient's plan folder to do with as a test likes."""
    return shutil.copytree(planned_once.folder, tmp_path / "planned")


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], Mapping[str, str]]:
    """Every path below a folder, hidden ones included, with a hash of what it holds."""

    def look(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "folder"
            for path in sorted(folder.rglob("*"))
        }

    return look
