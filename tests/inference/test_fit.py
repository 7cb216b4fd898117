"""A fit from patient to density on a tiny grid: truthful, deterministic, mirror-symmetric."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gliodil.data.patient import Patient
from gliodil.errors import InputError, NumericsError
from gliodil.inference import fit as fit_module
from gliodil.inference import label_misfit, nested, public_path
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig, Loss, Physics
from gliodil.inference.fit import fit
from gliodil.inference.free_start import UNRELIABLE
from gliodil.inference.nested import ladder
from gliodil.inference.result import Fit

PatientFactory = Callable[..., Patient]
CONFIG = FitConfig(cells=12, steps=16, max_evaluations=120, device="cpu")
STATUSES = {"converged", "iteration_limit", "stalled", "diverged"}
TERMS = {"parameters", "pde", "initial", "seg_lower", "seg_upper", "bounds", "csf", "pet"}
FREE_TERMS = {"labels", "start", "width", "priors", "pet"}
PARAMETERS = {
    "diffusivity_wm_mm2_per_day",
    "proliferation_rate_per_day",
    "wm_gm_ratio",
    "infiltration_length_mm",
    "threshold_core",
    "threshold_oedema",
    "origin_mm",
}
CASES = [(loss, pet) for loss in ("informed", "reference") for pet in (False, True)]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}, {'with' if c[1] else 'without'} PET")
def fitted(request: pytest.FixtureRequest, make_patient: PatientFactory) -> tuple[Patient, Fit]:
    loss, pet = request.param
    patient = make_patient(pet=pet)
    return patient, fit(patient, config=replace(CONFIG, loss=loss))


def test_the_account_adds_up(fitted: tuple[Patient, Fit]) -> None:
    patient, result = fitted
    assert set(result.loss_terms) == (FREE_TERMS if result.physics == "free-start" else TERMS)
    assert result.loss_total == pytest.approx(sum(result.loss_terms.values()), rel=1e-9)
    assert all(value >= 0 for value in result.loss_terms.values())
    assert (result.loss_terms["pet"] > 0) == (patient.pet is not None)
    assert set(result.parameters) >= PARAMETERS
    assert ("pet_scale" in result.parameters) == (patient.pet is not None)
    d, rho, length = (
        float(np.asarray(result.parameters[name].value))
        for name in ("diffusivity_wm_mm2_per_day", "proliferation_rate_per_day", "infiltration_length_mm")
    )
    assert length == pytest.approx((d / rho) ** 0.5)
    assert result.grid_shape == (12, 12, 12)
    assert result.steps == 16


def test_the_history_is_consistent(fitted: tuple[Patient, Fit]) -> None:
    _, result = fitted
    history = result.history
    assert len({len(x) for x in (history.evaluations, history.seconds, history.total, history.stage)}) == 1
    assert list(history.evaluations) == sorted(history.evaluations)
    assert list(history.seconds) == sorted(history.seconds)
    assert result.evaluations >= history.evaluations[-1]
    assert history.stage[0].startswith("parameters ")
    first = [v for v, s in zip(history.total, history.stage, strict=True) if s == history.stage[0]]
    assert first == sorted(first, reverse=True)


def test_the_status_is_told_in_words(fitted: tuple[Patient, Fit]) -> None:
    _, result = fitted
    assert result.status in STATUSES
    assert result.message
    assert result.converged == (result.status == "converged")
    assert any("did not converge" in w for w in result.warnings) == (not result.converged)


def test_the_density_is_a_density_on_the_patient_s_grid(fitted: tuple[Patient, Fit]) -> None:
    patient, result = fitted
    density = result.density
    assert density.same_grid(patient.segmentation)
    assert density.data.dtype == np.float32
    assert bool(np.isfinite(density.data).all())
    assert 0 <= float(density.data.min()) <= float(density.data.max()) <= 1
    passable = set_up(patient, CONFIG).passable_voxels
    assert not passable.all()
    assert np.count_nonzero(density.data[~passable]) == 0


def test_the_density_resembles_the_tumour(fitted: tuple[Patient, Fit]) -> None:
    """High inside the core, low far away, and the seed inside the visible tumour.

    The minimum of the reference loss can be nearly flat on a patient as small as this one.
    """
    patient, result = fitted
    data = result.density.data
    factor = 1 if "pde" in result.loss_terms and result.physics == "soft" else 2
    assert float(data[patient.core].mean()) > factor * float(data[~patient.tumour].mean())
    assert float(np.median(data[patient.core])) > 0.2
    at = np.rint(patient.segmentation.to_index(result.parameters["origin_mm"].value)).astype(int)
    assert all(0 <= i < n for i, n in zip(at, patient.shape, strict=True))
    assert patient.tumour[tuple(at)]


def test_the_full_stage_only_improves_on_its_start(fitted: tuple[Patient, Fit]) -> None:
    """Values within the stage belong to a frozen seed; its first and the returned one are exact."""
    _, result = fitted
    last = result.history.stage[-1]
    first = next(v for v, s in zip(result.history.total, result.history.stage, strict=True) if s == last)
    assert result.loss_total <= first


@pytest.mark.parametrize("physics", ["exact", "soft"])
@pytest.mark.parametrize("loss", ["informed", "reference"])
def test_physics_is_what_was_asked_for(make_patient: PatientFactory, physics: Physics, loss: Loss) -> None:
    result = fit(make_patient(), config=replace(CONFIG, loss=loss, physics=physics, max_evaluations=20))
    assert result.physics == physics
    assert (result.loss_terms["pde"] == 0) == (physics == "exact")
    assert (result.loss_terms["initial"] == 0) == (physics == "exact")
    assert result.label_misfit_mm is not None
    assert result.label_misfit_mm > 0
    assert result.loss_total == pytest.approx(sum(result.loss_terms.values()), rel=1e-6)


@pytest.mark.parametrize("resolved", [0.0, 1e6])
def test_physics_is_exact_where_that_explains_the_labels(
    make_patient: PatientFactory, monkeypatch: pytest.MonkeyPatch, resolved: float
) -> None:
    """The choice follows the misfit alone; the public loss is soft whatever that is."""
    monkeypatch.setattr(label_misfit, "RESOLVED_CELLS", resolved)
    for loss in ("informed", "reference"):
        result = fit(make_patient(), config=replace(CONFIG, loss=loss, max_evaluations=5))
        own = "exact" if resolved > 0 else "free-start"
        assert result.physics == (own if loss == "informed" else "soft")
        assert ("start" in result.loss_terms) == (result.physics == "free-start")
        assert (UNRELIABLE in result.warnings) == (result.physics == "free-start")


def test_two_runs_are_identical(make_patient: PatientFactory) -> None:
    patient = make_patient(pet=True)
    seen: list[tuple[str, int, float]] = []
    first = fit(
        patient, config=replace(CONFIG, max_evaluations=25), progress=lambda *entry: seen.append(entry)
    )
    second = fit(patient, config=replace(CONFIG, max_evaluations=25))
    assert np.array_equal(first.density.data, second.density.data)
    assert first.history.total == second.history.total
    assert first.history.evaluations == second.history.evaluations
    assert first.parameters == second.parameters
    assert [
        (s, e, v)
        for s, e, v in zip(first.history.stage, first.history.evaluations, first.history.total, strict=True)
    ] == seen


@pytest.mark.parametrize("loss", ["informed", "reference"])
def test_a_mirrored_patient_gets_the_mirrored_density(make_patient: PatientFactory, loss: Loss) -> None:
    """Stopped early, before round-off has been amplified by a search that jumps."""
    config = replace(CONFIG, loss=loss, max_evaluations=2)
    plain, mirrored = (fit(make_patient(pet=True, mirrored=m), config=config) for m in (False, True))
    np.testing.assert_allclose(mirrored.density.data[::-1], plain.density.data, atol=1e-3)
    assert mirrored.loss_total == pytest.approx(plain.loss_total, rel=1e-3)


def test_a_spent_budget_is_admitted(make_patient: PatientFactory) -> None:
    result = fit(make_patient(pet=True), config=replace(CONFIG, physics="soft", max_evaluations=3))
    assert result.status == "iteration_limit"
    assert not result.converged
    (warning,) = [w for w in result.warnings if "did not converge" in w]
    assert "limit" in warning


def test_case_warnings_reach_the_result(make_patient: PatientFactory) -> None:
    patient = make_patient(pet=True)
    white, grey = (patient.volumes[n].data.copy() for n in ("wm", "gm"))
    white[patient.necrotic] = grey[patient.necrotic] = 0
    result = fit(make_patient(pet=True, wm=white, gm=grey), config=replace(CONFIG, max_evaluations=2))
    assert any("treated as white matter" in w for w in result.warnings)


def test_bad_input_is_refused_before_anything_is_fitted(make_patient: PatientFactory) -> None:
    calls: list[str] = []
    with pytest.raises(InputError, match="grey-matter"):
        fit(make_patient(without=("wm",)), config=CONFIG, progress=lambda stage, *_: calls.append(stage))
    assert calls == []


def test_the_public_path_runs_and_claims_nothing(make_patient: PatientFactory) -> None:
    config = FitConfig(
        cells=10, steps=12, optimizer="adam-multigrid", loss="reference", max_evaluations=25, device="cpu"
    )
    for pet in (False, True):
        result = fit(make_patient(pet=pet), config=config)
        assert result.status == "iteration_limit"
        assert result.dtype == "float64"
        assert result.optimizer == "adam-multigrid"
        assert result.evaluations == 26
        assert result.history.total[-1] < result.history.total[0]
        assert result.loss_total == pytest.approx(sum(result.loss_terms.values()), rel=1e-9)
        assert result.loss_total == result.history.total[-1]
        assert 0 <= float(result.density.data.min()) <= float(result.density.data.max()) <= 1


@pytest.mark.slow
def test_gauss_newton_is_at_least_as_good(make_patient: PatientFactory) -> None:
    patient = make_patient(pet=True)
    config = FitConfig(cells=8, steps=8, loss="reference", device="cpu")
    quasi = fit(patient, config=config)
    full = fit(patient, config=replace(config, optimizer="gauss-newton", max_evaluations=15))
    assert full.status in STATUSES
    assert full.loss_total == pytest.approx(sum(full.loss_terms.values()), rel=1e-9)
    if full.converged:
        assert full.loss_total <= 1.05 * quasi.loss_total


def test_nested_grids_end_at_the_one_asked_for() -> None:
    rungs = ladder(FitConfig())
    assert rungs[-1] == FitConfig()
    assert [r.cells for r in rungs] == sorted(r.cells for r in rungs)
    assert all(a.cells * 2 <= b.cells + 1 and a.steps <= b.steps for a, b in itertools.pairwise(rungs))
    assert ladder(CONFIG) == [CONFIG]


def test_a_core_that_only_the_fine_grid_sees_is_fitted(make_patient: PatientFactory) -> None:
    """A small enhancing focus in a large oedema: the remedy offered, more cells, must help."""
    labels = np.zeros(make_patient().shape, np.uint8)
    labels[2:28, 2:26, 2:22] = 2
    labels[12, 13, 12] = 4
    config = FitConfig(cells=48, steps=24, max_evaluations=1, device="cpu")
    patient = make_patient(seg=labels)
    assert bool(set_up(patient, config).core.any())
    try:
        set_up(patient, replace(config, cells=24))
    except InputError:
        fit(patient, config=config)
    else:
        pytest.skip("the coarse grid happens to see this core")


@pytest.mark.parametrize("on_finest", [True, False])
def test_necrosis_may_be_seen_on_one_grid_only(
    make_patient: PatientFactory, monkeypatch: pytest.MonkeyPatch, on_finest: bool
) -> None:
    """A speck that falls between the cells of one of the nested grids; the finest decides how many levels there are."""
    monkeypatch.setattr(nested, "COARSEST_CELLS", 8)
    own, finest = set_up, replace(CONFIG, cells=16, physics="exact", max_evaluations=5)

    def one_sided(patient: Patient, config: FitConfig) -> Case:
        case = own(patient, config)
        if (config.cells == finest.cells) == on_finest:
            return case
        none = torch.zeros_like(case.necrotic)
        return replace(case, necrotic=none, enhancing=case.core, has_necrosis=False)

    monkeypatch.setattr(fit_module, "set_up", one_sided)
    monkeypatch.setattr(nested, "set_up", one_sided)
    result = fit(make_patient(), config=finest)
    assert result.physics == "exact"
    assert len(set(result.history.stage)) == 2


def test_rates_at_which_nothing_grows_are_an_error(
    make_patient: PatientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = public_path.adam

    def negative(*arguments: Any, **named: Any) -> Any:
        found = own(*arguments, **named)
        found.x[0][0] *= -1
        return found

    monkeypatch.setattr(public_path, "adam", negative)
    config = replace(CONFIG, loss="reference", optimizer="adam-multigrid", max_evaluations=2)
    with pytest.raises(NumericsError, match="nothing can grow") as caught:
        fit(make_patient(), config=config)
    assert "synthetic" in str(caught.value)
