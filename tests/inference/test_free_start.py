"""Growth from a start of any shape: its gradient, its labels, its lesions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gliodil.data.patient import Patient
from gliodil.inference.blur import blur
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.free_start import CORRELATION_MM, FreeStart
from gliodil.inference.front_labels import signed_distance
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.label_misfit import label_misfit_mm
from gliodil.inference.parameters import Scalars
from gliodil.inference.start import centre_of_core
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Point, Recorder

PatientFactory = Callable[..., Patient]
SHAPE, SPACING = (30, 28, 24), (2.0, 2.0, 2.5)
DOUBLE = torch.float64


def free_start(patient: Patient, *, cells: int = 12, dtype: torch.dtype = torch.float32) -> FreeStart:
    config = FitConfig(cells=cells, steps=16, device="cpu")
    case = set_up(patient, config)
    start = Scalars.of(diffusivity=0.1, proliferation_rate=0.1, origins=centre_of_core(case))
    return FreeStart(patient, InformedLoss(case, config), start, dtype=dtype)


def solved(landscape: FreeStart) -> Point:
    options = LBFGSOptions(tolerance=1e-2, max_evaluations=40, memory=12, max_step=1.0)
    return lbfgs(landscape, landscape.start(), options, Recorder()).x


def last(landscape: FreeStart, x: Point) -> tuple[Scalars, torch.Tensor]:
    with torch.no_grad():
        run = landscape.run(x)
    assert run is not None
    return run[0], run[1].last


def distance_to(centre: tuple[float, float, float]) -> np.ndarray:
    """From a voxel [mm]."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return np.asarray(np.linalg.norm((index - centre) * SPACING, axis=-1))


def rim(middle: tuple[float, float, float], radius: float) -> np.ndarray:
    away = distance_to(middle)
    return np.where(away < radius / 2, 1, np.where(away < radius, 4, 0)).astype(np.uint8)


