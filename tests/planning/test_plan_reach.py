"""Expected reach, the probability read from it, and the model CTV that follows it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_brain import BRAIN, GTV, RULE, SHAPE, SPACING, density, patient

from gliodil.errors import InputError
from gliodil.planning import PlanRule, plan
from gliodil.planning.distance import distance_from
from gliodil.planning.later_tumour import fit_coefficients, probability, probability_map
from gliodil.planning.ranking import reach_ranking
from gliodil.planning.reach import METRICS, Metric, expected_reach, tissue_fractions

ONES = np.ones(SHAPE, np.float32)


def reach(white, grey, **asked) -> np.ndarray:
    return expected_reach(GTV, white, grey, **{"brain": BRAIN, "spacing": SPACING, "limit_mm": 12.0, **asked})


def test_in_one_tissue_reach_is_distance():
    distance = distance_from(GTV, SPACING)
    found = reach(ONES, 0 * ONES, metrics=METRICS[:1])
    inside = BRAIN & ~GTV
    assert np.abs(found - distance)[inside].max() < 0.6
    assert (found[GTV] == 0).all()
    assert np.isinf(found[~BRAIN & ~GTV]).all()


def test_a_reach_holds_as_much_brain_as_the_margin_it_is_named_for():
    grey = np.zeros(SHAPE, np.float32)
    grey[:16] = 1
    found, distance = (
        reach(1 - grey, grey, metrics=(Metric(10, 0.2, 1),)),
        distance_from(GTV, SPACING),
    )
    inside = BRAIN & ~GTV
    for mm in (3.0, 6.0, 9.0):
        assert np.count_nonzero(inside & (found <= mm)) == np.count_nonzero(inside & (distance <= mm))


def test_grey_matter_and_fluid_are_farther_than_white_matter_at_the_same_distance():
    grey = np.zeros(SHAPE, np.float32)
    grey[:16] = 1
    for white, other in ((1 - grey, grey), (1 - grey, 0 * grey)):  # the second leaves fluid
        found = reach(white, other)
        assert found[10, 17, 16] > distance_from(GTV, SPACING)[10, 17, 16] > found[26, 17, 16]


@settings(max_examples=6, deadline=None)
@given(axis=st.integers(0, 2), seed=st.integers(0, 9))
def test_a_mirrored_brain_has_a_mirrored_reach(axis, seed):
    grey = np.random.default_rng(seed).random(SHAPE, np.float32)
    found = reach(1 - grey, grey)
    flipped = expected_reach(
        *(np.flip(a, axis) for a in (GTV, 1 - grey, grey)),
        brain=np.flip(BRAIN, axis),
        spacing=SPACING,
        limit_mm=12.0,
    )
    # Voxels at one distance and time may change places.
    both = BRAIN & np.isfinite(found)
    assert np.quantile(np.abs(np.flip(flipped, axis)[both] - found[both]), 0.99) < 0.2


def test_probability_falls_with_reach_and_is_one_in_the_gtv():
    mm = np.linspace(0, 30, 61)
    p = probability(mm)
    assert (np.diff(p) < 0).all()
    assert 0 < p[-1] < p[0] < 1
    assert probability(np.array(np.inf)) == 0
    assert (probability_map(reach(ONES, 0 * ONES), GTV)[GTV] == 1).all()


def test_coefficients_of_a_known_readout_are_found_again():
    rng = np.random.default_rng(3)
    truth = (-0.5, -0.3, 0.2)
    d = rng.uniform(0, 25, 200_000)
    fate = rng.random(d.size) < probability(d, truth)
    found = fit_coefficients([d[:70_000], d[70_000:]], [fate[:70_000], fate[70_000:]], [1.0, 1.0])
    np.testing.assert_allclose(
        probability(np.arange(0.0, 15.0), found), probability(np.arange(0.0, 15.0), truth), rtol=0.1
    )


def test_the_model_ctv_follows_the_reach_and_says_where_it_ends(tmp_path):
    plans = plan(patient(), density(), rule=RULE, rank="reach")
    expected = reach_ranking(patient(), GTV, BRAIN, RULE.margin_mm).reach_mm
    model = plans.model.data > 0
    assert np.count_nonzero(model) == np.count_nonzero(plans.standard.data)
    assert expected[model].max() == pytest.approx(plans.ctv_end["reach_mm"])
    assert expected[BRAIN & ~model].min() >= plans.ctv_end["reach_mm"]
    assert plans.ctv_end["probability"] == pytest.approx(
        float(probability(np.array(plans.ctv_end["reach_mm"])))
    )
    assert plans.reach.data[~BRAIN].max() == -1
    assert not np.array_equal(plans.model.data, plan(patient(), density(), rule=RULE).model.data)
    names = {path.name for path in plans.save(tmp_path)}
    assert {"reach.nii.gz", "probability.nii.gz"} <= names


def test_a_density_handed_in_ranks_unless_told_otherwise(tmp_path):
    plans = plan(patient(), density(), rule=RULE)
    assert plans.rank == "density"
    assert plans.reach is None
    assert plans.ctv_end["reach_mm"] is None
    assert plans.ctv_end["density"] == pytest.approx(density().data[plans.model.data > 0].min())
    with pytest.raises(InputError, match="--rank"):
        plan(patient(), density(), rule=RULE, rank="volume")


def test_no_probability_for_a_gtv_it_was_not_calibrated_for():
    wide = PlanRule("test-oedema", "1", gtv=("enhancing", "oedema"), margin_mm=4.0)
    plans = plan(patient(), density(), rule=wide, rank="reach")
    assert plans.probability is None
    assert plans.ctv_end["probability"] is None
    assert plans.ctv_end["reach_mm"] > 0


def test_tissue_lost_under_the_tumour_counts_as_white_matter_and_missing_maps_are_an_error():
    bare = patient(wm=np.where(GTV, 0, 1.0) * BRAIN, gm=0.0 * ONES)
    white, _ = tissue_fractions(bare)
    assert (white[GTV] == 1).all()
    with pytest.raises(InputError, match="--rank density"):
        tissue_fractions(patient(gm=None))
