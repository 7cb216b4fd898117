from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import InputError
from gliodil.reporting.jsonable import jsonable, read_json, write_json
from gliodil.reporting.metrics import build_metrics, peak_memory_mb

# The contract that other programs rely on.
KEYS = [
    "schema_version",
    "status",
    "wall_s",
    "peak_memory_mb",
    "warnings",
    "volumes_ml",
    "equal_volume_voxel_difference",
    "parameters",
    "loss",
    "fit",
    "margin_mm",
    "coverage",
    "truth",
]
NESTED = {
    "volumes_ml": "gtv ctv_standard ctv_trimmed ctv_model",
    "parameters": "diffusivity_wm_mm2_per_day proliferation_rate_per_day wm_gm_ratio infiltration_length_mm "
    "threshold_core threshold_oedema origin_mm",
    "loss": "total terms evaluations",
    "fit": "method grid steps spacing_mm device dtype",
    "margin_mm": "mean min max left right anterior posterior superior inferior",
}


@pytest.fixture
def metrics(case):
    return build_metrics(*case, wall_s=12.5, peak_memory_mb=300.0)


def test_all_keys_of_the_contract_are_there(metrics):
    assert set(KEYS) <= set(metrics)
    for key, names in NESTED.items():
        assert set(names.split()) <= set(metrics[key]), key
    assert set(metrics["loss"]["terms"]) == {
        "parameters", "pde", "initial", "seg_lower", "seg_upper", "bounds", "csf", "pet",
    }  # fmt: skip
    assert all(set(entry) == {"value", "low", "high", "unit"} for entry in metrics["parameters"].values())
    assert set(metrics["coverage"]) == {"enhancing", "any"}
    assert set(metrics["coverage"]["any"]) == {"standard", "trimmed", "model"}


def test_what_is_unknown_is_null(metrics):
    assert metrics["parameters"]["wm_gm_ratio"]["value"] is None  # NaN
    assert metrics["parameters"]["threshold_core"] == {"value": None, "low": None, "high": None, "unit": "1"}
    assert metrics["loss"]["terms"]["pet"] is None
    assert metrics["loss"]["terms"]["csf"] == 0.0
    assert metrics["truth"] is None
    text = json.dumps(metrics, allow_nan=False)
    assert json.loads(text) == metrics


def test_values_are_those_of_fit_and_plans(case, metrics):
    _, fit, plans = case
    assert metrics["status"] == fit.status
    assert metrics["fit"]["grid"] == list(fit.grid_shape)
    assert metrics["equal_volume_voxel_difference"] == 0
    assert metrics["parameters"]["proliferation_rate_per_day"]["high"] == 0.11
    difference = metrics["difference_ml"]
    assert difference["gained"] == pytest.approx(difference["given_up"])
    assert difference["gained"] == pytest.approx(
        np.count_nonzero(plans.difference.data > 0) * plans.difference.voxel_volume_ml
    )
    assert metrics["rule"]["name"] == "benchmark-15mm"


def test_warnings_of_patient_and_fit_appear_once(case, make_fit):
    patient, _, plans = case
    fit = make_fit(patient, warnings=("the wm image was resampled", "coarse"))
    warnings = build_metrics(patient, fit, plans, wall_s=1.0, peak_memory_mb=None)["warnings"]
    assert warnings[:2] == ["the wm image was resampled", "coarse"]
    assert len(warnings) == len(set(warnings))


def test_truth_always_has_its_four_keys(case):
    truth = build_metrics(*case, wall_s=1, peak_memory_mb=1, truth={"dice_at_0.1": 0.9})["truth"]
    assert truth == {
        "relative_l2": None, "dice_at_0.1": 0.9, "dice_at_0.01": None, "rmse_outside_visible": None,
    }  # fmt: skip


def test_peak_memory_is_plausible():
    before = peak_memory_mb()
    assert before is not None
    assert 20 < before < 1e6
    # More than was ever resident, whatever of that earlier tests have given back.
    block = np.ones(int(1.5 * before * 1e6 / 8))
    assert peak_memory_mb() > 0.95 * block.nbytes / 1e6


json_leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(json_leaves, lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=12)


@settings(max_examples=25, deadline=None)
@given(value=json_values)
def test_jsonable_gives_strict_json_and_keeps_what_is_json(value):
    clean = jsonable(value)
    assert jsonable(clean) == clean
    json.dumps(clean, allow_nan=False)
    if isinstance(value, float) and not math.isfinite(value):
        assert clean is None


def test_jsonable_knows_arrays_and_paths():
    assert jsonable({"a": np.float32(0.5), "b": np.arange(3), "c": Path("/some/where/x.nii.gz")}) == {
        "a": 0.5, "b": [0, 1, 2], "c": "x.nii.gz",
    }  # fmt: skip
    with pytest.raises(TypeError, match="object"):
        jsonable(object())


def test_json_files_survive_the_round_trip(tmp_path):
    path = write_json({"ρ": float("inf"), "√": [1.5]}, tmp_path / "a.json")
    assert read_json(path) == {"ρ": None, "√": [1.5]}


@pytest.mark.parametrize("content", [None, "not json", "[1]"])
def test_a_folder_without_valid_json_is_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"metrics\.json"):
        read_json(path)
