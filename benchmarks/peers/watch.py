"""CPU seconds of a run and the error at some of them; the time that looking takes is not the run's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

# The first step of one of torch's optimizers would import it, a second of the first run.
import torch._dynamo

from peers import Task

LOOKS = 60


class TimeIsUpError(Exception):
    """Ends a library's loop that offers no other way out."""


class Watch:
    """Started when made.

    Parameters
    ----------
    task
        The problem with its solution and the budget.
    predict
        The library's present u at points (N, d) in float64: (N,).
    """

    def __init__(self, task: Task, predict: Callable[[torch.Tensor], torch.Tensor]) -> None:
        if task.problem.exact is None:
            raise ValueError("A comparison needs an exact solution.")
        law = torch.Generator().manual_seed(task.seed + 1_000_003)
        self._x = task.problem.draw_test(20_000, generator=law, dtype=torch.float64)
        self._truth = task.problem.exact(self._x)
        self._predict, self._every = predict, task.budget_s / LOOKS
        self.history: list[list[float]] = []
        self._next, self._looked, self._begin = 0.0, 0.0, time.process_time()

    def spent(self) -> float:
        """CPU seconds so far."""
        return time.process_time() - self._begin - self._looked

    def tick(self, until: float) -> bool:
        """Look if it is time to, and return whether the time until then is spent."""
        now = self.spent()
        if now >= self._next:
            self.look()
            self._next = now + self._every
        return now >= until

    def look(self) -> None:
        """Record [CPU s, relative L2, MSE, nan]."""
        before, now = time.process_time(), self.spent()
        mse = float((self._predict(self._x).double() - self._truth).square().mean())
        self.history.append([now, math.sqrt(mse / float(self._truth.square().mean())), mse, math.nan])
        self._looked += time.process_time() - before

    def result(self, message: str, size: int) -> dict[str, Any]:
        """Look once more and return what a run reports."""
        self.look()
        status = "budget" if math.isfinite(self.history[-1][1]) else "diverged"
        return {"status": status, "message": message, "size": size, "history": self.history}
