"""Rates with which a grid's own fronts travel and decay as those of the equation on voxels of 1 mm.

A tail u ~ e^{−k(x·n − ct)} in a direction n obeys, on cells of size h,

    c k = D ψ_h(k) + ρ,      ψ_h(k) = 2 (cosh(a k h) − 1)/(a h)²  →  k²  as h → 0,

with a = 1 along an axis. Averaged over directions ψ_h = k² (1 + a² (kh)²/12 + …), a² = ⟨Σ n_i⁴⟩ = 3/5. The front that
grows from a compact seed takes the slowest speed, where dc/dk = 0 (Kolmogorov, Petrovsky & Piskunov 1937; on lattices
Zinner, Harris & Hudson, J. Differ. Equ. 105 (1993) 46):

    c = D ψ_h'(k),      k ψ_h'(k) − ψ_h(k) = ρ/D .

Cells of 2 mm under an infiltration length √(D/ρ) of 1 mm make fronts too fast by a tenth and tails too long. The remedy
is other rates: with c and k of white matter on voxels of 1 mm,

    D' = c/ψ_h'(k),      ρ' = c k − D' ψ_h(k)

have the same speed and the same decay on cells of h. In grey matter, ρ' being one number, D'_g is the one of the same
speed. On cells of 1 mm nothing changes. ρ/2 < ρ' < 2ρ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.optimize import brentq

from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.operators import Faces

REFERENCE_MM = 1.0
"""Voxel size on which rates have their meaning."""
ANISOTROPY = math.sqrt(3 / 5)
"""a: root of the mean of n_x⁴ + n_y⁴ + n_z⁴ over directions."""


@dataclass(frozen=True)
class GridRates:
    """Rates on a grid: D'_w and D'_g along each axis, shape (3,) [mm²/day], and ρ' [1/day]."""

    white: torch.Tensor
    grey: torch.Tensor
    proliferation: torch.Tensor

    def coefficients(self, model: FisherKolmogorov) -> Faces:
        """Return D'/h² at the faces [1/day]."""
        return model.white_faces.map(*self.white) + model.grey_faces.map(*self.grey)


def plain_rates(
    diffusivity: torch.Tensor, proliferation_rate: torch.Tensor, wm_gm_ratio: torch.Tensor
) -> GridRates:
    """Return D_w [mm²/day], ρ [1/day] and D_w/R as they are; scalars in."""
    return GridRates(diffusivity.expand(3), (diffusivity / wm_gm_ratio).expand(3), proliferation_rate)


def grid_rates(
    diffusivity: torch.Tensor,
    proliferation_rate: torch.Tensor,
    wm_gm_ratio: torch.Tensor,
    *,
    spacing: tuple[float, float, float],
) -> GridRates:
    """Return the rates that stand for D_w [mm²/day], ρ [1/day] and R on cells of ``spacing`` [mm].

    Scalars in, float64; differentiable once in all three.
    """
    reference = ANISOTROPY * REFERENCE_MM
    steps = ANISOTROPY * torch.as_tensor(spacing, dtype=diffusivity.dtype, device=diffusivity.device)
    mean = float(steps.mean())

    k = _decay(proliferation_rate / diffusivity, reference)
    speed = diffusivity * _slope(k, reference)
    white = speed / _slope(k, steps)
    rate = speed * k - (white * _curvature(k, steps)).mean()

    in_grey = diffusivity / wm_gm_ratio
    speed_grey = in_grey * _slope(_decay(proliferation_rate / in_grey, reference), reference)
    grey = speed_grey / _slope(_decay_at_speed(speed_grey / rate, mean), steps)
    return GridRates(white, grey, rate)


def _curvature(k: torch.Tensor, h: torch.Tensor | float) -> torch.Tensor:
    """ψ_h(k) [1/mm²]; ``h`` contains the factor a here and below."""
    return 2 * (torch.cosh(k * h) - 1) / h**2


def _slope(k: torch.Tensor, h: torch.Tensor | float) -> torch.Tensor:
    """ψ_h'(k) [1/mm]."""
    return 2 * torch.sinh(k * h) / h


def _decay(ratio: torch.Tensor, h: float) -> torch.Tensor:
    """The k with k ψ_h'(k) − ψ_h(k) = ρ/D [1/mm]: with x = kh, x sinh x − cosh x + 1 = h² ρ/(2D) = q.

    The left side lies above x²/2 and, beyond x = 2, above e^{x−2} − 1, which bounds x from above.
    """
    q = ratio * (h**2 / 2)
    value = float(q.detach())
    x: float = brentq(
        lambda x: x * math.sinh(x) - math.cosh(x) + 1 - value,
        0.0,
        min(math.sqrt(2 * value), 2 + math.log1p(value)) * (1 + 1e-9),
        xtol=1e-14,
        rtol=1e-14,
    )
    # One Newton step in q: no change of x, the right derivative.
    return (x + (q - value) / (x * math.cosh(x))) / h


def _decay_at_speed(speed_per_rate: torch.Tensor, h: float) -> torch.Tensor:
    """The k of a front of speed c where growth is ρ [1/mm]: c/(ρh) = sinh x/(x sinh x − cosh x + 1) = f(x), x = kh.

    1/x ≤ f(x) ≤ 2/x brackets x.
    """
    target = speed_per_rate / h
    value = float(target.detach())

    def parts(x: float) -> tuple[float, float]:
        return math.sinh(x), x * math.sinh(x) - math.cosh(x) + 1

    def excess(x: float) -> float:
        top, bottom = parts(x)
        return top - value * bottom

    x: float = brentq(excess, (1 - 1e-9) / value, (2 + 1e-9) / value, xtol=1e-14, rtol=1e-14)
    top, bottom = parts(x)
    slope = math.cosh(x) / bottom - top * x * math.cosh(x) / bottom**2
    return (x + (target - value) / slope) / h
