"""The order in which voxels enter a coverage curve, and what they cover."""

from __future__ import annotations

import numpy as np

from gliodil.cohort.curves import covered, ranked


def test_equal_values_enter_by_distance_then_by_index() -> None:
    values = np.array([[0.2, 0.5, 0.5, 0.5], [0.5, 0.9, 0.2, 0.2]])
    distance = np.array([[9.0, 3.0, 1.0, 3.0], [0.0, 7.0, 2.0, 2.0]])
    brain = np.array([[True, True, True, True], [False, True, True, True]])
    # .9 first; of the .5s the one at 1 mm, then those at 3 mm as stored; of the .2s those at 2 mm before that at 9 mm.
    assert ranked(values, distance, brain).tolist() == [5, 2, 1, 3, 6, 7, 0]


def test_a_curve_counts_what_the_first_voxels_cover() -> None:
    recurrence = np.array([False, True, True, False, True])
    order, counts = np.array([2, 0, 1, 3]), np.array([0, 1, 2, 3, 99])
    found = covered(recurrence, order, counts)
    assert found is not None
    assert found.tolist() == [
        0,
        1 / 3,
        1 / 3,
        2 / 3,
        2 / 3,
    ]  # a third lies outside the brain and is never covered
    assert covered(np.zeros(5, bool), order, counts) is None
