"""Forward integration of ∂u/∂t = ∇·(D∇u) + ρ|u|(1−u) with a chosen number of output levels.

Heun's method (explicit trapezoid, second order in time): with λ the largest eigenvalue of the diffusion
operator it is stable for λΔt ≤ 2, so every output interval is cut into as many equal substeps as that
takes. Mass is conserved by the diffusion and u stays in [0, 1] up to round-off for Δt within the limit. ρ is one number,
or a field that differs from place to place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from gliodil.errors import NumericsError
from gliodil.pde import fused
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.operators import Faces, add_diffusion_, spectral_bound

STABLE = 1.0
"""λΔt kept by each substep: half of Heun's limit, inside which the scheme also preserves positivity."""


def substeps_needed(coefficients: Faces, cells: int, dt: float, rho: float | torch.Tensor) -> int:
    """Return the number of equal substeps that keep (λ + ρ)Δt within the stable range."""
    fastest = float(rho.abs().max()) if isinstance(rho, torch.Tensor) else abs(rho)
    stiffness = float(spectral_bound(coefficients, cells)) + fastest
    if not math.isfinite(stiffness):
        raise NumericsError("The diffusion coefficients are not finite.", found=f"bound {stiffness}")
    return max(1, math.ceil(stiffness * dt / STABLE))


def integrate(
    model: FisherKolmogorov,
    u0: torch.Tensor,
    *,
    diffusivity: float,
    proliferation_rate: float | torch.Tensor,
    wm_gm_ratio: float,
    duration: float,
    steps: int,
    on_level: Callable[[int, torch.Tensor], bool | None] | None = None,
) -> torch.Tensor:
    """Integrate from u⁰ over ``duration`` and return the density at the end.

    Parameters
    ----------
    u0
        Initial density, shape (N,), in [0, 1].
    diffusivity, proliferation_rate, wm_gm_ratio
        D_w [mm²/day], ρ [1/day] (a number or a field of shape (N,)) and R [-].
    duration, steps
        Time span [day] and number of output intervals; substeps are added as stability demands.
    on_level
        Called with (level, density) after every interval (and for level 0); return True to stop there.
        The tensor passed is reused: copy what is kept.

    Returns
    -------
    Density at the last level reached, shape (N,).
    """
    coefficients = model.coefficients(diffusivity, wm_gm_ratio)
    interval = duration / steps
    n_sub = substeps_needed(coefficients, model.grid.cells, interval, proliferation_rate)
    dt = interval / n_sub

    u = u0.clone()
    k1, k2, trial, scratch = (torch.empty_like(u) for _ in range(4))
    if on_level is not None and on_level(0, u):
        return u
    for level in range(1, steps + 1):
        for _ in range(n_sub):
            rate_(k1, u, coefficients, proliferation_rate, scratch)
            torch.add(u, k1, alpha=dt, out=trial)
            rate_(k2, trial, coefficients, proliferation_rate, scratch)
            u.add_(k1.add_(k2), alpha=dt / 2)
        if on_level is not None and on_level(level, u):
            break
    return u


def rate_(
    out: torch.Tensor,
    u: torch.Tensor,
    coefficients: Faces,
    rho: float | torch.Tensor,
    scratch: torch.Tensor,
) -> None:
    """Write A(u) = ∇·(D∇u) + ρ|u|(1−u) into ``out``; no temporaries."""
    if isinstance(rho, torch.Tensor):
        rate_(out, u, coefficients, 0.0, scratch)
        torch.abs(u, out=scratch)
        scratch.addcmul_(scratch, u, value=-1)  # |u| − |u|u
        out.addcmul_(scratch, rho)
        return None
    if fused.applies(u):
        return fused.rate_(out, u, coefficients, rho)
    torch.abs(u, out=out)
    torch.sub(1, u, out=scratch)
    out.mul_(scratch).mul_(rho)
    add_diffusion_(out, u, coefficients, scratch)
