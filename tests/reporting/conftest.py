"""A small synthetic patient, a fit and its plans; any orientation, spacing 4 x 4 x 5 mm."""

from __future__ import annotations

from collections.abc import Callable

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from gliodil.data.labels import get_convention
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.inference.result import Fit, LossHistory, Parameter
from gliodil.planning.plan import plan
from gliodil.planning.plans import Plans

SHAPE = (32, 34, 30)
SPACING = np.asarray([4.0, 4.0, 5.0])
CENTRE = np.asarray([12.0, 20.0, 16.0])


def place(array: NDArray, orientation: str, *, kind: str) -> Volume:
    """Store an array given in RAS order the way a scanner with another orientation would."""
    ras = np.diag([*SPACING, 1.0])
    ras[:3, 3] = -SPACING * np.asarray(SHAPE) / 2
    turn = nib.orientations.axcodes2ornt(orientation)
    transform = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), turn)
    affine = ras @ nib.orientations.inv_ornt_aff(transform, SHAPE)
    return Volume(nib.orientations.apply_orientation(array, transform), affine, kind=kind)


def radius_mm(centre: NDArray = CENTRE) -> NDArray[np.float64]:
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.linalg.norm((index - centre) * SPACING, axis=-1)


@pytest.fixture(scope="session")
def make_patient() -> Callable[..., Patient]:
    def make(
        orientation: str = "LPS", *, recurrence: bool = True, pet: bool = True, **extra: NDArray
    ) -> Patient:
        away, middle = radius_mm(), np.asarray(SHAPE) / 2 - 0.5
        index = np.moveaxis(np.indices(SHAPE), 0, -1)
        brain = (((index - middle) / (0.46 * np.asarray(SHAPE))) ** 2).sum(axis=-1) < 1
        labels = np.select([away < 8, away < 15, away < 22], [1, 3, 2], 0) * brain
        wm = 0.8 * brain * (away < 45)
        maps = {"wm": wm, "gm": 0.8 * brain - wm, "csf": 0.2 * brain, "brain": brain.astype(float), **extra}
        if pet:
            maps["pet"] = np.exp(-away / 15) * brain
        volumes = {name: place(array, orientation, kind="scalar") for name, array in maps.items()}
        volumes["brain"] = place(brain.astype(np.uint8), orientation, kind="label")
        if recurrence:
            regrown = 3 * (radius_mm(np.add(CENTRE, (3, 4, 0))) < 9).astype(np.uint8)
            volumes["recurrence"] = place(regrown, orientation, kind="label")
        return Patient(
            identity="sub-01",
            segmentation=place(labels.astype(np.uint8), orientation, kind="label"),
            convention=get_convention("brats-2023"),
            volumes=volumes,
            warnings=("the wm image was resampled",),
        )

    return make


@pytest.fixture(scope="session")
def make_fit() -> Callable[..., Fit]:
    def make(patient: Patient, *, status: str = "converged", **changes: object) -> Fit:
        grid = patient.segmentation
        centre = nib.affines.apply_affine(place(np.zeros(SHAPE), "RAS", kind="scalar").affine, CENTRE)
        away = np.linalg.norm(
            grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)) - np.add(centre, (2, 5, 0)), axis=-1
        )
        density = patient.brain / (1 + np.exp((away - 18) / 4))
        values: dict = {
            "density": grid.with_data(density.astype(np.float32), kind="scalar"),
            "parameters": {
                "diffusivity_wm_mm2_per_day": Parameter(0.12, "mm²/day"),
                "proliferation_rate_per_day": Parameter(0.08, "1/day", low=0.05, high=0.11),
                "infiltration_length_mm": Parameter(1.22, "mm"),
                "wm_gm_ratio": Parameter(float("nan"), "1"),
                "origin_mm": Parameter((-20.0, 8.0, 2.5), "mm"),
            },
            "status": status,
            "message": "the gradient fell below its tolerance",
            "loss_total": 1.2e-3,
            "loss_terms": {"pde": 9e-4, "seg_lower": 2e-4, "seg_upper": 1e-4, "csf": 0.0},
            "evaluations": 30,
            "history": LossHistory(
                evaluations=(1, 10, 20, 30),
                seconds=(0.1, 1.0, 2.0, 3.0),
                total=(1.0, 0.1, 0.01, 1.2e-3),
                stage=("parameters", "parameters", "full", "full"),
            ),
            "method": "odil",
            "optimizer": "lbfgs",
            "grid_shape": (16, 16, 16),
            "steps": 24,
            "spacing_mm": (4.0, 4.0, 5.0),
            "device": "cpu",
            "dtype": "float32",
            "wall_s": 3.0,
            "warnings": ("the grid is coarser than the front",),
        }
        return Fit(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def case(make_patient: Callable[..., Patient], make_fit: Callable[..., Fit]) -> tuple[Patient, Fit, Plans]:
    patient = make_patient()
    fit = make_fit(patient)
    return patient, fit, plan(patient, fit)
