"""How a density reproduces labels on their own grid."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.data.labels import CONVENTIONS
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.inference.agreement import agreement

SHAPE, SPACING = (40, 40, 24), (1.0, 1.0, 2.0)
AFFINE = np.diag([*SPACING, 1.0])


def radius(centre=(20, 20, 12)) -> np.ndarray:
    return np.asarray(np.linalg.norm((np.indices(SHAPE).T - centre) * SPACING, axis=-1).T)


def patient(labels: np.ndarray) -> Patient:
    return Patient("test", Volume(labels.astype(np.uint8), AFFINE, kind="label"), CONVENTIONS["brats-2023"])


def of(labels: np.ndarray, u: np.ndarray):
    density = Volume(u.astype(np.float32), AFFINE, kind="scalar")
    return agreement(patient(labels), density, threshold_core=0.5, threshold_oedema=0.2)


BALL = np.where(radius() < 8, 3, np.where(radius() < 13, 2, 0))


def test_a_density_with_the_labels_levels_agrees():
    found = of(BALL, np.where(radius() < 8, 0.9, np.where(radius() < 13, 0.3, 0)))
    assert (found.misfit_mm, found.core_below_level) == (0, 0)
    assert (found.lesions_found, found.lesions_explained) == (1, 1)


@pytest.mark.parametrize("shift", [-2.0, 1.0, 2.0])
def test_boundaries_moved_by_some_millimetres_are_that_far_off(shift):
    found = of(BALL, np.where(radius() < 8 + shift, 0.9, np.where(radius() < 13 + shift, 0.3, 0)))
    assert found.misfit_mm == pytest.approx(abs(shift), rel=0.25)
    lost = np.count_nonzero(radius() < 8) - np.count_nonzero(radius() < 8 + min(shift, 0))
    assert found.core_below_level == pytest.approx(lost / np.count_nonzero(radius() < 8))


def test_without_oedema_only_the_core_counts():
    labels = np.where(radius() < 8, 3, 0)
    assert of(labels, np.where(radius() < 8, 0.9, np.where(radius() < 13, 0.3, 0))).misfit_mm == 0


def test_a_lesion_left_out_is_counted_and_a_speck_is_not():
    far = radius((33, 33, 18)) < 3.5
    labels = np.where(far, 3, BALL)
    labels[2, 2, 2] = 3
    found = of(labels, np.where(radius() < 8, 0.9, 0.0))
    assert (found.lesions_found, found.lesions_explained) == (2, 1)
    assert of(np.where(far, 3, 0), np.where(far, 0.9, 0)).lesions_explained == 1
