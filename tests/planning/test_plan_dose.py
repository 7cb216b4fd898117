"""Dose-volume figures against doses whose integrals are known."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.data.volume import Volume
from gliodil.errors import InputError
from gliodil.planning.dose import dose_figures


def _affine(spacing: tuple[float, ...], shape: tuple[int, ...], shift: float = 0.0) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * spacing + shift
    return affine


def _dose(function: object, shape: tuple[int, ...] = (33, 33, 33), spacing: float = 2.5) -> Volume:
    """A dose grid that is centred 0.3 mm off the structures' grid."""
    affine = _affine((spacing,) * 3, shape, 0.3)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return Volume(function(world).astype(np.float32), affine, kind="scalar")  # type: ignore[operator]


def _mask(
    inside: object, shape: tuple[int, ...] = (51, 51, 26), spacing: tuple[float, ...] = (1.0, 1.0, 2.0)
) -> Volume:
    affine = _affine(spacing, shape)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return Volume(inside(world).astype(np.uint8), affine, kind="label")  # type: ignore[operator]


BOX = _mask(lambda x: (np.abs(x) <= 10.2).all(-1))  # 21 x 21 x 10 voxels: 21 x 21 x 20 mm


def _uniform(volume: Volume) -> Volume:
    return Volume((volume.data > 0).astype(np.float32), volume.affine, kind="scalar")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_linear_gradient_through_a_box(axis: int) -> None:
    """D_v of a gradient of 2 Gy/mm over a length L is the middle's dose + 2 (1/2 − v) L."""
    dose = _dose(lambda x: 60 + 2 * x[..., axis])
    found = dose_figures(dose, {"box": BOX}, _uniform(BOX), prescription_gy=60).structures["box"]
    length = (21, 21, 20)[axis]
    assert found.volume_ml == pytest.approx(8.82)
    assert found.mean_gy == pytest.approx(60, abs=0.01)
    for value, share in (
        (found.d98_gy, 0.98),
        (found.d95_gy, 0.95),
        (found.d50_gy, 0.5),
        (found.d2_gy, 0.02),
    ):
        assert value == pytest.approx(60 + 2 * (0.5 - share) * length, abs=0.1)
    assert found.v95 == pytest.approx(0.5 + 1.5 / length, abs=0.003)
    assert found.v100 == pytest.approx(0.5, abs=0.003)


def test_cone_of_dose_in_a_ball() -> None:
    """60 − r Gy in a ball of radius R: mean 60 − 3R/4; v of the volume lies within r = R v^(1/3)."""
    radius = 18.0
    ball = _mask(lambda x: np.linalg.norm(x, axis=-1) <= radius, (81, 81, 81), (0.5, 0.5, 0.5))
    dose = _dose(lambda x: 60 - np.linalg.norm(x, axis=-1), (61, 61, 61), 1.0)
    found = dose_figures(dose, {"ball": ball}, _uniform(ball), prescription_gy=50).structures["ball"]
    assert found.mean_gy == pytest.approx(60 - 0.75 * radius, abs=0.05)
    for value, share in ((found.d98_gy, 0.98), (found.d95_gy, 0.95), (found.d50_gy, 0.5)):
        assert value == pytest.approx(60 - radius * share ** (1 / 3), abs=0.05)
    assert found.v100 == pytest.approx((10 / radius) ** 3, abs=0.005)


def test_dose_to_cells_weighs_by_density() -> None:
    dose = _dose(lambda x: 60 + 2 * x[..., 0])
    world = np.arange(51) - 25.0
    density = np.zeros((51, 51, 26), np.float32)
    density[world == 5] = 0.6
    density[world == -5] = 0.2
    found = dose_figures(dose, {}, Volume(density, BOX.affine, kind="scalar"), prescription_gy=60).cells
    assert found is not None
    assert found.mean_gy == pytest.approx((0.6 * 70 + 0.2 * 50) / 0.8, abs=0.02)
    assert found.share_v95 == pytest.approx(0.75)


def test_a_matrix_carries_structures_to_the_frame_of_the_dose() -> None:
    turn = np.array([[0.0, -1, 0, 4], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    dose = _dose(lambda x: 60 + x[..., 0])
    found = dose_figures(dose, {"box": BOX}, _uniform(BOX), matrix=turn).structures["box"]
    assert found.mean_gy == pytest.approx(64, abs=0.02)
    assert found.v95 is None


def test_what_the_dose_does_not_cover_has_no_figure_and_is_named() -> None:
    dose = _dose(lambda x: 60 + 0 * x[..., 0], (9, 33, 33))  # reaches ±10 mm about 0.3
    inside = _mask(lambda x: (np.abs(x) <= 8).all(-1))
    density = _uniform(BOX)
    figures = dose_figures(dose, {"box": BOX, "inside": inside}, density, prescription_gy=60)
    assert list(figures.structures) == ["inside"]
    assert figures.cells is None
    assert set(figures.missing) == {"box", "cells"}
    assert "beyond the dose grid" in figures.missing["box"]


def test_empty_structures_are_left_out() -> None:
    empty = BOX.with_data(np.zeros(BOX.shape, np.uint8))
    figures = dose_figures(_dose(lambda x: 60 + 0 * x[..., 0]), {"none": empty}, _uniform(empty))
    assert figures.structures == {}
    assert figures.missing == {"cells": "no cells are expected"}


@pytest.mark.parametrize("prescription", [0.0, -60.0, 6000.0, float("nan")])
def test_a_prescription_that_is_none_is_refused(prescription: float) -> None:
    with pytest.raises(InputError, match="prescription"):
        dose_figures(_dose(lambda x: x[..., 0]), {}, _uniform(BOX), prescription_gy=prescription)
