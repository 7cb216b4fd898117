"""L-BFGS: quadratics, Rosenbrock, walls, mixed precision, and a status that tells the truth."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch

from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Evaluation, Objective, Point, Recorder, add_scaled, dot, norm


def objective_of(loss: Callable[..., torch.Tensor]) -> Objective:
    def evaluate(x: Point) -> Evaluation:
        leaves = [t.detach().requires_grad_() for t in x]
        value = loss(*leaves)
        return Evaluation(value.item(), list(torch.autograd.grad(value, leaves)), {"only": value.item()})

    return evaluate


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
    objective = objective_of(lambda x: (x - best) @ h @ (x - best) + 1)
    start = [torch.zeros(n, dtype=torch.float64)]
    record = Recorder()
    found = lbfgs(objective, start, LBFGSOptions(tolerance=1e-12, max_evaluations=200, memory=n), record)
    assert found.status == "converged"
    assert "onverged" in found.message
    torch.testing.assert_close(found.x[0], best, rtol=0, atol=1e-4)
    assert found.value == pytest.approx(1, abs=1e-10)
    assert found.evaluations == record.evaluations <= 12 * n
    assert torch.count_nonzero(start[0]) == 0


def test_hessian_2i_takes_one_step() -> None:
    """What the change of variables aims at: loss ‖x‖², curvature 2, first step exact."""
    objective = objective_of(lambda x, y: x.square().sum() + y.square().sum().double() + 5)
    start = [torch.ones(4, dtype=torch.float64), torch.ones(1000)]
    record = Recorder()
    found = lbfgs(objective, start, LBFGSOptions(max_evaluations=50), record)
    assert found.status == "converged"
    assert record.rows[1][2] == pytest.approx(5, abs=1e-9)
    assert found.x[0].dtype == torch.float64
    assert found.x[1].dtype == torch.float32


@pytest.mark.parametrize("n", [2, 10])
def test_rosenbrock(n: int) -> None:
    x0 = torch.full((n,), -1.2, dtype=torch.float64)
    options = LBFGSOptions(tolerance=1e-9, max_evaluations=1000, memory=8)
    found = lbfgs(objective_of(lambda x: rosenbrock(x) + 1), [x0], options, Recorder())
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
        objective_of(loss),
        [torch.tensor([0.0, 1.0], dtype=torch.float64), torch.zeros(5, 12)],
        LBFGSOptions(tolerance=1e-9, max_evaluations=200),
        Recorder(),
    )
    assert found.status == "converged"
    assert [t.dtype for t in found.x] == [torch.float64, torch.float32]
    assert found.x[1].shape == (5, 12)
    torch.testing.assert_close(found.x[0], torch.tensor([3.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.x[1], 3 * target, rtol=0, atol=2e-3)


@pytest.mark.parametrize("wall", [math.inf, math.nan])
def test_inadmissible_trial_points_are_survived(wall: float) -> None:
    """The minimum of −log x + x lies close to a region where the loss says inf and gives no gradient."""

    def evaluate(x: Point) -> Evaluation:
        if float(x[0][0]) <= 0:
            return Evaluation(wall, [], {})
        return objective_of(lambda z: (z - z.log()).sum() + 1)(x)

    x0 = [torch.tensor([0.01], dtype=torch.float64)]
    options = LBFGSOptions(tolerance=1e-10, max_evaluations=200, curvature=1e-4)
    found = lbfgs(evaluate, x0, options, Recorder())
    assert found.status == "converged"
    assert float(found.x[0][0]) == pytest.approx(1, abs=1e-3)


def test_iteration_limit_is_reported_and_kept() -> None:
    x0 = [torch.full((10,), -1.2, dtype=torch.float64)]
    for limit in (1, 2, 7, 20):
        record = Recorder()
        found = lbfgs(objective_of(rosenbrock), x0, LBFGSOptions(max_evaluations=limit), record)
        assert found.status == "iteration_limit"
        assert str(limit) in found.message
        assert found.evaluations == record.evaluations == limit
        assert found.value == pytest.approx(float(rosenbrock(found.x[0])))


def test_stalled_when_the_gradient_lies() -> None:
    """A gradient of the wrong sign: no step decreases the loss."""

    def evaluate(x: Point) -> Evaluation:
        return Evaluation(float(x[0] @ x[0]), [-2 * x[0]], {})

    found = lbfgs(
        evaluate, [torch.ones(3, dtype=torch.float64)], LBFGSOptions(max_evaluations=500), Recorder()
    )
    assert found.status == "stalled"
    assert found.value == 3
    assert torch.equal(found.x[0], torch.ones(3, dtype=torch.float64))
    assert "decreases" in found.message


def test_diverged_at_the_start() -> None:
    found = lbfgs(lambda x: Evaluation(math.nan, [], {}), [torch.zeros(2)], LBFGSOptions(), Recorder())
    assert found.status == "diverged"
    assert "finite" in found.message
    assert found.evaluations == 1


def test_a_stationary_start_has_converged() -> None:
    found = lbfgs(
        objective_of(lambda x: x @ x), [torch.zeros(3, dtype=torch.float64)], LBFGSOptions(), Recorder()
    )
    assert found.status == "converged"
    assert found.evaluations == 1


def test_loss_never_rises_and_evaluations_are_counted_over_stages() -> None:
    seen: list[tuple[str, int, float]] = []
    record = Recorder(progress=lambda *entry: seen.append(entry))
    record.stage = "first"
    objective = objective_of(lambda x: rosenbrock(x) + 1)
    calls = [0]

    def counted(x: Point) -> Evaluation:
        calls[0] += 1
        return objective(x)

    first = lbfgs(counted, [torch.zeros(4, dtype=torch.float64)], LBFGSOptions(max_evaluations=10), record)
    record.stage = "second"
    second = lbfgs(counted, first.x, LBFGSOptions(max_evaluations=200), record)
    assert calls[0] == record.evaluations == first.evaluations + second.evaluations
    values = [row[2] for row in record.rows]
    assert all(b <= a for a, b in itertools.pairwise(values))
    assert [row[0] for row in record.rows] == sorted(row[0] for row in record.rows)
    assert [(row[3], row[0], row[2]) for row in record.rows] == seen
    assert {row[3] for row in record.rows} == {"first", "second"}
    assert second.terms["only"] == second.value


def test_max_step_holds_the_first_tensor_back() -> None:
    seen: list[float] = []

    def evaluate(x: Point) -> Evaluation:
        seen.append(float(x[0]))
        return objective_of(lambda z: (z - 100).square().sum() + 1)(x)

    lbfgs(
        evaluate,
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
        objective_of(lambda x: x @ h @ x + 1),
        [torch.ones(40, dtype=torch.float64)],
        LBFGSOptions(tolerance=1e-10, max_evaluations=600, memory=3),
        Recorder(),
    )
    assert found.status == "converged"
    assert found.value == pytest.approx(1, abs=1e-7)


def test_inner_products_are_accumulated_in_double_precision() -> None:
    """3·2²⁰ equal entries: a float32 running sum would be off by far more."""
    x = [torch.full((3 << 20,), 0.1), torch.tensor([2.0], dtype=torch.float64)]
    exact = (3 << 20) * float(x[0][0].double()) ** 2 + 4
    assert dot(x, x) == pytest.approx(exact, rel=1e-6)
    assert norm(x) == pytest.approx(math.sqrt(exact), rel=1e-6)
    moved = add_scaled(x, x, -1.0)
    assert all(torch.count_nonzero(t) == 0 for t in moved)
    assert [t.dtype for t in moved] == [torch.float32, torch.float64]
