"""The default loss: the reference loss, told what else is known about glioblastoma.

The minimum of the reference loss is not the best estimate: one scan leaves D, ρ and the imaging thresholds to trade off,
and the fit drifts to a flat, far-reaching tail with both thresholds near 0.5. Two things are known besides:

*The scan has three levels, not two.* Necrosis lies inside the enhancing rim, so the density passes a third threshold there:

    lower = θ_nec in necrosis, θ_core in the enhancing rim, θ_oed in oedema, 0 outside
    upper = 1     in necrosis, θ_nec  in the enhancing rim, θ_core in oedema, θ_oed outside

(without necrosis the rim's upper level is 1).

*Parameters have plausible values.* Normal priors replace the hinges:

    parameters   κ/(Nt·N) Σ ((x − μ)/s)²     ln √(D/ρ) [mm]   ln 1.2 ± 0.5        θ_nec   0.78 ± 0.06
                                             ln R             ln 18  ± 0.5        θ_core  0.55 ± 0.06
                                             ln ρ [1/day]     ln 0.1 ± 0.7        θ_oed   0.25 ± 0.07

They cover the ranges used for simulated glioblastomas, D and ρ ∈ [0.035, 0.2], R ∈ [10, 30] and the thresholds of
``data.synthetic``. κ = 30 weighs them against label residuals that are counted cell by cell although neighbours err
together.
"""

from __future__ import annotations

import math

import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.parameters import Box, Scalars
from gliodil.inference.reference_loss import ReferenceLoss

PRIOR_WEIGHT = 30.0
LENGTH_MM = (1.2, 0.5)
RATIO = (18.0, 0.5)
RATE = (0.1, 0.7)
THRESHOLD_NECROTIC = (0.78, 0.06)
THRESHOLD_CORE = (0.55, 0.06)
THRESHOLD_OEDEMA = (0.25, 0.07)


class InformedLoss(ReferenceLoss):
    """Reference loss with three levels and priors."""

    @property
    def three_levels(self) -> bool:
        """Whether the segmentation shows necrosis."""
        return bool(self.case.necrotic.any())

    def box(self) -> Box:
        """Return a box wide enough for the priors to decide."""
        return Box(
            with_pet=self.case.pet is not None,
            with_necrosis=self.three_levels,
            diffusivity=(0.003, 10.0),
            slowest_rate=0.005,
            ratio=(3.0, 300.0),
            threshold_core=(0.3, 0.75),
            threshold_oedema=(0.05, 0.5),
        )

    def parameter_residuals(self, p: Scalars) -> torch.Tensor:
        """Return the scaled distances from the priors' means."""
        length = (p.diffusivity / p.proliferation_rate).sqrt()
        deviations = [
            (length.log() - math.log(LENGTH_MM[0])) / LENGTH_MM[1],
            (p.wm_gm_ratio.log() - math.log(RATIO[0])) / RATIO[1],
            (p.proliferation_rate.log() - math.log(RATE[0])) / RATE[1],
            (p.threshold_core - THRESHOLD_CORE[0]) / THRESHOLD_CORE[1],
            (p.threshold_oedema - THRESHOLD_OEDEMA[0]) / THRESHOLD_OEDEMA[1],
        ]
        if self.three_levels:
            deviations.append((p.threshold_necrotic - THRESHOLD_NECROTIC[0]) / THRESHOLD_NECROTIC[1])
        return torch.stack(deviations) * math.sqrt(PRIOR_WEIGHT / self.entries)

    def levels(self, p: Scalars) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bounds of three levels."""
        lower, upper = super().levels(p)
        if not self.three_levels:
            return lower, upper
        lower = torch.where(self.case.necrotic, p.threshold_necrotic, lower)
        upper = torch.where(self.case.enhancing, p.threshold_necrotic, upper)
        return lower, upper


def make_loss(case: Case, config: FitConfig) -> ReferenceLoss:
    """Return the loss a configuration asks for."""
    return ReferenceLoss(case, config) if config.loss == "reference" else InformedLoss(case, config)
