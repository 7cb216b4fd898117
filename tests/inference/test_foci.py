"""The number of foci: one where one explains the labels, more where they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.data.patient import Patient
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.inference.foci import unreached
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.start import from_segmentation

CONFIG = FitConfig(cells=16, steps=32, device="cpu", physics="exact")


def two_balls(patient: Patient) -> np.ndarray:
    """Labels of two tumours apart, core inside oedema."""
    index = np.stack(np.meshgrid(*map(np.arange, patient.shape), indexing="ij"), axis=-1)
    labels = np.zeros(patient.shape, np.uint8)
    for centre in ((8, 13, 12), (22, 13, 12)):
        distance = np.linalg.norm((index - centre) * patient.segmentation.spacing, axis=-1)
        labels[distance < 11] = np.maximum(labels[distance < 11], 2)
        labels[distance < 7] = 4
    return labels


def test_two_tumours_get_two_foci(make_patient: Callable[..., Patient]) -> None:
    patient = make_patient()
    double = make_patient(seg=two_balls(patient))
    result = fit(double, config=CONFIG)
    assert len(result.origins_mm) == 2
    assert result.origins_mm[0] == result.parameters["origin_mm"].value
    for origin, centre in zip(
        sorted(result.origins_mm, reverse=True), ((8, 13, 12), (22, 13, 12)), strict=True
    ):
        there = double.segmentation.to_world(np.array(centre, float))
        assert np.linalg.norm(np.subtract(origin, there)) < 5


def test_further_foci_can_be_left_out(make_patient: Callable[..., Patient]) -> None:
    double = make_patient(seg=two_balls(make_patient()))
    assert len(fit(double, config=replace(CONFIG, left_out=("foci",))).origins_mm) == 1


def test_one_tumour_keeps_one_focus(make_patient: Callable[..., Patient]) -> None:
    assert len(fit(make_patient(), config=CONFIG).origins_mm) == 1


def test_a_further_focus_starts_deep_in_what_is_missed(make_patient: Callable[..., Patient]) -> None:
    patient = make_patient(seg=two_balls(make_patient()))
    case = set_up(patient, CONFIG)
    loss = make_loss(case, CONFIG)
    p = from_segmentation(case, CONFIG)
    seen = case.core | case.oedema
    left = loss.centres[0] < loss.centres[0].mean()
    last = torch.where(seen & left, 1.0, 0.0).to(torch.float64)
    point = unreached(loss, last, p)
    assert point is not None
    there = np.asarray(case.world(point))
    expected = patient.segmentation.to_world(np.array((22, 13, 12), float))
    opposite = patient.segmentation.to_world(np.array((8, 13, 12), float))
    near, far = sorted(np.linalg.norm(there - centre) for centre in (expected, opposite))
    assert near < 5 < far
    assert unreached(loss, seen.to(torch.float64), p) is None


@pytest.mark.parametrize("foci", [1, 2])
def test_coordinates_of_several_foci_come_back(make_patient: Callable[..., Patient], foci: int) -> None:
    case = set_up(make_patient(pet=True), CONFIG)
    loss = make_loss(case, CONFIG)
    p = from_segmentation(case, CONFIG)
    p = replace(p, origins=torch.cat([p.origins + 5 * k for k in range(foci)]))
    box = replace(loss.box(), foci=foci)
    z = box.encode(p)
    assert z[box.origins].shape == (3 * foci,)
    torch.testing.assert_close(box.decode(z).origins, p.origins)
    seed = loss.seed(p.origins)
    assert float(seed.max()) <= 1
    single = torch.stack([loss.seed(origin[None]) for origin in p.origins]).sum(dim=0)
    torch.testing.assert_close(seed, single.clamp(max=1))
