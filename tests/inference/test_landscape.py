"""What the optimizers see: the loss of the definition, its gradient, and the data's derivative both ways."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from gliodil.inference.landscape import FREE_PARAMETERS, LossLandscape
from gliodil.inference.variables import SOLVER_TOLERANCE, TransformedLoss
from gliodil.pde.odil.problem import Point, dot

DOUBLE = torch.float64
PARTS = pytest.mark.parametrize("part", [0, 1, 2], ids=["y", "w", "v"])


def random_point(objective: TransformedLoss, *, y: float = 0.02, field: float = 0.5, seed: int = 0) -> Point:
    generator = torch.Generator().manual_seed(seed)
    return [
        size * torch.randn(t.shape, dtype=DOUBLE, generator=generator)
        for size, t in zip((y, field, field), objective.start(), strict=True)
    ]


def directions(x: Point, part: int) -> list[torch.Tensor]:
    """Random ones, and for the parameters each alone."""
    generator = torch.Generator().manual_seed(part)
    found = [torch.randn(x[part].shape, dtype=DOUBLE, generator=generator) for _ in range(2)]
    return found + (list(torch.eye(x[0].shape[0], dtype=DOUBLE)) if part == 0 else [])


def along(x: Point, part: int, e: torch.Tensor) -> Callable[[float], Point]:
    return lambda s: [t + s * e if i == part else t for i, t in enumerate(x)]


def slope(landscape: LossLandscape, line: Callable[[float], Point]) -> float:
    """Central difference of the loss, term by term: the terms that stay cancel exactly."""
    step = 1e-6
    there, back = landscape.at(line(step)).terms, landscape.at(line(-step)).terms
    return math.fsum(there[name] - back[name] for name in there) / (2 * step)


def data_of(objective: TransformedLoss, x: Point) -> torch.Tensor:
    """The data residuals by their definition, from the end of the trajectory."""
    with torch.no_grad():
        residuals = objective.loss.data_residuals(
            objective.trajectory(x).last, objective.coordinates.scalars(x[0])
        )
    return torch.cat([r.reshape(-1) for r in residuals.values()])


def away(objective: TransformedLoss) -> torch.Tensor:
    """A y with absurd growth."""
    z = objective.coordinates.origin.clone()
    z[1] = 50.0
    return torch.linalg.solve(objective.coordinates.scaling, z - objective.coordinates.origin)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_reference_loss_of_its_own_trajectory(objective: TransformedLoss, seed: int) -> None:
    """One to one: evaluate the public definition on the levels the sweep went through."""
    x = random_point(objective, y=0.0, seed=seed)
    here = LossLandscape(objective).at(x)
    p, levels = objective.coordinates.scalars(x[0]), objective.trajectory(x).levels
    expected = {name: float(value) for name, value in objective.loss.of_field(levels, p).items()}
    assert set(here.terms) == set(expected)
    for name, value in expected.items():
        assert here.terms[name] == pytest.approx(value, rel=1e-7, abs=1e-14), name
    assert here.value == pytest.approx(sum(expected.values()), rel=1e-7)
    assert here.value == pytest.approx(sum(here.terms.values()), rel=1e-12)
    assert here.terms["initial"] == pytest.approx(float(x[1].square().sum()))
    assert here.terms["pde"] == pytest.approx(float(x[2].square().sum()))


def test_parameters_away_from_the_centre_are_charged(objective: TransformedLoss) -> None:
    """By their distance from the anchor, or by the hinges, which are zero in the whole box."""
    x = random_point(objective, y=0.1)
    charge = LossLandscape(objective).at(x).terms["parameters"]
    assert charge == pytest.approx(float(x[0].square().sum()) if objective.loss.anchored else 0.0)


@PARTS
def test_gradient(objective: TransformedLoss, part: int) -> None:
    """Of every term, those outside the model of the curvature included."""
    x = random_point(objective)
    landscape = LossLandscape(objective)
    here = landscape.at(x)
    assert min(here.terms[name] for name in ("bounds", "csf", "seg_lower", "seg_upper")) > 0
    gradient = here.gradient()
    assert [g.shape for g in gradient] == [t.shape for t in x]
    for e in directions(x, part):
        difference = slope(landscape, along(x, part, e))
        assert float((gradient[part] * e).sum()) == pytest.approx(difference, rel=2e-6, abs=1e-8)


@pytest.mark.parametrize("term", ["bounds", "csf"])
def test_gradient_of_the_small_terms(
    objective: TransformedLoss, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    """Made large, since in the sum of all terms they would drown."""
    monkeypatch.setattr(f"gliodil.inference.landscape.WEIGHT_{term.upper()}", 1e4)
    x = random_point(objective)
    landscape = LossLandscape(objective)
    here = landscape.at(x)
    assert here.terms[term] > 0.8 * here.value
    gradient = here.gradient()
    e = random_point(objective, y=1.0, field=1.0, seed=4)
    difference = slope(landscape, lambda s: [a + s * b for a, b in zip(x, e, strict=True)])
    assert dot(gradient, e) == pytest.approx(difference, rel=1e-6)


@PARTS
def test_push_is_the_derivative_of_the_data(objective: TransformedLoss, part: int) -> None:
    x = random_point(objective)
    here = LossLandscape(objective).at(x)
    step = 1e-6
    for e in directions(x, part):
        moved = along(x, part, e)
        difference = (data_of(objective, moved(step)) - data_of(objective, moved(-step))) / (2 * step)
        zero = [torch.zeros_like(t) for t in x]
        found = here.push([e if i == part else t for i, t in enumerate(zero)])
        assert found.shape == difference.shape
        assert float(difference.norm()) > 1e-6
        assert float((found - difference).norm()) <= 1e-6 * float(difference.norm())


@pytest.mark.parametrize("seed", [0, 1])
def test_push_and_pull_are_adjoint(objective: TransformedLoss, seed: int) -> None:
    """To round-off, in each variable and all together."""
    x = random_point(objective, seed=seed)
    here = LossLandscape(objective).at(x)
    dx = random_point(objective, y=1.0, field=1.0, seed=seed + 10)
    generator = torch.Generator().manual_seed(seed + 20)
    d = torch.randn(data_of(objective, x).shape, dtype=DOUBLE, generator=generator)
    for parts in ((0,), (1,), (2,), (0, 1, 2)):
        only = [t if i in parts else torch.zeros_like(t) for i, t in enumerate(dx)]
        forward, backward = dot([here.push(only)], [d]), dot(only, here.pull(d))
        assert forward == pytest.approx(backward, rel=1e-10)
        assert abs(forward) > 1e-6


def test_gradient_is_the_pulled_data_and_the_prior_up_to_small_terms(
    objective: TransformedLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model of the curvature belongs to the gradient: ½ ∂L = M x + Jᵀd, exactly, without the small terms."""
    for name in ("WEIGHT_BOUNDS", "WEIGHT_CSF"):
        monkeypatch.setattr(f"gliodil.inference.landscape.{name}", 0.0)
    x = random_point(objective)
    landscape = LossLandscape(objective)
    here = landscape.at(x)
    gradient = here.gradient()
    pulled = here.pull(data_of(objective, x))
    charged = (float(objective.loss.anchored), 1.0, 1.0)
    for g, p, m, t in zip(gradient, pulled, charged, x, strict=True):
        expected = 2 * (p + m * t)
        assert float((g - expected).norm()) <= 1e-9 * float(expected.norm())


