"""Adam on a discrete loss: reaches a convex optimum, counts, and says what it does not know."""

from __future__ import annotations

import math

import pytest
import torch

from gliodil.pde.odil.adam import adam
from gliodil.pde.odil.problem import Evaluation, Point, Recorder


def bowl(x: Point) -> Evaluation:
    a, b = x
    value = float((a - 1).square().sum() + 3 * (b + 2).square().sum())
    return Evaluation(value, [2 * (a - 1), 6 * (b + 2)], {"bowl": value})


def test_reaches_the_optimum_of_a_convex_loss() -> None:
    record = Recorder(stage="adam")
    start = [torch.zeros(5, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64)]
    found = adam(bowl, start, epochs=600, learning_rate=0.05, record=record)
    assert found.value < 1e-6
    torch.testing.assert_close(found.x[0], torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.x[1], torch.full((2, 3), -2.0, dtype=torch.float64), rtol=0, atol=1e-3)
    assert torch.count_nonzero(start[0]) == 0
    assert found.value == bowl(found.x).value
    assert found.terms["bowl"] == found.value


def test_no_convergence_is_claimed_and_evaluations_are_counted() -> None:
    record = Recorder(stage="adam")
    found = adam(bowl, [torch.zeros(5), torch.zeros(2, 3)], epochs=7, record=record)
    assert found.status == "iteration_limit"
    assert "7 epochs" in found.message
    assert found.evaluations == record.evaluations == 8  # the last one only tells the loss
    assert len(record.rows) == 8
    assert {row[3] for row in record.rows} == {"adam"}


def test_first_step_is_the_learning_rate() -> None:
    found = adam(bowl, [torch.zeros(5), torch.zeros(2, 3)], epochs=1, learning_rate=1e-3, record=Recorder())
    torch.testing.assert_close(found.x[0], torch.full((5,), 1e-3))
    torch.testing.assert_close(found.x[1], torch.full((2, 3), -1e-3))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_diverged_is_reported(bad: float) -> None:
    def cliff(x: Point) -> Evaluation:
        value = bad if float(x[0][0]) > 0.025 else -float(x[0][0])
        return Evaluation(value, [-torch.ones(1)], {})

    found = adam(cliff, [torch.zeros(1)], epochs=50, learning_rate=0.01, record=Recorder())
    assert found.status == "diverged"
    assert "finite" in found.message
    assert found.evaluations == 4


def test_diverged_is_reported_when_it_happens_in_the_last_epoch() -> None:
    def cliff(x: Point) -> Evaluation:
        value = math.nan if float(x[0][0]) > 0.025 else -float(x[0][0])
        return Evaluation(value, [-torch.ones(1)], {})

    found = adam(cliff, [torch.zeros(1)], epochs=3, learning_rate=0.01, record=Recorder())
    assert found.status == "diverged"
