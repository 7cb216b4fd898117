"""`--method pinn`: the whole way from files to a report that compares the network with the discrete loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from gliodil.data.patient import load_patient
from gliodil.inference import checkpoint
from gliodil.inference.config import FitConfig
from gliodil.pipeline import plan_patient

SHORT = FitConfig(
    cells=12, steps=32, device="cpu", method="pinn", network_width=8, network_depth=2, network_budget_s=6.0
)


@pytest.fixture(scope="module")
def planned(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("network") / "out"
    plan_patient(load_patient(original), out, config=SHORT)
    return out


def test_metrics_say_what_both_methods_found(planned: Path) -> None:
    metrics = json.loads((planned / "metrics.json").read_text("utf-8"))
    other = metrics["comparison"]
    assert (metrics["fit"]["method"], other["method"]) == ("pinn", "odil")
    assert other["status"] == "converged"
    assert 0 < other["ctv_model_dice"] <= 1
    assert 0 < other["agreement"]["dice_at_0.1"] <= 1
    assert np.isfinite(other["truth"]["relative_l2"])
    assert set(other["parameters"]) >= {"infiltration_length_mm", "origin_mm"}
    assert metrics["equal_volume_voxel_difference"] == 0
    assert "pet_scale" not in metrics["parameters"]
    assert not (planned / "figures" / "pet.png").exists()


def test_report_shows_the_comparison_and_cites_the_method(planned: Path) -> None:
    page = (planned / "report.html").read_text("utf-8")
    assert 'id="against-the-discrete-loss"' in page
    assert "2305.18702" in page
    assert "Levenberg–Marquardt steps" in page
    assert (planned / "figures" / "comparison.png").is_file()


def test_a_network_that_had_ended_is_not_trained_again(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is interrupted while the discrete loss is minimized, for the comparison."""
    monkeypatch.setattr(checkpoint, "Checkpoint", partial(checkpoint.Checkpoint, interval_s=0))
    config, out = replace(SHORT, network_width=4, network_depth=1, network_budget_s=1.0), tmp_path / "out"
    seen: list[str] = []

    def interrupt(stage: str, done: int, _: float) -> None:
        seen.append(stage)
        if stage.startswith("parameters") and done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_patient(load_patient(original), out, config=config, progress=interrupt)
    assert "network" in seen
    names = {".out.odil.checkpoint.npz", ".out.pinn.checkpoint.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names
    trained = len([stage for stage in seen if stage == "network"])
    seen.clear()
    planned = plan_patient(
        load_patient(original), out, config=config, resume=True, progress=lambda stage, *_: seen.append(stage)
    )
    assert "network" not in seen
    assert any(stage.startswith("parameters") for stage in seen)
    assert planned.fit is not None
    assert len(planned.fit.history.total) == trained
    assert list(tmp_path.iterdir()) == [out]


def test_the_discrete_loss_is_compared_with_nothing(planned_once, planned: Path) -> None:
    metrics = json.loads((planned_once.folder / "metrics.json").read_text("utf-8"))
    assert metrics["comparison"] is None
    assert 'id="against-the-discrete-loss"' not in (planned_once.folder / "report.html").read_text("utf-8")


def test_help_names_both_methods(cli: Callable) -> None:
    assert "{odil,pinn}" in cli("plan", "--help").out