def test_metric_is_the_curvature_without_data(objective: TransformedLoss) -> None:
    first, *rest = LossLandscape(objective).metric
    assert rest == [1, 1]
    assert first == (1 if objective.loss.anchored else FREE_PARAMETERS)


def test_neither_the_point_nor_its_value_depends_on_what_is_asked(objective: TransformedLoss) -> None:
    """Fields are shared between points and calls; none of it may show."""
    landscape = LossLandscape(objective)
    a, b = random_point(objective, seed=1), random_point(objective, seed=2)
    kept = [t.clone() for t in a]
    d = torch.ones_like(data_of(objective, a))
    alone = LossLandscape(objective).at(a)
    expected = [*alone.gradient(), alone.push(b), *(t.clone() for t in alone.pull(d))]

    landscape.at(b).gradient()  # leaves its field for reuse
    first = landscape.at(a)
    other = landscape.at(b)
    other.gradient()
    other.pull(2 * d)
    found = [*first.gradient(), first.push(b), *first.pull(d)]
    for x, y in zip(expected, found, strict=True):
        assert torch.equal(x, y)
    assert other.value == LossLandscape(objective).at(b).value
    for x, y in zip(first.gradient(), found[:3], strict=True):  # asked again
        assert torch.equal(x, y)
    assert all(torch.equal(x, y) for x, y in zip(a, kept, strict=True))
    assert not any(t.requires_grad for t in found)


