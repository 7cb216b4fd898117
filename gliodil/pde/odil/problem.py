"""What an optimizer needs of a discrete loss, and what it returns.

A point is a list of tensors: scalars in float64 beside large fields in float32 keep their own precision.
Inner products are accumulated in float64, in chunks, because a sum over 10⁷ float32 entries loses digits
exactly where a line search compares nearly equal numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch

from gliodil.pde.resume import Keeper, State

Point = list[torch.Tensor]
Status = Literal["converged", "iteration_limit", "stalled", "diverged"]
_CHUNK = 1 << 14


class Evaluation(NamedTuple):
    """Loss at a point (inf where the point is inadmissible), its gradient, and its terms for the record."""

    value: float
    gradient: Point
    terms: Mapping[str, float]


Objective = Callable[[Point], Evaluation]


class Neighbourhood(Protocol):
    """A loss around one point; a gradient is only computed where it is asked for."""

    @property
    def value(self) -> float:
        """Loss; inf where the point is inadmissible, and nothing else may then be asked."""

    @property
    def terms(self) -> Mapping[str, float]:
        """Its terms."""

    def gradient(self) -> Point:
        """Return ∂L/∂x."""


class Landscape(Protocol):
    """A loss as a function of the point."""

    def at(self, x: Point) -> Neighbourhood:
        """Evaluate at x, which must not be changed as long as the result is in use."""


@dataclass
class Recorder:
    """Counts gradient evaluations and keeps the loss curve; calls ``progress`` after each entry.

    It is the ``Keeper`` of the loops it is given to: what it has recorded is kept and restored with their states.
    """

    progress: Callable[[str, int, float], None] | None = None
    stage: str = ""
    evaluations: int = 0
    started: float = field(default_factory=time.perf_counter)
    rows: list[tuple[int, float, float, str]] = field(default_factory=list)
    keeper: Keeper | None = None

    def __call__(self, value: float) -> None:
        """Record one accepted point."""
        self.rows.append((self.evaluations, time.perf_counter() - self.started, value, self.stage))
        if self.progress is not None:
            self.progress(self.stage, self.evaluations, value)

    def begin(self, loop: str) -> State | None:
        """Return what is known of the loop that begins now; None: nothing."""
        state = None if self.keeper is None else self.keeper.begin(loop)
        if state is not None:
            own = state["record"]
            self.evaluations = own["evaluations"]
            self.rows = [(n, seconds, value, stage) for n, seconds, value, stage in own["rows"]]
            self.started = time.perf_counter() - own["seconds"]
        return state

    def keep(self, state: Callable[[], State]) -> None:
        """Have the loop's state kept if it is time to."""
        if self.keeper is not None:
            self.keeper.keep(lambda: {**state(), "record": self._own()})

    def end(self, state: State) -> None:
        """Have it kept how the loop ended."""
        if self.keeper is not None:
            self.keeper.end({**state, "record": self._own()})

    def ended(self, found: Minimum) -> Minimum:
        """Have it kept how an optimizer ended; return that."""
        self.end({"minimum": dict(vars(found))})
        return found

    def _own(self) -> State:
        seconds = time.perf_counter() - self.started
        return {"evaluations": self.evaluations, "seconds": seconds, "rows": list(self.rows)}

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
        pieces = zip(torch.split(x.reshape(-1), _CHUNK), torch.split(y.reshape(-1), _CHUNK), strict=True)
        parts = [torch.sum(p * q, dtype=torch.float64) for p, q in pieces]
        total += float(torch.stack(parts).sum())
    return total


def add_scaled(a: Point, b: Point, scale: float, *, out: Point | None = None) -> Point:
    """Return a + scale·b, written to ``out`` if given."""
    if out is None:
        out = [torch.empty_like(x) for x in a]
    return [torch.add(x, y, alpha=scale, out=o) for x, y, o in zip(a, b, out, strict=True)]
