"""Settings of a fit: what is refused, and what they imply."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from gliodil.errors import InputError
from gliodil.inference.case import choose_device
from gliodil.inference.config import FitConfig


def test_the_published_loss_has_the_published_setting() -> None:
    config = FitConfig(loss="reference")
    assert (config.cells, config.steps, config.duration_days, config.crop_factor) == (48, 192, 100.0, 1.5)
    assert config.dt == pytest.approx(100 / 192)


def test_defaults_are_on_record_as_numbers() -> None:
    config = FitConfig()
    assert (config.cells, config.steps) == (48, 96)
    assert FitConfig(steps=None) == config  # type: ignore[arg-type]
    assert FitConfig(steps=192).steps == FitConfig(steps=192, loss="reference").steps == 192
    assert config.to_dict()["steps"] == 96
    assert json.loads(json.dumps(config.to_dict())) == config.to_dict()
    assert FitConfig(**config.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cells", 7),
        ("cells", 513),
        ("steps", 1),
        ("duration_days", 0.0),
        ("duration_days", -3.0),
        ("duration_days", math.nan),
        ("crop_factor", 0.5),
        ("crop_factor", math.nan),
        ("pde_weight", 0.0),
        ("optimizer", "newton"),
        ("left_out", ("rim", "prior")),
        ("max_evaluations", 0),
        ("tolerance", 0.0),
        ("tolerance", 1.0),
    ],
)
def test_out_of_range_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"'{name}'") as caught:
        FitConfig(**{name: value})
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("name", ["duration_days", "pde_weight"])
def test_infinite_settings_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        FitConfig(**{name: math.inf})  # type: ignore[arg-type]


def test_terms_are_left_out_of_the_loss_that_has_them() -> None:
    config = FitConfig(left_out=("rim", "foci"))
    assert FitConfig(**json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(InputError, match="'left_out'"):
        FitConfig(left_out=("rim",), loss="reference")
    with pytest.raises(InputError, match="'left_out'"):
        FitConfig(left_out=("rim",), method="pinn")


def test_the_public_path_is_soft() -> None:
    assert FitConfig(loss="reference", physics="exact").physics == "exact"
    with pytest.raises(InputError, match="'physics'"):
        FitConfig(loss="reference", optimizer="adam-multigrid", physics="exact")


def test_devices() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda")
    for absent in ("abacus", "meta", "mps", "cuda:99"):
        with pytest.raises(InputError, match=f"(?s)no such device.*{absent}"):
            choose_device(absent)
