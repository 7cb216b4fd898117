"""Rankings at equal volume: known coverages, ties, new tumour, and differences over patients."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.errors import GeometryError, NumericsError
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import distance_from
from gliodil.planning.equal_volume import coverages, filled, paired_difference, target_coverages

SPACING = (1.0, 1.0, 2.0)


@pytest.fixture
def scene():
    """A brain with a cube of tumour, and later tumour on one side, in reach of it and beyond."""
    brain = np.zeros((30, 20, 12), bool)
    brain[1:-1, 1:-1, 1:-1] = True
    gtv = np.zeros_like(brain)
    gtv[8:12, 8:12, 4:7] = True
    later = np.zeros_like(brain)
    later[10:22, 9:11, 5] = True
    return brain, gtv, later


def test_a_ranking_by_distance_covers_what_the_isotropic_margin_does(scene):
    brain, gtv, later = scene
    distance = distance_from(gtv, SPACING)
    found = coverages({"nearest": -distance}, gtv=gtv, brain=brain, spacing=SPACING, later=later)
    assert found["nearest"] == found["isotropic"]
    # Of 12 x 2 voxels, 2 x 2 lie in the GTV, and each further mm reaches two more.
    assert found["isotropic"]["all"] == {3: 10 / 24, 5: 14 / 24, 8: 20 / 24, 10: 1, 15: 1}
    assert found["isotropic"]["new"] == {3: 6 / 20, 5: 10 / 20, 8: 16 / 20, 10: 1, 15: 1}


def test_a_ranking_is_cut_at_the_volume_of_the_margin_and_ties_as_the_model_ctv(scene):
    brain, gtv, later = scene
    right = np.broadcast_to(np.arange(30.0)[:, None, None] >= 10, brain.shape).astype(float)
    found = coverages({"right": right}, gtv=gtv, brain=brain, spacing=SPACING, later=later, margins_mm=(4.0,))
    voxels = int(standard_ctv(gtv, brain, SPACING, 4.0).sum())
    plan = model_ctv(right, brain, distance_from(gtv, SPACING), voxels)
    assert found["right"]["all"] == {4.0: (plan & later).sum() / later.sum()}
    assert found["right"]["all"][4.0] > found["isotropic"]["all"][4.0]


def test_the_middle_of_a_rim_is_no_new_tumour(scene):
    brain, gtv, later = scene
    rim = gtv.copy()
    rim[9:11, 9:11, 5] = False
    assert np.array_equal(filled(rim), gtv)
    asked = {"brain": brain, "spacing": SPACING, "later": later | gtv}
    assert coverages({}, gtv=rim, **asked) == coverages({}, gtv=gtv, **asked)


def test_no_later_tumour_has_no_coverage(scene):
    brain, gtv, _ = scene
    for later in (np.zeros_like(gtv), gtv):
        found = coverages({}, gtv=gtv, brain=brain, spacing=SPACING, later=later, margins_mm=(3,))
        assert found["isotropic"] == {"all": {3: 1.0 if later.any() else None}, "new": {3: None}}


def test_several_targets_at_once(scene):
    brain, gtv, later = scene
    found = target_coverages(
        {}, gtv=gtv, brain=brain, spacing=SPACING, targets={"a": later, "b": gtv}, margins_mm=(3,)
    )
    assert found == {"isotropic": {"a": {3: 10 / 24}, "b": {3: 1.0}}}


def test_what_cannot_be_compared_is_refused(scene):
    brain, gtv, later = scene
    with pytest.raises(GeometryError, match="different grids"):
        coverages({"a": np.zeros((2, 2, 2))}, gtv=gtv, brain=brain, spacing=SPACING, later=later)
    with pytest.raises(NumericsError, match="not finite"):
        coverages({"a": np.full(gtv.shape, np.nan)}, gtv=gtv, brain=brain, spacing=SPACING, later=later)


def test_differences_leave_out_patients_without_a_target():
    mean, low, high = paired_difference([0.5, None, 0.9, 0.7], [0.4, 0.3, 0.9, None])
    assert (mean, low, high) == pytest.approx((0.05, 0.0, 0.1))
    assert paired_difference([0.5, None], [0.4, 0.3]) == (pytest.approx(0.1), None, None)
    assert paired_difference([], []) == (None, None, None)
