"""Importance weights: what a point counts for in a sum that stands for an integral.

    w_i ∝ p(x_i)^−κ,   0 ≤ κ ≤ 1,   scaled to mean 1

With κ = 1 the weighted mean of r² is the uniform mean ∫r² dx/|Ω|, wherever the points are: the sampler then only lowers
its variance. With κ = 0 the mean is ∫ r² p dx, the adversary's objective. Least-squares steps need κ near 1: unweighted
ones chase the points, which chase the residual.
"""

from __future__ import annotations

import torch

from gliodil.errors import InputError, NumericsError
from gliodil.sampling.points import Points


def importance_weights(points: Points, *, kappa: float = 1.0) -> torch.Tensor:
    """Return w_i ∝ p(x_i)^−κ with mean 1, shape (N,)."""
    if not 0 <= kappa <= 1:
        raise InputError("The weights' exponent is out of range.", expected="0 ≤ κ ≤ 1", found=str(kappa))
    if not bool((points.density > 0).all()):
        raise NumericsError(
            "A point has no importance weight.",
            expected="a positive density at every point that was drawn",
            found=f"least density {float(points.density.min()):.3g}",
            remedy="Draw from a law that covers the domain, such as a defensive mixture.",
        )
    w = (points.density / points.density.mean()) ** -kappa
    return w / w.mean()


def integral(points: Points, values: torch.Tensor) -> tuple[float, float]:
    """Return the estimate of ∫f dx from f at the points, and its standard error (as if they were independent)."""
    terms = (values / points.density).to(torch.float64)
    return float(terms.mean()), float(terms.std() / len(terms) ** 0.5)


def effective_size(weights: torch.Tensor) -> float:
    """Return (Σw)²/Σw², the number of equally weighted points that these are worth."""
    return float(weights.sum() ** 2 / (weights**2).sum())
