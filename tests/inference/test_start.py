"""Where fits start: parameters read off the segmentation, and the public forward run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from gliodil.data.patient import Patient
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.start import centre_of_core, forward_run, from_segmentation


def test_estimates_are_admissible_and_central(case: Case, tiny: FitConfig) -> None:
    p = from_segmentation(case, tiny)
    assert float(p.hinge_sum()) == 0
    assert 0.02 <= float(p.diffusivity) <= 5
    assert 0.025 <= float(p.proliferation_rate) <= 1
    middle = case.grid.centres()[:, case.core].mean(dim=1)
    assert float((p.origins[0] - middle).norm()) < 2 * max(case.grid.spacing)


def test_the_centre_lies_in_passable_core(case: Case) -> None:
    centre = centre_of_core(case)
    cell = (case.grid.centres() - centre[:, None]).norm(dim=0).argmin()
    assert bool((case.core & case.model.passable)[cell])
    core = case.core.clone()
    shell = core & ((case.grid.centres() - centre[:, None]).norm(dim=0) > min(case.grid.spacing))
    hollow = centre_of_core(replace(case, core=shell))
    there = (case.grid.centres() - hollow[:, None]).norm(dim=0).argmin()
    assert bool(shell[there])


def test_mirror_images_start_at_mirrored_places(
    make_patient: Callable[..., Patient], tiny: FitConfig
) -> None:
    config = replace(tiny, cells=12)
    case, mirrored = (set_up(make_patient(mirrored=m), config) for m in (False, True))
    width = 12 * case.grid.spacing[0]
    there = centre_of_core(mirrored)
    torch.testing.assert_close(torch.stack([width - there[0], there[1], there[2]]), centre_of_core(case))


def test_faster_tumours_get_faster_parameters(case: Case, tiny: FitConfig) -> None:
    slow, fast = (from_segmentation(case, replace(tiny, duration_days=t)) for t in (200.0, 50.0))
    speed = [float((p.diffusivity * p.proliferation_rate).sqrt()) for p in (slow, fast)]
    assert speed[0] < speed[1]


def test_forward_run_ends_where_it_looks_most_like_the_tumour(case: Case, tiny: FitConfig) -> None:
    loss = ReferenceLoss(case, tiny)
    p, run = forward_run(loss)
    assert run.shape == (tiny.steps, case.grid.cells)
    assert float(run.min()) >= 0
    assert float(run.max()) <= 1
    torch.testing.assert_close(run[0], loss.seed(p.origins))
    whole = case.core | case.oedema

    def dice(u: torch.Tensor) -> float:
        seen = u > p.threshold_oedema
        return 2 * float((seen & whole).sum()) / float(seen.sum() + whole.sum())

    scores = [dice(u) for u in run]
    assert max(scores) - scores[-1] < 0.02
    assert scores[-1] > 0.6
    assert scores[-1] > scores[0]


def test_forward_run_obeys_the_physics_it_reports(case: Case, tiny: FitConfig) -> None:
    """Stretched time and scaled rates belong together: a fine run has a small physics residual."""
    config = replace(tiny, steps=64)
    loss = ReferenceLoss(case, config)
    p, run = forward_run(loss)
    at_rest = run[:1].expand_as(run)
    assert float(loss.of_field(run, p)["pde"]) < 0.05 * float(loss.of_field(at_rest, p)["pde"])
    doubled = replace(p, diffusivity=2 * p.diffusivity, proliferation_rate=2 * p.proliferation_rate)
    assert float(loss.of_field(run, p)["pde"]) < 0.2 * float(loss.of_field(run, doubled)["pde"])