@pytest.mark.parametrize("pet", [False, True])
def test_the_gradient_is_the_slope_of_the_objective(make_patient: PatientFactory, pet: bool) -> None:
    """In every parameter, and along random fields."""
    landscape = free_start(make_patient(pet=pet), cells=8, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(3)
    x = [0.2 * torch.randn(t.shape, dtype=DOUBLE, generator=generator) for t in landscape.start()]
    gradient = landscape.at(x).gradient()
    directions: list[Point] = [[e, torch.zeros_like(x[1])] for e in torch.eye(x[0].shape[0], dtype=DOUBLE)]
    directions += [
        [torch.zeros_like(x[0]), torch.randn(x[1].shape, dtype=DOUBLE, generator=generator)] for _ in range(3)
    ]
    for d in directions:
        there, back = (
            landscape.at([t + s * e for t, e in zip(x, d, strict=True)]).value for s in (1e-5, -1e-5)
        )
        along = sum(float((g * e).sum()) for g, e in zip(gradient, d, strict=True))
        assert along == pytest.approx((there - back) / 2e-5, rel=1e-5, abs=1e-5)


def test_labels_are_reproduced(make_patient: PatientFactory) -> None:
    """To within what the cells resolve, and better than the start alone does."""
    patient = make_patient()
    landscape = free_start(patient)
    case = landscape.loss.case
    before, after = (
        label_misfit_mm(case, u, landscape.loss.thresholds(p))
        for p, u in (last(landscape, landscape.start()), last(landscape, solved(landscape)))
    )
    assert after < before
    assert after < 0.3 * sum(case.grid.spacing) / 3


def test_every_lesion_has_a_start_of_its_own(make_patient: PatientFactory) -> None:
    """Also a small one, which a fit of one focus would give up."""
    seg = np.maximum(rim((9, 14, 12), 11.0), rim((21, 14, 12), 5.0))
    patient = make_patient(seg=seg)
    landscape = free_start(patient, cells=16)
    p, u = last(landscape, solved(landscape))
    density = landscape.loss.case.volume_on(u, patient.segmentation)
    for middle, radius in (((9, 14, 12), 11.0), ((21, 14, 12), 5.0)):
        lesion = rim(middle, radius) > 0
        assert float((density.data[lesion] > float(p.threshold_core)).mean()) > 0.5
    between = distance_to((15, 14, 12)) < 2.0
    assert float(density.data[between].max()) < float(p.threshold_core)


def test_a_core_without_oedema_has_one_boundary(make_patient: PatientFactory) -> None:
    """The oedema's threshold then is its prior's, and nothing is said of a width."""
    seg = np.where(distance_to((13, 14, 12)) < 10, 4, 0).astype(np.uint8)
    patient = make_patient(seg=seg)
    landscape = free_start(patient, cells=16)
    x = solved(landscape)
    terms = landscape.at(x).terms
    assert set(terms) == {"labels", "start", "priors"}
    p, u = last(landscape, x)
    assert float(p.threshold_oedema) == pytest.approx(0.25, abs=1e-3)
    assert len(landscape.thresholds(p)) == 1
    visible = landscape.loss.case.volume_on(u, patient.segmentation).data > float(p.threshold_core)
    assert float(visible[patient.core].mean()) > 0.9
    assert np.count_nonzero(visible & ~patient.core) < 0.1 * np.count_nonzero(patient.core)


def test_thresholds_out_of_order_have_no_density(make_patient: PatientFactory) -> None:
    landscape = free_start(make_patient())
    y, q = landscape.start()
    y[1], y[2] = -60.0, 60.0
    assert landscape.at([y, q]).value == math.inf
    with pytest.raises(ValueError, match="inadmissible"):
        landscape.at([y, q]).gradient()


def test_the_shift_of_the_front_has_the_stated_deviation(make_patient: PatientFactory) -> None:
    landscape = free_start(make_patient())
    grid = landscape.loss.case.grid
    generator = torch.Generator().manual_seed(0)
    middle = tuple(n // 2 for n in grid.shape)
    at_middle = [
        float(
            blur(torch.randn(grid.shape, generator=generator), landscape.sigmas, unit_variance=True)[middle]
        )
        for _ in range(800)
    ]
    assert landscape.sigmas == tuple(CORRELATION_MM / h for h in grid.spacing)
    assert float(np.std(at_middle)) == pytest.approx(1.0, rel=0.1)


def test_distances_are_to_the_faces_of_voxels() -> None:
    mask = np.zeros((9, 8, 7), bool)
    mask[2:6, 2:6, 2:5] = True
    points = np.array([[3.5, 3.5, 7.0], [3.5, 3.5, 3.0], [0.0, 3.5, 3.0], [7.0, 7.0, 3.0]])
    found = signed_distance(mask, (2.0, 1.0, 3.0), points)
    np.testing.assert_allclose(np.sign(found), [1, -1, 1, 1])
    np.testing.assert_allclose(np.abs(found), [7.5, 2.0, 3.0, math.hypot(3.0, 1.5)], atol=0.6)


def test_a_slanted_surface_is_no_staircase() -> None:
    """Distances to a voxelized plane are those to the plane, on average."""
    index = np.stack(np.meshgrid(*[np.arange(30)] * 3, indexing="ij"), axis=-1)
    for normal in ((1.0, 0.0, 0.0), (0.6, 0.8, 0.0), (0.48, 0.6, 0.64)):
        away = (index - 14.2) @ normal
        found = signed_distance(away < 0, (1.0, 1.0, 1.0), index)
        near = (np.abs(away) < 4) & (np.abs(index - 14.5) < 9).all(axis=-1)
        assert abs(float((np.abs(found) - np.abs(away))[near].mean())) < 0.12


def test_the_front_is_where_the_labels_are(make_patient: PatientFactory) -> None:
    """ψ passes each threshold where its label begins, between labels steadily, and falls off by √6 ℓ outside."""
    landscape = free_start(make_patient(), cells=16, dtype=DOUBLE)
    labels, p = landscape.labels, landscape.scalars(landscape.start()[0])
    length = (p.diffusivity / p.proliferation_rate).sqrt()
    u = (1 + labels.front(length, landscape.thresholds(p)).exp()) ** -2
    outer, core, necrotic = labels.times
    for time, threshold in zip((outer, core, necrotic), landscape.thresholds(p), strict=True):
        assert bool(((u > threshold) == (time < 0))[time.abs() > 1e-6].all())
    far = outer > 8
    psi = (u[far] ** -0.5 - 1).log() - float((p.threshold_oedema**-0.5 - 1).log())
    torch.testing.assert_close(psi * math.sqrt(6) * length, outer[far], rtol=1e-6, atol=1e-6)
