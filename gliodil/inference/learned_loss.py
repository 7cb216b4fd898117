"""The loss of a growth law that is learned from visits, and its gradient (``learned`` says what it is made of)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from gliodil.errors import NumericsError
from gliodil.inference.learned_case import LearnedCase
from gliodil.pde.models.learned_growth import Correction
from gliodil.pde.odil.problem import Point
from gliodil.pde.reaction_diffusion.problem import Logistic, ReactionDiffusion
from gliodil.pde.reaction_diffusion.solve import solve
from gliodil.pde.reaction_diffusion.table import NODES, TabulatedGrowth, density_nodes

if TYPE_CHECKING:
    from gliodil.inference.learned import LearnedConfig

DIFFUSIVITY, RATE = (1e-4, 10.0), (1e-4, 1.0)
"""Where D_w [mm²/day] and ρ [1/day] may lie."""
NEGLIGIBLE = 1e-3
"""Misfit, in variances, of which nothing is worth gaining: convergence is judged relative to it plus the loss."""


class VisitLoss:
    """The loss in [log D_w and log ρ] or, once there is a correction to learn, [log D_w and log ρ, θ].

    Where the first visit is noisy, q of the start comes last (``learned_start``).
    """

    def __init__(self, case: LearnedCase, config: LearnedConfig, sigma: float) -> None:
        self.case, self.config, self.sigma = case, config, sigma
        self.correction: Correction | None = None
        self.weight = 0.0
        self.table_evaluations = 0

    def learn(self, scale: float) -> None:
        """Begin to learn a correction, in units of a rate [1/day]."""
        grid = self.case.model.tissue.grid
        self.correction = Correction(
            scale,
            generator=torch.Generator().manual_seed(self.config.seed),
            tissue=self.config.tissue,
            dtype=grid.dtype,
            device=grid.device,
        )

    def flat(self) -> torch.Tensor:
        """Return θ as one vector."""
        assert self.correction is not None
        return torch.nn.utils.parameters_to_vector(self.correction.parameters()).detach().clone()

    def growth(self, x: Point) -> Logistic | TabulatedGrowth:
        """Return the reaction at x."""
        rho = torch.exp(x[0][1])
        if self.correction is None:
            return Logistic(rho)
        torch.nn.utils.vector_to_parameters(x[1].detach().clone(), self.correction.parameters())
        return self.case.model.growth(rho, self.correction)

    def densities(self, x: Point, growth: Logistic | TabulatedGrowth) -> list[torch.Tensor] | None:
        """Return the start and the model's density at each later visit, differentiable; None where there is none."""
        case, config = self.case, self.config
        coefficients = case.model.coefficients(torch.exp(x[0][0]), config.wm_gm_ratio)
        problem = ReactionDiffusion(case.model.tissue.grid, coefficients, growth)
        u = case.start if case.field is None or len(x) < 3 else case.field.density(x[2])
        found = [u]
        for span in case.spans:
            steps = math.ceil(span / config.step_days - 1e-9)
            solution = solve(problem, u, duration=span, steps=steps, tolerance=1e-4)
            if solution.status != "finished":
                return None
            u = solution.u
            found.append(u)
        return found

    def at(self, x: Point) -> VisitLossAt:
        """Evaluate at x."""
        return VisitLossAt(self, x)

    def terms(self, x: Point) -> dict[str, torch.Tensor]:
        """Return the terms at x, differentiable in x[0] and the correction's parameters; none where inadmissible."""
        d, rho = (float(torch.exp(v)) for v in x[0].detach())
        if not (DIFFUSIVITY[0] < d < DIFFUSIVITY[1] and RATE[0] < rho < RATE[1]):
            return {}
        try:
            growth = self.growth(x)
            densities = self.densities(x, growth)
        except NumericsError:
            return {}
        if densities is None:
            return {}
        case = self.case
        compared = len(case.seen) if len(x) > 2 else len(case.spans)  # a start that is given is not compared
        pairs = zip(densities[-compared:], case.seen[-compared:], strict=True)
        errors = [(u - seen)[case.region] for u, seen in pairs]
        misfit = torch.stack([(e / self.sigma).square().mean() for e in errors]).mean()
        terms = {"misfit": misfit, "negligible": misfit.new_tensor(NEGLIGIBLE)}
        if case.field is not None and len(x) > 2:
            terms["start"] = case.field.price(x[2]) / (compared * case.region.sum())
        if isinstance(growth, TabulatedGrowth):
            self.table_evaluations += growth.evaluations
            if self.weight > 0:
                terms["regularizer"] = self.weight * self.regularizer(growth)
        return terms

    def regularizer(self, growth: TabulatedGrowth) -> torch.Tensor:
        """Return R of the correction."""
        if self.config.regularizer == "er":
            return torch.stack(growth.errors).sum()
        grid = self.case.model.tissue.grid
        u = density_nodes(grid.dtype, grid.device)
        assert self.correction is not None
        g = self.correction(u, torch.full_like(u, 0.5))
        bend = (g[2:] - 2 * g[1:-1] + g[:-2]) * NODES**2
        bent: torch.Tensor = (bend / self.correction.scale).square().mean()
        return bent


class VisitLossAt:
    """The loss at one point."""

    def __init__(self, loss: VisitLoss, x: Point) -> None:
        self._correction = loss.correction
        # θ is differentiated where it lives, in the correction.
        self._x = [t.detach().clone().requires_grad_(k != 1) for k, t in enumerate(x)]
        self._terms = loss.terms(self._x)
        self.terms: Mapping[str, float] = {name: float(t.detach()) for name, t in self._terms.items()}
        self.value = sum(self.terms.values()) if self.terms else math.inf

    def gradient(self) -> Point:
        """Return ∂L/∂x."""
        total = torch.stack(list(self._terms.values())).sum()
        parameters = [] if self._correction is None else list(self._correction.parameters())
        inputs = [self._x[0], *self._x[2:]]
        found = torch.autograd.grad(total, [*inputs, *parameters], materialize_grads=True)
        self._terms = {}
        of_p, *of_field = found[: len(inputs)]
        if not parameters:
            return [of_p]
        return [of_p, torch.cat([g.reshape(-1) for g in found[len(inputs) :]]), *of_field]
