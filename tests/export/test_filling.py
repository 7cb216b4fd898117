"""Outlines of one slice, however they were stored, give the mask that was meant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.data.dicom.bridging import bridge
from gliodil.data.dicom.contours import fill, join_holes, trace
from gliodil.data.dicom.filling import fill_together

SHAPE = (40, 30)


def square(low: float, high: float, column: float = 0.0) -> np.ndarray:
    return np.array([[low + column, low], [high + column, low], [high + column, high], [low + column, high]])


def block(low: int, high: int, column: int = 0) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[low + column : high + column, low:high] = True
    return mask


def disc(radius: float, vertices: int = 60, centre: tuple[float, float] = (15.2, 14.6)) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius + centre


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=st.floats(0.2, 0.95), copies=st.integers(1, 3))
def test_any_mask_comes_back_from_its_outlines_turned_shuffled_and_doubled(seed, density, copies):
    rng = np.random.default_rng(seed)
    mask = rng.random((13, 11)) < density
    loops = [
        np.roll(loop[:: rng.choice((1, -1))], rng.integers(len(loop)), axis=0)
        + rng.uniform(-0.15, 0.15, loop.shape) * (copy > 0)
        for loop in trace(mask)
        for copy in range(copies)
    ]
    rng.shuffle(loops)
    found = fill_together(loops, mask.shape)
    assert np.array_equal(found.mask, mask)
    assert (found.doubled, found.crossing) == ((copies - 1) * len(trace(mask)), 0)


def test_a_loop_that_is_there_twice_counts_once():
    outer = square(1.5, 20.5)
    turned = np.roll(outer[::-1], 1, axis=0)
    assert np.array_equal(fill_together([outer, turned, outer], SHAPE).mask, block(2, 21))
    assert not fill([outer, turned], SHAPE).any()  # what parity makes of it


@pytest.mark.parametrize("vertices", [60, 20, 12])
def test_a_loop_that_is_there_again_with_fewer_vertices_counts_once(vertices):
    fine, coarse = disc(11.7), disc(11.7, vertices)
    found = fill_together([coarse, fine], SHAPE)
    assert np.array_equal(found.mask, fill([fine], SHAPE)) or np.array_equal(
        found.mask, fill([coarse], SHAPE)
    )
    assert found.doubled == 1


def test_a_loop_that_is_there_again_a_little_aside_counts_once():
    one, other = disc(9.0), disc(9.0, centre=(15.5, 14.8))
    found = fill_together([one, other], SHAPE)
    assert np.array_equal(found.mask, fill([one], SHAPE))


def test_overlapping_loops_are_united():
    loops = [square(1.5, 20.5), square(1.5, 20.5, 10), square(4.5, 9.5, 25)]
    found = fill_together(loops, SHAPE)
    assert np.array_equal(found.mask, block(2, 21) | block(2, 21, 10) | block(5, 10, 25))
    assert found.crossing == 3
    exclusive = fill_together(loops, SHAPE, exclusive=True)
    assert np.array_equal(exclusive.mask, block(2, 21) ^ block(2, 21, 10) ^ block(5, 10, 25))


def test_loops_within_loops_are_holes_and_islands():
    outer, hole, island = square(1.5, 20.5), square(4.5, 15.5), square(7.5, 10.5)
    expected = (block(2, 21) & ~block(5, 16)) | block(8, 11)
    for loops in ([island, outer, hole], [island, outer, hole, hole, outer]):
        assert np.array_equal(fill_together(loops, SHAPE).mask, expected)


def test_a_hole_is_not_cut_into_what_only_overlaps():
    outer, hole, other = square(1.5, 20.5), square(4.5, 9.5), square(5.5, 26.5)
    expected = (block(2, 21) & ~block(5, 10)) | block(6, 27)
    assert np.array_equal(fill_together([outer, hole, other], SHAPE).mask, expected)


def test_a_hole_in_both_of_two_that_overlap_is_a_hole():
    one, other, hole = square(1.5, 20.5), square(1.5, 20.5, 6), square(9.5, 13.5, 2)
    expected = (block(2, 21) | block(2, 21, 6)) & ~block(10, 14, 2)
    assert np.array_equal(fill_together([one, other, hole], SHAPE).mask, expected)


def test_keyholes_are_holes_whatever_else_is_on_the_slice():
    mask = (block(2, 21) & ~block(5, 16)) | block(8, 11)
    tied = [*join_holes(trace(mask)), square(22.5, 26.5)]
    assert np.array_equal(fill_together(tied, SHAPE).mask, mask | block(23, 27))
    assert np.array_equal(fill_together([*tied, *tied], SHAPE).mask, mask | block(23, 27))


def test_loops_too_small_for_a_pixel_and_loops_beyond_the_image_do_no_harm():
    loops = [square(1.5, 20.5), square(4.1, 4.3), square(25.5, 40.5, -5)]
    expected = block(2, 21)
    expected[21:36, 26:] = True
    assert np.array_equal(fill_together(loops, SHAPE).mask, expected)
    assert not fill_together([], SHAPE).mask.any()


def cone(heights: list[int]) -> np.ndarray:
    """Discs of a radius that falls by half a pixel per slice, on some slices only."""
    mask = np.zeros((*SHAPE, 16), np.uint8)
    for k in heights:
        mask[:, :, k] = fill([disc(12 - k / 2)], SHAPE)
    return mask


@pytest.mark.parametrize(
    ("drawn", "filled"),
    [([2, 3, 5, 6], [4]), ([2, 4, 6, 8], [3, 5, 7]), ([2, 6], [3, 4, 5]), ([2, 3, 4], [])],
    ids=["one", "every other", "three in a row", "none"],
)
def test_slices_left_out_are_interpolated(drawn, filled):
    mask, whole = cone(drawn), cone(list(range(drawn[0], drawn[-1] + 1)))
    said = bridge(mask, (1.0, 1.0, 3.0), 10.0)
    assert np.count_nonzero(mask != whole) <= 0.05 * np.count_nonzero(whole)
    assert np.array_equal(mask[:, :, drawn], whole[:, :, drawn])
    assert bool(said) == bool(filled)
    if filled:
        assert f"on {len(filled)} slices" in said[0]


def test_high_gaps_and_bodies_that_only_touch_in_projection_stay_apart():
    mask = cone([2, 3, 9, 10])
    before = mask.copy()
    (said,) = bridge(mask, (1.0, 1.0, 3.0), 10.0)
    assert "5 slices in a row from slice 5 on" in said
    assert np.array_equal(mask, before)
    mask = cone([2])
    mask[:, :, 4] = fill([disc(5, centre=(33.0, 14.0))], SHAPE)
    before = mask.copy()
    assert bridge(mask, (1.0, 1.0, 3.0), 10.0) == []
    assert np.array_equal(mask, before)
