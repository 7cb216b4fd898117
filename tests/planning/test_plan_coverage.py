"""Recurrence coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.data.labels import CONVENTIONS
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError
from gliodil.planning.coverage import coverage

POST = CONVENTIONS["brats-2024-post"]


def _line(*labels):
    return Volume(np.array(labels, np.uint8).reshape(-1, 1, 1), np.eye(4), kind="label")


def _mask(*values):
    return np.array(values, bool).reshape(-1, 1, 1)


def test_fractions_by_label():
    recurrence = _line(0, 3, 3, 3, 2, 1, 4)
    found = coverage(recurrence, {"model": _mask(1, 1, 1, 0, 1, 0, 1)}, POST)
    assert found == {"enhancing": {"model": pytest.approx(2 / 3)}, "any": {"model": pytest.approx(3 / 5)}}


def test_no_follow_up_is_none():
    assert coverage(None, {"model": _mask(1)}, POST) is None


def test_empty_recurrence_is_none_not_perfect():
    assert coverage(_line(0, 0), {"model": _mask(1, 1)}, POST) == {"enhancing": None, "any": None}


def test_recurrence_without_enhancement():
    found = coverage(_line(2, 1, 0), {"model": _mask(1, 0, 0)}, POST)
    assert found == {"enhancing": None, "any": {"model": 0.5}}


@pytest.mark.parametrize("value", [1, 2, 3, 7])
def test_binary_map_counts_as_every_recurrence(value):
    found = coverage(_line(value, value, 0), {"model": _mask(1, 0, 0)}, POST)
    assert found == {"enhancing": {"model": 0.5}, "any": {"model": 0.5}}


def test_cavity_alone_is_no_recurrence():
    assert coverage(_line(4, 4), {"model": _mask(1, 1)}, POST) == {"enhancing": None, "any": None}


def test_other_grid_is_refused():
    with pytest.raises(GeometryError, match="different grids"):
        coverage(_line(1, 1), {"model": _mask(1, 1, 1)}, POST)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), convention=st.sampled_from(sorted(CONVENTIONS)))
def test_coverage_grows_with_the_plan(seed, convention):
    rng = np.random.default_rng(seed)
    recurrence = Volume(rng.integers(0, 5, (4, 4, 4)), np.eye(4), kind="label")
    large = rng.random((4, 4, 4)) > 0.4
    small = large & (rng.random((4, 4, 4)) > 0.3)
    masks = {"none": large & False, "small": small, "large": large, "all": large | True}
    for fractions in coverage(recurrence, masks, CONVENTIONS[convention]).values():
        if fractions is not None:
            values = list(fractions.values())
            assert values == sorted(values)
            assert (values[0], values[-1]) == (0.0, 1.0)
