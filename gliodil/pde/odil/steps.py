"""How a sweep through time advances: Crank-Nicolson steps, solved by Chebyshev's semi-iteration.

Every step solves P x = b with P = I − ½Δt A′, symmetric, with spectrum in

    [1 − ½Δt ρ,  1 + ½Δt (Λ + 2ρ)],      Λ a bound of the spectrum of −∇·(D∇)  [1/day]

for densities within [−½, 3/2].

k steps of the semi-iteration from x = 0 give a fixed polynomial of P applied to b. It is symmetric like P⁻¹, so the
adjoint of a sweep with these approximate inverses is the sweep with the same ones: not exact, but exactly adjoint.
With κ the ratio of the interval's ends, the relative error is at most 2 ((√κ − 1)/(√κ + 1))ᵏ (Saad, Iterative Methods
for Sparse Linear Systems, ch. 12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gliodil.errors import NumericsError

LARGEST_GROWTH = 0.9
"""Largest ½Δt ρ: beyond, a step no longer resolves the growth."""


@dataclass(frozen=True)
class Steps:
    """How the sweep advances.

    Attributes
    ----------
    dt
        Distance of the time levels Δt [day].
    sigma
        Scale σ of the model error: v = σ × (error of ∂u/∂t in 1/day).
    weights
        (β_j, α_j) of the semi-iteration: d ← β_j d + α_j (b − P x), x ← x + d.
    """

    dt: float
    sigma: float
    weights: tuple[tuple[float, float], ...]

    @classmethod
    def resolving(
        cls, *, dt: float, sigma: float, diffusion_bound: float, growth: float, tolerance: float
    ) -> Steps:
        """Return steps that solve P x = b to a relative ``tolerance``.

        Parameters
        ----------
        diffusion_bound, growth
            Λ and ρ [1/day].

        Raises
        ------
        NumericsError
            If these are not finite, or a step does not resolve the growth (see ``resolvable``).
        """
        if not (math.isfinite(diffusion_bound) and resolvable(dt, growth)):
            raise NumericsError(
                "A time step does not resolve the equation.",
                expected=f"finite coefficients and ρΔt/2 of at most {LARGEST_GROWTH}",
                found=f"Λ = {diffusion_bound:.3g}/day, ρ = {growth:.3g}/day, Δt = {dt:.3g} days",
            )
        low, high = 1 - dt * growth / 2, 1 + dt * (diffusion_bound + 2 * growth) / 2
        middle, half = (low + high) / 2, (high - low) / 2
        if half < 1e-12:
            return cls(dt, sigma, ((0.0, 1 / middle),))
        shrink = (math.sqrt(high / low) - 1) / (math.sqrt(high / low) + 1)
        count = max(2, math.ceil(math.log(tolerance / 2) / math.log(shrink)))
        ratio = half / middle
        weights = [(0.0, 1 / middle)]
        for _ in range(count - 1):
            following = 1 / (2 * middle / half - ratio)
            weights.append((following * ratio, 2 * following / half))
            ratio = following
        return cls(dt, sigma, tuple(weights))


def resolvable(dt: float, growth: float) -> bool:
    """Whether steps of Δt resolve growth at a rate ρ [1/day]."""
    return math.isfinite(growth) and 0.5 * dt * abs(growth) <= LARGEST_GROWTH
