"""Outlines: exact inverses, the area they enclose, key-holes; checked with shapely and counted topology."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import euler_number

from gliodil.data.dicom.contours import area, fill, join_holes, trace

# Sparse, even and dense masks: specks, labyrinths, holes.
masks = st.floats(0.05, 0.95).flatmap(
    lambda share: arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.floats(0, 1, width=16),
        fill=st.nothing(),  # every pixel drawn on its own
    ).map(lambda values: values < share)
)


def centres(shape):
    return np.stack(np.indices(shape), axis=-1).reshape(-1, 2).astype(float)


@settings(max_examples=200, deadline=None)
@given(masks)
def test_outlines_give_back_the_mask(mask):
    assert np.array_equal(fill(trace(mask), mask.shape), mask)


@settings(max_examples=200, deadline=None)
@given(masks)
def test_outlines_enclose_the_pixels_less_half_of_islands_minus_holes(mask):
    loops = trace(mask)
    islands_minus_holes = euler_number(mask, connectivity=1)
    assert sum(map(area, loops)) == pytest.approx(mask.sum() - islands_minus_holes / 2, abs=1e-9)
    assert (
        sum(area(loop) > 0 for loop in loops) - sum(area(loop) < 0 for loop in loops) == islands_minus_holes
    )


@settings(max_examples=100, deadline=None)
@given(masks)
def test_outlines_are_simple_polygons_that_neither_meet_nor_pass_a_pixel_centre(mask):
    rings = [shapely.Polygon(loop) for loop in trace(mask)]
    assert all(len(ring.exterior.coords) >= 4 and ring.is_valid for ring in rings)
    lines = [ring.exterior for ring in rings]
    for i, line in enumerate(lines):
        assert not any(line.intersects(other) for other in lines[i + 1 :])
        assert shapely.distance(line, shapely.points(centres(mask.shape))).min() > 0.35


@settings(max_examples=100, deadline=None)
@given(masks)
def test_an_independent_test_of_the_centres_gives_the_mask(mask):
    inside = np.zeros(mask.size, bool)
    for loop in trace(mask):
        inside ^= shapely.contains_xy(shapely.Polygon(loop), centres(mask.shape))
    assert np.array_equal(inside.reshape(mask.shape), mask)


@settings(max_examples=200, deadline=None)
@given(masks)
def test_key_holes_leave_one_loop_per_island_and_change_nothing_else(mask):
    loops, joined = trace(mask), join_holes(trace(mask))
    assert np.array_equal(fill(joined, mask.shape), mask)
    assert len(joined) == sum(area(loop) > 0 for loop in loops)
    assert sum(map(area, joined)) == pytest.approx(sum(map(area, loops)), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(masks)
def test_key_hole_cuts_keep_half_a_pixel_from_centres_and_stay_inside(mask):
    loops, joined = trace(mask), join_holes(trace(mask))
    outlines = shapely.MultiLineString([[*loop, loop[0]] for loop in loops])
    cuts = shapely.MultiLineString([[*loop, loop[0]] for loop in joined]).difference(outlines.buffer(1e-9))
    if not cuts.is_empty:
        assert shapely.distance(cuts, shapely.points(centres(mask.shape))).min() > 0.49
        region = shapely.Polygon()
        for loop in loops:
            region = region.symmetric_difference(shapely.Polygon(loop))
        assert region.buffer(1e-6).contains(cuts)


def test_nothing_has_no_outline():
    assert trace(np.zeros((4, 5), bool)) == []
    assert not fill([], (4, 5)).any()


def test_a_single_pixel_is_a_diamond_of_half_its_area():
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    (loop,) = trace(mask)
    assert {tuple(point) for point in loop} == {(0.5, 2), (1.5, 2), (1, 1.5), (1, 2.5)}
    assert area(loop) == 0.5


def test_pixels_that_touch_at_a_corner_are_two_islands():
    assert len(trace(np.eye(2, dtype=bool))) == 2


def test_an_outline_of_the_whole_image_reaches_half_a_pixel_beyond_its_centres():
    (loop,) = trace(np.ones((6, 9), bool))
    assert loop.min(axis=0).tolist() == [-0.5, -0.5]
    assert loop.max(axis=0).tolist() == [5.5, 8.5]


def test_loops_beyond_the_image_fill_what_lies_inside():
    square = np.array([[-3.5, -2.5], [1.5, -2.5], [1.5, 20.0], [-3.5, 20.0]])
    expected = np.zeros((4, 5), bool)
    expected[:2] = True
    assert np.array_equal(fill([square], (4, 5)), expected)


def test_filling_does_not_depend_on_direction_or_first_vertex():
    mask = np.random.default_rng(2).random((9, 8)) < 0.6
    turned = [np.roll(loop[::-1], 3, axis=0) for loop in trace(mask)]
    assert np.array_equal(fill(turned, mask.shape), mask)
