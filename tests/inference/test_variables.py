"""The change of variables: one to one with the field, movable, and with a whitened Hessian."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.variables import SOLVER_TOLERANCE, Coordinates, TransformedLoss, whitening
from gliodil.pde.odil.problem import Point
from gliodil.pde.odil.steps import LARGEST_GROWTH, Steps
from gliodil.pde.operators import spectral_bound

DOUBLE = torch.float64


def random_point(objective: TransformedLoss, *, y: float = 0.02, seed: int = 0) -> Point:
    generator = torch.Generator().manual_seed(seed)
    sizes = (y, 0.5, 0.5)
    return [
        size * torch.randn(t.shape, dtype=DOUBLE, generator=generator)
        for size, t in zip(sizes, objective.start(), strict=True)
    ]


def towards(objective: TransformedLoss, z: torch.Tensor) -> torch.Tensor:
    """The y of given coordinates z."""
    return torch.linalg.solve(objective.coordinates.scaling, z - objective.coordinates.origin)


@pytest.mark.parametrize("seed", [0, 1])
def test_misfit_and_model_error_are_the_residuals_of_their_own_trajectory(
    objective: TransformedLoss, seed: int
) -> None:
    """One to one: evaluate the public definition on the levels the sweep went through."""
    x = random_point(objective, y=0.0, seed=seed)
    p = objective.coordinates.scalars(x[0])
    levels = objective.trajectory(x).levels
    assert levels.shape == (objective.loss.config.steps, objective.loss.case.grid.cells)
    residuals = objective.loss.field_residuals(levels, p)
    torch.testing.assert_close(residuals["initial"], x[1], rtol=0, atol=1e-12)
    assert float((residuals["pde"] - x[2]).norm()) <= 1e-7 * float(x[2].norm())


def test_the_fit_starts_from_exact_physics(objective: TransformedLoss) -> None:
    y, w, v = objective.start()
    assert [t.shape for t in (w, v)] == [(objective.loss.case.grid.cells,), objective.steps_shape]
    assert not any(bool(t.any()) for t in (y, w, v))
    residuals = objective.loss.field_residuals(
        objective.trajectory([y, w, v]).levels, objective.coordinates.scalars(y)
    )
    assert float(residuals["initial"].abs().max()) == 0
    assert float(residuals["pde"].abs().max()) < 1e-8 * objective.loss.sigma_pde


def test_single_precision_solves_as_finely_as_it_can_resolve(objective: TransformedLoss) -> None:
    single = TransformedLoss(objective.loss, objective.coordinates)
    assert single.dtype == torch.float32
    assert [t.dtype for t in single.start()] == [torch.float64, torch.float32, torch.float32]
    p = objective.coordinates.scalars(objective.coordinates.zero())
    rate = float(p.proliferation_rate)
    for loss in (single, objective):
        c = loss.model.coefficients(p.diffusivity, p.wm_gm_ratio)
        expected = Steps.resolving(
            dt=loss.loss.config.dt,
            sigma=loss.loss.sigma_pde,
            diffusion_bound=float(spectral_bound(c, loss.loss.case.grid.cells)),
            growth=rate,
            tolerance=SOLVER_TOLERANCE[loss.dtype],
        )
        assert loss.steps(c, rate) == expected
    x = random_point(objective)
    a = objective.trajectory(x).levels
    b = single.trajectory([x[0], x[1].float(), x[2].float()]).levels
    assert b.dtype == torch.float32
    torch.testing.assert_close(a.float(), b, rtol=0, atol=3e-3)


def test_points_whose_growth_a_step_does_not_resolve_are_inadmissible(objective: TransformedLoss) -> None:
    z = objective.coordinates.origin.clone()
    z[0] = 50.0  # the largest diffusivity is no obstacle
    stiff = towards(objective, z)
    assert objective.admissible(objective.coordinates.scalars(stiff))
    z[1] = 50.0  # absurd growth is
    away = towards(objective, z)
    p = objective.coordinates.scalars(away)
    assert float(p.proliferation_rate) * objective.loss.config.dt / 2 > LARGEST_GROWTH
    assert not objective.admissible(p)


def test_coordinates_can_hold_the_origin_fixed(objective: TransformedLoss) -> None:
    """Everything else moves as before."""
    y = random_point(objective, y=0.5)[0]
    free, fixed = objective.coordinates, objective.coordinates.with_origin_fixed()
    torch.testing.assert_close(fixed.scalars(y).origins, free.scalars(free.zero()).origins)
    assert not torch.allclose(free.scalars(y).origins, free.scalars(free.zero()).origins)
    for name in ("diffusivity", "proliferation_rate", "wm_gm_ratio", "threshold_core", "threshold_oedema"):
        torch.testing.assert_close(getattr(fixed.scalars(y), name), getattr(free.scalars(y), name))


def test_coordinates_are_affine_and_can_be_moved(objective: TransformedLoss) -> None:
    coordinates = objective.coordinates
    y = random_point(objective)[0]
    moved = coordinates.moved(y)
    for name in ("diffusivity", "threshold_core", "origins"):
        torch.testing.assert_close(
            getattr(moved.scalars(coordinates.zero()), name), getattr(coordinates.scalars(y), name)
        )
    plain = Coordinates.plain(coordinates.box, coordinates.origin)
    torch.testing.assert_close(plain.scalars(y).origins, (coordinates.origin + y)[None, -3:] * 10)


def test_prolonged_points_keep_smooth_misfits(
    case: Case, tiny: FitConfig, objective: TransformedLoss
) -> None:
    """Nested grids: w/σ_w and v/σ_v are fields in physical units, so constants arrive unchanged."""
    finer = make_loss(case, replace(tiny, steps=2 * tiny.steps))
    y, w, v = random_point(objective)
    w = torch.full_like(w, 0.01 * objective.loss.sigma_initial)
    v = torch.full_like(v, 0.002 * objective.loss.sigma_pde)
    there = objective.prolong_to(finer, [y, w, v])
    assert there[2].shape == (2 * tiny.steps - 1, case.grid.cells)
    torch.testing.assert_close(there[0], y)
    torch.testing.assert_close(there[1] / finer.sigma_initial, torch.full_like(w, 0.01))
    torch.testing.assert_close(there[2] / finer.sigma_pde, torch.full_like(there[2], 0.002))


def test_whitening_makes_a_quadratic_round() -> None:
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(6, 6, dtype=DOUBLE, generator=generator))
    h = q @ torch.diag(torch.tensor([1.0, 3, 10, 30, 100, 900], dtype=DOUBLE)) @ q.T
    s = whitening(lambda z: h @ (z - 1), torch.ones(6, dtype=DOUBLE) * 5)
    torch.testing.assert_close(s.T @ h @ s, 2 * torch.eye(6, dtype=DOUBLE), rtol=0, atol=1e-9)


def test_whitening_does_not_stretch_undetermined_directions_without_bound() -> None:
    h = torch.diag(torch.tensor([1.0, 0.0, -1e-3], dtype=DOUBLE))
    s = whitening(lambda z: h @ z, torch.zeros(3, dtype=DOUBLE), floor=1e-4)
    assert float(torch.linalg.svdvals(s).max()) == pytest.approx(math.sqrt(2 / 1e-4))
    assert bool(torch.isfinite(s).all())


def test_impassable_cells_keep_what_they_have(objective: TransformedLoss) -> None:
    """No seed and no misfit there: no cells, at any level."""
    model = objective.model
    y, w, v = random_point(objective)
    levels = objective.trajectory([y, w * model.passable, v * model.passable]).levels
    walled = ~model.passable & (objective.seed(objective.coordinates.scalars(y).origins) == 0)
    assert bool(walled.any())
    assert torch.count_nonzero(levels[:, walled]) == 0
