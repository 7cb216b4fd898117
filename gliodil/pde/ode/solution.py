"""What a solve returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from gliodil.errors import InputError, NumericsError
from gliodil.pde.ode.tableaus import get_tableau

Status = Literal["done", "event", "step_limit", "stiff", "diverged"]


@dataclass(frozen=True, eq=False)
class EventHit:
    """A zero of an event function.

    Attributes
    ----------
    index
        Which event of those handed in.
    time
        When, 0-dimensional; differentiable through the implicit function theorem.
    state
        z at that time, differentiable (the motion of the time included).
    """

    index: int
    time: torch.Tensor
    state: torch.Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """States at the times asked for, and what the solver learned on the way.

    Attributes
    ----------
    times
        The times asked for.
    states
        z there, shape (len(times), *z0.shape); differentiable. Rows of times that were not reached are NaN.
    reached
        How many of the times were reached: all of them where the status is ``done``.
    status, message
        ``done``; ``event`` (a terminal event stopped it); ``step_limit``; ``stiff`` (stability, not accuracy, holds
        the steps so short that they would not end within the limit); ``diverged`` (not finite, or singular). The
        message says what happened and what to do.
    steps
        h_j of the accepted steps, in their order: constants of every gradient.
    accepted, rejected, evaluations
        Steps, and calls of f in the forward solve.
    method
        Name of the pair.
    noise_floor
        Largest E_noise seen: the part of E that is round-off (``heuristics``).
    events
        Zeros of the event functions, in their order.
    samples
        Number of samples with steps of their own; 1 where all share them.
    sample_of_step
        Per accepted step the sample it belongs to; None where all share them.
    """

    times: tuple[float, ...]
    states: torch.Tensor = field(repr=False)
    reached: int
    status: Status
    message: str
    steps: tuple[float, ...] = field(repr=False)
    accepted: int
    rejected: int
    evaluations: int
    method: str
    noise_floor: float
    recorded_errors: torch.Tensor | None = field(default=None, repr=False)
    recorded_stiffness: torch.Tensor | None = field(default=None, repr=False)
    recorded_path: tuple[torch.Tensor, ...] | None = field(default=None, repr=False)
    events: tuple[EventHit, ...] = ()
    samples: int = 1
    sample_of_step: tuple[int, ...] | None = field(default=None, repr=False)

    @property
    def errors(self) -> torch.Tensor:
        """E_j of the accepted steps, shape (accepted,), float64 also for float32 states; differentiable.

        Needs ``record=("error",)``.
        """
        return _recorded(self.recorded_errors, "error")

    @property
    def stiffness(self) -> torch.Tensor:
        """S_j of the accepted steps, shape (accepted,); differentiable. Needs ``record=("stiffness",)``."""
        return _recorded(self.recorded_stiffness, "stiffness")

    @property
    def path(self) -> tuple[torch.Tensor, ...]:
        """z_j at the start of every accepted step; differentiable. Needs ``record=("path",)``."""
        if self.recorded_path is None:
            raise _missing("path")
        return self.recorded_path

    @property
    def order(self) -> int:
        """Order p of the method."""
        return get_tableau(self.method).order

    @property
    def stability(self) -> float:
        """Length r of the method's real stability interval."""
        return get_tableau(self.method).stability

    def raise_for_status(self) -> Solution:
        """Return self, or raise `NumericsError` where the last time was not reached as asked."""
        if self.status not in ("done", "event"):
            raise NumericsError(
                "A differential equation was not solved to its end.",
                expected="done",
                found=self.status,
                remedy=self.message,
            )
        return self


def _recorded(values: torch.Tensor | None, name: str) -> torch.Tensor:
    if values is None:
        raise _missing(name)
    return values


def _missing(name: str) -> InputError:
    return InputError(
        f"This solution did not record {name}.", remedy=f'solve(..., record=("{name}",)) keeps it'
    )
