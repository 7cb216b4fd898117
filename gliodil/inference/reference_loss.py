"""The reference loss: the discrete loss of the public GliODIL code (Balcerak et al., arXiv 2312.05063).

    L = Σ_terms  1/(Nt·N) Σ_entries (weight · residual)²      +  (Σ parameter hinges)²

    pde        2400 λ   (uⁿ − uⁿ⁻¹)/Δt − ½ [A(uⁿ) + A(uⁿ⁻¹)],  n ≥ 1
    initial    1000     u⁰ − g(x − x₀)
    seg_lower  12 | 4   max(0, lower − u) at the last level; lower = θ_core in core, θ_oed in oedema, 0 outside
    seg_upper  12 | 4   max(0, u − upper) at the last level; upper = 1 in core, θ_core in oedema, θ_oed outside
    pet        45       u − s (PET − b) at the last level, in enhancing tumour and oedema, where PET > 0.1
    bounds     1        distance of u from [0, 1]
    csf        0.01     u in impassable cells

(12 without PET, 4 with.) Terms that live on one level are divided by Nt·N all the same. The seed g is ``pde.seed``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.parameters import Box, Scalars
from gliodil.pde import fused
from gliodil.pde.lattice import GridRates, plain_rates
from gliodil.pde.memory import Memory
from gliodil.pde.odil.field import field_squares
from gliodil.pde.residual import theta_residual
from gliodil.pde.seed import gaussian_seed

WEIGHT_PDE = 2400.0
WEIGHT_INITIAL = 1000.0
WEIGHT_SEGMENTATION = 12.0
WEIGHT_SEGMENTATION_WITH_PET = 4.0
WEIGHT_PET = 45.0
WEIGHT_BOUNDS = 1.0
WEIGHT_CSF = 0.01
PET_CUTOFF = 0.1

Terms = dict[str, torch.Tensor]


class ReferenceLoss:
    """The loss of one case; terms are returned separately, their sum is the loss."""

    anchored = False
    """Whether the full fit charges parameters for leaving the estimate it started from."""

    def __init__(self, case: Case, config: FitConfig) -> None:
        self.case, self.config = case, config
        self.entries = config.steps * case.grid.cells
        self.memory = Memory()  # of all that are fitted on this grid, one after the other
        self.centres = case.grid.centres()
        self.impassable = (~case.model.passable).to(case.grid.dtype)
        self.pet_where: torch.Tensor | None = None
        if case.pet is not None:
            self.pet_where = (case.pet > PET_CUTOFF) & (case.enhancing | case.oedema)

    @property
    def several_foci(self) -> bool:
        """Whether a tumour may start from more than one point."""
        return False

    @property
    def sigma_pde(self) -> float:
        """σ such that the pde term is Σ (σ r)²."""
        return WEIGHT_PDE * self.config.pde_weight / math.sqrt(self.entries)

    @property
    def sigma_initial(self) -> float:
        """σ such that the initial term is Σ (σ (u⁰ − g))²."""
        return WEIGHT_INITIAL / math.sqrt(self.entries)

    @property
    def weight_segmentation(self) -> float:
        """Weight of the label misfits."""
        return WEIGHT_SEGMENTATION if self.case.pet is None else WEIGHT_SEGMENTATION_WITH_PET

    def seed(self, origins: torch.Tensor, *, cutoff_width: float = 0.0) -> torch.Tensor:
        """Return min(1, Σ_k g(x − x_k)) for origins of shape (K, 3) [mm from the grid's corner], shape (N,).

        The reference has one focus and a cutoff; ``cutoff_width`` smooths that (see ``pde.seed``).
        """
        seeds = [gaussian_seed(self.centres, origin, cutoff_width=cutoff_width) for origin in origins]
        return torch.stack(seeds).sum(dim=0).clamp(max=1)

    def box(self) -> Box:
        """Return the box of parameters that is searched: where the hinges are zero."""
        return Box(with_pet=self.case.pet is not None)

    def parameter_residuals(self, p: Scalars) -> torch.Tensor:
        """Return the residuals of the parameter term, one-dimensional."""
        return p.hinge_sum().reshape(1)

    def parameter_stage(self, last: torch.Tensor, p: Scalars, admissibility: Terms) -> Terms:
        """Return the terms the parameters alone are fitted to, with exact physics, before the full fit.

        ``admissibility`` are the bounds and csf terms of the run that ended in ``last``.
        """
        parameters = self.parameter_residuals(p).square().sum()
        return {**squares(self.data_residuals(last, p)), **admissibility, "parameters": parameters}

    def thresholds(self, p: Scalars) -> tuple[torch.Tensor, ...]:
        """Return the densities at the boundaries between labels, outwards in."""
        return p.threshold_oedema, p.threshold_core

    def levels(self, p: Scalars) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lower and upper bound of the density at the last level that the labels imply."""
        boundaries = self.thresholds(p)
        return by_label(self.case, (0.0, *boundaries)), by_label(self.case, (*boundaries, 1.0))

    def data_residuals(self, last: torch.Tensor, p: Scalars) -> Terms:
        """Return the weighted residuals of the last level; the terms are their sums of squares."""
        case = self.case
        scale = 1 / math.sqrt(self.entries)
        weight = self.weight_segmentation
        lower, upper = self.levels(p)
        residuals = {
            "seg_lower": (lower - last).clamp(min=0) * (weight * scale),
            "seg_upper": (last - upper).clamp(min=0) * (weight * scale),
        }
        if case.pet is not None and self.pet_where is not None:
            misfit = last - p.pet_scale * (case.pet - p.pet_background)
            residuals["pet"] = misfit * self.pet_where * (WEIGHT_PET * scale)
        return residuals

    def rates(self, p: Scalars) -> GridRates:
        """Return the rates of the equation on the grid: the parameters as they are."""
        return plain_rates(*self._growth(p), csf_speed=self._csf_speed(p))

    @staticmethod
    def _growth(p: Scalars) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return p.diffusivity, p.proliferation_rate, p.wm_gm_ratio

    def _csf_speed(self, p: Scalars) -> torch.Tensor | None:
        """The speed in cerebrospinal fluid, if that is open."""
        return None if self.case.model.csf is None else p.csf_speed

    def level_residuals(self, first: torch.Tensor, last: torch.Tensor, p: Scalars) -> Terms:
        """Return the weighted residuals that see no more of the field than its first and last level."""
        return {
            "initial": (first - self.seed(p.origins)) * self.sigma_initial,
            **self.data_residuals(last, p),
            "parameters": self.parameter_residuals(p),
        }

    def field_residuals(self, u: torch.Tensor, p: Scalars) -> Terms:
        """Return every weighted residual for a space-time field u of shape (Nt, N): the definition."""
        case = self.case
        rates = self.rates(p)
        coefficients = rates.coefficients(case.model)
        r = theta_residual(u, lambda w: case.model.rate(w, coefficients, rates.proliferation), self.config.dt)
        scale = 1 / math.sqrt(self.entries)
        return {
            "pde": r * self.sigma_pde,
            **self.level_residuals(u[0], u[-1], p),
            "bounds": (u - u.clamp(0, 1)) * (WEIGHT_BOUNDS * scale),
            "csf": u * self.impassable * (WEIGHT_CSF * scale),
        }

    def of_field(self, u: torch.Tensor, p: Scalars) -> Terms:
        """Return every term for a space-time field u, shape (Nt, N); differentiable."""
        if not fused.applies(u):
            return squares(self.field_residuals(u, p))
        case, rates = self.case, self.rates(p)
        seen = field_squares(
            u.to(case.grid.dtype),
            rates.coefficients(case.model),
            rates.proliferation,
            self.impassable,
            dt=self.config.dt,
        )
        return {
            "pde": seen.physics * self.sigma_pde**2,
            **squares(self.level_residuals(seen.first, seen.last, p)),
            "bounds": seen.bounds * (WEIGHT_BOUNDS**2 / self.entries),
            "csf": seen.outside * (WEIGHT_CSF**2 / self.entries),
        }


def by_label(
    case: Case, levels: Sequence[torch.Tensor | float], *, cells: torch.Tensor | slice = slice(None)
) -> torch.Tensor:
    """Return the level of each of the ``cells``, given those outside, in oedema, core and perhaps necrosis."""
    outside, *inwards = levels
    field = torch.as_tensor(outside, device=case.core.device)
    for mask, level in zip((case.oedema, case.core, case.necrotic), inwards, strict=False):
        field = torch.where(mask[cells], level, field)
    return field


def squares(residuals: Terms) -> Terms:
    """Return the sums of squares, accumulated in float64."""
    return {name: r.double().square().sum() for name, r in residuals.items()}
