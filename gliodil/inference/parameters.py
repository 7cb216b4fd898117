"""The scalars of the model, their public hinges, and the coordinates in which they are optimized.

Coordinates z (all of order one): ln D, ln ρ, ln R, origin/10 mm, θ_core, θ_oedema and, with PET, scale and background.
Logarithms keep D, ρ and R positive and make relative changes comparable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

ORIGIN_SCALE_MM = 10.0


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
            z[0].exp(),
            z[1].exp(),
            z[2].exp(),
            z[3:6] * ORIGIN_SCALE_MM,
            z[6],
            z[7],
            z[8] if with_pet else z.new_tensor(1.0),
            z[9] if with_pet else z.new_tensor(0.0),
        )

    def coordinates(self, *, with_pet: bool) -> torch.Tensor:
        """Encode as z, float64."""
        parts = [
            self.diffusivity.log().reshape(1),
            self.proliferation_rate.log().reshape(1),
            self.wm_gm_ratio.log().reshape(1),
            self.origin / ORIGIN_SCALE_MM,
            self.threshold_core.reshape(1),
            self.threshold_oedema.reshape(1),
        ]
        if with_pet:
            parts += [self.pet_scale.reshape(1), self.pet_background.reshape(1)]
        return torch.cat(parts).detach().double()

    def hinge_sum(self) -> torch.Tensor:
        """Return the summed distance of the parameters from their admissible intervals (public values)."""
        return (
            _outside(self.diffusivity, 0.01, 10)
            + _outside(self.proliferation_rate, 0.02, math.inf)
            + _outside(self.wm_gm_ratio, 10, 1000)
            + _outside(self.threshold_core, 0.5, 0.85)
            + _outside(self.threshold_oedema, 0.2, 0.5)
            + _outside(self.pet_scale, 0.5, 1.02)
            + _outside(self.pet_background, -math.inf, 0.5)
        )


def _outside(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return (low - x).clamp(min=0) + (x - high).clamp(min=0)
