"""What a solve of a stochastic equation returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from gliodil.errors import InputError, NumericsError
from gliodil.pde.sde.brownian import Increment

Status = Literal["done", "step_limit", "stiff", "diverged"]


@dataclass(frozen=True, eq=False)
class FrozenPath:
    """Steps and noise of a solution, to be walked again: ``increments`` in order from the first time on."""

    increments: tuple[Increment, ...]


@dataclass(frozen=True, eq=False)
class Solution:
    """States at the times asked for, and what the solver learned on the way.

    Attributes
    ----------
    times
        The times asked for.
    states
        u there, shape (len(times), *u0.shape); differentiable. Rows of times that were not reached are NaN.
    reached
        How many of the times were reached: all of them where the status is ``done``.
    status, message
        ``done``; ``step_limit``; ``stiff`` (steps fell below what time resolves while everything was finite) or
        ``diverged`` (the state or a right-hand side was not finite). The message says what to do.
    steps
        h_j of the accepted steps, in their order: constants of every gradient.
    accepted, rejected
        Numbers of steps.
    drift_evaluations, diffusion_evaluations
        Calls of f and of g; rejected steps and the guess of the first step included.
    method
        Name of the method.
    order
        Its strong order.
    stability
        Extent of the drift's stability region along the negative real axis; NaN where it is not known.
    """

    times: tuple[float, ...]
    states: torch.Tensor
    reached: int
    status: Status
    message: str
    steps: tuple[float, ...]
    accepted: int
    rejected: int
    drift_evaluations: int
    diffusion_evaluations: int
    method: str
    order: float
    stability: float
    recorded_errors: torch.Tensor | None = field(default=None, repr=False)
    recorded_stiffness: torch.Tensor | None = field(default=None, repr=False)
    recorded_noise: FrozenPath | None = field(default=None, repr=False)

    @property
    def errors(self) -> torch.Tensor:
        """E_j of the accepted steps, shape (accepted,); differentiable. Needs ``record=("error",)``."""
        if self.recorded_errors is None:
            raise _missing("error")
        return self.recorded_errors

    @property
    def stiffness(self) -> torch.Tensor:
        """S_j of the accepted steps, shape (accepted,); differentiable. Needs ``record=("stiffness",)``."""
        if self.recorded_stiffness is None:
            raise _missing("stiffness")
        return self.recorded_stiffness

    @property
    def path(self) -> FrozenPath:
        """Steps and noise of this solution, for ``solve_sde(..., frozen=...)``. Needs ``record=("noise",)``."""
        if self.recorded_noise is None:
            raise _missing("noise")
        return self.recorded_noise

    def raise_for_status(self) -> Solution:
        """Return self, or raise `NumericsError` where the last time was not reached."""
        if self.status != "done":
            raise NumericsError(
                "A stochastic differential equation was not solved to its end.",
                expected="done",
                found=self.status,
                remedy=self.message,
            )
        return self


def _missing(name: str) -> InputError:
    return InputError(
        f"This solution did not record {name}.", remedy=f'solve_sde(..., record=("{name}",)) keeps it'
    )
