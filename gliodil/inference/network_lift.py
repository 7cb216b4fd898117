"""Where a patient's network starts: at the seed, and soon after on a front that ends where the labels are.

    ψ₀(x, t) = F(x, t) + [ψ_s(x) − F(x, t)] e^{−t/τ},       F(x, t) = ψ_T(x) + ⅚ρ (T − t),       u = (1 + e^ψ)⁻²

    ψ_s   the seed before its cutoff, a paraboloid but for its top
    ψ_T   a front laid along the labels: linear in the distance from their boundaries, where it takes the values of the
          thresholds; slope 1/(√6 ℓ), ℓ = √(D/ρ). F is that front on its way there, at the travelling wave's own pace
          (Ablowitz & Zeppetella 1979)

Lengths in mm, times in days. ψ_T is smoothed and carried by cubic B-splines, whose second derivatives are continuous.
A network of zeros is this field; what it adds is what growth through this patient's tissue asks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.inference.case import Case
from gliodil.inference.informed_loss import front_coordinate
from gliodil.inference.parameters import Scalars
from gliodil.pde.grid import Grid
from gliodil.pde.seed import PEAK, SPREAD_MM2
from gliodil.sampling.derivatives import Jet

SMOOTHING_MM = 2.0
MEMORY = 0.2
"""τ as a share of T."""
_WAVE_PACE = 5 / 6

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spline:
    """A field on a grid as a sum of cubic B-splines.

    Attributes
    ----------
    grid
        Its coefficients stand in the centres of these cells.
    coefficients
        Shape (n_x, n_y, n_z).
    """

    grid: Grid
    coefficients: torch.Tensor

    @classmethod
    def through(cls, grid: Grid, values: Array) -> Spline:
        """Return the spline that takes these values in the cells' centres."""
        found = ndimage.spline_filter(values, order=3, mode="nearest")
        return cls(grid, torch.as_tensor(found, device=grid.device, dtype=grid.dtype))

    def jet(self, x: Sequence[Jet]) -> Jet:
        """Return it with its derivatives, given the three coordinates [mm from the grid's corner] as jets."""
        like = x[0]
        taps, weights = [], []
        for jet, h, n in zip(x, self.grid.spacing, self.grid.shape, strict=True):
            s = jet.value / h - 0.5
            left = s.floor()
            taps.append((left.long()[:, None] + torch.arange(-1, 3, device=s.device)).clamp(0, n - 1))
            weights.append([w / h**k for k, w in enumerate(_basis(s - left))])
        i, j, k = taps
        around = self.coefficients.to(like.value)[
            i[:, :, None, None], j[:, None, :, None], k[:, None, None, :]
        ]

        def derivative(a: int, b: int, c: int) -> torch.Tensor:
            return torch.einsum("nijk,ni,nj,nk->n", around, weights[0][a], weights[1][b], weights[2][c])

        first = torch.stack([derivative(1, 0, 0), derivative(0, 1, 0), derivative(0, 0, 1)])
        bend = torch.stack([derivative(2, 0, 0), derivative(0, 2, 0), derivative(0, 0, 2)])
        c = like.coefficients
        streams = torch.zeros_like(like.streams)
        streams[0], streams[1:4], streams[1 + c.shape[1] :] = derivative(0, 0, 0), first, c[:, :3] @ bend
        return Jet(streams, c)


def _basis(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four cubic B-splines over a cell at t in [0, 1), and their derivatives: (N, 4) each."""
    r = 1 - t
    values = torch.stack([r**3, 3 * t**3 - 6 * t**2 + 4, 3 * r**3 - 6 * r**2 + 4, t**3], 1) / 6
    slopes = torch.stack([-(r**2), 3 * t**2 - 4 * t, 4 * r - 3 * r**2, t**2], 1) / 2
    bends = torch.stack([r, 3 * t - 2, 3 * r - 2, t], 1)
    return values, slopes, bends


class Lift:
    """ψ₀ of one patient.

    Parameters
    ----------
    case
        The labels.
    start
        Scalars that give ρ, ℓ, the seed's place and the thresholds.
    duration
        T [day].
    """

    def __init__(self, case: Case, start: Scalars, duration: float) -> None:
        self.front = Spline.through(case.grid, front_along_labels(case, start))
        self.pace = _WAVE_PACE * float(start.proliferation_rate)
        self.origin, self.duration = start.origins[0].tolist(), duration

    def __call__(self, x: Sequence[Jet]) -> Jet:
        """Return ψ₀, given x, y, z [mm] and t [day] as jets."""
        *place, time = x
        front = self.front.jet(place) + (self.duration - time) * self.pace
        kept = (time * (-1 / (MEMORY * self.duration))).exp()
        started: Jet = front + (self.seed(place) - front) * kept
        return started

    def seed(self, x: Sequence[Jet]) -> Jet:
        """Return ψ of the seed before its cutoff."""
        a, b, c = ((jet - centre) ** 2 for jet, centre in zip(x, self.origin, strict=True))
        half = (a + b + c) * (1 / (8 * SPREAD_MM2)) - math.log(PEAK) / 2  # −½ ln g
        e = (-half.value).exp()
        found: Jet = half.compose(half.value + torch.log1p(-e), 1 / (1 - e), -e / (1 - e).square())
        return found


def front_along_labels(case: Case, p: Scalars) -> Array:
    """Return ψ_T in every cell: (n_x, n_y, n_z)."""
    grid = case.grid
    slope = 1 / math.sqrt(6 * float(p.diffusivity / p.proliferation_rate))
    nested = (
        (case.core | case.oedema, p.threshold_oedema),
        (case.core, p.threshold_core),
        (case.necrotic, p.threshold_necrotic),
    )
    psi: Array | None = None
    outer, at_outer, rim = np.zeros(grid.shape), 0.0, min(grid.spacing) / 2
    for mask, threshold in nested:
        if not bool(mask.any()):
            continue
        inside, at = grid.box(mask).cpu().numpy(), float(front_coordinate(threshold))
        out, deep = (ndimage.distance_transform_edt(m, sampling=grid.spacing) for m in (~inside, inside))
        signed = np.where(inside, -deep, out) + rim * np.where(inside, 1, -1)
        within = at + slope * signed
        if psi is not None:  # between two boundaries the values of both are met
            part = np.clip(signed / np.maximum(signed - outer, 1e-6), 0, 1)
            psi = np.where(outer > 0, psi, np.where(signed < 0, within, at + part * (at_outer - at)))
        else:
            psi = within
        outer, at_outer = signed, at
    smoothed: Array = ndimage.gaussian_filter(psi, [SMOOTHING_MM / h for h in grid.spacing])
    return smoothed
