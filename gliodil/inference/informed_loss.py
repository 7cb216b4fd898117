"""The default loss: the reference loss, told what else is known about glioblastoma.

The minimum of the reference loss is not the best estimate. One scan leaves D, ρ and the imaging thresholds to trade off,
and label misfits measured in density reward a flat front: the flatter it is, the less a misplaced boundary costs. The
fit then drifts to a far-reaching tail with both thresholds near 0.5. Five changes keep it from doing so.

1. *Three levels.* Necrosis lies inside the enhancing rim, so the density passes a third threshold there:

       lower = θ_nec in necrosis, θ_core in the enhancing rim, θ_oed in oedema, 0 outside
       upper = 1     in necrosis, θ_nec  in the enhancing rim, θ_core in oedema, θ_oed outside

   (without necrosis the rim's upper level is 1).

2. *Parameters from distances.* They are fitted with exact physics, label misfits being measured in millimetres along the
   front u = (1 + e^{x/(√6 ℓ)})⁻², ℓ = √(D/ρ) (Ablowitz & Zeppetella 1979):

       d = √6 ℓ |ψ(u) − ψ(θ)|,  ψ(u) = ln(u^{−½} − 1);      residual (d/0.7 mm) / √(1 + (d/5 mm)²)

   5 mm bounds the say of places where the tissue maps or the model are wrong. S, the sum of squares of these residuals,
   of the PET term and of the terms that keep u admissible, has an unknown scale, since neighbouring cells err
   together and models err systematically. With n effective observations of unknown variance and normal priors,
   −2 ln(posterior) is n ln S + Σ ((x − μ)/s)² up to a constant; minimized is the same in the units of the loss,

       S · exp(Σ ((x − μ)/s)² / n),  n = 12       ln ℓ [mm]      ln 1.0 ± 0.35       θ_nec   0.775 ± 0.05
                                                  ln R           ln 4   ± 1          θ_core  0.525 ± 0.05
                                                  ln ρ [1/day]   ln 0.1 ± 0.7        θ_oed   0.25  ± 0.06
                                                  ln v           ln 0.3 ± 0.7

   Most priors have the middle and about the width of the ranges used for simulated glioblastomas: D and ρ ∈
   [0.035, 0.2], and the thresholds of ``data.draw``. Those of R and of v, the speed in what the maps call cerebrospinal
   fluid, are wide and lie where people are: left free, fits to real tumours went to R of 2.3 to 3.5, not to the 10 to
   30 of simulated ones. ℓ stays above a fifth of the mean cell size: a grid must not be asked for what it cannot carry.

3. *PET in its own units.* The misfit u − s(PET − b) shrinks with s whatever the image shows. Divided by s it is a
   misfit of the image, with noise of a tenth of the maximum; and the image shows the density blurred by 5 mm (FWHM),
   which left out reads as a flat front. Labels keep their weight of 12.

4. *An anchor.* The full fit then charges parameters for leaving that estimate, in units of the curvature that the
   parameters' loss has on the coarsest grid (‖y‖² in the coordinates of ``variables``), instead of the hinges.

5. *Fronts of the grid.* Cells of 2 mm carry fronts too fast and too far; the grid gets rates with which they travel as
   on voxels of 1 mm (``pde.lattice``). All other terms are the reference's.

Each can be left out (``FitConfig.left_out``): the first ("rim"), the halves of the second ("distances", "priors"), the
third ("pet"), the fifth ("fronts"), and with them the search for more than one focus ("foci", ``foci``).
"""

from __future__ import annotations

import math

import torch

from gliodil.inference.blur import blur
from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig, Term
from gliodil.inference.parameters import Box, Scalars
from gliodil.inference.reference_loss import WEIGHT_SEGMENTATION, ReferenceLoss, Terms, squares
from gliodil.pde.lattice import GridRates, grid_rates

EFFECTIVE_OBSERVATIONS = 12.0
LENGTH_MM = (1.0, 0.35)
LENGTH_LIMITS_MM = (0.4, 5.0)
CELLS_PER_LENGTH = 0.2
"""Shortest infiltration length in units of the mean cell size."""
RATIO = (4.0, 1.0)
CSF_SPEED = (0.3, 0.7)
RATE = (0.1, 0.7)
THRESHOLD_NECROTIC = (0.775, 0.05)
THRESHOLD_CORE = (0.525, 0.05)
THRESHOLD_OEDEMA = (0.25, 0.06)
WEIGHT_PET_IMAGE = 10.0
"""Weight of the PET misfit: noise of a tenth of the image's maximum."""
PET_FWHM_MM = 5.0
"""Full width at half maximum of a PET scanner's point spread."""
TOLERANCE_MM = 0.7
OUTLIER_MM = 5.0
_DENSITY = (1e-12, 1 - 1e-4)  # where ψ is evaluated


