"""Standard and model CTV against brute force, and their invariants."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, NumericsError
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import distance_from


def _ball(shape, centre, radius_mm, spacing=(1.0, 1.0, 1.0)):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return (((index - centre) * spacing) ** 2).sum(axis=-1) <= radius_mm**2


def _brute_force(gtv, brain, spacing, margin_mm):
    points = np.argwhere(np.ones_like(gtv)) * np.array(spacing)
    nearest = cdist(points, np.argwhere(gtv) * np.array(spacing)).min(axis=1).reshape(gtv.shape)
    return brain & (nearest <= margin_mm + 1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.5, 3.0)])
def test_standard_equals_brute_force(spacing):
    shape = (17, 19, 13)
    gtv = _ball(shape, (8, 7, 6), 2.6, spacing)
    brain = _ball(shape, (8, 9, 6), 7.5, spacing)
    ctv = standard_ctv(gtv, brain, spacing, 4.0)
    assert np.array_equal(ctv, _brute_force(gtv, brain, spacing, 4.0))
    assert ctv.any()


def test_voxels_at_exactly_the_margin_belong_to_it():
    gtv = np.zeros((21, 3, 3), bool)
    gtv[10, 1, 1] = True
    # Three times 0.1 is more than 0.3 in floating point.
    ctv = standard_ctv(gtv, np.ones_like(gtv), (0.1, 9.0, 9.0), 0.3)
    assert np.flatnonzero(ctv[:, 1, 1]).tolist() == [7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("place", [(0, 0, 0), (15, 15, 15)])
def test_standard_at_the_edge_of_the_image(place):
    gtv = np.zeros((16, 16, 16), bool)
    gtv[place] = True
    brain = np.ones_like(gtv)
    assert np.array_equal(standard_ctv(gtv, brain, (1, 1, 1), 5), _brute_force(gtv, brain, (1, 1, 1), 5))


def test_tumour_outside_the_brain_is_an_error():
    gtv, brain = np.zeros((2, 30, 8, 8), bool)
    gtv[2, 2, 2] = brain[28, 4, 4] = True
    with pytest.raises(GeometryError, match="outside the brain"):
        standard_ctv(gtv, brain, (1, 1, 1), 15.0)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    axes=st.permutations([0, 1, 2]),
    flips=st.sets(st.integers(0, 2)),
    margin=st.floats(0.5, 6.0),
)
def test_margin_commutes_with_flips_and_permutations(seed, axes, flips, margin):
    rng = np.random.default_rng(seed)
    gtv = rng.random((11, 12, 9)) > 0.99
    gtv[5, 5, 5] = True
    brain, spacing = rng.random(gtv.shape) > 0.2, np.array([1.0, 0.8, 2.5])
    brain[5, 5, 5] = True

    def turn(mask):
        return np.flip(mask, tuple(flips)).transpose(axes)

    turned = standard_ctv(turn(gtv), turn(brain), tuple(spacing[list(axes)]), margin)
    assert np.array_equal(turned, turn(standard_ctv(gtv, brain, tuple(spacing), margin)))


def test_volume_does_not_depend_on_slice_thickness():
    shape = (72, 72, 72)
    core = _ball(shape, (36, 36, 36), 14.0) | _ball(shape, (30, 40, 44), 9.0)
    fine = Volume(core, np.eye(4), kind="label")
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[2, 3] = 1.0
    thick = fine.resample_to(Volume(np.zeros((72, 72, 24), np.uint8), affine, kind="label"))
    volumes = [
        v.voxel_volume_ml * standard_ctv(v.data > 0, np.ones(v.shape, bool), v.spacing, 15.0).sum()
        for v in (fine, thick)
    ]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.03)


def _model_by_sorting(density, brain, distance, voxels):
    inside = np.flatnonzero(brain)
    order = np.lexsort((inside, distance.ravel()[inside], -density.ravel()[inside]))
    ctv = np.zeros(brain.size, bool)
    ctv[inside[order[:voxels]]] = True
    return ctv.reshape(brain.shape)


def _case(seed, levels):
    rng = np.random.default_rng(seed)
    density = rng.integers(0, levels, (7, 8, 9)) / levels
    brain = rng.random(density.shape) > 0.3
    gtv = np.zeros(density.shape, bool)
    gtv[3, 4, 4] = True
    return density, brain, distance_from(gtv, (1, 1, 2))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), levels=st.sampled_from([1, 2, 5, 10**6]), share=st.floats(0.01, 1.0))
def test_model_is_the_densest_set_of_exactly_k_voxels(seed, levels, share):
    density, brain, distance = _case(seed, levels)
    k = max(1, int(share * brain.sum()))
    ctv = model_ctv(density, brain, distance, k)
    assert ctv.sum() == k
    assert np.array_equal(ctv, _model_by_sorting(density, brain, distance, k))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), sizes=st.tuples(st.integers(1, 150), st.integers(1, 150)))
def test_models_are_nested(seed, sizes):
    density, brain, distance = _case(seed, 4)
    small, large = (model_ctv(density, brain, distance, k) for k in sorted(sizes))
    assert not (small & ~large).any()


@pytest.mark.parametrize("voxels", [0, 10_000])
def test_model_volume_must_fit_the_brain(voxels):
    density, brain, distance = _case(0, 4)
    with pytest.raises(InputError, match="cannot hold"):
        model_ctv(density, brain, distance, voxels)


def test_density_must_be_finite_in_the_brain():
    density, brain, distance = _case(0, 4)
    density[np.nonzero(brain)[0][0], np.nonzero(brain)[1][0], np.nonzero(brain)[2][0]] = np.nan
    with pytest.raises(NumericsError, match="not finite"):
        model_ctv(density, brain, distance, 5)


def _published(shared_data, name):
    return np.asarray(nib.load(shared_data / "gliodil_001" / f"{name}.nii.gz").dataobj)


def test_published_standard_plan_is_reproduced_voxel_for_voxel(shared_data):
    gtv = np.isin(_published(shared_data, "segm"), (1, 4))
    brain = _published(shared_data, "brainMask") > 0
    ctv = standard_ctv(gtv, brain, (1.0, 1.0, 1.0), 15.0)
    assert ctv.sum() == 350_794
    assert np.array_equal(ctv, _published(shared_data, "standardPlan") > 0)


def test_published_patient_in_thick_slices_has_the_same_volume(shared_data):
    affine = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    thick_affine = affine.copy()
    thick_affine[2, 2:] = 3.0, 1.0
    thick = Volume(np.zeros((240, 240, 51), np.uint8), thick_affine, kind="label")
    core = Volume(np.isin(_published(shared_data, "segm"), (1, 4)), affine, kind="label")
    brain = Volume(_published(shared_data, "brainMask") > 0, affine, kind="label")
    core, brain = core.resample_to(thick), brain.resample_to(thick)
    ctv = standard_ctv(core.data > 0, brain.data > 0, core.spacing, 15.0)
    assert ctv.sum() * core.voxel_volume_ml == pytest.approx(350.794, rel=0.03)