def test_fields_of_points_no_longer_in_use_are_used_again(objective: TransformedLoss) -> None:
    landscape = LossLandscape(objective)
    levels = objective.steps_shape[0] + 1
    x = random_point(objective)
    seen: set[int] = set()
    for _ in range(4):
        here = landscape.at(x)
        (*_, d_v) = here.gradient()
        other = landscape.field(levels)
        assert len({here._u.data_ptr(), d_v.data_ptr(), other.data_ptr()}) == 3  # each in use
        seen |= {here._u.data_ptr(), d_v.data_ptr(), other.data_ptr()}
        del here, d_v, other
    assert len(seen) == 3


@pytest.mark.parametrize("field", [0, 1])
def test_inadmissible_points_are_infinitely_high(objective: TransformedLoss, field: int) -> None:
    landscape = LossLandscape(objective)
    _, w, v = random_point(objective, field=field)
    here = landscape.at([away(objective), w, v])
    assert here.value == math.inf
    assert here.terms == {}
    assert not math.isfinite(
        landscape.at([torch.full_like(objective.coordinates.origin, math.nan), w, v]).value
    )
    assert math.isfinite(landscape.at([objective.coordinates.zero(), w, v]).value)


@pytest.mark.parametrize(("tolerance", "accuracy"), [(1e-6, 2e-4), (None, 5e-2)], ids=["tight", "default"])
def test_single_precision_agrees(
    objective: TransformedLoss, monkeypatch: pytest.MonkeyPatch, tolerance: float | None, accuracy: float
) -> None:
    """J is compared where its data do not vanish: it jumps at kinks. One cell whose density changes sign is 2 %."""
    if tolerance is not None:
        monkeypatch.setitem(SOLVER_TOLERANCE, torch.float32, tolerance)
    x = random_point(objective)
    rounded = [x[0], x[1].float(), x[2].float()]
    d = data_of(objective, x)
    single = LossLandscape(TransformedLoss(objective.loss, objective.coordinates)).at(rounded)
    exact = LossLandscape(objective).at(x)
    assert single.value == pytest.approx(exact.value, rel=0.1 * accuracy)
    pairs = [
        *zip(exact.gradient(), single.gradient(), strict=True),
        *zip(exact.pull(d), single.pull(d), strict=True),
    ]
    for k, (a, b) in enumerate(pairs):
        assert b.dtype == (DOUBLE if k % 3 == 0 else torch.float32)
        assert float((a - b).norm()) <= accuracy * float(a.norm()), k
    pushed = single.push(rounded)
    assert dot([pushed], [d]) == pytest.approx(dot([exact.push(x)], [d]), rel=accuracy)
    assert dot([pushed], [d]) == pytest.approx(dot(rounded, single.pull(d)), rel=1e-5)
