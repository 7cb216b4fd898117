"""The seed a tumour grows from: a heat kernel cut to compact support (public GliODIL code).

g(x) = M (4πτ)^(−3/2) exp(−|x − x₀|²/4τ),    M = 1500 mm³, τ = 15 mm²;    0 below 0.1, at most 1

A ramp of relative width w in place of the cutoff multiplies g by t² (3 − 2t),    t = ½ + (g/0.1 − 1)/2w within [0, 1].
"""

from __future__ import annotations

import math

import torch

MASS_MM3 = 1500.0
SPREAD_MM2 = 15.0
CUTOFF = 0.1
PEAK = MASS_MM3 * (4 * math.pi * SPREAD_MM2) ** -1.5


def gaussian_seed(
    centres: torch.Tensor,
    origin: torch.Tensor,
    *,
    cutoff_width: float = 0.0,
) -> torch.Tensor:
    """Return g at the cell centres, shape (N,), differentiable in the origin.

    Parameters
    ----------
    centres
        Cell centres, shape (3, N) [mm].
    origin
        x₀ in the same frame, shape (3,) [mm].
    cutoff_width
        > 0 replaces the jump at the cutoff by a ramp of that relative width, so that a search for the origin
        sees no steps.
    """
    distance2 = (centres - origin[:, None]).square().sum(dim=0)
    g: torch.Tensor = (PEAK * torch.exp(-distance2 / (4 * SPREAD_MM2))).clamp(max=1)
    if cutoff_width > 0:
        return ramp(g, width=cutoff_width, height=g)  # zero outside: a front grows from the faintest tail
    return torch.where(g >= CUTOFF, g, torch.zeros_like(g))


def ramp(g: torch.Tensor, *, width: float, height: torch.Tensor | float = 1.0) -> torch.Tensor:
    """Return height · t² (3 − 2t) for values g of the kernel; ``width`` is w."""
    t = (0.5 + (g / CUTOFF - 1) / (2 * width)).clamp(0, 1)
    return height * t * t * (3 - 2 * t)


def radius_mm(density: float) -> float:
    """Return the radius at which the seed has fallen to a density in (0.1, 0.58) [mm]."""
    return math.sqrt(4 * SPREAD_MM2 * math.log(PEAK / max(density, CUTOFF)))
