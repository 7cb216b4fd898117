"""Numbers that the equations at the top of files state, each by a computation of its own.

A wrong prior, a width taken for another or a missing √6 changes every patient's result and breaks nothing else.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.fingerprint import fingerprint
from gliodil.inference.case import Case, set_up
from gliodil.inference.checkpoint import fit_key
from gliodil.inference.config import FitConfig
from gliodil.inference.foci import unreached
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.label_misfit import explained
from gliodil.inference.parameters import Scalars
from gliodil.inference.start import from_segmentation
from gliodil.pde.grid import Grid
from gliodil.pde.lattice import grid_rates
from gliodil.pde.models import FisherKolmogorov

from .conftest import AFFINE, SHAPE, PatientFactory

PRIORS = {
    "length": (0.0, 0.35),
    "ratio": (math.log(4.0), 1.0),
    "rate": (math.log(0.1), 0.7),
    "core": (0.525, 0.05),
    "oedema": (0.25, 0.06),
    "necrotic": (0.775, 0.05),
}
"""Mean and standard deviation, in the order of `InformedLoss.deviations`: what docs/concepts.md says of them."""


def at_priors(*, shift: dict[str, float], origin: torch.Tensor) -> Scalars:
    """Scalars that lie so many standard deviations from the means of their priors."""
    at = {name: mean + shift.get(name, 0.0) * sd for name, (mean, sd) in PRIORS.items()}
    rate = math.exp(at["rate"])
    return Scalars.of(
        diffusivity=math.exp(2 * at["length"]) * rate,
        proliferation_rate=rate,
        wm_gm_ratio=math.exp(at["ratio"]),
        threshold_core=at["core"],
        threshold_oedema=at["oedema"],
        threshold_necrotic=at["necrotic"],
        origins=origin,
    )


@pytest.mark.parametrize("name", PRIORS)
def test_a_standard_deviation_from_the_mean_of_a_prior_is_one(name: str, case: Case, tiny: FitConfig) -> None:
    loss = InformedLoss(replace(case, has_necrosis=True), tiny)
    origin = case.grid.centres()[:, 0]
    expected = np.zeros(len(PRIORS))
    assert loss.deviations(at_priors(shift={}, origin=origin)).numpy() == pytest.approx(expected, abs=1e-12)
    for shift in (1.0, -2.0):
        expected[list(PRIORS).index(name)] = shift
        found = loss.deviations(at_priors(shift={name: shift}, origin=origin)).numpy()
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("length_mm", [0.6, 1.5])
def test_a_millimetre_along_the_front_is_a_millimetre(length_mm: float, case: Case, tiny: FitConfig) -> None:
    """u = (1 + e^{x/(√6 ℓ)})⁻² one millimetre beyond where oedema ends."""
    oedema = replace(
        case,
        core=torch.zeros_like(case.core),
        necrotic=torch.zeros_like(case.core),
        enhancing=torch.zeros_like(case.core),
        oedema=torch.ones_like(case.core),
    )
    loss = InformedLoss(oedema, tiny)
    p = Scalars.of(diffusivity=0.1 * length_mm**2, proliferation_rate=0.1, origins=case.grid.centres()[:, 0])
    theta = float(p.threshold_oedema)
    edge = math.log(theta**-0.5 - 1) * math.sqrt(6) * length_mm
    u = (1 + math.exp((edge + 1.0) / (math.sqrt(6) * length_mm))) ** -2
    found = loss.distances(torch.full_like(case.model.white, u), p)["seg_lower"] * math.sqrt(loss.entries)
    one_mm = (1 / 0.7) / math.sqrt(1 + (1 / 5) ** 2)
    assert found.numpy() == pytest.approx(np.full(found.shape, one_mm), rel=1e-5)


def test_pet_shows_the_density_at_a_full_width_of_5_mm(make_patient: PatientFactory) -> None:
    case = set_up(make_patient(pet=True), FitConfig(cells=24, steps=8, device="cpu"))
    loss = InformedLoss(case, FitConfig(cells=24, steps=8, device="cpu"))
    everywhere = torch.ones_like(loss.impassable)
    loss.pet_where, loss.case = everywhere.bool(), replace(case, pet=torch.zeros_like(everywhere))
    spot = torch.zeros(case.grid.shape, dtype=torch.float64)
    spot[12, 12, 12] = 1.0
    p = Scalars.of(
        diffusivity=0.1,
        proliferation_rate=0.1,
        origins=case.grid.centres()[:, 0],
        pet_scale=1.0,
        pet_background=0.0,
    )
    seen = case.grid.box(loss.data_residuals(spot.reshape(-1), p)["pet"])
    for axis, h in enumerate(case.grid.spacing):
        profile = seen.sum(dim=[k for k in range(3) if k != axis]).numpy()
        x = (np.arange(len(profile)) - 12) * h
        sigma = math.sqrt((profile * x**2).sum() / profile.sum())
        assert 2 * math.sqrt(2 * math.log(2)) * sigma == pytest.approx(5.0, rel=0.05)


def test_the_start_reads_the_length_off_the_oedema(case: Case, tiny: FitConfig) -> None:
    """The gap between core and oedema is √6 ℓ times that of the thresholds .65 and .3 along the front."""
    informed = replace(tiny, loss="informed")
    p = from_segmentation(case, informed)
    cell = case.grid.cell_volume_mm3
    radius = [
        (3 * float(mask.sum()) * cell / (4 * math.pi)) ** (1 / 3)
        for mask in (case.core, case.core | case.oedema)
    ]
    along = [math.sqrt(6) * math.log(theta**-0.5 - 1) for theta in (0.65, 0.3)]
    length = (radius[1] - radius[0]) / (along[1] - along[0])
    assert 0.7 < length < 3.0
    tumour = case.core | case.oedema
    mobility = float((case.model.white + case.model.grey / 4.0)[tumour].mean())
    ratio = float(p.diffusivity / p.proliferation_rate)
    assert ratio == pytest.approx(length**2 / mobility, rel=1e-9)


def test_the_crop_ends_whole_voxels_beyond_the_core(make_patient: PatientFactory) -> None:
    patient = make_patient()
    index = np.argwhere(patient.core)
    case = set_up(patient, FitConfig(cells=12, steps=8, crop_factor=1.0, crop_margin_mm=9.0, device="cpu"))
    corners = [case.world(torch.as_tensor(case.grid.spacing) * k) for k in (0, 12)]
    low, high = np.sort(patient.segmentation.to_index(np.asarray(corners)), axis=0)
    voxels = np.array((5, 5, 4))  # 9 mm on voxels of 2, 2 and 2.5 mm
    assert low == pytest.approx(np.maximum(index.min(axis=0) - 0.5 - voxels, -0.5), abs=1e-9)
    assert high == pytest.approx(
        np.minimum(index.max(axis=0) + 0.5 + voxels, np.array(SHAPE) - 0.5), abs=1e-9
    )


def test_uptake_inside_necrosis_does_not_scale_pet(make_patient: PatientFactory, tiny: FitConfig) -> None:
    patient = make_patient(pet=True)
    loud = patient.volumes["pet"].data.copy()
    loud[patient.necrotic] = 100.0
    quiet, found = set_up(patient, tiny), set_up(make_patient(pet=loud), tiny)
    assert quiet.pet is not None
    assert found.pet is not None
    peak = float(patient.volumes["pet"].data[patient.enhancing | patient.oedema].max())
    seen = quiet.oedema
    expected = patient.volumes["pet"].data.max() / peak
    assert expected > 1.05  # what the whole tumour's peak would have made of it
    torch.testing.assert_close(found.pet[seen], quiet.pet[seen])


def test_labels_resolve_three_tenths_of_a_mean_cell() -> None:
    grid = Grid((4, 4, 4), (1.0, 2.0, 3.0))
    nothing = torch.zeros(64, dtype=torch.bool)
    case = Case(
        grid=grid,
        affine=np.eye(4),
        model=FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros()),
        core=nothing,
        oedema=nothing,
        enhancing=nothing,
        necrotic=nothing,
        has_necrosis=False,
        pet=None,
        passable_voxels=np.ones((4, 4, 4), bool),
        warnings=(),
    )
    assert explained(case, 0.599)
    assert not explained(case, 0.601)


def test_a_focus_is_looked_for_where_cells_can_be(make_patient: PatientFactory, tiny: FitConfig) -> None:
    """The deepest point of what is missed may lie where nothing grows; another one is taken."""
    case = set_up(make_patient(), tiny)
    loss = InformedLoss(case, tiny)
    p = from_segmentation(case, tiny)
    nothing = torch.zeros_like(case.model.white)
    first = unreached(loss, nothing, p)
    assert first is not None
    there = (case.grid.centres() - first[:, None]).norm(dim=0).argmin()
    passable = case.model.passable.clone()
    passable[there] = False
    closed = replace(
        case,
        model=FisherKolmogorov.on(case.grid, case.model.white * passable, case.model.grey * passable),
    )
    loss.case = closed
    second = unreached(loss, nothing, p)
    assert second is not None
    cell = int((case.grid.centres() - second[:, None]).norm(dim=0).argmin())
    assert cell != int(there)
    assert bool(passable[cell])


@pytest.mark.parametrize("h", [2.0, 3.0])
def test_fronts_have_one_speed_on_average_over_directions(h: float) -> None:
    """c k = D Σ_i 2 (cosh(n_i k h) − 1)/h² + ρ, averaged over directions n, least over k."""
    rng = np.random.default_rng(1)
    n = rng.standard_normal((4000, 3))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    k = np.linspace(0.05, 3.0, 3000)

    def slowest(d: float, rho: float, h: float) -> float:
        psi = np.zeros_like(k)
        for direction in n[:400]:
            psi += sum(2 * (np.cosh(k * h * c) - 1) / h**2 for c in np.abs(direction))
        return float(((d * psi / 400 + rho) / k).min())

    d, rho = (torch.tensor(v, dtype=torch.float64) for v in (0.1, 0.1))
    found = grid_rates(d, rho, torch.tensor(4.0, dtype=torch.float64), spacing=(h, h, h))
    on_cells = slowest(float(found.white[0]), float(found.proliferation), h)
    assert on_cells == pytest.approx(slowest(0.1, 0.1, 1.0), rel=0.004)


def test_a_fit_depends_on_where_the_voxels_lie(make_patient: PatientFactory, tiny: FitConfig) -> None:
    moved = AFFINE.copy()
    moved[0, 3] += 1.0
    keys = {fit_key(make_patient(affine=affine), tiny, "cpu") for affine in (AFFINE, moved)}
    assert len(keys) == 2
    assert fit_key(make_patient(), tiny, "cpu") in keys


def test_a_plan_depends_on_its_organs(make_patient: PatientFactory) -> None:
    patient = make_patient()
    organ = patient.segmentation.with_data((patient.segmentation.data == 2).astype(np.uint8), kind="label")
    other = patient.segmentation.with_data((patient.segmentation.data == 4).astype(np.uint8), kind="label")
    given = [{}, {"brainstem": organ}, {"chiasm": organ}, {"brainstem": other}]
    assert len({fingerprint(patient, {}, organs) for organs in given}) == len(given)
    assert fingerprint(patient, {}, None) == fingerprint(patient, {}, {})
