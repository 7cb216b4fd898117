"""Runge-Kutta-Chebyshev steps of second order (RKC2): explicit, stable on a long stretch of the negative axis.

With s stages a step is stable for h σ ≤ ⅔ (s² − 1)(1 − 2ε/15), ε = 2/13, σ the spectral radius: the number of
evaluations grows with √(hσ), where a plain explicit method needs hσ/2 of them.

    Y₁ = Y₀ + μ̃₁ h F₀
    Y_j = (1 − μ_j − ν_j) Y₀ + μ_j Y_{j−1} + ν_j Y_{j−2} + μ̃_j h F_{j−1} + γ̃_j h F₀,      u⁺ = Y_s

The local error is estimated by 0.8 (u − u⁺) + 0.4 h (F + F⁺); F⁺ is the next step's F₀, so a step costs s evaluations.

Sommeijer, Shampine & Verwer, RKC: an explicit solver for parabolic PDEs, J. Comput. Appl. Math. 88 (1998) 315.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch

DAMPING = 2 / 13
Rate = Callable[[torch.Tensor], torch.Tensor]


class Stage(NamedTuple):
    """Weights of one stage: of Y_{j−1}, Y_{j−2}, h F_{j−1} and h F₀; that of Y₀ is 1 − μ − ν."""

    mu: float
    nu: float
    mu_tilde: float
    gamma_tilde: float


def stages_needed(h: float, sigma: float) -> int:
    """Return the smallest s ≥ 2 whose stability interval holds hσ."""
    return max(2, math.ceil(math.sqrt(1 + h * sigma / (2 / 3 * (1 - 2 * DAMPING / 15)))))


@cache
def weights(s: int) -> tuple[float, tuple[Stage, ...]]:
    """Return μ̃₁ and the weights of stages 2 … s."""
    w0 = 1 + DAMPING / s**2
    t, dt, ddt = [1.0, w0], [0.0, 1.0], [0.0, 0.0]
    for _ in range(2, s + 1):  # Chebyshev polynomials and two derivatives at w0
        t.append(2 * w0 * t[-1] - t[-2])
        dt.append(2 * w0 * dt[-1] - dt[-2] + 2 * t[-2])
        ddt.append(2 * w0 * ddt[-1] - ddt[-2] + 4 * dt[-2])
    w1 = dt[s] / ddt[s]
    b = [0.0, 0.0, *(ddt[j] / dt[j] ** 2 for j in range(2, s + 1))]
    b[0] = b[1] = b[2]
    a = [1 - b[j] * t[j] for j in range(s + 1)]
    stages = []
    for j in range(2, s + 1):
        mu_tilde = 2 * b[j] * w1 / b[j - 1]
        stages.append(Stage(2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], mu_tilde, -a[j - 1] * mu_tilde))
    return b[1] * w1, tuple(stages)


def chebyshev_step(rate: Rate, u: torch.Tensor, f: torch.Tensor, h: float, s: int) -> torch.Tensor:
    """Return u after one step of h [day] with s stages, given f = rate(u); costs s − 1 evaluations."""
    first, stages = weights(s)
    before, here = u, u.add(f, alpha=first * h)
    for mu, nu, mu_tilde, gamma_tilde in stages:
        there = u.mul(1 - mu - nu).add_(f, alpha=gamma_tilde * h).add_(before, alpha=nu)
        there = there.add_(here, alpha=mu).add_(rate(here), alpha=mu_tilde * h)
        before, here = here, there
    return here
