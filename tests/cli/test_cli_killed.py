"""A plan that is killed outright leaves no half result, and `--resume` comes to the same answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from killed import kill_in_the_fit

from gliodil.data.synthetic import simulate

ROOT = Path(__file__).resolve().parents[2]
VOLUMES = ("density", "ctv_standard", "ctv_trimmed", "ctv_model", "margin", "plan_difference")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What plans a patient without a truth."""
    patient = simulate(seed=3, resolution_mm=6).save(tmp_path_factory.mktemp("killed") / "patient")
    for name in ("truth_density.nii.gz", "truth.json"):
        (patient / name).unlink()
    return ["plan", str(patient), "--cells", "12", "--device", "cpu"]


@pytest.fixture(scope="module")
def straight(cli: Callable, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a plan that nothing befell; without `--resume` it asks for nothing that was left."""
    out = tmp_path_factory.mktemp("straight") / "out"
    out.with_name(".out.odil.checkpoint.npz").write_bytes(b"left by an interrupted fit")
    run = cli(*words, "--out", out)
    assert run.code == 0, run.err
    assert "interrupted" not in (out / "log.txt").read_text("utf-8")
    assert list(out.parent.iterdir()) == [out]
    return out


def assert_same_volumes(a: Path, b: Path) -> None:
    for name in VOLUMES:
        assert (a / f"{name}.nii.gz").read_bytes() == (b / f"{name}.nii.gz").read_bytes(), name


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_killed_plan_resumes_to_the_same_bytes(
    cli: Callable, words: list[str], straight: Path, tmp_path: Path
) -> None:
    log, out = tmp_path / "log.txt", tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [sys.executable, "-m", "gliodil", *words, "--out", str(out), "--log-file", str(log)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not (log.exists() and "Patient(" in log.read_text(encoding="utf-8")) and time.monotonic() < until:
        time.sleep(0.02)
    running.kill()  # the fit has just begun
    assert running.wait() == -signal.SIGKILL
    assert not list(out.glob("*")), "something half-written is left"

    resumed = cli(*words, "--out", out, "--resume")
    assert resumed.code == 0, resumed.err
    assert "Kept" not in resumed.err
    assert_same_volumes(out, straight)
    assert "Kept" in cli(*words, "--out", out, "--resume").err


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_plan_killed_in_its_fit_goes_on_from_there(
    cli: Callable, words: list[str], straight: Path, tmp_path: Path
) -> None:
    out, kept = tmp_path / "out", tmp_path / ".out.odil.checkpoint.npz"
    kill_in_the_fit(*words, "--out", out, times=12)
    assert kept.exists()
    assert not out.exists()
    first = entries(kept)
    assert first == 12
    kill_in_the_fit(*words, "--out", out, "--resume", times=5)
    assert entries(kept) == first + 4  # its first state is the one it was given

    resumed = cli(*words, "--out", out, "--resume")
    assert resumed.code == 0, resumed.err
    assert "an interrupted fit is continued" in (out / "log.txt").read_text("utf-8")
    assert_same_volumes(out, straight)
    mine, other = (json.loads((of / "metrics.json").read_text("utf-8")) for of in (out, straight))
    assert mine["loss"] == other["loss"]
    assert mine["parameters"] == other["parameters"]
    assert mine["warnings"] == other["warnings"]
    assert list(tmp_path.iterdir()) == [out]


def entries(checkpoint: Path) -> int:
    """Return how many entries the loss curve in a checkpoint has."""
    with np.load(checkpoint, allow_pickle=False) as members:
        header = json.loads(members["header"].tobytes())
    return len(header["loops"][-1]["record"]["rows"])
