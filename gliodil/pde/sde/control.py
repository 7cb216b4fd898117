"""How long the next step is: a PI controller on the embedded error, and a guess for the first step.

After an accepted step (E ≤ 1)   h ← h / clip(E^β₁ / (E_old^β₂ γ), 1/q_max, 1/q_min),   E_old = max(E, 10⁻⁴),
after a rejected one             h ← h / min(1/q_min, E^β₁/γ).

For methods of strong order p = 3/2 the exponents are β₁ = 7/(10p) = 7/15 and β₂ = 2/(5p) = 4/15; Euler-Maruyama, whose
estimate falls like h, has those of p = 1. Steps grow slowly (q_max = 9/8): each one grown too far is rejected, and every
rejection costs a bridge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from gliodil.pde.sde.steps import Field


@dataclass
class Controller:
    """The controller's constants and the error of the last accepted step."""

    beta1: float = 7 / 15
    beta2: float = 4 / 15
    gamma: float = 0.9
    shrink: float = 0.2
    grow: float = 9 / 8
    previous: float = field(default=1e-4, init=False)

    def after_accepted(self, h: float, error: float) -> float:
        """Return the next step after one of length h with this error."""
        q: float = error**self.beta1 / self.previous**self.beta2 / self.gamma
        self.previous = max(error, 1e-4)
        return h / min(max(q, 1 / self.grow), 1 / self.shrink)

    def after_rejected(self, h: float, error: float) -> float:
        """Return a shorter step; an error that is not a number shrinks it as far as allowed."""
        if not math.isfinite(error):
            return h * self.shrink
        q: float = error**self.beta1 / self.gamma
        return h / min(1 / self.shrink, q)


def first_step(
    f: Field, g: Field, t: float, u: torch.Tensor, span: float, *, atol: float, rtol: float, order: float
) -> float:
    """Guess the first step from the size and change of f ± 3g (two evaluations of each).

    Hairer, Nørsett and Wanner's heuristic (Solving ODEs I, II.4) with the drift widened by three deviations of noise.
    """
    with torch.no_grad():
        scale = u.abs() * rtol + atol

        def size(x: torch.Tensor) -> float:
            return float(torch.linalg.vector_norm(x / scale)) / math.sqrt(max(x.numel(), 1))

        f0, g0 = f(t, u), 3 * g(t, u)
        d0 = size(u)
        d1 = size(torch.maximum((f0 + g0).abs(), (f0 - g0).abs()))
        h0 = 1e-6 * span if min(d0, d1) < 1e-5 or not math.isfinite(d1) else 0.01 * d0 / d1
        h0 = min(h0, span)
        f1, g1 = f(t + h0, torch.add(u, f0, alpha=h0)), 3 * g(t + h0, torch.add(u, f0, alpha=h0))
        spread = torch.maximum((g1 - g0).abs(), (g1 + g0).abs())
        d2 = size(torch.maximum((f1 - f0 + spread).abs(), (f1 - f0 - spread).abs())) / h0
        steepest = max(d1, d2)
        if not math.isfinite(steepest):
            return h0
        h1 = max(1e-6 * span, 1e-3 * h0) if steepest <= 1e-15 else (0.01 / steepest) ** (1 / (order + 0.5))
        return min(100 * h0, h1, span)
