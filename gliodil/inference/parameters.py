"""The scalars of the model, their public hinges, and the coordinates in which they are optimized.

The reference loss charges the squared *sum* of the parameters' distances from their admissible intervals: a term with
kinks, at which a quasi-Newton method jams. The coordinates z therefore cover a box only, for the reference loss the one
where that term is zero:

    ln D (or ln ℓ), ln R, ln v, θ_nec, θ_core, θ_oed, s      low + (high − low)·sigmoid(z)
    ln ρ                                               ln(slowest) + softplus(z)
    b                                                  0.5 − softplus(z)
    origins                                            10 mm · z

All are of order one, and relative changes of D, ρ and R count alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

ORIGIN_SCALE_MM = 10.0
DIFFUSIVITY = (0.01, 10.0)
SLOWEST_RATE = 0.02
RATIO = (10.0, 1000.0)
THRESHOLD_CORE = (0.5, 0.85)
THRESHOLD_OEDEMA = (0.2, 0.5)
PET_SCALE = (0.5, 1.02)
LARGEST_PET_BACKGROUND = 0.5


@dataclass(frozen=True)
class Box:
    """Admissible intervals of the coordinates, and which scalars are free.

    ``with_pet`` frees PET scale and background, ``with_necrosis`` the third threshold θ_nec, ``with_csf`` the speed v in
    cerebrospinal fluid. With ``length`` the first
    coordinate is ln ℓ, ℓ = √(D/ρ) [mm], in that interval, instead of ln D. The origins of all ``foci`` come last.
    """

    with_pet: bool
    with_necrosis: bool = False
    with_csf: bool = False
    foci: int = 1
    diffusivity: tuple[float, float] = DIFFUSIVITY
    length: tuple[float, float] | None = None
    slowest_rate: float = SLOWEST_RATE
    ratio: tuple[float, float] = RATIO
    threshold_core: tuple[float, float] = THRESHOLD_CORE
    threshold_oedema: tuple[float, float] = THRESHOLD_OEDEMA
    threshold_necrotic: tuple[float, float] = (0.6, 0.95)
    csf_speed: tuple[float, float] = (0.02, 1.0)

    @property
    def origins(self) -> slice:
        """Where the coordinates hold the origins."""
        return slice(-3 * self.foci, None)

    def decode(self, z: torch.Tensor) -> Scalars:
        """Return the scalars at z, shape (n,) or (n, N) for N points at once; differentiable."""
        pet, nec = self.with_pet, 5 + 2 * self.with_pet
        csf = nec + self.with_necrosis
        rate = self.slowest_rate * softplus(z[1]).exp()
        first = _into(z[0], *_logs(self.length or self.diffusivity)).exp()
        return Scalars(
            diffusivity=first if self.length is None else first.square() * rate,
            proliferation_rate=rate,
            wm_gm_ratio=_into(z[2], *_logs(self.ratio)).exp(),
            origins=z[self.origins].reshape(self.foci, 3, *z.shape[1:]) * ORIGIN_SCALE_MM,
            threshold_core=_into(z[3], *self.threshold_core),
            threshold_oedema=_into(z[4], *self.threshold_oedema),
            threshold_necrotic=_into(z[nec], *self.threshold_necrotic)
            if self.with_necrosis
            else torch.ones_like(rate),
            csf_speed=_into(z[csf], *_logs(self.csf_speed)).exp()
            if self.with_csf
            else torch.zeros_like(rate),
            pet_scale=_into(z[5], *PET_SCALE) if pet else torch.ones_like(rate),
            pet_background=LARGEST_PET_BACKGROUND - softplus(z[6]) if pet else torch.zeros_like(rate),
        )

    def encode(self, p: Scalars) -> torch.Tensor:
        """Return z, float64; values on or beyond a bound are moved just inside."""
        first = p.diffusivity if self.length is None else (p.diffusivity / p.proliferation_rate).sqrt()
        parts = [
            _out_of(first.log(), *_logs(self.length or self.diffusivity)).reshape(1),
            _inverse_softplus((p.proliferation_rate / self.slowest_rate).log()).reshape(1),
            _out_of(p.wm_gm_ratio.log(), *_logs(self.ratio)).reshape(1),
            _out_of(p.threshold_core, *self.threshold_core).reshape(1),
            _out_of(p.threshold_oedema, *self.threshold_oedema).reshape(1),
        ]
        if self.with_pet:
            parts.append(_out_of(p.pet_scale, *PET_SCALE).reshape(1))
            parts.append(_inverse_softplus(LARGEST_PET_BACKGROUND - p.pet_background).reshape(1))
        if self.with_necrosis:
            parts.append(_out_of(p.threshold_necrotic, *self.threshold_necrotic).reshape(1))
        if self.with_csf:
            parts.append(_out_of(p.csf_speed.log(), *_logs(self.csf_speed)).reshape(1))
        parts.append(p.origins.reshape(-1) / ORIGIN_SCALE_MM)
        return torch.cat(parts).detach().double()


@dataclass(frozen=True)
class Scalars:
    """Model and imaging parameters as 0-dimensional tensors (origins: one row per focus).

    Attributes
    ----------
    diffusivity
        D_w, in white matter [mm²/day].
    proliferation_rate
        ρ [1/day].
    wm_gm_ratio
        R = D_white/D_grey [-].
    origins
        Seed centres in mm from the grid's corner, shape (K, 3), the first one first found.
    threshold_core, threshold_oedema, threshold_necrotic
        Densities at the edge of the core, of the oedema and of the necrosis [-].
    csf_speed
        v, speed of a front in cerebrospinal fluid relative to white matter [-]; 0 where that is closed.
    pet_scale, pet_background
        s and b of u = s (PET − b) [-].
    """

    diffusivity: torch.Tensor
    proliferation_rate: torch.Tensor
    wm_gm_ratio: torch.Tensor
    origins: torch.Tensor
    threshold_core: torch.Tensor
    threshold_oedema: torch.Tensor
    threshold_necrotic: torch.Tensor
    csf_speed: torch.Tensor
    pet_scale: torch.Tensor
    pet_background: torch.Tensor

    @classmethod
    def of(
        cls,
        *,
        diffusivity: float,
        proliferation_rate: float,
        origins: torch.Tensor,
        wm_gm_ratio: float = 20.0,
        threshold_core: float = 0.65,
        threshold_oedema: float = 0.30,
        threshold_necrotic: float = 0.78,
        csf_speed: float = 0.3,
        pet_scale: float = 0.8,
        pet_background: float = 0.1,
    ) -> Scalars:
        """Build from numbers; defaults are the starting values. Origins: shape (3,) or (K, 3)."""
        like = origins.detach().double().reshape(-1, 3)

        def scalar(x: float) -> torch.Tensor:
            return torch.tensor(x, dtype=torch.float64, device=like.device)

        return cls(
            diffusivity=scalar(diffusivity),
            proliferation_rate=scalar(proliferation_rate),
            wm_gm_ratio=scalar(wm_gm_ratio),
            origins=like,
            threshold_core=scalar(threshold_core),
            threshold_oedema=scalar(threshold_oedema),
            threshold_necrotic=scalar(threshold_necrotic),
            csf_speed=scalar(csf_speed),
            pet_scale=scalar(pet_scale),
            pet_background=scalar(pet_background),
        )

    def hinge_sum(self) -> torch.Tensor:
        """Return the summed distance of the parameters from their admissible intervals (public values)."""
        return (
            _outside(self.diffusivity, *DIFFUSIVITY)
            + _outside(self.proliferation_rate, SLOWEST_RATE, math.inf)
            + _outside(self.wm_gm_ratio, *RATIO)
            + _outside(self.threshold_core, *THRESHOLD_CORE)
            + _outside(self.threshold_oedema, *THRESHOLD_OEDEMA)
            + _outside(self.pet_scale, *PET_SCALE)
            + _outside(self.pet_background, -math.inf, LARGEST_PET_BACKGROUND)
        )


def _outside(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return (low - x).clamp(min=0) + (x - high).clamp(min=0)


def _logs(interval: tuple[float, float]) -> tuple[float, float]:
    return math.log(interval[0]), math.log(interval[1])


def _into(z: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.sigmoid(z)


def _out_of(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.logit((x - low) / (high - low), eps=1e-3)


def _inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(min=1e-3)
    return x + torch.log(-torch.expm1(-x))
