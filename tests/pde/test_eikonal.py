"""First arrival of a front."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gliodil.pde.eikonal import travel_time


def ball(n: int, radius: float, spacing: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    x = (np.indices((n, n, n)) - n // 2) * np.reshape(spacing, (3, 1, 1, 1))
    return np.asarray((x**2).sum(axis=0) <= radius**2)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0)])
def test_at_speed_one_times_are_distances_to_a_few_per_cent(spacing):
    start = ball(41, 5, spacing)
    time = travel_time(start, np.ones(start.shape), spacing=spacing)
    straight = ndimage.distance_transform_edt(~start, sampling=spacing)
    far = straight > 4
    assert np.abs(time[far] / straight[far] - 1).max() < 0.15
    assert abs(float((time[far] / straight[far]).mean()) - 1) < 0.06


def test_along_an_axis_a_layered_medium_is_crossed_exactly():
    speed = np.where(np.arange(30) < 10, 1.0, 0.25)[:, None, None] * np.ones((30, 5, 5))
    start = np.zeros(speed.shape, bool)
    start[0] = True
    time = travel_time(start, speed, spacing=(0.5, 1, 1))
    layers = np.concatenate([[0], np.cumsum(0.5 / speed[1:, 0, 0])])
    np.testing.assert_allclose(time[:, 2, 2], layers, rtol=1e-5)


def test_a_wall_is_gone_round_and_a_closed_room_not_entered():
    speed = np.ones((21, 21, 3))
    speed[10, :15] = 0
    start = np.zeros(speed.shape, bool)
    start[5, 5] = True
    time = travel_time(start, speed, spacing=(1, 1, 1))
    round_it = np.hypot(5, 10) + np.hypot(5, 10)
    assert round_it <= time[15, 5, 1] < 1.12 * round_it
    speed[10] = 0
    assert np.isinf(travel_time(start, speed, spacing=(1, 1, 1))[11:]).all()


def test_arrivals_beyond_the_limit_are_left_out():
    start = ball(21, 2)
    full = travel_time(start, np.ones(start.shape), spacing=(1, 1, 1))
    cut = travel_time(start, np.ones(start.shape), spacing=(1, 1, 1), limit=4)
    np.testing.assert_array_equal(np.isfinite(cut), full <= 4)
    np.testing.assert_allclose(cut[full <= 4], full[full <= 4], rtol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), factor=st.floats(0.1, 10))
def test_time_scales_inversely_with_speed_and_no_neighbour_is_late(seed, factor):
    rng = np.random.default_rng(seed)
    speed = rng.uniform(0.2, 1, (9, 10, 11))
    start = np.zeros(speed.shape, bool)
    start[tuple(rng.integers(0, 9, 3))] = True
    time = travel_time(start, speed, spacing=(1, 1, 1))
    np.testing.assert_allclose(
        travel_time(start, factor * speed, spacing=(1, 1, 1)), time / factor, rtol=1e-4
    )
    for axis in range(3):
        step = np.diff(time, axis=axis)
        into = np.moveaxis(np.moveaxis(1 / speed, axis, 0)[1:], 0, axis)
        assert (step <= into * (1 + 1e-4)).all()
