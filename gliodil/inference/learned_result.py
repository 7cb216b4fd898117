"""What a fit of a growth law returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gliodil.data.volume import Volume
from gliodil.inference.result import LossHistory, Parameter

Identification = Literal["identified", "up_to_time_scale", "not_identified"]

EXPLANATION: Mapping[Identification, str] = {
    "identified": "The law is determined by densities at two or more visits, within the densities that occurred.",
    "up_to_time_scale": "One visit shows no time: only the law relative to the diffusivity is determined, and rates "
    "and diffusivity are those of the assumed age of the tumour.",
    "not_identified": "Labels at one visit do not determine a law of growth: the correction was left at zero, and rates "
    "are those of Fisher-Kolmogorov growth over the assumed age of the tumour.",
}


@dataclass(frozen=True, eq=False)
class LearnedFit:
    """A growth law of one patient and everything needed to judge it.

    Attributes
    ----------
    density
        Density in [0, 1] at the last visit, on the patient's grid.
    parameters
        ``diffusivity_wm_mm2_per_day``, ``proliferation_rate_per_day`` (ρ of the mechanistic part), ``wm_gm_ratio`` (as
        given), ``front_speed_mm_per_day`` (in white matter; measured with the law).
    law_densities, law_white, law_grey
        u, and f(u) [1/day] in white and in grey matter; equal where the law does not depend on the tissue.
    observed_range
        Densities that the visits showed; beyond them the law is an extrapolation.
    identification
        What the data determine: ``"identified"``, ``"up_to_time_scale"`` or ``"not_identified"``.
    status, message
        ``"converged"``, ``"iteration_limit"``, ``"stalled"`` or ``"diverged"``; the same in words.
    misfit
        Mean of ((model − seen)/σ)² over visits and tissue at the end; nan where there is no density to compare with.
    evaluations, table_evaluations
        Gradients of the loss; evaluations of the correction on a whole table.
    warnings
        What the reader has to know; the first one says what is not identified.
    """

    density: Volume
    parameters: Mapping[str, Parameter]
    law_densities: NDArray[np.float64]
    law_white: NDArray[np.float64]
    law_grey: NDArray[np.float64]
    observed_range: tuple[float, float]
    identification: Identification
    status: str
    message: str
    misfit: float
    evaluations: int
    table_evaluations: int
    history: LossHistory
    wall_s: float
    cpu_s: float
    warnings: tuple[str, ...] = ()

    @property
    def converged(self) -> bool:
        """Whether the optimizer met its convergence test."""
        return self.status == "converged"

    def reaction(self, u: NDArray[np.float64], *, white_share: float = 1.0) -> NDArray[np.float64]:
        """Return f(u) [1/day] at densities in [0, 1], for a share of white matter in [0, 1]."""
        f = white_share * self.law_white + (1 - white_share) * self.law_grey
        return np.interp(u, self.law_densities, f)

    def __repr__(self) -> str:
        low, high = self.observed_range
        return (
            f"LearnedFit({self.identification}, {self.status}, misfit {self.misfit:.3g}, "
            f"law on [{low:.2f}, {high:.2f}], {self.evaluations} gradients, {self.cpu_s:.0f} s)"
        )
