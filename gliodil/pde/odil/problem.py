"""What an optimizer needs of a discrete loss, and what it returns.

A point is a list of tensors: scalars in float64 beside large fields in float32 keep their own precision.
Inner products are accumulated in float64, in chunks, because a sum over 10⁷ float32 entries loses digits
exactly where a line search compares nearly equal numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

Point = list[torch.Tensor]
Status = Literal["converged", "iteration_limit", "stalled", "diverged"]
_CHUNK = 1 << 14


class Evaluation(NamedTuple):
    """Loss at a point (inf where the point is inadmissible), its gradient, and its terms for the record."""

    value: float
    gradient: Point
    terms: Mapping[str, float]


Objective = Callable[[Point], Evaluation]


@dataclass
class Recorder:
    """Counts gradient evaluations and keeps the loss curve; calls ``progress`` after each entry."""

    progress: Callable[[str, int, float], None] | None = None
    stage: str = ""
    evaluations: int = 0
    started: float = field(default_factory=time.perf_counter)
    rows: list[tuple[int, float, float, str]] = field(default_factory=list)

    def __call__(self, value: float) -> None:
        """Record one accepted point."""
        self.rows.append((self.evaluations, time.perf_counter() - self.started, value, self.stage))
        if self.progress is not None:
            self.progress(self.stage, self.evaluations, value)

    def count(self, objective: Objective) -> Objective:
        """Return the objective with its evaluations counted."""

        def counted(x: Point) -> Evaluation:
            self.evaluations += 1
            return objective(x)

        return counted


@dataclass(frozen=True)
class Minimum:
    """Where an optimizer stopped and why.

    Attributes
    ----------
    x
        The best point found.
    value, terms
        Loss there.
    status
        ``converged`` (the predicted further decrease is below the tolerance), ``iteration_limit``,
        ``stalled`` (no step decreases the loss) or ``diverged`` (the loss is not finite).
    message
        The same in words.
    """

    x: Point
    value: float
    terms: Mapping[str, float]
    status: Status
    message: str
    evaluations: int


def dot(a: Point, b: Point) -> float:
    """Return the inner product, accumulated in float64."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        flat_x, flat_y = x.reshape(-1), y.reshape(-1)
        parts = [
            torch.dot(p, q)
            for p, q in zip(torch.split(flat_x, _CHUNK), torch.split(flat_y, _CHUNK), strict=True)
        ]
        total += float(torch.stack(parts).double().sum())
    return total


def norm(a: Point) -> float:
    """Return the Euclidean norm."""
    return math.sqrt(dot(a, a))


def add_scaled(a: Point, b: Point, scale: float) -> Point:
    """Return a + scale·b."""
    return [torch.add(x, y, alpha=scale) for x, y in zip(a, b, strict=True)]
