"""The scalars of the model, their public hinges, and the coordinates in which they are optimized.

The reference loss charges the squared *sum* of the parameters' distances from their admissible intervals: a term with
kinks, at which a quasi-Newton method jams. The coordinates z therefore cover the admissible box only, where that term is
zero:

    ln D, ln R, θ_core, θ_oedema, s      low + (high − low)·sigmoid(z)
    ln ρ                                 ln 0.02 + softplus(z)
    b                                    0.5 − softplus(z)
    origin                               10 mm · z

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
_LOG_DIFFUSIVITY = (math.log(DIFFUSIVITY[0]), math.log(DIFFUSIVITY[1]))
_LOG_RATIO = (math.log(RATIO[0]), math.log(RATIO[1]))


@dataclass(frozen=True)
class Scalars:
    """Model and imaging parameters as 0-dimensional tensors (origin: three entries).

    Attributes
    ----------
    diffusivity
        D_w, in white matter [mm²/day].
    proliferation_rate
        ρ [1/day].
    wm_gm_ratio
        R = D_white/D_grey [-].
    origin
        Seed centre in mm from the grid's corner, shape (3,).
    threshold_core, threshold_oedema
        Densities at the edge of the core and of the oedema [-].
    pet_scale, pet_background
        s and b of u = s (PET − b) [-].
    """

    diffusivity: torch.Tensor
    proliferation_rate: torch.Tensor
    wm_gm_ratio: torch.Tensor
    origin: torch.Tensor
    threshold_core: torch.Tensor
    threshold_oedema: torch.Tensor
    pet_scale: torch.Tensor
    pet_background: torch.Tensor

    @classmethod
    def of(
        cls,
        *,
        diffusivity: float,
        proliferation_rate: float,
        origin: torch.Tensor,
        wm_gm_ratio: float = 20.0,
        threshold_core: float = 0.65,
        threshold_oedema: float = 0.30,
        pet_scale: float = 0.8,
        pet_background: float = 0.1,
    ) -> Scalars:
        """Build from numbers; defaults are the starting values."""
        like = origin.detach().double()

        def scalar(x: float) -> torch.Tensor:
            return torch.tensor(x, dtype=torch.float64, device=like.device)

        return cls(
            scalar(diffusivity),
            scalar(proliferation_rate),
            scalar(wm_gm_ratio),
            like,
            scalar(threshold_core),
            scalar(threshold_oedema),
            scalar(pet_scale),
            scalar(pet_background),
        )

    @classmethod
    def from_coordinates(cls, z: torch.Tensor) -> Scalars:
        """Decode z, shape (8,) or with PET (10,); differentiable."""
        with_pet = z.shape[0] == 10
        return cls(
            diffusivity=_into(z[0], *_LOG_DIFFUSIVITY).exp(),
            proliferation_rate=SLOWEST_RATE * softplus(z[1]).exp(),
            wm_gm_ratio=_into(z[2], *_LOG_RATIO).exp(),
            origin=z[3:6] * ORIGIN_SCALE_MM,
            threshold_core=_into(z[6], *THRESHOLD_CORE),
            threshold_oedema=_into(z[7], *THRESHOLD_OEDEMA),
            pet_scale=_into(z[8], *PET_SCALE) if with_pet else z.new_tensor(1.0),
            pet_background=LARGEST_PET_BACKGROUND - softplus(z[9]) if with_pet else z.new_tensor(0.0),
        )

    def coordinates(self, *, with_pet: bool) -> torch.Tensor:
        """Encode as z, float64; values on or beyond a bound are moved just inside."""
        parts = [
            _out_of(self.diffusivity.log(), *_LOG_DIFFUSIVITY).reshape(1),
            _inverse_softplus((self.proliferation_rate / SLOWEST_RATE).log()).reshape(1),
            _out_of(self.wm_gm_ratio.log(), *_LOG_RATIO).reshape(1),
            self.origin / ORIGIN_SCALE_MM,
            _out_of(self.threshold_core, *THRESHOLD_CORE).reshape(1),
            _out_of(self.threshold_oedema, *THRESHOLD_OEDEMA).reshape(1),
        ]
        if with_pet:
            parts += [
                _out_of(self.pet_scale, *PET_SCALE).reshape(1),
                _inverse_softplus(LARGEST_PET_BACKGROUND - self.pet_background).reshape(1),
            ]
        return torch.cat(parts).detach().double()

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


def _into(z: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return low + (high - low) * torch.sigmoid(z)


def _out_of(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return torch.logit((x - low) / (high - low), eps=1e-3)


def _inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    x = x.clamp(min=1e-3)
    return x + torch.log(-torch.expm1(-x))
