"""Where a patient's network starts: at the seed, growing in uniform tissue, and then on a front that ends at the labels.

    ψ₀(x, t) = F(x, t) + [ψ_r(|x − x₀|, t) − F(x, t)] e^{−(t−t₀)/τ},     F(x, t) = ψ_T(x) + ⅚ρ (T − t)

where u = (1 + e^ψ)⁻², and

    ψ_r   the ramped seed, growing in uniform tissue: with σ = 1/(1 + e^{−ψ})
              ∂ψ/∂t = D [ψ″ + 2ψ′/r + (1 − 3σ) ψ′²] − ρ (1 − σ/2)
    ψ_T   a front laid along the labels: linear in the distance from their boundaries, where it takes the values of the
          thresholds; slope 1/(√6 ℓ), ℓ = √(D/ρ). F is that front on its way there, at the travelling wave's own pace
          (Ablowitz & Zeppetella 1979)

Lengths in mm, times in days. A network of zeros is this field; what it adds is what growth through this patient's tissue
asks for. The seed's ramp is in ψ_r because a network would smooth it, and fronts are pulled by the tail that leaves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.integrate import solve_ivp

from gliodil.inference.case import Case
from gliodil.inference.exact import SEED_RAMP
from gliodil.inference.informed_loss import front_coordinate
from gliodil.inference.parameters import Scalars
from gliodil.inference.spline import Spline, smooth_field
from gliodil.pde.seed import PEAK, SPREAD_MM2, ramp
from gliodil.sampling.derivatives import Jet, coordinates

SMOOTHING_MM = 2.0
MEMORY = 0.2
"""τ as a share of T."""
RADIAL_MM, TIMES = 0.25, 200
CENTRE_MM = 0.5
"""Radii are √(r² + this²), smooth in the middle."""
_WAVE_PACE = 5 / 6

Array = NDArray[np.float64]


class Lift:
    """ψ₀ of one patient.

    Parameters
    ----------
    case
        The labels.
    start
        Scalars that give D, ρ, R, the seed's place and the thresholds.
    begin, duration
        t₀ and T [day].
    """

    def __init__(self, case: Case, start: Scalars, *, begin: float, duration: float) -> None:
        grid, rate = case.grid, float(start.proliferation_rate)
        like, front = start.diffusivity, front_along_labels(case, start)
        self.front = smooth_field(grid, front, like, width_mm=SMOOTHING_MM)
        tumour = case.core | case.oedema
        mobility = float((case.model.white + case.model.grey / start.wm_gm_ratio)[tumour].mean())
        reach = math.hypot(*(n * h for n, h in zip(grid.shape, grid.spacing, strict=True)))
        ball = uniform_growth(float(start.diffusivity) * mobility, rate, duration, reach)
        self.ball = Spline.through(ball, like, spacing=(RADIAL_MM, duration / TIMES), first=(0.0, 0.0))
        self.pace, self.origin = _WAVE_PACE * rate, start.origins[0].tolist()
        self.begin, self.duration = begin, duration

    def __call__(self, x: Sequence[Jet]) -> Jet:
        """Return ψ₀, given x, y, z [mm] and t [day] as jets."""
        *place, time = x
        front = self.front.jet(*place) + (self.duration - time) * self.pace
        a, b, c = ((jet - centre) ** 2 for jet, centre in zip(place, self.origin, strict=True))
        ball = self.ball.jet((a + b + c + CENTRE_MM**2) ** 0.5, time)
        kept = ((self.begin - time) * (1 / (MEMORY * self.duration))).exp()
        started: Jet = front + (ball - front) * kept
        return started

    def grown_seed(self, distance2: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return ψ_r at squared distances from the centre [mm²] and times [day]: (N,)."""
        radius = (distance2 + CENTRE_MM**2).sqrt()
        return self.ball.jet(*coordinates(torch.stack([radius, time], dim=1), ())).value


def seed_front(distance2: torch.Tensor) -> torch.Tensor:
    """Return ψ of the ramped seed at a squared distance from its centre [mm²]; e⁻¹² of g is left outside."""
    log_g = math.log(PEAK) - distance2 / (4 * SPREAD_MM2)
    log_g = log_g + (ramp(log_g.exp(), width=SEED_RAMP) + math.exp(-12)).log()
    half = -log_g / 2
    return half + torch.log1p(-(-half).exp())


def uniform_growth(diffusivity: float, rate: float, duration: float, reach: float) -> Array:
    """Return ψ_r at radii 0 … ``reach`` [mm] and times 0 … T: (radii, times)."""
    r = np.arange(0, reach + RADIAL_MM, RADIAL_MM)

    def growth(_: float, psi: Array) -> Array:
        sigma = 1 / (1 + np.exp(-psi))
        around = np.concatenate([psi[1:2], psi, [2 * psi[-1] - psi[-2]]])
        slope = (around[2:] - around[:-2]) / (2 * RADIAL_MM)
        bend = (around[2:] - 2 * psi + around[:-2]) / RADIAL_MM**2
        turning = np.where(r > 0, 2 * slope / np.maximum(r, RADIAL_MM), 2 * bend)
        change: Array = diffusivity * (bend + turning + (1 - 3 * sigma) * slope**2) - rate * (1 - sigma / 2)
        return change

    start = seed_front(torch.as_tensor(r**2)).numpy()
    times = np.linspace(0, duration, TIMES + 1)
    # Implicit, the Jacobian three bands wide.
    found: Array = solve_ivp(
        growth, (0, duration), start, t_eval=times, method="LSODA", lband=1, uband=1, rtol=1e-5, atol=1e-5
    ).y
    return found


def front_along_labels(case: Case, p: Scalars) -> torch.Tensor:
    """Return ψ_T in every cell: (N,)."""
    grid = case.grid
    slope = 1 / math.sqrt(6 * float(p.diffusivity / p.proliferation_rate))
    nested = (
        (case.core | case.oedema, p.threshold_oedema),
        (case.core, p.threshold_core),
        (case.necrotic, p.threshold_necrotic),
    )
    psi, outer, at_outer = np.zeros(grid.shape), np.zeros(grid.shape), 0.0
    rim, between = min(grid.spacing) / 2, False
    for mask, threshold in nested:
        if not bool(mask.any()):
            continue
        inside, at = grid.box(mask).cpu().numpy(), float(front_coordinate(threshold))
        out, deep = (ndimage.distance_transform_edt(m, sampling=grid.spacing) for m in (~inside, inside))
        signed = np.where(inside, -deep, out) + rim * np.where(inside, 1, -1)
        within = at + slope * signed
        if between:  # the values of both boundaries are met
            part = np.clip(signed / np.maximum(signed - outer, 1e-6), 0, 1)
            inwards = np.where(signed < 0, within, at + part * (at_outer - at))
            psi = np.where(outer > 0, psi, inwards)
        else:
            psi = within
        between = True
        outer, at_outer = signed, at
    return grid.field(psi)
