"""Margin maps and margins in the patient's directions."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.planning.distance import distance_from
from gliodil.planning.margins import DIRECTIONS, margin_map, margin_summary

SHAPE = (40, 40, 40)
RAS = np.diag([1.0, 1.0, 1.0, 1.0])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
EVERYWHERE = np.ones(SHAPE, bool)


def _ball(centre, radius):
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return ((index - centre) ** 2).sum(axis=-1) <= radius**2


GTV = _ball((20, 20, 20), 6)


def test_map_is_the_distance_outside_the_gtv_and_zero_elsewhere():
    ctv = _ball((20, 20, 20), 10)
    distance = distance_from(GTV, (1, 1, 1))
    margin = margin_map(ctv, GTV, distance)
    assert margin.dtype == np.float32
    assert margin[30, 20, 20] == 4.0
    assert (margin[GTV | ~ctv] == 0).all()
    assert np.allclose(margin[ctv & ~GTV], distance[ctv & ~GTV])


def test_uniform_margin_is_the_same_in_all_directions():
    ctv = distance_from(GTV, (1, 1, 1)) <= 8.0
    summary = margin_summary(ctv, GTV, EVERYWHERE, RAS)
    ends = {f"{name}_{end}" for name in DIRECTIONS for end in ("min", "max")}
    assert set(summary) == {"mean", "min", "max", *DIRECTIONS, *ends}
    assert all(6.9 < value <= 8.0 for value in summary.values())


def test_summary_is_in_millimetres():
    ctv = distance_from(GTV, (1, 1, 1)) <= 8.0
    fine = margin_summary(ctv, GTV, EVERYWHERE, RAS)
    double = margin_summary(ctv, GTV, EVERYWHERE, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert double == {key: pytest.approx(2 * value) for key, value in fine.items()}


@pytest.mark.parametrize(
    ("shift", "affine", "wide", "narrow"),
    [
        ((4, 0, 0), RAS, "right", "left"),
        ((4, 0, 0), LPS, "left", "right"),
        ((0, 4, 0), RAS, "anterior", "posterior"),
        ((0, 4, 0), LPS, "posterior", "anterior"),
        ((0, 0, -4), LPS, "inferior", "superior"),
        ((0, 0, 4), RAS[[2, 0, 1, 3]], "right", "left"),
    ],
)
def test_a_shifted_ctv_is_wide_on_the_patients_side(shift, affine, wide, narrow):
    ctv = _ball(np.add((20, 20, 20), shift), 12)
    summary = margin_summary(ctv, GTV, EVERYWHERE, affine)
    assert summary[wide] == pytest.approx(10 - 0.6, abs=0.6)
    assert summary[narrow] == pytest.approx(2.0, abs=0.6)
    for name in DIRECTIONS:
        assert summary[f"{name}_min"] <= summary[name] <= summary[f"{name}_max"]
    assert summary["max"] == max(summary[f"{name}_max"] for name in DIRECTIONS)
    assert summary[f"{wide}_max"] == pytest.approx(10, abs=0.6)


def test_direction_without_a_margin_is_none():
    ctv = GTV | (_ball((20, 20, 20), 12) & (np.arange(40) >= 20)[:, None, None])
    summary = margin_summary(ctv, GTV, EVERYWHERE, RAS)
    assert summary["left"] is None
    assert summary["min"] == 0.0
    assert summary["right"] == pytest.approx(5.7, abs=0.5)


def test_boundary_on_the_edge_of_the_brain_does_not_count():
    brain = EVERYWHERE.copy()
    brain[29:] = False
    ctv = (distance_from(GTV, (1, 1, 1)) <= 8.0) & brain
    summary = margin_summary(ctv, GTV, brain, RAS)
    assert summary["left"] == pytest.approx(7.5, abs=0.5)
    assert summary["right"] is None
    assert summary["min"] > 6.5
    assert set(margin_summary(brain, GTV, brain, RAS).values()) == {None}


def test_flipping_data_and_affine_together_changes_nothing():
    rng = np.random.default_rng(1)
    ctv = _ball((21, 19, 23), 11) & (rng.random(SHAPE) > 0.01)
    flip = np.array([[-1.0, 0, 0, 39], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    here = margin_summary(ctv, GTV, EVERYWHERE, LPS)
    there = margin_summary(ctv[::-1], GTV[::-1], EVERYWHERE, LPS @ flip)
    assert [here[k] for k in ("mean", "min", "max")] == pytest.approx(
        [there[k] for k in ("mean", "min", "max")]
    )
    # Which of two equally near GTV voxels counts decides on the direction, but hardly on the mean.
    assert [here[k] for k in DIRECTIONS] == pytest.approx([there[k] for k in DIRECTIONS], abs=0.2)
