"""A small synthetic patient, built in memory: nested balls of tumour in smoothly varying tissue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.data.labels import get_convention
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.variables import Coordinates, TransformedLoss

PatientFactory = Callable[..., Patient]
SHAPE = (30, 28, 24)
AFFINE = np.array([[-2.0, 0, 0, 31.0], [0, 2.0, 0, -20.0], [0, 0, 2.5, -25.0], [0, 0, 0, 1.0]])


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_patient() -> PatientFactory:
    """Build a patient; named arrays replace the synthetic ones, and names given as None are left out."""

    def build(
        *,
        pet: bool | np.ndarray = False,
        affine: np.ndarray = AFFINE,
        mirrored: bool = False,
        seg: np.ndarray | None = None,
        without: tuple[str, ...] = (),
        **replaced: np.ndarray,
    ) -> Patient:
        index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
        mm = (index - (13, 14, 12)) * (2.0, 2.0, 2.5)
        distance = np.linalg.norm(mm * (1.0, 1.15, 0.9), axis=-1)
        labels = np.zeros(SHAPE, np.uint8)
        labels[distance < 17] = 2
        labels[distance < 11] = 4
        labels[distance < 6] = 1
        wave = 0.5 + 0.3 * np.sin(index @ (0.5, 0.3, 0.2))
        white = np.clip(wave, 0, 1).astype(np.float32)
        grey = (0.95 - white).astype(np.float32)
        ventricle = np.linalg.norm(mm - (26.0, 8.0, 0.0), axis=-1) < 7
        white[ventricle], grey[ventricle] = 0.02, 0.03
        uptake = (np.exp(-((distance / 14) ** 2)) * 3 + 0.2).astype(np.float32)
        maps: dict[str, np.ndarray] = {"wm": white, "gm": grey, **replaced}
        if pet is not False:
            maps["pet"] = uptake if pet is True else pet
        labels = labels if seg is None else seg
        if mirrored:
            labels, maps = labels[::-1], {name: data[::-1] for name, data in maps.items()}
        return Patient(
            identity="synthetic",
            segmentation=Volume(labels.copy(), affine, kind="label"),
            convention=get_convention("brats-2017"),
            volumes={
                name: Volume(data.copy(), affine, kind="label" if name == "brain" else "scalar")
                for name, data in maps.items()
                if name not in without
            },
        )

    return build


@pytest.fixture(scope="session")
def tiny() -> FitConfig:
    """The smallest grids that still see the tumour."""
    return FitConfig(cells=8, steps=16, loss="reference", device="cpu")


@pytest.fixture(scope="session", params=[False, True], ids=["without PET", "with PET"])
def case(request: pytest.FixtureRequest, make_patient: PatientFactory, tiny: FitConfig) -> Case:
    """The synthetic patient on the smallest grid."""
    return set_up(make_patient(pet=request.param), tiny)


@pytest.fixture(params=["reference", "informed"])
def loss(request: pytest.FixtureRequest, case: Case, tiny: FitConfig) -> ReferenceLoss:
    """Both losses of the synthetic patient."""
    return make_loss(case, replace(tiny, loss=request.param))


@pytest.fixture(params=[0.02, 0.8], ids=["soft", "stiff"])
def objective(request: pytest.FixtureRequest, loss: ReferenceLoss) -> TransformedLoss:
    """With a small diffusivity and a large one."""
    case = loss.case
    centre = case.grid.centres()[:, case.core].mean(dim=1)
    p = Scalars.of(
        diffusivity=request.param,
        proliferation_rate=0.04,
        origins=centre + torch.tensor([0.3, 0.2, -0.4], dtype=torch.float64),
        wm_gm_ratio=15.0,
    )
    z = loss.box().encode(p)
    generator = torch.Generator().manual_seed(8)
    scaling = 0.3 * torch.randn(z.shape[0], z.shape[0], dtype=torch.float64, generator=generator)
    return TransformedLoss(loss, Coordinates(loss.box(), z, scaling), dtype=torch.float64)
