"""The loss where the equation holds exactly, in the parameters y alone.

    u⁰ = Σ_k g(x − x_k),      (uⁿ⁺¹ − uⁿ)/Δt = ½ [A(uⁿ⁺¹) + A(uⁿ)],      D(x) = D_w (w + g/R)

The seed's cutoff makes the loss jump whenever an origin carries a cell across it; a smooth ramp replaces it here.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import WEIGHT_BOUNDS, WEIGHT_CSF, Terms
from gliodil.inference.variables import TransformedLoss
from gliodil.pde.odil.problem import Point
from gliodil.pde.odil.trajectory import Trajectory, sweep
from gliodil.pde.operators import Faces

SEED_RAMP = 0.25
"""Relative width of the ramp in place of the seed's cutoff, on cells of up to 5 mm."""


def seed_ramp(spacing: tuple[float, float, float]) -> float:
    """Return the ramp's relative width on cells of ``spacing`` [mm].

    On larger cells it reaches further than half a cell's diagonal, so that no origin lies between cells without a seed.
    Below 1 the seed still ends.
    """
    size = math.sqrt(sum(h**2 for h in spacing) / 3)
    return min(max(SEED_RAMP, size / 20), 0.95)


class ExactPhysics:
    """Evaluates the loss of the parameter stage at points [y]."""

    def __init__(self, objective: TransformedLoss) -> None:
        self.objective = objective

    def start(self) -> Point:
        """Return y = 0."""
        return [self.objective.coordinates.zero()]

    def at(self, x: Point) -> LossAt:
        """Evaluate the loss at x."""
        return LossAt(self, x)

    def terms(self, x: Point) -> Terms:
        """Return the terms at x, differentiable; none where they cannot be evaluated."""
        run = self.run(x)
        if run is None:
            return {}
        p, t = run
        reference, entries = self.objective.loss, self.objective.loss.entries
        admissibility = {
            "bounds": t.bounds * (WEIGHT_BOUNDS**2 / entries),
            "csf": t.outside * (WEIGHT_CSF**2 / entries),
        }
        return reference.parameter_stage(t.last, p, admissibility)

    def run(self, x: Point) -> tuple[Scalars, Trajectory] | None:
        """Return the parameters and the density at every level, differentiable; None where x is inadmissible."""
        objective = self.objective
        p = objective.coordinates.scalars(x[0])
        if not objective.admissible(p):
            return None
        coefficients, rate = objective.equation(p)
        x_faces, y_faces, z_faces = (c.detach() for c in coefficients.values)
        steps = objective.steps(
            Faces((x_faces, y_faces, z_faces), coefficients.strides), float(rate.detach())
        )
        width = seed_ramp(objective.loss.case.grid.spacing)
        u0 = objective.loss.seed(p.origins, cutoff_width=width).to(objective.dtype)
        count = objective.steps_shape[0]
        memory = objective.loss.memory
        trajectory = sweep(
            u0, None, coefficients, rate, objective.impassable, steps, count=count, memory=memory
        )
        return p, trajectory


class Differentiable(Protocol):
    """A loss in terms that autograd can go through."""

    def terms(self, x: Point) -> Terms:
        """Return the terms at x; none where they cannot be evaluated."""


class LossAt:
    """A loss at one point."""

    def __init__(self, landscape: Differentiable, x: Point) -> None:
        self._x = [t.detach().requires_grad_() for t in x]
        self._total: torch.Tensor | None = None
        self.value, self.terms = math.inf, dict[str, float]()
        terms = landscape.terms(self._x)
        if terms:
            self._total = torch.stack([t.double() for t in terms.values()]).sum()
            self.value = float(self._total.detach())
            self.terms = {name: float(t.detach()) for name, t in terms.items()}

    def gradient(self) -> Point:
        """Return the gradient at x."""
        if self._total is None:
            raise ValueError("an inadmissible point has no gradient")
        return list(torch.autograd.grad(self._total, self._x))
