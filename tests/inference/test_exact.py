"""The loss where the equation holds exactly: its terms and its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from gliodil.inference.exact import ExactPhysics, seed_ramp
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.variables import TransformedLoss
from gliodil.pde.odil.problem import Point
from gliodil.pde.seed import gaussian_seed

DOUBLE = torch.float64


@pytest.fixture
def landscape(objective: TransformedLoss) -> ExactPhysics:
    return ExactPhysics(objective)


def random_point(landscape: ExactPhysics, size: float = 0.02) -> Point:
    generator = torch.Generator().manual_seed(5)
    return [size * torch.randn(t.shape, dtype=DOUBLE, generator=generator) for t in landscape.start()]


def away(objective: TransformedLoss) -> torch.Tensor:
    """A y with absurd growth."""
    z = objective.coordinates.origin.clone()
    z[1] = 50.0
    return torch.linalg.solve(objective.coordinates.scaling, z - objective.coordinates.origin)


def test_exact_physics_has_no_misfit_terms(objective: TransformedLoss) -> None:
    """What is left is what its last level and its own levels say."""
    landscape = ExactPhysics(objective)
    terms = {name: float(t) for name, t in landscape.terms(landscape.start()).items()}
    assert not {"initial", "pde"} & set(terms)
    run = landscape.run(landscape.start())
    assert run is not None
    p, levels = run[0], run[1].levels
    reference = ReferenceLoss.of_field(objective.loss, levels, p)
    assert float(reference["pde"]) < 1e-12
    for name in ("bounds", "csf"):
        assert terms[name] == pytest.approx(float(reference[name]), rel=1e-9, abs=1e-300)
    admissibility = {name: reference[name] for name in ("bounds", "csf")}
    for name, value in objective.loss.parameter_stage(levels[-1], p, admissibility).items():
        assert terms[name] == pytest.approx(float(value), rel=1e-9, abs=1e-300), name


def test_the_gradient_is_the_slope_of_the_loss(landscape: ExactPhysics) -> None:
    """In every parameter."""
    (y,) = random_point(landscape)
    (gradient,) = landscape.at([y]).gradient()
    assert gradient.shape == y.shape
    step = 1e-6
    for e in torch.eye(y.shape[0], dtype=DOUBLE):
        there, back = (landscape.at([y + s * e]).terms for s in (step, -step))
        difference = math.fsum(there[k] - back[k] for k in there) / (2 * step)
        assert float((gradient * e).sum()) == pytest.approx(difference, rel=5e-6, abs=1e-9)


def test_it_reports_the_terms_it_sums(landscape: ExactPhysics) -> None:
    x = random_point(landscape)
    here = landscape.at(x)
    assert here.terms == {name: float(t) for name, t in landscape.terms(x).items()}
    assert here.value == pytest.approx(sum(here.terms.values()), rel=1e-12)
    assert here.value > 0
    assert not x[0].requires_grad


def test_it_is_infinitely_high_where_growth_is_not_resolved(landscape: ExactPhysics) -> None:
    x = landscape.start()
    x[0] = away(landscape.objective)
    here = landscape.at(x)
    assert here.value == math.inf
    assert here.terms == {}
    with pytest.raises(ValueError, match="inadmissible"):
        here.gradient()


@pytest.mark.parametrize("h", [0.8, 2.0, 5.0, 9.0, 14.0, 19.0])
def test_no_origin_is_without_a_seed(h: float) -> None:
    """Not even in the corner between eight cells."""
    corner = torch.tensor([[h / 2], [h / 2], [h / 2]], dtype=DOUBLE)
    seed = gaussian_seed(corner, torch.zeros(3, dtype=DOUBLE), cutoff_width=seed_ramp((h, h, h)))
    assert float(seed) > 0
