"""The gate between fit and plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_brain import RULE, density, patient

from gliodil.inference.agreement import Agreement
from gliodil.inference.result import Fit, LossHistory
from gliodil.planning import plan
from gliodil.planning.acceptance import accept
from gliodil.reporting.summary import summary

GOOD = Agreement(misfit_mm=0.5, core_below_level=0.02, lesions_found=2, lesions_explained=2)


def fit(**changes) -> Fit:
    known = {
        "density": density(),
        "parameters": {},
        "status": "converged",
        "message": "",
        "loss_total": 1.0,
        "loss_terms": {},
        "evaluations": 1,
        "history": LossHistory((), (), (), ()),
        "method": "odil",
        "optimizer": "lbfgs",
        "grid_shape": (8, 8, 8),
        "steps": 8,
        "spacing_mm": (2.0, 2.0, 2.0),
        "device": "cpu",
        "dtype": "float32",
        "wall_s": 1.0,
        "agreement": GOOD,
    }
    return Fit(**(known | changes))


PLANS = plan(patient(), fit(), rule=RULE)


def test_a_fit_that_reproduces_its_labels_is_accepted():
    found = accept(patient(), fit(), PLANS)
    assert found.accepted
    assert found.reasons == ()
    assert "Not accepted" not in summary(PLANS, found)
    assert "mL" in summary(PLANS, found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": "iteration_limit"}, "iteration limit"),
        ({"agreement": replace(GOOD, misfit_mm=1.7)}, "1.7 mm"),
        ({"agreement": replace(GOOD, core_below_level=0.3)}, "30%"),
        ({"agreement": replace(GOOD, lesions_explained=1)}, "1 of 2 lesions"),
    ],
)
def test_each_failing_is_a_reason_of_its_own(change, words):
    found = accept(patient(), fit(**change), PLANS)
    assert not found.accepted
    assert len(found.reasons) == 1
    assert words in found.reasons[0]
    assert f"Not accepted: {found.reasons[0]}" in summary(PLANS, found)


def test_bare_maps_doubtful_registration_and_unmeasurable_ends_are_reasons():
    bare = patient(wm=0.0 * density().data, gm=0.0 * density().data)
    assert "no tissue" in accept(bare, fit(), PLANS).reasons[0]
    record = {"correlation": 0.4, "correlation_expected": 0.6}
    assert "0.40" in accept(patient(), fit(), PLANS, registration=record).reasons[0]
    faint = fit(density=density().with_data((density().data ** 6).astype(np.float32)))
    by_density = plan(patient(), faint, rule=RULE, rank="density")
    assert "ends at a density" in accept(patient(), faint, by_density).reasons[0]
    assert accept(patient(), faint, plan(patient(), faint, rule=RULE)).accepted


def test_on_large_voxels_labels_cannot_tell_as_much():
    coarse = replace(patient(), segmentation=patient().segmentation, volumes={})
    found = accept(coarse, fit(agreement=replace(GOOD, misfit_mm=1.1)), PLANS)
    assert found.accepted
