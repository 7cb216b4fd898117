"""The trimmed CTV: exact without barriers, round them otherwise, never through them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.planning.barriers import Domain, csf_barrier
from gliodil.planning.ctv import standard_ctv
from gliodil.planning.distance import distance_from
from gliodil.planning.geodesic import geodesic_distance, trimmed_ctv

SPACINGS = [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (0.9, 1.2, 1.0)]


def _positions(shape, spacing):
    """Positions [mm] of the voxels relative to the middle one."""
    axes = [(np.arange(n) - n // 2) * h for n, h in zip(shape, spacing, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def _middle(shape):
    mask = np.zeros(shape, bool)
    mask[tuple(n // 2 for n in shape)] = True
    return mask


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), spacing=st.sampled_from(SPACINGS), margin=st.floats(1.0, 5.0))
def test_without_barriers_trimmed_is_standard(seed, spacing, margin):
    rng = np.random.default_rng(seed)
    gtv = rng.random((13, 12, 11)) > 0.99
    gtv[6, 6, 6] = True
    everywhere = np.ones_like(gtv)
    standard = standard_ctv(gtv, everywhere, spacing, margin)
    assert np.array_equal(trimmed_ctv(gtv, Domain(everywhere), standard, spacing, margin), standard)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_distant_barrier_changes_nothing_in_front_of_it(spacing):
    shape = (31, 21, 15)
    x, _, _ = _positions(shape, spacing)
    gtv, passable = _middle(shape), x < 6
    euclid = distance_from(gtv, spacing)
    path = geodesic_distance(gtv, passable, spacing, limit_mm=9.0)
    before = (x < 5) & (euclid <= 9.0)
    assert np.allclose(path[before], euclid[before], rtol=0, atol=1e-9)
    assert np.isinf(path[x > 6]).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), share=st.floats(0.1, 0.9))
def test_trimmed_is_part_of_standard_and_free_of_barriers(seed, share):
    rng = np.random.default_rng(seed)
    gtv = _middle((15, 13, 11)) | (rng.random((15, 13, 11)) > 0.995)
    passable, brain = rng.random((2, *gtv.shape)) > [[[[share]]], [[[0.1]]]]
    standard = standard_ctv(gtv, brain | gtv, (1, 1, 1), 5.0)
    trimmed = trimmed_ctv(gtv, Domain(passable & brain), standard, (1, 1, 1), 5.0)
    assert not (trimmed & ~standard).any()
    assert not (trimmed & ~passable & ~gtv).any()


@pytest.mark.parametrize(
    ("spacing", "tolerance"), [((1, 1, 1), 0.025), ((1, 1, 1.2), 0.03), ((1, 1, 3), 0.03)]
)
def test_path_round_a_wall_has_the_analytic_length(spacing, tolerance):
    shape = tuple(int(36 / h) | 1 for h in spacing)
    x, y, z = _positions(shape, spacing)
    # A wall one voxel thick at x = 4 that ends at y = 6: the shortest path bends at the line (4, 7, z).
    passable = (np.abs(x - 4) > 0.1) | (y > 6.5)
    path = geodesic_distance(_middle(shape), passable, spacing, limit_mm=18.0)
    exact = np.hypot(np.hypot(4, 7) + np.hypot(x - 4, y - 7), z)
    hidden = (x > 4.5) & (y < 1.6 * x) & (exact < 18)
    error = path[hidden] - exact[hidden]
    assert hidden.sum() > 500
    # The corner is known to a fraction of a voxel; the rest is the graph's.
    assert error.max() < tolerance * 18 + 0.25 * max(spacing)
    assert error.min() > -0.25
    assert np.abs(error).mean() < 0.25
    # Going straight through would be much shorter.
    assert (exact[hidden] - np.hypot(np.hypot(x, y), z)[hidden]).max() > 8


@pytest.mark.parametrize("normal", [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0), (3, -2, 1)])
def test_a_thin_oblique_wall_does_not_leak(normal):
    shape = (25, 25, 25)
    height = sum(n * p for n, p in zip(normal, _positions(shape, (1, 1, 1)), strict=True))
    # The thinnest digital plane that no path across shared faces can cross.
    wall = (height >= 8) & (height < 8 + max(map(abs, normal)))
    path = geodesic_distance(_middle(shape), ~wall, (1, 1, 1), limit_mm=12.0)
    beyond = height >= 8 + max(map(abs, normal))
    assert np.isinf(path[beyond]).all()
    assert np.isfinite(path[(height < 7)]).any()


def test_visible_tumour_is_never_a_barrier():
    gtv = _middle((9, 9, 9))
    gtv[4, 4, 4:7] = True
    passable = np.ones_like(gtv)
    passable[:, :, 4:] = False
    path = geodesic_distance(gtv, passable, (1, 1, 1), limit_mm=4.0)
    assert (path[gtv] == 0).all()
    assert path[4, 4, 2] == pytest.approx(2.0)
    assert np.isinf(path[4, 4, 8])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), axes=st.permutations([0, 1, 2]), flips=st.sets(st.integers(0, 2)))
def test_commutes_with_flips_and_permutations(seed, axes, flips):
    rng = np.random.default_rng(seed)
    gtv = _middle((13, 12, 11)) | (rng.random((13, 12, 11)) > 0.995)
    passable, spacing = rng.random(gtv.shape) > 0.3, np.array([1.0, 1.5, 1.0])

    def turn(array):
        return np.flip(array, tuple(flips)).transpose(axes)

    turned = geodesic_distance(turn(gtv), turn(passable), tuple(spacing[list(axes)]), limit_mm=6.0)
    assert np.allclose(turned, turn(geodesic_distance(gtv, passable, tuple(spacing), limit_mm=6.0)))


def test_closing_a_passage_never_shortens_a_path():
    rng = np.random.default_rng(3)
    gtv, passable = _middle((15, 15, 15)), rng.random((15, 15, 15)) > 0.3
    fewer = passable & (rng.random(passable.shape) > 0.1)
    path, longer = (geodesic_distance(gtv, p, (1, 1, 1), limit_mm=7.0) for p in (passable, fewer))
    reached = np.isfinite(longer)
    assert reached.sum() > 100
    assert (longer[reached] >= path[reached] - 1e-9).all()


def test_csf_barrier_needs_csf_to_dominate():
    wm, gm, csf = np.array([[0.0, 0.2, 0.3, 0.0, 0.9], [0.0, 0.1, 0.3, 0.2, 0.0], [1.0, 0.7, 0.55, 0.4, 0.1]])
    assert csf_barrier(wm=wm, gm=gm, csf=csf).tolist() == [True, True, False, False, False]
    assert csf_barrier(wm=None, gm=None, csf=csf).tolist() == [True, True, True, False, False]
    assert csf_barrier(wm=wm, gm=gm, csf=None).tolist() == [True, False, False, False, False]
    assert csf_barrier(wm=wm, gm=None, csf=None) is None
