"""The examples with neural differential equations run as scripts and print what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, cwd: Path) -> list[list[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_digits_need_fewer_evaluations_with_the_penalty(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    _, without, with_penalty = run("neural_ode_digits.py", tmp_path)
    assert float(without[1]) > 85
    assert float(with_penalty[2]) > 85
    assert int(with_penalty[4]) < int(without[3])


@pytest.mark.slow
def test_the_spiral_is_learned(tmp_path: Path) -> None:
    rows = run("neural_sde_spiral.py", tmp_path)[1:]
    assert float(rows[-1][1]) < 0.5 * float(rows[0][1])
