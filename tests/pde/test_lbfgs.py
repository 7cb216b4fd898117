"""L-BFGS: quadratics, Rosenbrock, walls, mixed precision, and a status that tells the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from gliodil.pde.odil.lbfgs import LBFGSOptions, _Pairs, lbfgs
from gliodil.pde.odil.problem import Point, Recorder, add_scaled, dot

Evaluate = Callable[[Point], tuple[float, Point]]


class Here:
    """A loss at one point; refuses what an optimizer must not ask."""

    def __init__(self, evaluate: Evaluate, x: Point) -> None:
        self.x, self.kept = x, [t.clone() for t in x]
        self.value, self._gradient = evaluate(x)
        self.terms = {"only": self.value}

    def gradient(self) -> Point:
        assert math.isfinite(self.value), "asked for a gradient where there is none"
        assert all(torch.equal(a, b) for a, b in zip(self.x, self.kept, strict=True)), "the point was changed"
        return self._gradient


class Valley:
    """A landscape from a function that returns value and gradient; remembers every value."""

    def __init__(self, evaluate: Evaluate) -> None:
        self.evaluate = evaluate
        self.values: list[float] = []

    def at(self, x: Point) -> Here:
        here = Here(self.evaluate, x)
        self.values.append(here.value)
        return here


def of(loss: Callable[..., torch.Tensor]) -> Evaluate:
    def evaluate(x: Point) -> tuple[float, Point]:
        leaves = [t.detach().requires_grad_() for t in x]
        value = loss(*leaves)
        return value.item(), list(torch.autograd.grad(value, leaves))

    return evaluate


def valley(loss: Callable[..., torch.Tensor]) -> Valley:
    return Valley(of(loss))


def rosenbrock(x: torch.Tensor) -> torch.Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def spd(n: int, condition: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator))
    return q @ torch.diag(torch.logspace(0, math.log10(condition), n, dtype=torch.float64)) @ q.T


@pytest.mark.parametrize(("n", "condition"), [(3, 10.0), (6, 100.0), (8, 1000.0)])
def test_quadratic_with_full_memory(n: int, condition: float) -> None:
    """With n ≤ memory a quadratic takes a few times n gradients, whatever its condition number."""
    h = spd(n, condition)
    best = torch.arange(1, n + 1, dtype=torch.float64)
    landscape = valley(lambda x: (x - best) @ h @ (x - best) + 1)
    start = [torch.zeros(n, dtype=torch.float64)]
    record = Recorder()
    found = lbfgs(landscape, start, LBFGSOptions(tolerance=1e-12, max_evaluations=200, memory=n), record)
    assert found.status == "converged"
    assert "would fall by less" in found.message
    torch.testing.assert_close(found.x[0], best, rtol=0, atol=1e-4)
    assert found.value == pytest.approx(1, abs=1e-10)
    assert found.evaluations == record.evaluations <= 12 * n
    assert torch.count_nonzero(start[0]) == 0


def test_hessian_2i_takes_one_step() -> None:
    """What the change of variables aims at: loss ‖x‖², curvature 2, first step exact."""
    landscape = valley(lambda x, y: x.square().sum() + y.square().sum().double() + 5)
    start = [torch.ones(4, dtype=torch.float64), torch.ones(1000)]
    record = Recorder()
    found = lbfgs(landscape, start, LBFGSOptions(max_evaluations=50), record)
    assert found.status == "converged"
    assert record.rows[1][2] == pytest.approx(5, abs=1e-9)
    assert found.x[0].dtype == torch.float64
    assert found.x[1].dtype == torch.float32


@pytest.mark.parametrize("n", [2, 10])
def test_rosenbrock(n: int) -> None:
    x0 = torch.full((n,), -1.2, dtype=torch.float64)
    options = LBFGSOptions(tolerance=1e-9, max_evaluations=1000, memory=8)
    found = lbfgs(valley(lambda x: rosenbrock(x) + 1), [x0], options, Recorder())
    assert found.status == "converged"
    torch.testing.assert_close(found.x[0], torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-3)


def test_mixed_precision_and_shapes() -> None:
    """Scalars in float64 beside a field in float32, coupled."""
    target = torch.linspace(0, 1, 60).reshape(5, 12)

    def loss(p: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        return (
            (field.double() - p[0] * target.double()).square().sum()
            + (p[0] - 3).square()
            + 2 * p[1].square()
            + 1
        )

    found = lbfgs(
        valley(loss),
        [torch.tensor([0.0, 1.0], dtype=torch.float64), torch.zeros(5, 12)],
        LBFGSOptions(tolerance=1e-9, max_evaluations=200),
        Recorder(),
    )
    assert found.status == "converged"
    assert [t.dtype for t in found.x] == [torch.float64, torch.float32]
    assert found.x[1].shape == (5, 12)
    torch.testing.assert_close(found.x[0], torch.tensor([3.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.x[1], 3 * target, rtol=0, atol=2e-3)


@pytest.mark.parametrize("wall", [math.inf, math.nan, -math.inf])
def test_inadmissible_trial_points_are_survived(wall: float) -> None:
    """The minimum of −log x + x lies close to a region where the loss says inf and gives no gradient."""

    inside = of(lambda z: (z - z.log()).sum() + 1)

    def evaluate(x: Point) -> tuple[float, Point]:
        return (wall, []) if float(x[0][0]) <= 0 else inside(x)

    x0 = [torch.tensor([0.01], dtype=torch.float64)]
    options = LBFGSOptions(tolerance=1e-10, max_evaluations=200, curvature=1e-4)
    landscape = Valley(evaluate)
    found = lbfgs(landscape, x0, options, Recorder())
    assert wall in landscape.values or any(map(math.isnan, landscape.values))
    assert found.status == "converged"
    assert float(found.x[0][0]) == pytest.approx(1, abs=1e-3)


def test_iteration_limit_is_reported_and_kept() -> None:
    x0 = [torch.full((10,), -1.2, dtype=torch.float64)]
    for limit in (1, 2, 7, 20):
        record = Recorder()
        found = lbfgs(valley(rosenbrock), x0, LBFGSOptions(max_evaluations=limit), record)
        assert found.status == "iteration_limit"
        assert str(limit) in found.message
        assert found.evaluations == record.evaluations == limit
        assert found.value == pytest.approx(float(rosenbrock(found.x[0])))


def test_stalled_when_the_gradient_lies() -> None:
    """A gradient of the wrong sign: no step decreases the loss."""

    landscape = Valley(lambda x: (float(x[0] @ x[0]), [-2 * x[0]]))
    start = [torch.ones(3, dtype=torch.float64)]
    found = lbfgs(landscape, start, LBFGSOptions(max_evaluations=500), Recorder())
    assert found.status == "stalled"
    assert found.value == 3
    assert torch.equal(found.x[0], torch.ones(3, dtype=torch.float64))
    assert "decreases" in found.message


def test_diverged_at_the_start() -> None:
    for value in (math.nan, math.inf):
        record = Recorder()
        found = lbfgs(Valley(lambda x, v=value: (v, [])), [torch.ones(2)], LBFGSOptions(), record)
        assert found.status == "diverged"
        assert "finite" in found.message
        assert found.evaluations == record.evaluations == 1
        assert torch.equal(found.x[0], torch.ones(2))
        assert record.rows == []


def test_a_stationary_start_has_converged() -> None:
    found = lbfgs(valley(lambda x: x @ x), [torch.zeros(3, dtype=torch.float64)], LBFGSOptions(), Recorder())
    assert found.status == "converged"
    assert found.evaluations == 1


def test_loss_never_rises_and_evaluations_are_counted_over_stages() -> None:
    seen: list[tuple[str, int, float]] = []
    record = Recorder(progress=lambda *entry: seen.append(entry))
    record.stage = "first"
    landscape = valley(lambda x: rosenbrock(x) + 1)
    x0 = [torch.zeros(4, dtype=torch.float64)]
    first = lbfgs(landscape, x0, LBFGSOptions(max_evaluations=10), record)
    record.stage = "second"
    second = lbfgs(landscape, first.x, LBFGSOptions(max_evaluations=200), record)
    assert len(landscape.values) == record.evaluations == first.evaluations + second.evaluations
    values = [row[2] for row in record.rows]
    assert all(b <= a for a, b in itertools.pairwise(values))
    assert [row[0] for row in record.rows] == sorted(row[0] for row in record.rows)
    assert [(row[3], row[0], row[2]) for row in record.rows] == seen
    assert {row[3] for row in record.rows} == {"first", "second"}
    assert second.terms["only"] == second.value


def test_returns_the_best_point_and_its_terms_wherever_it_is_stopped() -> None:
    """Also in the middle of a line search, whose trial point shares its memory with points seen earlier."""
    x0 = [torch.tensor([-1.2, 1.0, 0.7], dtype=torch.float64)]
    refused = 0
    for limit in range(1, 60):
        landscape = valley(lambda x: rosenbrock(x) + 1)
        found = lbfgs(landscape, x0, LBFGSOptions(tolerance=1e-14, max_evaluations=limit), Recorder())
        assert found.value == min(landscape.values)
        assert found.value == landscape.at(found.x).value == found.terms["only"]
        assert found.x[0].data_ptr() != x0[0].data_ptr()
        refused += landscape.values[-2] != found.value
    assert refused > 3  # some runs did end on a point that was refused


def test_a_step_must_keep_a_fraction_of_its_promise() -> None:
    """Armijo: a first step that lands level with its start, across the valley, is not taken."""
    landscape = valley(lambda x: 1 + x.square().sum())
    start = [torch.ones(2, dtype=torch.float64)]
    record = Recorder()
    lbfgs(landscape, start, LBFGSOptions(curvature=1.0, max_evaluations=3), record)
    assert landscape.values[1] == landscape.values[0] == 3  # the step −g leads to −x
    assert [row[2] for row in record.rows] == [
        3,
        pytest.approx(1),
    ]  # the parabola through it finds the bottom


def test_max_step_holds_the_first_tensor_back() -> None:
    seen: list[float] = []
    loss = of(lambda z: (z - 100).square().sum() + 1)

    def evaluate(x: Point) -> tuple[float, Point]:
        seen.append(float(x[0]))
        return loss(x)

    lbfgs(
        Valley(evaluate),
        [torch.zeros(1, dtype=torch.float64)],
        LBFGSOptions(max_step=2.0, max_evaluations=30),
        Recorder(),
    )
    moves = [abs(b - a) for a, b in itertools.pairwise(seen)]
    assert max(moves) <= 2 + 1e-12
    assert moves[0] == pytest.approx(2)


def test_memory_wraps_around() -> None:
    """More iterations than memory: the ring of pairs must drop the oldest."""
    h = spd(40, 300.0)
    found = lbfgs(
        valley(lambda x: x @ h @ x + 1),
        [torch.ones(40, dtype=torch.float64)],
        LBFGSOptions(tolerance=1e-10, max_evaluations=600, memory=3),
        Recorder(),
    )
    assert found.status == "converged"
    assert found.value == pytest.approx(1, abs=1e-7)


def two_loops(pairs: list[tuple[Point, Point]], g: Point, curvature: float) -> Point:
    """−H g by the recursion of the textbook, on the vectors themselves."""
    if not pairs:
        return [-t / curvature for t in g]
    q, alphas = [t.double() for t in g], []
    for s, y in reversed(pairs):
        alphas.append(dot(s, q) / dot(s, y))
        q = add_scaled(q, y, -alphas[-1])
    s, y = pairs[-1]
    q = [t * (dot(s, y) / dot(y, y)) for t in q]
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        q = add_scaled(q, s, alpha - dot(y, q) / dot(s, y))
    return [-t for t in q]


@pytest.mark.parametrize("memory", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 7), (torch.float32, 7), (torch.float32, 70000)])
def test_direction_is_that_of_the_textbook(memory: int, dtype: torch.dtype, size: int) -> None:
    """Before, while and after the ring of pairs fills; pairs without positive curvature are left out."""
    generator = torch.Generator().manual_seed(memory)
    h = spd(3, 30.0)
    of_field = torch.linspace(0.5, 4, size, dtype=torch.float64)

    def point() -> Point:
        a = torch.randn(3, dtype=torch.float64, generator=generator)
        return [a, torch.randn(size, dtype=torch.float64, generator=generator).to(dtype)]

    x = point()
    g = [h @ x[0], (of_field * x[1]).to(dtype)]
    stored, kept = _Pairs(x, memory), list[tuple[Point, Point]]()
    stored.start(g)
    accuracy = 1e-11 if dtype == torch.float64 else 3e-5
    for k in range(3 * memory + 5):
        d, slope = stored.direction(g, 3.0)
        expected = two_loops(kept, g, 3.0)
        for a, b in zip(d, expected, strict=True):
            assert float((a - b).norm()) <= accuracy * float(b.norm())
        assert [t.dtype for t in d] == [torch.float64, dtype]
        assert slope == pytest.approx(dot(g, d), rel=accuracy)
        assert slope < 0
        there, bent = point(), k in (3, memory + 3)  # bent: the gradient falls along the step
        s = add_scaled(there, x, -1.0)
        rise = [h @ s[0], (of_field * s[1]).to(dtype)]
        g_there = add_scaled(g, rise, -1.0 if bent else 1.0)
        stored.append_difference(there, x, g_there, g)
        pair = s, add_scaled(g_there, g, -1.0)
        assert (dot(*pair) < 0) == bent
        kept = (kept if bent else [*kept, pair])[-memory:]
        if bent:  # it took the place of the oldest
            kept = kept[max(0, len(kept) - memory + 1) :]
        assert len(stored) == len(kept)
        x, g = there, g_there
    stored.clear()
    d, slope = stored.direction(g, 3.0)
    torch.testing.assert_close(d, [-t / 3 for t in g])
    assert slope == pytest.approx(-dot(g, g) / 3, rel=1e-6)


def test_inner_products_are_accumulated_in_double_precision() -> None:
    """Entries whose squares float32 holds exactly, but not the sum of even a few of them."""
    entry = 1 + 2.0**-11
    x = [torch.full((100_001,), entry), torch.tensor([[2.0]], dtype=torch.float64)]
    assert dot(x, x) == 100_001 * entry**2 + 4


def test_scaled_sums_keep_their_precision_and_go_where_they_are_told() -> None:
    x = [torch.full((2, 3), 0.1), torch.tensor([2.0], dtype=torch.float64)]
    moved = add_scaled(x, x, -1.0)
    assert all(torch.count_nonzero(t) == 0 for t in moved)
    assert [t.dtype for t in moved] == [torch.float32, torch.float64]
    out = [torch.empty_like(t) for t in x]
    returned = add_scaled(x, x, 0.5, out=out)
    assert [t.data_ptr() for t in returned] == [t.data_ptr() for t in out]
    torch.testing.assert_close(out, [1.5 * t for t in x])
