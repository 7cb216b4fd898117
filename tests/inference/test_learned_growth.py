"""Learned growth laws: recovery on synthetic visits, what is identified, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import gliodil
from gliodil.data.longitudinal import LongitudinalPatient, simulate_longitudinal
from gliodil.errors import GeometryError, InputError
from gliodil.inference.config import FitConfig
from gliodil.inference.learned import LearnedConfig, fit_learned
from gliodil.inference.learned_case import set_up_visits
from gliodil.inference.learned_loss import NEGLIGIBLE, VisitLoss

U = np.linspace(0.05, 0.95, 181)
DIFFUSIVITY = "diffusivity_wm_mm2_per_day"


def reaction_error(fit: gliodil.LearnedFit, truth: np.ndarray) -> float:
    return float(np.linalg.norm(fit.reaction(U) - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("law", ["gompertz", "allee"])
def test_a_law_is_recovered_from_three_visits(law: str) -> None:
    synthetic = simulate_longitudinal(law=law, seed=0)
    stages: list[str] = []
    fit = gliodil.fit(
        synthetic.visits,
        growth="learned",
        config=FitConfig(device="cpu"),
        progress=lambda stage, *_: stages.append(stage),
    )
    assert reaction_error(fit, synthetic.reaction(U)) < 0.05
    d = fit.parameters[DIFFUSIVITY].value
    assert d == pytest.approx(synthetic.diffusivity, rel=0.05)
    assert fit.identification == "identified"
    assert list(dict.fromkeys(stages)) == ["parameters", "law"]
    # Without the correction the law is not explained: the network is what recovers it.
    first = [v for v, s in zip(fit.history.total, fit.history.stage, strict=True) if s == "parameters"][-1]
    assert fit.misfit < 0.2 * first
    last = synthetic.truth[-1]
    assert float(np.abs(fit.density.data - last).max()) < 0.05


def test_the_regularizer_is_gone_at_the_end() -> None:
    synthetic = simulate_longitudinal(law="allee", seed=1, visits=2)
    config = LearnedConfig(regularizer="er", weight=10.0, evaluations=15, step_days=10.0)
    fit = fit_learned(synthetic.visits, config=config, fit_config=FitConfig(device="cpu"))
    stages = list(dict.fromkeys(fit.history.stage))
    assert stages == ["parameters", "law, er × 10", "law, er × 1", "law, er × 0.1", "law"]
    # What is left at the end is the misfit, and the constant.
    assert fit.history.total[-1] == pytest.approx(fit.misfit + NEGLIGIBLE, rel=1e-6)


def test_one_visit_does_not_tell_time() -> None:
    synthetic = simulate_longitudinal(law="allee", seed=0, visits=1)
    config = LearnedConfig(evaluations=6, step_days=20.0)
    fit = fit_learned(synthetic.visits, config=config, fit_config=FitConfig(device="cpu"))
    assert fit.identification == "up_to_time_scale"
    assert "no time" in fit.warnings[0]


def test_labels_do_not_identify_a_law(make_patient, tiny) -> None:  # type: ignore[no-untyped-def]
    config = replace(tiny, loss="informed", max_evaluations=5)
    fit = gliodil.fit(make_patient(), growth="learned", config=config)
    assert fit.identification == "not_identified"
    assert "do not determine" in fit.warnings[0]
    rho = fit.parameters["proliferation_rate_per_day"].value
    np.testing.assert_allclose(fit.reaction(U), rho * U * (1 - U), atol=1e-4 * rho)


def test_what_is_refused(make_patient, tiny) -> None:  # type: ignore[no-untyped-def]
    patient = make_patient()
    with pytest.raises(InputError, match="Unknown growth"):
        gliodil.fit(patient, growth="exponential", config=tiny)  # type: ignore[call-overload]
    visits = simulate_longitudinal(law="allee").visits
    with pytest.raises(InputError, match="one visit"):
        gliodil.fit(visits, config=tiny)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="Unknown regularizer"):
        LearnedConfig(regularizer="sr")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="makes no sense"):
        LearnedConfig(step_days=0)
    with pytest.raises(InputError, match="increasing days"):
        LongitudinalPatient(visits.patient, (3.0, 1.0, 2.0), visits.densities)
    with pytest.raises(GeometryError, match="grid"):
        LongitudinalPatient(patient, visits.days, visits.densities)
    with pytest.raises(InputError, match="Unknown growth law"):
        simulate_longitudinal(law="exponential")
    with pytest.raises(InputError, match="No such synthetic"):
        simulate_longitudinal(visits=0)
    empty = [d.with_data(np.zeros(d.shape, np.float32)) for d in visits.densities]
    with pytest.raises(GeometryError, match="No tumour"):
        fit_learned(LongitudinalPatient(visits.patient, visits.days, tuple(empty)))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("regularizer", ["none", "er", "smooth"])
def test_gradient_of_the_loss(noise: float, regularizer: str) -> None:
    synthetic = simulate_longitudinal(law="gompertz", visits=2, noise=noise)
    case = set_up_visits(synthetic.visits, 100.0, device="cpu")
    config = LearnedConfig(regularizer=regularizer, step_days=10.0, tissue=True)  # type: ignore[arg-type]
    loss = VisitLoss(case, config, 0.02)
    loss.learn(0.03)
    # Error estimates change their scale with the steps chosen, which a difference moves: left out here.
    loss.weight = 1.0 if regularizer == "smooth" else 0.0
    generator = torch.Generator().manual_seed(0)
    x = [torch.log(torch.tensor([0.1, 0.03], dtype=torch.float64)), loss.flat()]
    x[1] += 0.3 * torch.randn(x[1].shape, dtype=torch.float64, generator=generator)
    if case.field is not None:
        x.append(0.01 * torch.randn(case.start.shape, dtype=torch.float64, generator=generator))
    gradient = loss.at(x).gradient()
    for k, g in enumerate(gradient):
        d = torch.randn(g.shape, dtype=torch.float64, generator=generator)
        d /= d.norm()
        e = 1e-5
        ends = [loss.at([t + s * e * d if j == k else t for j, t in enumerate(x)]).value for s in (-1, 1)]
        assert float((g * d).sum()) == pytest.approx((ends[1] - ends[0]) / (2 * e), rel=2e-3, abs=1e-5)


def test_synthetic_visits() -> None:
    a, b = (simulate_longitudinal(law="gompertz", seed=4, noise=0.01) for _ in range(2))
    assert a.visits.days == (0.0, 30.0, 60.0)
    for one, other in zip(a.visits.densities, b.visits.densities, strict=True):
        np.testing.assert_array_equal(one.data, other.data)
    volumes = [field.sum() for field in a.truth]
    assert volumes[0] < volumes[1] < volumes[2]
    csf = a.visits.patient.volumes["wm"].data + a.visits.patient.volumes["gm"].data == 0
    assert csf.any()
    assert not a.truth[-1][csf].any()
    noise = a.visits.densities[0].data - a.truth[0]
    assert float(noise[~csf].std()) == pytest.approx(0.01, rel=0.1)
