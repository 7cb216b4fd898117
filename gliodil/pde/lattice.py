"""Rates with which a grid's own fronts travel as fast and are as wide as those of the equation on voxels of 1 mm.

A tail u ~ e^{−k(x·n − ct)} in a direction n obeys, on cells of size h,

    c k = D ψ_h(k) + ρ,      ψ_h(k) = 2 (cosh(a k h) − 1)/(a h)²  →  k²  as h → 0,

with a = 1 along an axis. Averaged over directions ψ_h = k² (1 + a² (kh)²/12 + …), a² = ⟨Σ n_i⁴⟩ = 3/5. The front that
grows from a compact seed takes the slowest speed, where dc/dk = 0 (Kolmogorov, Petrovsky & Piskunov 1937; on lattices
Zinner, Harris & Hudson, J. Differ. Equ. 105 (1993) 46):

    c = D ψ_h'(k),      k ψ_h'(k) − ψ_h(k) = ρ/D .

Cells of 2 mm under an infiltration length √(D/ρ) of 1 mm make fronts too fast by a tenth and tails too long. Labels
see of a front how far its levels are apart: the width W from u = .25 to .775, the middle of the thresholds of oedema and
necrosis. In units of the tail's 1/k it depends on x = a k h alone,

    k W = Γ(x),      Γ(x)/Γ(0) = (1 + (x/1.14)² + (x/1.17)⁴)^−0.091      (within 0.5 % of 1-D fronts, x ≤ 3.8)

since where the density is no longer small, a coarse grid carries a steeper front for the same tail. With c and k of
white matter on voxels of 1 mm and k' such that Γ(a k' h)/k' = Γ(a k 1 mm)/k, the remedy is other rates,

    D' = c/ψ_h'(k'),      ρ' = c k' − D' ψ_h(k') ,

which have the same speed and the same width on cells of h. In grey matter and fluid, ρ' being one number, D' is the
one of the same speed. On cells of 1 mm nothing changes. ρ/2 < ρ' < 2ρ.
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
WIDTH = (0.091, 1.14, 1.17)
"""Exponent and scales of Γ, fitted to fronts 20 and 60 infiltration lengths from where they started."""


@dataclass(frozen=True)
class GridRates:
    """Rates on a grid: D' in white and grey matter along each axis, shape (3,) [mm²/day], and ρ' [1/day].

    ``csf`` is D' in cerebrospinal fluid, None where that is closed.
    """

    white: torch.Tensor
    grey: torch.Tensor
    proliferation: torch.Tensor
    csf: torch.Tensor | None = None

    def coefficients(self, model: FisherKolmogorov) -> Faces:
        """Return D'/h² at the faces [1/day]."""
        tissue = model.white_faces.map(*self.white) + model.grey_faces.map(*self.grey)
        if model.csf_faces is None or self.csf is None:
            return tissue
        return tissue + model.csf_faces.map(*self.csf)


def plain_rates(
    diffusivity: torch.Tensor,
    proliferation_rate: torch.Tensor,
    wm_gm_ratio: torch.Tensor,
    *,
    csf_speed: torch.Tensor | None = None,
) -> GridRates:
    """Return D_w [mm²/day], ρ [1/day], D_w/R and D_w v² as they are; scalars in."""
    grey = (diffusivity / wm_gm_ratio).expand(3)
    csf = None if csf_speed is None else (diffusivity * csf_speed.square()).expand(3)
    return GridRates(diffusivity.expand(3), grey, proliferation_rate, csf)


def grid_rates(
    diffusivity: torch.Tensor,
    proliferation_rate: torch.Tensor,
    wm_gm_ratio: torch.Tensor,
    *,
    spacing: tuple[float, float, float],
    csf_speed: torch.Tensor | None = None,
) -> GridRates:
    """Return the rates that stand for D_w [mm²/day], ρ [1/day], R and, if given, v on cells of ``spacing`` [mm].

    Fronts in white matter keep their speed and their width, those in grey matter their speed.

    Scalars in, float64; differentiable once in all three.
    """
    reference = ANISOTROPY * REFERENCE_MM
    steps = ANISOTROPY * torch.as_tensor(spacing, dtype=diffusivity.dtype, device=diffusivity.device)
    mean = float(steps.mean())

    decay = _decay(proliferation_rate / diffusivity, reference)
    speed = diffusivity * _slope(decay, reference)
    k = _decay_at_width(_log_widths(decay * reference).exp() / decay, mean)
    white = speed / _slope(k, steps)
    rate = speed * k - (white * _curvature(k, steps)).mean()

    def as_fast(slower: torch.Tensor) -> torch.Tensor:
        """Return what stands for a smaller D, ρ' being one number."""
        speed = slower * _slope(_decay(proliferation_rate / slower, reference), reference)
        return speed / _slope(_decay_at_speed(speed / rate, mean), steps)

    csf = None if csf_speed is None else as_fast(diffusivity * csf_speed.square())
    return GridRates(white, as_fast(diffusivity / wm_gm_ratio), rate, csf)


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


def _log_widths(x: torch.Tensor) -> torch.Tensor:
    """Return ln Γ(x)/Γ(0): the width of a front in units of its tail's 1/k, relative to that on fine cells."""
    return -WIDTH[0] * torch.log1p((x / WIDTH[1]).square() + (x / WIDTH[2]) ** 4)


def _decay_at_width(width: torch.Tensor, h: float) -> torch.Tensor:
    """The k of a front whose width is that of a continuous one of decay 1/``width`` [1/mm]: x/Γ(x) = Γ(0) h/W, x = kh.

    Γ decreases, which brackets x.
    """
    target = float(h / width.detach())

    def gamma(x: float) -> float:
        return math.exp(float(_log_widths(torch.tensor(x, dtype=torch.float64))))

    x: float = brentq(
        lambda x: x / gamma(x) - target,
        target * gamma(target) * (1 - 1e-9),
        target * (1 + 1e-9),
        xtol=1e-14,
        rtol=1e-14,
    )
    # d ln(x/Γ)/d ln x
    p, q = (x / WIDTH[1]) ** 2, (x / WIDTH[2]) ** 4
    slope = 1 + WIDTH[0] * (2 * p + 4 * q) / (1 + p + q)
    return x * (1 + ((h / width).log() - math.log(target)) / slope) / h


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
