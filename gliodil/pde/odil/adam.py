"""Adam on a discrete loss: the optimizer of the public ODIL codes (torch.optim.Adam does the work)."""

from __future__ import annotations

import math

import torch

from gliodil.pde.odil.problem import Minimum, Objective, Point, Recorder


def adam(
    objective: Objective, x0: Point, *, epochs: int, learning_rate: float = 1e-3, record: Recorder
) -> Minimum:
    """Run a fixed number of epochs from x0 and return the last point.

    The scheme has no convergence test, so the status is ``iteration_limit`` unless the loss stops being finite.
    """
    objective = record.count(objective)
    x = [t.detach().clone() for t in x0]
    optimizer = torch.optim.Adam(x, lr=learning_rate)
    for _ in range(epochs):
        value, gradient, terms = objective(x)
        record(value)
        if not math.isfinite(value):
            return Minimum(x, value, terms, "diverged", "The loss stopped being finite.", record.evaluations)
        for t, g in zip(x, gradient, strict=True):
            t.grad = g
        optimizer.step()
    value, _, terms = objective(x)
    record(value)
    if not math.isfinite(value):
        return Minimum(x, value, terms, "diverged", "The loss stopped being finite.", record.evaluations)
    message = f"Ran {epochs} epochs of Adam, which has no convergence test."
    return Minimum(x, value, terms, "iteration_limit", message, record.evaluations)
