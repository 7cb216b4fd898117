"""How a sweep through time advances: level distance, scale of the model error, and stable increments.

    Adams-Bashforth    F^n = (3 A^n − A^{n−1})/2, F⁰ = A⁰      λΔt ≤ 0.9: one evaluation a step
    RKL2, s stages     Runge-Kutta-Legendre (Meyer, Balsara & Aslam, J. Comput. Phys. 257, 2014),
                       λΔt ≤ (s² + s − 2)/2

λ bounds the spectrum of the diffusion operator [1/day].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gliodil.errors import NumericsError

ADAMS_LIMIT = 0.9
"""Largest λΔt for the two-step increment (its stability interval ends at 1)."""
RKL_SAFETY = 0.9
"""Fraction of the RKL2 stability interval that is used."""


def stages_needed(stiffness: float) -> int:
    """Return 1 (Adams-Bashforth) or the odd number of RKL2 stages that is stable for λΔt = ``stiffness``."""
    if not math.isfinite(stiffness):
        raise NumericsError("The diffusion coefficients are not finite.", found=f"stiffness {stiffness}")
    if stiffness <= ADAMS_LIMIT:
        return 1
    stages = 3
    while stiffness > stiffness_limit(stages):
        stages += 2
    return stages


def stiffness_limit(stages: int) -> float:
    """Return the largest λΔt that ``stages`` can take."""
    return ADAMS_LIMIT if stages == 1 else RKL_SAFETY * (stages**2 + stages - 2) / 2


@dataclass(frozen=True)
class Steps:
    """How the sweep advances.

    Attributes
    ----------
    dt
        Distance of the time levels [day].
    sigma
        Scale σ of the model error: v = σ × (error of ∂u/∂t in 1/day).
    stages
        1 for Adams-Bashforth, otherwise the odd number of RKL2 stages (see ``stages_needed``).
    """

    dt: float
    sigma: float
    stages: int = 1


def rkl2_weights(stages: int) -> tuple[float, list[tuple[float, float, float, float]]]:
    """Return μ̃₁ and (μ_j, ν_j, μ̃_j, γ̃_j) for j = 2 … s."""
    s = stages
    b = [1 / 3, 1 / 3, *((j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, s + 1))]
    w = 4 / (s * s + s - 2)
    weights = []
    for j in range(2, s + 1):
        mu = (2 * j - 1) / j * b[j] / b[j - 1]
        weights.append((mu, -(j - 1) / j * b[j] / b[j - 2], mu * w, -(1 - b[j - 1]) * mu * w))
    return b[1] * w, weights
