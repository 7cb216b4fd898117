"""Scores against a known density, by hand and by their properties."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.data import Volume
from gliodil.errors import GeometryError
from gliodil.inference.score import score

AFFINE = np.diag([-2.0, 3.0, 5.0, 1.0])


def volume(data: np.ndarray, affine: np.ndarray = AFFINE) -> Volume:
    return Volume(data.astype(np.float32), affine, kind="scalar")


def line(*values: float) -> Volume:
    """Densities along the first axis, in a row of voxels of 2 mm."""
    return volume(np.array(values).reshape(-1, 1, 1))


def test_by_hand() -> None:
    truth, estimate = line(1, 0.5, 0.05, 0.005, 0), line(1, 0.25, 0.2, 0, 0)
    visible = np.array([True, True, False, False, False]).reshape(-1, 1, 1)
    scores = score(estimate, truth, visible)
    errors = np.array([0, 0.25, 0.15, 0.005, 0])
    assert scores["relative_l2"] == pytest.approx(np.linalg.norm(errors) / np.linalg.norm(truth.data))
    assert scores["dice_at_0.1"] == pytest.approx(2 * 2 / (3 + 2))
    assert scores["dice_at_0.01"] == pytest.approx(1)
    assert scores["rmse_outside_visible"] == pytest.approx(np.sqrt((errors[2:] ** 2).mean()))


def test_perfect_and_empty() -> None:
    truth = line(1, 0.5, 0)
    seen = truth.data > 0.3
    assert score(truth, truth, seen) == {
        "relative_l2": 0.0,
        "dice_at_0.1": 1.0,
        "dice_at_0.01": 1.0,
        "rmse_outside_visible": 0.0,
    }
    nothing = line(0, 0, 0)
    assert set(score(nothing, nothing, seen & False).values()) == {None}
    missed = score(nothing, truth, seen)
    assert missed["relative_l2"] == 1.0
    assert missed["dice_at_0.1"] == 0.0
    assert list(missed) == ["relative_l2", "dice_at_0.1", "dice_at_0.01", "rmse_outside_visible"]
    json.dumps(missed, allow_nan=False)


def test_surroundings_are_measured_in_mm_and_end_at_20() -> None:
    visible = np.zeros((40, 1, 1), bool)
    visible[0] = True
    truth = np.zeros(visible.shape)
    truth[0] = 1
    for voxels, counted in ((10, True), (11, False)):
        estimate = truth.copy()
        estimate[voxels] = 1
        value = score(volume(estimate), volume(truth), visible)["rmse_outside_visible"]
        assert value == pytest.approx(np.sqrt(1 / 10) if counted else 0.0)


def test_other_grids_are_refused() -> None:
    truth = line(1, 0.5, 0)
    with pytest.raises(GeometryError):
        score(volume(truth.data, np.eye(4)), truth, truth.data > 0)
    with pytest.raises(GeometryError):
        score(truth, truth, np.ones((2, 1, 1), bool))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_range_and_symmetry(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (volume(rng.random((4, 5, 3)) ** 4) for _ in range(2))
    seen = b.data > 0.5
    there, back = score(a, b, seen), score(b, a, seen)
    flipped = score(volume(a.data[::-1]), volume(b.data[::-1]), seen[::-1])
    for key, value in there.items():
        assert flipped[key] == pytest.approx(value)
        if value is not None and key != "relative_l2":
            assert 0 <= value <= 1
            assert value == pytest.approx(back[key])
