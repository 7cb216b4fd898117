"""Maps blurred by the error of their registration."""

import numpy as np
import pytest

from gliodil.inference.tissue import blurred

SPACING = (1.0, 2.0, 1.5)


def ball(shape=(30, 18, 24), radius=11.0):
    index = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), axis=-1)
    return np.linalg.norm(index * SPACING, axis=-1) < radius


def test_a_constant_stays_what_it_is_up_to_the_surface_and_nothing_leaves_the_mask():
    inside = ball()
    found = blurred(np.full(inside.shape, 0.7), 4.0, spacing=SPACING, inside=inside)
    assert found.dtype == np.float32
    assert found[inside] == pytest.approx(0.7, abs=1e-5)
    assert not found[~inside].any()


def test_what_lies_outside_the_mask_is_not_heeded():
    inside = ball()
    clean = np.random.default_rng(0).random(inside.shape) * inside
    dirty = np.where(inside, clean, 1e3)
    options = {"spacing": SPACING, "inside": inside}
    assert np.array_equal(blurred(clean, 3.0, **options), blurred(dirty, 3.0, **options))
    assert np.array_equal(blurred(dirty, 0.0, **options), clean.astype(np.float32))


def test_the_width_is_in_millimetres_along_every_axis():
    inside = np.ones((61, 31, 41), dtype=bool)
    point = np.zeros(inside.shape)
    point[30, 15, 20] = 1000
    found = blurred(point, 3.0, spacing=SPACING, inside=inside).astype(float)
    for axis, h in enumerate(SPACING):
        x = (np.arange(found.shape[axis]) - (found.shape[axis] - 1) / 2) * h
        profile = found.sum(axis=tuple(a for a in range(3) if a != axis))
        assert np.sqrt((profile * x**2).sum() / profile.sum()) == pytest.approx(3.0, rel=0.03)


def test_an_empty_mask_gives_an_empty_map():
    inside = np.zeros((4, 4, 4), dtype=bool)
    assert not blurred(np.ones(inside.shape), 2.0, spacing=SPACING, inside=inside).any()