class InformedLoss(ReferenceLoss):
    """Reference loss with three levels, parameters from distances and priors, and an anchor."""

    anchored = True

    def has(self, term: Term) -> bool:
        """Whether a term is in force."""
        return term not in self.config.left_out

    @property
    def three_levels(self) -> bool:
        """Whether the segmentation shows necrosis, and it counts."""
        return self.has("rim") and self.case.has_necrosis

    @property
    def several_foci(self) -> bool:
        """Whether further foci are looked for."""
        return self.has("foci")

    def box(self) -> Box:
        """Return a box wide enough for the priors to decide."""
        shortest = max(LENGTH_LIMITS_MM[0], CELLS_PER_LENGTH * sum(self.case.grid.spacing) / 3)
        return Box(
            with_pet=self.case.pet is not None,
            with_necrosis=self.three_levels,
            with_csf=self.case.model.csf is not None,
            length=(shortest, max(LENGTH_LIMITS_MM[1], 2 * shortest)),
            slowest_rate=0.005,
            ratio=(1.0, 300.0),
            threshold_core=(0.3, 0.75),
            threshold_oedema=(0.05, 0.5),
        )

    def seed(self, origins: torch.Tensor, *, cutoff_width: float = 0.0) -> torch.Tensor:
        """Return the reference's seed in passable cells: elsewhere it would grow, cell by cell, in place."""
        return super().seed(origins, cutoff_width=cutoff_width) * (1 - self.impassable)

    def rates(self, p: Scalars) -> GridRates:
        """Return the rates with which fronts on the grid travel as on voxels of 1 mm."""
        if not self.has("fronts"):
            return super().rates(p)
        return grid_rates(*self._growth(p), spacing=self.case.grid.spacing, csf_speed=self._csf_speed(p))

    def thresholds(self, p: Scalars) -> tuple[torch.Tensor, ...]:
        """Return those of the reference and, if there is necrosis, its own."""
        outer = super().thresholds(p)
        return (*outer, p.threshold_necrotic) if self.three_levels else outer

    @property
    def weight_segmentation(self) -> float:
        """The reference's weight without PET, with PET too."""
        return WEIGHT_SEGMENTATION if self.has("pet") else super().weight_segmentation

    def data_residuals(self, last: torch.Tensor, p: Scalars) -> Terms:
        """Return the reference's residuals; PET is compared with the blurred density, in the units of the image."""
        residuals = super().data_residuals(last, p)
        if self.case.pet is not None and self.pet_where is not None and self.has("pet"):
            grid = self.case.grid
            sigmas = [PET_FWHM_MM / math.sqrt(8 * math.log(2)) / h for h in grid.spacing]
            seen = blur(grid.box(last), sigmas).reshape(-1) / p.pet_scale + p.pet_background
            residuals["pet"] = (
                (seen - self.case.pet) * self.pet_where * (WEIGHT_PET_IMAGE / math.sqrt(self.entries))
            )
        return residuals

    def parameter_stage(self, last: torch.Tensor, p: Scalars, admissibility: Terms) -> Terms:
        """Return the label misfits as distances and what the priors add to them."""
        residuals = self.data_residuals(last, p)
        if self.has("distances"):
            residuals |= self.distances(last, p)
        terms = {**squares(residuals), **admissibility}
        misfit = torch.stack([t.double() for t in terms.values()]).sum()
        deviations = self.deviations(p).square().sum() * self.has("priors")
        return {**terms, "parameters": misfit * torch.expm1(deviations / EFFECTIVE_OBSERVATIONS)}

    def distances(self, last: torch.Tensor, p: Scalars) -> Terms:
        """Return the label misfits as distances along the front, bounded."""
        scale = 1 / math.sqrt(self.entries)
        lower, upper = self.levels(p)
        length = (p.diffusivity / p.proliferation_rate).sqrt()
        here = front_coordinate(last)
        short = torch.where(last < lower, here - front_coordinate(lower), 0.0)
        beyond = torch.where(last > upper, front_coordinate(upper) - here, 0.0)
        return {
            "seg_lower": self.robust(math.sqrt(6) * length * short) * scale,
            "seg_upper": self.robust(math.sqrt(6) * length * beyond) * scale,
        }

    def robust(self, distance: torch.Tensor) -> torch.Tensor:
        return distance / TOLERANCE_MM / (1 + (distance / OUTLIER_MM).square()).sqrt()

    def deviations(self, p: Scalars) -> torch.Tensor:
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
        if self.case.model.csf is not None:
            deviations.append((p.csf_speed.log() - math.log(CSF_SPEED[0])) / CSF_SPEED[1])
        return torch.stack(deviations)


def front_coordinate(u: torch.Tensor) -> torch.Tensor:
    """ψ(u) = ln(u^{−½} − 1): distance along the front in units of √6 ℓ."""
    return (u.clamp(*_DENSITY) ** -0.5 - 1).log()


def make_loss(case: Case, config: FitConfig) -> ReferenceLoss:
    """Return the loss a configuration asks for."""
    return ReferenceLoss(case, config) if config.loss == "reference" else InformedLoss(case, config)
