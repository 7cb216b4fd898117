"""Diffusion with varying coefficients: a polynomial of the operator in place of its exponential.

    e^{hA} u ≈ P(hA) u = Σ_k p_k T_k(I + 2hA/β) u,      A = ∇·(D∇),  spectrum of −hA in [0, β]

P is fitted to e^{−x} on [0, β] by least squares in the Chebyshev basis, with weight 1/(1 + x^q)² and P(0) = 1. What is
smooth (small x) is then followed closely and what is rough is damped, |P| < 0.95; P(0) = 1 makes mass conserved to
round-off. The degree is the smallest that keeps |P(x) − e^{−x}| below a tolerance for x ≤ 1. It grows little faster than
√β, as do the stages of RKC, which is built for equations whose exponential is not known; for this one, at hσ = 30 and
ten applications, the fitted polynomial leaves a several times smaller error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial import chebyshev

from gliodil.errors import NumericsError

SMOOTH = 1.0
"""Largest x = h × (decay rate of a mode) followed to the tolerance."""
DAMPED = 0.95
LOWEST, HIGHEST = 2, 200
LARGEST = 1e4
"""hσ beyond which no polynomial of the highest degree is worth trying."""
POWERS = (3, 2, 1)
"""Powers q of the weight: large ones follow what is smooth more closely, small ones damp what is rough better."""
NODES = 6
"""Nodes of the least squares per degree."""


@lru_cache(maxsize=256)
def coefficients(beta: float, tolerance: float) -> tuple[float, ...]:
    """Return p_0 … p_s of the smallest degree s that meets the tolerance.

    Raises
    ------
    NumericsError
        If none does: the step is far too long for this grid.
    """
    low, high = LOWEST, min(HIGHEST, 40 + int(3 * math.sqrt(beta)))
    best = _checked(high, beta, tolerance) if beta < LARGEST else None
    if best is None:
        raise NumericsError(
            "A diffusion step is too long for an explicit method.",
            expected=f"a polynomial of degree {HIGHEST} or less",
            found=f"hσ = {beta:.3g}",
            remedy="take more steps, or method='imex'",
        )
    while low < high:  # what a degree can do, higher ones can
        middle = (low + high) // 2
        found = _checked(middle, beta, tolerance)
        low, high, best = (middle + 1, high, best) if found is None else (low, middle, found)
    return tuple(float(c) for c in best)


def _checked(degree: int, beta: float, tolerance: float) -> np.ndarray | None:
    """Return the coefficients of a degree if they meet the tolerance and damp."""
    x = np.concatenate([np.linspace(0, min(SMOOTH, beta), 50), np.linspace(0, beta, 20 * degree)])
    for power in POWERS:
        p = _fitted(degree, beta, power)
        values = chebyshev.chebval(1 - 2 * x / beta, p)
        smooth = np.abs(values - np.exp(-x))[x <= SMOOTH].max()
        if smooth <= tolerance and np.abs(values[x > SMOOTH / 2]).max(initial=0) < DAMPED:
            return p
    return None


def _fitted(degree: int, beta: float, power: int) -> np.ndarray:
    """Return the constrained least-squares coefficients in the Chebyshev basis of [0, β]."""
    nodes = NODES * degree
    y = np.cos((np.arange(nodes) + 0.5) * np.pi / nodes)
    x = (1 - y) * beta / 2
    basis = chebyshev.chebvander(y, degree)
    # P(0) = Σ p_k = 1 is built in: P = 1 + Σ_{k≥1} p_k (T_k − 1).
    weight = 1 / (1 + x**power)
    free = weight[:, None] * (basis[:, 1:] - 1)
    p, *_ = np.linalg.lstsq(free, weight * np.expm1(-x), rcond=None)
    return np.concatenate([[1 - p.sum()], p])


def polynomial_step(
    diffusion: Callable[[torch.Tensor], torch.Tensor], u: torch.Tensor, bound: float, p: tuple[float, ...]
) -> torch.Tensor:
    """Return P(hA) u; costs one application of ``diffusion`` per degree.

    Parameters
    ----------
    diffusion
        A.
    bound
        Bound σ of its spectrum [1/day].
    """
    before, here = u, u.add(diffusion(u), alpha=2 / bound)
    out = u.mul(p[0]).add_(here, alpha=p[1])
    for c in p[2:]:
        there = here.mul(2).sub_(before).add_(diffusion(here), alpha=4 / bound)
        out = out.add_(there, alpha=c)
        before, here = here, there
    return out
