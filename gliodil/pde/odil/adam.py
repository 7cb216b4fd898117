"""Adam on a discrete loss: the optimizer of the public ODIL codes (torch.optim.Adam does the work)."""

from __future__ import annotations

import math

import torch

from gliodil.pde.odil.problem import Minimum, Objective, Point, Recorder
from gliodil.pde.resume import State, adam_state, restore_adam


def adam(
    objective: Objective, x0: Point, *, epochs: int, learning_rate: float = 1e-3, record: Recorder
) -> Minimum:
    """Run a fixed number of epochs from x0 and return the last point.

    The scheme has no convergence test, so the status is ``iteration_limit`` unless the loss stops being finite.
    """
    kept = record.begin(record.stage)
    if kept is not None and "minimum" in kept:
        return Minimum(**kept["minimum"])
    objective = record.count(objective)
    x = [t.detach().clone() for t in x0] if kept is None else kept["x"]
    optimizer = torch.optim.Adam(x, lr=learning_rate, fused=True)
    done = 0
    if kept is not None:
        done = kept["done"]
        restore_adam(optimizer, kept["adam"])

    def state() -> State:
        return {"x": x, "adam": adam_state(optimizer), "done": done}

    while done < epochs:
        record.keep(state)
        value, gradient, terms = objective(x)
        record(value)
        if not math.isfinite(value):
            message = "The loss stopped being finite."
            return record.ended(Minimum(x, value, terms, "diverged", message, record.evaluations))
        for t, g in zip(x, gradient, strict=True):
            t.grad = g
        optimizer.step()
        done += 1
    value, _, terms = objective(x)
    record(value)
    if not math.isfinite(value):
        message = "The loss stopped being finite."
        return record.ended(Minimum(x, value, terms, "diverged", message, record.evaluations))
    message = f"Ran {epochs} epochs of Adam, which has no convergence test."
    return record.ended(Minimum(x, value, terms, "iteration_limit", message, record.evaluations))
