"""The default loss: what it adds to the reference loss, term by term."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.errors import InputError
from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import InformedLoss, make_loss
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.pde.lattice import grid_rates


def parameters(case: Case) -> Scalars:
    return Scalars.of(
        diffusivity=0.3,
        proliferation_rate=0.05,
        origins=case.grid.centres()[:, case.core].mean(dim=1),
        wm_gm_ratio=40.0,
        threshold_core=0.6,
        threshold_oedema=0.33,
        threshold_necrotic=0.7,
    )


def test_configuration_chooses(case: Case, tiny: FitConfig) -> None:
    assert type(make_loss(case, tiny)) is ReferenceLoss
    assert type(make_loss(case, replace(tiny, loss="informed"))) is InformedLoss
    with pytest.raises(InputError, match="'loss'"):
        replace(tiny, loss="informed", optimizer="adam-multigrid")
    with pytest.raises(InputError, match="'loss'"):
        replace(tiny, loss="guess")  # type: ignore[arg-type]


def test_three_levels_entry_by_entry(case: Case, tiny: FitConfig) -> None:
    p, n = parameters(case), tiny.steps * case.grid.cells
    generator = torch.Generator().manual_seed(2)
    u = 1.6 * torch.rand(tiny.steps, case.grid.cells, dtype=torch.float64, generator=generator) - 0.3
    informed = {k: float(t) for k, t in InformedLoss(case, tiny).of_field(u, p).items()}
    reference = {k: float(t) for k, t in ReferenceLoss(case, tiny).of_field(u, p).items()}
    for name in set(reference) - {"pde", "seg_lower", "seg_upper", "parameters", "pet"}:
        assert informed[name] == reference[name], name

    rates = grid_rates(p.diffusivity, p.proliferation_rate, p.wm_gm_ratio, spacing=case.grid.spacing)
    there = replace(p, proliferation_rate=rates.proliferation)
    white = case.model.white_faces.map(*rates.white / p.diffusivity)
    grey = case.model.grey_faces.map(*rates.grey * p.wm_gm_ratio / p.diffusivity)
    even = replace(case, model=replace(case.model, white_faces=white, grey_faces=grey))
    expected = ReferenceLoss(even, tiny).of_field(u, there)["pde"]
    assert informed["pde"] == pytest.approx(float(expected), rel=1e-10)

    nec, enh, oed = (t.numpy() for t in (case.necrotic, case.enhancing, case.oedema))
    lower = np.select([nec, enh, oed], [0.7, 0.6, 0.33], 0.0)
    upper = np.select([nec, enh, oed], [1.0, 0.7, 0.6], 0.33)
    last, weight = u[-1].numpy(), 12
    below = ((weight * np.maximum(0, lower - last)) ** 2).sum() / n
    above = ((weight * np.maximum(0, last - upper)) ** 2).sum() / n
    assert informed["seg_lower"] == pytest.approx(below, rel=1e-10)
    assert informed["seg_upper"] == pytest.approx(above, rel=1e-10)


def test_without_necrosis_there_are_two_levels(case: Case, tiny: FitConfig) -> None:
    solid = replace(case, necrotic=torch.zeros_like(case.necrotic), enhancing=case.core)
    loss = InformedLoss(solid, tiny)
    p = parameters(case)
    for mine, public in zip(loss.levels(p), ReferenceLoss(solid, tiny).levels(p), strict=True):
        torch.testing.assert_close(mine, public)
    assert not loss.box().with_necrosis
    assert InformedLoss(case, tiny).box().with_necrosis
