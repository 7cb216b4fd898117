"""Setting a case up: the crop in millimetres, tissue, PET, and the way back to the patient's voxels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from gliodil.data.patient import Patient
from gliodil.errors import GeometryError, InputError
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig

PatientFactory = Callable[..., Patient]


def oblique() -> np.ndarray:
    turn = nib.eulerangles.euler2mat(0.2, -0.1, 0.3)
    return nib.affines.from_matvec(turn @ np.diag([2.0, 2.0, 2.5]), (10.0, -20.0, 5.0))


AFFINES = {
    "LAS": np.array([[-2.0, 0, 0, 31], [0, 2, 0, -20], [0, 0, 2.5, -25], [0, 0, 0, 1]]),
    "RAI": np.array([[2.0, 0, 0, 3], [0, 2, 0, 7], [0, 0, -2.5, 25], [0, 0, 0, 1]]),
    "turned axes": np.array([[0, 0, 2.5, 3], [-2.0, 0, 0, 7], [0, 2, 0, 25], [0, 0, 0, 1]]),
    "oblique": oblique(),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_cells_lie_where_the_affine_says(make_patient: PatientFactory, affine: np.ndarray) -> None:
    """White matter that is linear in world position arrives with its value at each cell centre."""
    plain = make_patient(affine=affine)
    index = np.stack(np.meshgrid(*map(np.arange, plain.shape), indexing="ij"), axis=-1)
    slope = np.array([0.004, -0.003, 0.005])

    def linear(world: np.ndarray) -> np.ndarray:
        return 0.5 + (world - plain.segmentation.to_world((15, 14, 12))) @ slope

    white = linear(plain.segmentation.to_world(index)).astype(np.float32)
    patient = make_patient(affine=affine, wm=white, gm=np.zeros_like(white))
    case = set_up(patient, FitConfig(cells=10, steps=8, device="cpu", tissue_error_mm=0))

    grid_index = np.stack(np.meshgrid(*map(np.arange, case.grid.shape), indexing="ij"), axis=-1)
    world = nib.affines.apply_affine(case.affine, grid_index).reshape(-1, 3)
    np.testing.assert_allclose(case.model.white.numpy(), linear(world), atol=1e-5)
    np.testing.assert_allclose(nib.affines.voxel_sizes(case.affine), case.grid.spacing, rtol=1e-12)
    centres = case.grid.centres()
    for at in (0, 100, 500):
        np.testing.assert_allclose(case.world(centres[:, at]), world[at], atol=1e-9)
    assert nib.aff2axcodes(case.affine) == nib.aff2axcodes(affine)

    position = patient.segmentation.to_index(world)
    clear = (np.abs(position % 1 - 0.5) > 1e-6).all(axis=-1)  # halfway between voxels either may be taken
    at_voxel = tuple(np.rint(position).astype(int).T)
    assert np.count_nonzero(clear) > 100
    for name in ("core", "oedema", "enhancing", "necrotic"):
        expected = getattr(patient, name)[at_voxel]
        assert np.array_equal(getattr(case, name).numpy()[clear], expected[clear]), name


def test_crop_is_the_box_enlarged_about_its_centre(make_patient: PatientFactory) -> None:
    patient = make_patient()
    index = np.argwhere(patient.tumour)
    spacing = np.asarray(patient.spacing)
    for factor in (1.0, 1.2):
        config = FitConfig(cells=12, steps=8, crop_factor=factor, crop_margin_mm=0, device="cpu")
        case = set_up(patient, config)
        extent = np.asarray(case.grid.spacing) * 12
        np.testing.assert_allclose(extent, (np.ptp(index, axis=0) + 1) * spacing * factor)
        middle = patient.segmentation.to_index(case.world(torch.as_tensor(extent / 2)))
        np.testing.assert_allclose(middle, (index.min(axis=0) + index.max(axis=0)) / 2, atol=1e-9)


def test_crop_holds_the_margin_around_the_core(make_patient: PatientFactory) -> None:
    """A plan that takes its voxels from the crop can then reach as far as the standard one."""
    patient = make_patient()
    index = np.argwhere(patient.core)
    config = FitConfig(cells=12, steps=8, crop_factor=1.0, crop_margin_mm=9.0, device="cpu")
    case = set_up(patient, config)
    corners = [case.world(torch.as_tensor(case.grid.spacing) * k) for k in (0, 12)]
    low, high = np.sort(patient.segmentation.to_index(np.asarray(corners)), axis=0)
    margin = 9.0 / np.asarray(patient.spacing)  # rounded up to whole voxels
    assert (low <= index.min(axis=0) - 0.5 - margin + 1e-9).all()
    assert (high >= index.max(axis=0) + 0.5 + margin - 1e-9).all()
    reference = set_up(patient, replace(config, loss="reference"))
    assert all(a < b for a, b in zip(reference.grid.spacing, case.grid.spacing, strict=True))


def test_crop_is_clipped_to_the_image(make_patient: PatientFactory) -> None:
    patient = make_patient()
    case = set_up(patient, FitConfig(cells=16, steps=8, crop_factor=4.0, device="cpu"))
    corner = case.world(torch.zeros(3, dtype=torch.float64))
    far = case.world(torch.as_tensor(case.grid.spacing, dtype=torch.float64) * 16)
    np.testing.assert_allclose(patient.segmentation.to_index(corner), (-0.5,) * 3, atol=1e-9)
    np.testing.assert_allclose(patient.segmentation.to_index(far), np.asarray(patient.shape) - 0.5, atol=1e-9)
    assert float(case.model.white.min()) >= 0
    assert bool((case.model.white + case.model.grey > 0).all())  # no empty rim from the clipping


@pytest.mark.parametrize(("without", "named"), [(("wm",), "no wm"), (("wm", "gm"), "no wm and no gm")])
def test_missing_tissue_maps_are_named(
    make_patient: PatientFactory, tiny: FitConfig, without: tuple[str, ...], named: str
) -> None:
    with pytest.raises(InputError, match="hite- and grey-matter") as caught:
        set_up(make_patient(without=without), tiny)
    assert named in str(caught.value)
    assert "synthetic" in str(caught.value)
    assert caught.value.remedy


def test_tissue_that_misses_the_tumour_is_refused(make_patient: PatientFactory, tiny: FitConfig) -> None:
    patient = make_patient()
    empty = np.where(patient.tumour, 0, 0.5).astype(np.float32)
    with pytest.raises(GeometryError, match="empty everywhere inside the tumour"):
        set_up(make_patient(wm=empty, gm=empty), tiny)


def test_lesions_missing_from_the_maps_are_filled_and_reported(
    make_patient: PatientFactory, tiny: FitConfig
) -> None:
    patient = make_patient()
    assert set_up(patient, tiny).warnings == ()
    hole = patient.necrotic
    white, grey = (patient.volumes[n].data.copy() for n in ("wm", "gm"))
    white[hole] = grey[hole] = 0
    case = set_up(make_patient(wm=white, gm=grey), tiny)
    (warning,) = case.warnings
    ml = np.count_nonzero(hole) * 10 / 1000
    assert f"{ml:.1f} mL" in warning
    assert "white matter" in warning
    assert bool(case.passable_voxels[hole].all())
    assert bool(case.model.passable[case.core].all())


def test_nothing_passes_outside_the_brain_mask(make_patient: PatientFactory, tiny: FitConfig) -> None:
    brain = np.ones(make_patient().shape, np.uint8)
    brain[:, :6] = 0
    case = set_up(make_patient(brain=brain), tiny)
    assert not case.passable_voxels[:, :6].any()


def test_a_core_between_the_cells_is_refused(make_patient: PatientFactory, tiny: FitConfig) -> None:
    labels = np.zeros(make_patient().shape, np.uint8)
    labels[4:26, 4:24, 4:20] = 2
    labels[5, 5, 5] = 4
    with pytest.raises(GeometryError, match="between the cells") as caught:
        set_up(make_patient(seg=labels), tiny)
    assert "cells" in str(caught.value.remedy)


def test_pet_is_scaled_to_its_maximum(make_patient: PatientFactory, tiny: FitConfig) -> None:
    case = set_up(make_patient(pet=True), tiny)
    assert case.pet is not None
    assert 0.8 < float(case.pet.max()) <= 1
    louder = set_up(make_patient(pet=7 * make_patient(pet=True).volumes["pet"].data), tiny)
    assert louder.pet is not None
    torch.testing.assert_close(louder.pet, case.pet)
    assert set_up(make_patient(), tiny).pet is None


def test_pet_without_a_positive_value_is_refused(make_patient: PatientFactory, tiny: FitConfig) -> None:
    nothing = np.zeros(make_patient().shape, np.float32)
    with pytest.raises(InputError, match="no positive value"):
        set_up(make_patient(pet=nothing), tiny)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_density_comes_back_where_it_belongs(make_patient: PatientFactory, affine: np.ndarray) -> None:
    patient = make_patient(affine=affine)
    case = set_up(patient, FitConfig(cells=20, steps=8, device="cpu"))
    centre = case.grid.centres()[:, case.core].mean(dim=1)
    distance = (case.grid.centres() - centre[:, None]).norm(dim=0)
    density = case.volume_on(torch.exp(-((distance / 12) ** 2)), patient.segmentation)

    assert density.same_grid(patient.segmentation)
    assert density.data.dtype == np.float32
    assert float(density.data.min()) >= 0
    assert float(density.data.max()) <= 1
    assert np.count_nonzero(density.data[~case.passable_voxels]) == 0
    index = np.stack(np.meshgrid(*map(np.arange, patient.shape), indexing="ij"), axis=-1)
    away = np.linalg.norm(patient.segmentation.to_world(index) - case.world(centre), axis=-1)
    inside = case.passable_voxels & (density.data > 0)
    np.testing.assert_allclose(density.data[inside], np.exp(-((away[inside] / 12) ** 2)), atol=0.04)
    assert inside[patient.tumour].all()


def test_impossible_densities_are_clipped(make_patient: PatientFactory, tiny: FitConfig) -> None:
    patient = make_patient()
    case = set_up(patient, tiny)
    wild = torch.linspace(-2, 3, case.grid.cells, dtype=torch.float64)
    density = case.volume_on(wild, patient.segmentation).data
    assert 0 <= float(density.min()) <= float(density.max()) <= 1


def test_mirror_images_give_mirrored_cases(make_patient: PatientFactory, tiny: FitConfig) -> None:
    config = replace(tiny, cells=12)
    case, mirrored = (set_up(make_patient(pet=True, mirrored=m), config) for m in (False, True))
    assert case.pet is not None
    assert mirrored.pet is not None

    def flip(field: torch.Tensor) -> torch.Tensor:
        return mirrored.grid.box(field).flip(0).reshape(-1)

    for a, b in (
        (case.model.white, mirrored.model.white),
        (case.model.grey, mirrored.model.grey),
        (case.pet, mirrored.pet),
    ):
        torch.testing.assert_close(flip(b), a, rtol=0, atol=1e-6)
    assert torch.equal(flip(mirrored.core), case.core)
    assert torch.equal(flip(mirrored.oedema), case.oedema)
    assert np.array_equal(mirrored.passable_voxels[::-1], case.passable_voxels)
