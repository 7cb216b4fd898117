"""Unlabelled middles of segmented rims."""

import numpy as np
import pytest

from gliodil.data.labels import get_convention
from gliodil.data.rim_filling import enclosed, fill_rims
from gliodil.data.volume import Volume


def shell(n: int = 21) -> np.ndarray:
    r = np.sqrt(((np.indices((n, n, n)) - n // 2) ** 2).sum(axis=0))
    return np.asarray((r <= 7) & (r > 4.5))


def test_the_middle_of_a_closed_shell_is_enclosed():
    middle = enclosed(shell())
    assert middle[10, 10, 10]
    assert not (middle & shell()).any()
    assert not enclosed(np.zeros((5, 5, 5), bool)).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_rim_with_a_gap_is_filled_and_a_ring_around_tissue_is_not(axis):
    opened = np.moveaxis(shell(), axis, 0).copy()
    opened[2:8, 12:15, 12:15] = False
    assert enclosed(opened)[10, 10, 10]
    ring = np.zeros_like(opened)
    ring[10] = shell()[10]
    assert not enclosed(np.moveaxis(ring, 0, axis)).any()


@pytest.mark.parametrize(("name", "middle"), [("gtv", 1), ("brats-2023", 1), ("gliodil", 4)])
def test_what_is_filled_is_core_of_the_convention_and_named(name, middle):
    convention = get_convention(name)
    data = np.where(shell(), convention.enhancing[0], 0).astype(np.uint8)
    filled, notes = fill_rims(Volume(data, np.eye(4), kind="label"), convention)
    assert filled.data[10, 10, 10] == middle
    assert len(notes) == 1
    assert "mL" in notes[0]


def test_oedema_and_cavities_inside_a_rim_keep_their_labels():
    convention = get_convention("brats-2024-post")
    data = np.where(shell(), 3, 0).astype(np.uint8)
    data[10, 10, 10], data[10, 10, 11] = 4, 2
    filled, _ = fill_rims(Volume(data, np.eye(4), kind="label"), convention)
    assert (filled.data[10, 10, 10], filled.data[10, 10, 11]) == (4, 2)
    assert filled.data[10, 11, 10] == 1
