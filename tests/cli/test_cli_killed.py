"""A plan that is killed outright leaves no half result, and `--resume` comes to the same answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gliodil.data.synthetic import simulate

ROOT = Path(__file__).resolve().parents[2]
VOLUMES = ("density", "ctv_standard", "ctv_trimmed", "ctv_model", "margin", "plan_difference")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_killed_plan_resumes_to_the_same_bytes(cli, tmp_path: Path) -> None:
    patient = simulate(seed=3, resolution_mm=6).save(tmp_path / "patient")
    for name in ("truth_density.nii.gz", "truth.json"):
        (patient / name).unlink()
    words = ["plan", str(patient), "--cells", "12", "--device", "cpu"]
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
    straight = cli(*words, "--out", tmp_path / "straight")
    assert straight.code == 0, straight.err
    for name in VOLUMES:
        file = f"{name}.nii.gz"
        assert (out / file).read_bytes() == (tmp_path / "straight" / file).read_bytes(), name
    assert "Kept" in cli(*words, "--out", out, "--resume").err
