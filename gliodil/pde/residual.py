"""The θ-scheme's residual of ∂u/∂t = A(u) on a space-time grid.

    r^n = (u^n − u^{n−1})/Δt − θ A(u^n) − (1 − θ) A(u^{n−1}),      n = 1 … Nt−1        [1/day]

θ = ½ (Crank-Nicolson, second order) is the residual of the public GliODIL code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch


def theta_residual(
    u: torch.Tensor, rate: Callable[[torch.Tensor], torch.Tensor], dt: float, *, theta: float = 0.5
) -> torch.Tensor:
    """Return the residual at every step.

    Parameters
    ----------
    u
        All time levels, shape (Nt, N).
    rate
        The model's right-hand side A, applied to the whole stack at once [1/day].
    dt
        Distance of the levels [day].

    Returns
    -------
    Tensor of shape (Nt − 1, N).
    """
    a = rate(u)
    return (u[1:] - u[:-1]) / dt - theta * a[1:] - (1 - theta) * a[:-1]
