"""Importance weights: what a point counts for in a sum that stands for an integral.

    w_i = (p(x_i) |Ω|)^−κ,   0 ≤ κ ≤ 1

With κ = 1 the mean of w r² estimates the uniform mean ∫r² dx/|Ω| without bias, wherever the points are: the sampler
then only lowers its variance. With κ = 0 it estimates ∫ r² p dx, the adversary's objective. Least-squares steps need κ
near 1: unweighted ones chase the points, which chase the residual.
"""

from __future__ import annotations

import torch

from gliodil.errors import InputError, NumericsError
from gliodil.sampling.domain import Box
from gliodil.sampling.points import Points


def importance_weights(points: Points, *, box: Box, kappa: float = 1.0) -> torch.Tensor:
    """Return the weights in a box Ω: (N,), all 1 for uniform points."""
    if not 0 <= kappa <= 1:
        raise InputError("The weights' exponent is out of range.", expected="0 ≤ κ ≤ 1", found=str(kappa))
    w: torch.Tensor = (points.density * box.volume) ** -kappa
    if not bool(w.isfinite().all()):
        raise NumericsError(
            "A point has no importance weight.",
            expected="a positive density at every point that was drawn",
            found=f"least density {float(points.density.min()):.3g}",
            remedy="Draw from a law that covers the domain, such as a defensive mixture.",
        )
    return w


def integral(points: Points, values: torch.Tensor) -> tuple[float, float]:
    """Return the estimate of ∫f dx from f at the points, and its standard error (as if they were independent)."""
    terms = (values / points.density).to(torch.float64)
    return float(terms.mean()), float(terms.std() / len(terms) ** 0.5)


def effective_size(weights: torch.Tensor) -> float:
    """Return (Σw)²/Σw², the number of equally weighted points that these are worth."""
    return float(weights.sum() ** 2 / (weights**2).sum())
