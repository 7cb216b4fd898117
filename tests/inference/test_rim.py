"""Necrosis is a level inside an enhancing rim, and nowhere else."""

from collections.abc import Callable

import numpy as np
import pytest

from gliodil.data.patient import Patient
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.rim import enhancing_share


def block(*sides: slice) -> np.ndarray:
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[sides] = True
    return mask


BLOCK = block(slice(3, 9), slice(3, 9), slice(3, 9))
INSIDE = block(slice(4, 8), slice(4, 8), slice(4, 8))


def test_a_shell_is_a_rim_and_a_bare_core_is_none():
    assert enhancing_share(BLOCK & ~INSIDE, INSIDE, spacing=(1, 2, 3)) == 1
    assert enhancing_share(INSIDE, BLOCK & ~INSIDE, spacing=(1, 2, 3)) == 0
    assert enhancing_share(0 * BLOCK > 0, 0 * BLOCK > 0, spacing=(1, 1, 1)) == 0


def test_an_unlabelled_middle_is_no_surface():
    necrotic = INSIDE & block(slice(4, 8), slice(4, 8), slice(4, 5))
    assert enhancing_share(BLOCK & ~INSIDE, necrotic, spacing=(1, 1, 1)) == 1


def test_faces_count_by_their_area():
    """The enhancing half ends on one side of 2 x 3 mm faces and four halves of the others."""
    upper = BLOCK & block(slice(3, 6))
    hx, hy, hz = 1.0, 2.0, 3.0
    side, around = 36 * hy * hz, 2 * 18 * hx * (hy + hz)
    found = enhancing_share(upper, BLOCK & ~upper, spacing=(hx, hy, hz))
    assert found == pytest.approx((side + around) / (2 * side + 2 * around))
    lone = BLOCK & block(slice(3, 4))
    found = enhancing_share(lone, BLOCK & ~lone, spacing=(hx, hy, hz))
    assert found == pytest.approx((side + around / 3) / (2 * side + 2 * around))


def test_lesions_are_judged_together():
    two = block(slice(0, 3)) | block(slice(9, 12))
    assert enhancing_share(two & block(slice(0, 3)), two & block(slice(9, 12)), spacing=(1, 1, 1)) == 0.5


def test_the_share_does_not_depend_on_orientation():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, BLOCK.shape) * BLOCK
    one = enhancing_share(labels == 1, labels == 2, spacing=(1, 2, 3))
    turned = np.flip(labels.transpose(2, 0, 1), 1)
    assert enhancing_share(turned == 1, turned == 2, spacing=(3, 1, 2)) == pytest.approx(one)


def test_a_core_without_a_rim_has_two_levels_and_that_is_said(make_patient: Callable[..., Patient]):
    config = FitConfig(cells=12, steps=16, device="cpu")
    patient = make_patient()
    case = set_up(patient, config)
    assert case.has_necrosis
    assert InformedLoss(case, config).three_levels
    assert not any("surface enhances" in text for text in case.warnings)
    labels = patient.segmentation.data.copy()
    labels[labels == 4] = 1  # the whole core is labelled 1, as many labels without contrast medium are
    bare = set_up(make_patient(seg=labels), config)
    assert not bare.has_necrosis
    assert not InformedLoss(bare, config).three_levels
    assert any("Only 0% of the core's surface enhances" in text for text in bare.warnings)
    assert bool((bare.core == case.core).all())
