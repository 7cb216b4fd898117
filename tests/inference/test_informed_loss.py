"""The default loss: what it adds to the reference loss, term by term."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gliodil.errors import InputError
from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig, Term
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
    solid = replace(case, necrotic=torch.zeros_like(case.necrotic), enhancing=case.core, has_necrosis=False)
    loss = InformedLoss(solid, tiny)
    p = parameters(case)
    for mine, public in zip(loss.levels(p), ReferenceLoss(solid, tiny).levels(p), strict=True):
        torch.testing.assert_close(mine, public)
    assert not loss.box().with_necrosis
    assert InformedLoss(case, tiny).box().with_necrosis


def test_nothing_is_sown_where_nothing_can_grow(case: Case, tiny: FitConfig) -> None:
    wall = replace(case, model=replace(case.model, passable=case.model.passable & ~case.core))
    loss, reference = InformedLoss(wall, tiny), ReferenceLoss(wall, tiny)
    origins = parameters(case).origins
    seed, public = loss.seed(origins), reference.seed(origins)
    assert float(public[case.core].max()) > 0.1
    assert float(seed[case.core].abs().max()) == 0
    torch.testing.assert_close(seed[~case.core], public[~case.core] * wall.model.passable[~case.core])


def without(case: Case, config: FitConfig, *terms: Term) -> InformedLoss:
    return InformedLoss(case, replace(config, loss="informed", optimizer="lbfgs", left_out=terms))


def stage(loss: ReferenceLoss, case: Case) -> dict[str, float]:
    """Terms of the parameter stage at a density that lies beside the labels: too low here, too high there."""
    aside = loss.centres[:, case.core].mean(dim=1)[:, None] + 8
    distance = (loss.centres - aside).norm(dim=0)
    last = (1 + (distance / 3 - 5).exp()) ** -2
    return {k: float(t) for k, t in loss.parameter_stage(last, parameters(case), {}).items()}


def test_each_term_can_be_left_out_alone(case: Case, tiny: FitConfig) -> None:
    p, every = parameters(case), without(case, tiny)
    reference = ReferenceLoss(case, replace(tiny, loss="reference"))
    assert not without(case, tiny, "rim").box().with_necrosis
    for mine, public in zip(without(case, tiny, "rim").levels(p), reference.levels(p), strict=True):
        torch.testing.assert_close(mine, public)

    torch.testing.assert_close(
        without(case, tiny, "fronts").rates(p).proliferation, reference.rates(p).proliferation
    )
    assert float(every.rates(p).proliferation) != float(reference.rates(p).proliferation)

    plain, densities = stage(reference, case), stage(without(case, tiny, "rim", "distances", "pet"), case)
    for name in ("seg_lower", "seg_upper"):
        assert densities[name] == pytest.approx(plain[name], rel=1e-10)
        assert stage(every, case)[name] != pytest.approx(plain[name], rel=1e-3)
    assert ("pet" in plain) == (case.pet is not None)
    if case.pet is not None:
        assert densities["pet"] == pytest.approx(plain["pet"], rel=1e-10)
        assert stage(every, case)["pet"] != pytest.approx(plain["pet"], rel=1e-2)

    full, unprejudiced = stage(every, case), stage(without(case, tiny, "priors"), case)
    assert full.pop("parameters") > 0
    assert unprejudiced.pop("parameters") == 0
    assert unprejudiced == full

    assert every.several_foci
    assert not without(case, tiny, "foci").several_foci
    assert not reference.several_foci
