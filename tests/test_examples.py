"""Every example runs as a script, from another folder, and leaves what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Those that begin with a digit are notebooks; the neural ones have tests of their own.
EXAMPLES = sorted(p for p in (ROOT / "examples").glob("[a-z]*.py") if not p.stem.startswith("neural_"))
VOLUMES = {
    "density.nii.gz",
    "ctv_standard.nii.gz",
    "ctv_trimmed.nii.gz",
    "ctv_model.nii.gz",
    "margin.nii.gz",
    "plan_difference.nii.gz",
}


def run(script: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("nilearn", reason="the simulated patient needs the anatomy in nilearn")
    done = run(script, "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ctv_model" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} >= VOLUMES
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
