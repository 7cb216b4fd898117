"""How long the next step is: a PI controller on the scaled error, and the length of the first step.

    q = E^β₁ / E_old^β₂,   accepted (E ≤ 1):  h ← h / clip(q/γ, 1/q_max, 1/q_min),  E_old ← max(E, 10⁻⁴)
                           rejected:          h ← h / min(1/q_min, E^β₁/γ)

Everything here is a Python float: no step length ever carries a gradient. Defaults are those of OrdinaryDiffEq.jl,
with which the published experiments ran; with them E settles at γ^(1/(β₁−β₂)), 0.17 for Tsit5. The first step is
Hairer, Nørsett and Wanner, Solving ODEs I, II.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gliodil.pde.ode.tableaus import Tableau

SMALLEST_REMEMBERED_ERROR = 1e-4


@dataclass(frozen=True)
class PIController:
    """Exponents and limits of the controller; see the module.

    Attributes
    ----------
    beta1, beta2
        Exponents of the present and of the last error.
    safety
        γ, below one.
    largest_cut, largest_growth
        q_min and q_max: a step shrinks at most to q_min h and grows at most to q_max h.
    """

    beta1: float
    beta2: float
    safety: float = 0.9
    largest_cut: float = 0.2
    largest_growth: float = 10.0

    @classmethod
    def of(cls, tableau: Tableau) -> PIController:
        """Return the default controller of a pair."""
        return cls(tableau.beta1, tableau.beta2)

    def accepted(self, h: float, error: float, last_error: float) -> tuple[float, float]:
        """Return the next step and the error to remember, after a step that was accepted."""
        q = error**self.beta1 / last_error**self.beta2 / self.safety
        q = min(max(q, 1 / self.largest_growth), 1 / self.largest_cut)
        return h / q, max(error, SMALLEST_REMEMBERED_ERROR)

    def rejected(self, h: float, error: float) -> float:
        """Return the step to try instead; an error that is not finite cuts as deep as allowed."""
        if not math.isfinite(error):
            return h * self.largest_cut
        q = float(error**self.beta1) / self.safety
        return h / min(1 / self.largest_cut, q)


def first_step(state: float, rate: float, change: float, trial: float, order: int) -> float:
    """Return |h₁| from scaled norms of z, of f, and of the change of f over a trial Euler step, divided by it."""
    steepest = max(rate, change)
    if not math.isfinite(steepest) or not math.isfinite(state):
        return trial
    h = max(1e-6, trial * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1 / order)
    return min(100 * trial, h)


def trial_step(state: float, rate: float) -> float:
    """Return the length of the Euler step with which `first_step` looks ahead."""
    if not (math.isfinite(state) and math.isfinite(rate)) or state < 1e-5 or rate < 1e-5:
        return 1e-6
    return 0.01 * state / rate
