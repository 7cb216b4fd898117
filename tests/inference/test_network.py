"""A network in place of the grid: its rows against exact fronts, and a short fit from patient to density."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.data.patient import Patient
from gliodil.errors import InputError
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.exact import SEED_RAMP
from gliodil.inference.fit import fit
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.network_lift import RADIAL_MM, seed_front, uniform_growth
from gliodil.inference.network_problem import EFFECTIVE_POINTS, GROWTH_ERROR, OUTLIER, PatientProblem, density
from gliodil.inference.start import from_segmentation
from gliodil.pde.grid import Grid
from gliodil.pde.integrate import integrate
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.seed import gaussian_seed
from gliodil.sampling.derivatives import Jet, coordinates

PatientFactory = Callable[..., Patient]
CONFIG = FitConfig(
    cells=12, steps=16, device="cpu", method="pinn", network_width=8, network_depth=2, network_budget_s=8.0
)


@pytest.fixture(scope="module")
def case(make_patient: PatientFactory) -> Case:
    return set_up(make_patient(), CONFIG)


def rows_of(case: Case) -> PatientProblem:
    loss = InformedLoss(case, CONFIG)
    return PatientProblem(loss, from_segmentation(case, CONFIG))


def everywhere(rows: PatientProblem, count: int = 400) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return rows.box.from_unit(torch.rand(count, 4, generator=generator, dtype=torch.float64))


def test_a_travelling_front_violates_nothing(case: Case) -> None:
    """u = (1 + e^ψ)⁻² with ψ = (x − ct)/(√6 ℓ), c = 5 √(Dρ/6) solves the equation in uniform tissue."""
    white = torch.ones(case.grid.cells, dtype=torch.float64)
    uniform = replace(case, model=FisherKolmogorov.on(case.grid, white, torch.zeros_like(white)))
    rows = rows_of(uniform)
    d, rho = (float(x) for x in (rows.start.diffusivity, rows.start.proliferation_rate))
    length, speed = math.sqrt(d / rho), 5 * math.sqrt(d * rho / 6)
    x = everywhere(rows)
    # The rim of the crop is closed: a plane front does not solve the equation there.
    h = torch.tensor(case.grid.spacing, dtype=torch.float64)
    extent = torch.tensor(rows.box.upper[:3], dtype=torch.float64)
    x = x[((x[:, :3] > h) & (x[:, :3] < extent - h)).all(1)]
    jets = coordinates(x, rows.problem.second_order)
    psi = (jets[0] - jets[3] * speed - 0.3 * float(extent[0])) * (1 / (math.sqrt(6) * length))
    scalars = rows.parameters.encode(rows.start).expand(len(x), -1)
    assert float(rows.growth(x, psi, scalars).abs().max()) < 1e-8
    wrong = psi * 1.1
    assert float(rows.growth(x, wrong, scalars).abs().max()) > 0.1


def test_rows_are_the_equation_divided(case: Case) -> None:
    """growth() is [∂u/∂t − ∇·(D∇u) − ρu(1 − u)] / (du/dψ) for any ψ, here by differences of fluxes."""
    rows = rows_of(case)
    h, p = 0.02, rows.start
    wave = torch.tensor([0.11, -0.07, 0.05, -0.03], dtype=torch.float64)

    def u(x: torch.Tensor) -> torch.Tensor:
        return density(2 * (x @ wave).sin() + 0.05 * x[:, 0])

    def mobility(x: torch.Tensor) -> torch.Tensor:
        white, grey = (field.jet(*coordinates(x, ())[:3]).value for field in (rows.white, rows.grey))
        return p.diffusivity * (white + grey / p.wm_gm_ratio)

    x = everywhere(rows)
    steps = h * torch.eye(4, dtype=torch.float64)
    here = u(x)
    spread = torch.zeros_like(here)
    for step in steps[:3]:
        after, before = mobility(x + step / 2), mobility(x - step / 2)
        spread += (after * (u(x + step) - here) - before * (here - u(x - step))) / h**2
    change = (u(x + steps[3]) - u(x - steps[3])) / (2 * h)
    residual = change - spread - p.proliferation_rate * here * (1 - here)
    jets = coordinates(x, rows.problem.second_order)
    psi = (
        sum((jet * float(w) for jet, w in zip(jets, wave, strict=True)), jets[0] * 0.0).sin() * 2
        + jets[0] * 0.05
    )
    slope = -2 * here * torch.sigmoid(psi.value)  # du/dψ
    start = rows.lift(coordinates(x, ()))
    pace = p.proliferation_rate + p.diffusivity * start.gradient[:3].square().sum(0)
    scale = math.sqrt(EFFECTIVE_POINTS) / GROWTH_ERROR / torch.cosh(start.value / 6)
    found = rows.growth(x, psi, rows.parameters.encode(p).expand(len(x), -1))
    relative = residual / slope / pace
    wanted = relative / (1 + (relative / OUTLIER).square()).sqrt() * scale
    assert float(found.abs().max()) > 1
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(found.abs().max()))


def test_labels_ask_for_what_they_show(case: Case) -> None:
    rows = rows_of(case)
    x = rows.problem.conditions[0].points(
        500, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    scalars = rows.parameters.encode(rows.start).expand(len(x), -1)
    cell = rows.cell(x)
    p = rows.start
    psi = coordinates(x, rows.problem.second_order)[0] * 0.0

    def labelled(u: float) -> torch.Tensor:
        return rows.labels(x, psi + math.log(u**-0.5 - 1), scalars)

    core, outside = case.core[cell], ~(case.core | case.oedema)[cell]
    low = labelled(float(p.threshold_oedema) / 2)
    assert bool((low[core] > 0).all())
    assert bool((low[outside] == 0).all())
    high = labelled((1 + float(p.threshold_core)) / 2)
    assert bool((high[outside] < 0).all())


def test_training_starts_at_the_seed_and_ends_at_the_labels(case: Case) -> None:
    rows = rows_of(case)
    centres = case.grid.centres()

    def lifted(time: float) -> torch.Tensor:
        x = torch.cat([centres.T, torch.full((case.grid.cells, 1), time, dtype=torch.float64)], dim=1)
        return rows.lift(coordinates(x, ())).value

    distance2 = (centres - rows.start.origins[0][:, None]).square().sum(0)
    at_begin = torch.full_like(distance2, rows.begin)
    torch.testing.assert_close(lifted(rows.begin), rows.lift.grown_seed(distance2, at_begin))
    seed = gaussian_seed(centres, rows.start.origins[0], cutoff_width=SEED_RAMP)
    torch.testing.assert_close(density(seed_front(distance2)), seed, atol=1e-4, rtol=0)
    tumour = case.core | case.oedema
    seen = density(lifted(rows.duration)) > rows.start.threshold_oedema
    assert 2 * int((seen & tumour).sum()) > 0.85 * int(seen.sum() + tumour.sum())


def test_lift_has_the_derivatives_of_its_value(case: Case) -> None:
    """Differences of the value, away from the nodes, where the third derivative jumps."""
    rows = rows_of(case)
    x = everywhere(rows, 50)
    jet: Jet = rows.lift(coordinates(x, rows.problem.second_order))
    step = 1e-3

    def value(axis: int, by: float) -> torch.Tensor:
        moved = x.clone()
        moved[:, axis] += by
        return rows.lift(coordinates(moved, ())).value

    for axis in range(4):
        after, before = value(axis, step), value(axis, -step)
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close((after - before) / (2 * step), jet.gradient[axis], **close)
        if axis < 3:
            bend = (after - 2 * jet.value + before) / step**2
            torch.testing.assert_close(bend, jet.second[axis], rtol=1e-2, atol=1e-2)


def test_a_ball_grows_as_the_grid_has_it() -> None:
    """ψ_r against the sweep on a fine grid of uniform tissue."""
    grid = Grid((64, 64, 64), (1.0, 1.0, 1.0))
    white = torch.ones(grid.cells, dtype=grid.dtype)
    model = FisherKolmogorov.on(grid, white, torch.zeros_like(white))
    middle = torch.tensor([32.0, 32.0, 32.0], dtype=grid.dtype)
    seed = gaussian_seed(grid.centres(), middle, cutoff_width=SEED_RAMP)
    u = integrate(
        model, seed, diffusivity=0.2, proliferation_rate=0.1, wm_gm_ratio=10.0, duration=40.0, steps=160
    )
    ball = uniform_growth(0.2, 0.1, 40.0, 40.0)[:, -1]
    radius = (grid.centres() - middle[:, None]).square().sum(0).sqrt()
    found = (1 + np.exp(np.interp(radius.numpy(), RADIAL_MM * np.arange(len(ball)), ball))) ** -2
    assert np.abs(found - u.numpy()).max() < 0.02


def test_fit_follows_the_labels_and_says_how_it_ended(make_patient: PatientFactory) -> None:
    patient = make_patient(pet=True)
    found = fit(patient, config=CONFIG)
    assert (found.method, found.optimizer) == ("pinn", "levenberg-marquardt")
    assert found.status in {"stalled", "iteration_limit"}
    assert found.loss_total == pytest.approx(sum(found.loss_terms.values()))
    assert found.density.data.min() >= 0
    assert found.density.data.max() <= 1
    seen, predicted = patient.tumour, found.density.data > found.parameters["threshold_oedema"].value
    assert 2 * np.count_nonzero(seen & predicted) / (seen.sum() + predicted.sum()) > 0.7
    assert any("PET" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "network"},
        {"method": "pinn", "loss": "reference"},
        {"network_width": 0},
        {"network_budget_s": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        FitConfig(**wrong)
