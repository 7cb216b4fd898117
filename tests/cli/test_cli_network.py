"""`--method pinn`: the whole way from files to a report that compares the network with the discrete loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliodil.data.patient import load_patient
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


def test_the_discrete_loss_is_compared_with_nothing(planned_once, planned: Path) -> None:
    metrics = json.loads((planned_once.folder / "metrics.json").read_text("utf-8"))
    assert metrics["comparison"] is None
    assert 'id="against-the-discrete-loss"' not in (planned_once.folder / "report.html").read_text("utf-8")


def test_help_names_both_methods(cli: Callable) -> None:
    assert "{odil,pinn}" in cli("plan", "--help").out
