"""The change of variables: the same loss, the right gradient, and a whitened Hessian."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.variables import Coordinates, TransformedLoss, whitening
from gliodil.pde.odil.problem import Point
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import sweep

DOUBLE = torch.float64


SOFT, STIFF = 0.02, 0.8


@pytest.fixture(params=["reference", "informed"])
def loss(request: pytest.FixtureRequest, case: Case, tiny: FitConfig) -> ReferenceLoss:
    return make_loss(case, replace(tiny, loss=request.param))


@pytest.fixture(params=[SOFT, STIFF], ids=["soft", "stiff"])
def objective(request: pytest.FixtureRequest, loss: ReferenceLoss) -> TransformedLoss:
    """With a small diffusivity (one stage) and a large one (several)."""
    case = loss.case
    centre = case.grid.centres()[:, case.core].mean(dim=1)
    p = Scalars.of(
        diffusivity=request.param,
        proliferation_rate=0.04,
        origin=centre + torch.tensor([0.3, 0.2, -0.4], dtype=DOUBLE),
        wm_gm_ratio=15.0,
    )
    z = loss.box().encode(p)
    generator = torch.Generator().manual_seed(8)
    scaling = 0.3 * torch.randn(z.shape[0], z.shape[0], dtype=DOUBLE, generator=generator)
    found = TransformedLoss(loss, Coordinates.scaled(loss.box(), z, scaling), dtype=DOUBLE)
    assert (found.stages == 1) == (request.param == SOFT)
    return found


def random_point(objective: TransformedLoss, *, y: float = 0.02, seed: int = 0) -> Point:
    generator = torch.Generator().manual_seed(seed)

    def normal(like: torch.Tensor, size: float) -> torch.Tensor:
        return size * torch.randn(like.shape, dtype=DOUBLE, generator=generator)

    return [
        normal(objective.coordinates.zero(), y),
        normal(objective.zero_w(), 0.5),
        normal(objective.zero_v(), 0.5),
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_reference_loss_of_its_own_trajectory(objective: TransformedLoss, seed: int) -> None:
    """One to one: evaluate the public definition on the levels the sweep went through."""
    y, w, v = random_point(objective, y=0.0, seed=seed)
    p = objective.coordinates.scalars(y)
    found = objective.full([y, w, v])
    levels = objective.trajectory([y, w, v]).levels
    expected = {name: float(value) for name, value in objective.loss.of_field(levels, p).items()}
    assert set(found.terms) == set(expected)
    for name, value in expected.items():
        assert found.terms[name] == pytest.approx(value, rel=1e-9, abs=1e-14), name
    assert found.value == pytest.approx(sum(expected.values()), rel=1e-9)
    assert found.terms["initial"] == pytest.approx(float(w.square().sum()))


def test_residuals_square_to_the_loss(objective: TransformedLoss) -> None:
    x = random_point(objective)
    total = sum(float(r.square().sum()) for r in objective.residuals(x))
    assert total == pytest.approx(objective.full(x).value, rel=1e-9)


@pytest.mark.parametrize("part", [0, 1, 2], ids=["y", "w", "v"])
def test_gradient_of_the_full_loss(objective: TransformedLoss, part: int) -> None:
    x = random_point(objective)
    gradient = objective.full(x).gradient
    assert [g.shape for g in gradient] == [t.shape for t in x]
    generator = torch.Generator().manual_seed(part)
    n = x[part].numel()
    directions = [torch.randn(n, dtype=DOUBLE, generator=generator) for _ in range(2)]
    if part == 0:
        directions += list(torch.eye(n, dtype=DOUBLE))
    step = 1e-6
    for direction in directions:
        e = direction.reshape(x[part].shape)

        def moved(s: float, e: torch.Tensor = e) -> float:
            return objective.full([t + s * e if i == part else t for i, t in enumerate(x)]).value

        difference = (moved(step) - moved(-step)) / (2 * step)
        assert float((gradient[part] * e).sum()) == pytest.approx(difference, rel=2e-6, abs=1e-8)


def test_gradient_with_exact_physics(objective: TransformedLoss) -> None:
    y = random_point(objective)[0]
    (gradient,) = objective.hard([y]).gradient
    step = 1e-6
    for i, e in enumerate(torch.eye(y.shape[0], dtype=DOUBLE)):
        difference = (objective.hard([y + step * e]).value - objective.hard([y - step * e]).value) / (
            2 * step
        )
        assert float(gradient[i]) == pytest.approx(difference, rel=2e-6, abs=1e-9)


def test_exact_physics_has_no_misfit_terms(objective: TransformedLoss) -> None:
    terms = objective.hard([objective.coordinates.zero()]).terms
    assert "initial" not in terms


def test_single_precision_agrees(objective: TransformedLoss) -> None:
    x = random_point(objective)
    single = TransformedLoss(objective.loss, objective.coordinates)
    exact, rounded = objective.full(x), single.full([x[0], x[1].float(), x[2].float()])
    assert [g.dtype for g in rounded.gradient] == [torch.float64, torch.float32, torch.float32]
    assert rounded.value == pytest.approx(exact.value, rel=1e-4)
    for a, b in zip(exact.gradient, rounded.gradient, strict=True):
        assert float((a - b).norm()) <= 1e-3 * float(a.norm())


def test_points_beyond_the_stability_limit_are_inadmissible(objective: TransformedLoss) -> None:
    z = objective.coordinates.origin.clone()
    z[0], z[1] = 50.0, 50.0  # largest diffusivity, absurd growth
    away = torch.linalg.solve(objective.coordinates.scaling, z - objective.coordinates.origin)
    found = objective.full([away, objective.zero_w(), objective.zero_v()])
    assert found.value == math.inf
    assert objective.hard([away]).value == math.inf
    assert objective.near_stability_limit(away)
    assert not objective.near_stability_limit(objective.coordinates.zero())


@pytest.mark.parametrize("objective", [SOFT], indirect=True)
def test_the_pde_term_is_nearly_the_model_error(objective: TransformedLoss) -> None:
    """What the variables are for: where steps are small, ‖v‖² is the pde term up to a second difference."""
    v = random_point(objective)[2]
    pde = objective.full([objective.coordinates.zero(), objective.zero_w(), 4 * v]).terms["pde"]
    assert pde == pytest.approx(float((4 * v).square().sum()), rel=0.5)


def test_coordinates_are_affine_and_can_be_moved(objective: TransformedLoss) -> None:
    coordinates = objective.coordinates
    y = random_point(objective)[0]
    moved = coordinates.moved(y)
    for name in ("diffusivity", "threshold_core", "origin"):
        torch.testing.assert_close(
            getattr(moved.scalars(coordinates.zero()), name), getattr(coordinates.scalars(y), name)
        )
    plain = Coordinates.plain(coordinates.box, coordinates.origin)
    torch.testing.assert_close(plain.scalars(y).origin, (coordinates.origin + y)[3:6] * 10)


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
    model = objective.model
    p = objective.coordinates.scalars(objective.coordinates.zero())
    u0 = model.passable.to(DOUBLE) * 0.4
    steps = Steps(objective.loss.config.dt, 1.0, objective.stages)
    t = sweep(
        u0,
        objective.zero_v(),
        model.coefficients(p.diffusivity, p.wm_gm_ratio),
        p.proliferation_rate,
        objective.impassable,
        steps,
    )
    assert not bool(model.passable.all())
    assert torch.count_nonzero(t.levels[:, ~model.passable]) == 0
