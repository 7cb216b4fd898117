"""One Runge-Kutta step, and the weighted sums it is made of.

Stages are summed as z + Σ w_l k_l with the weights as numbers: out of place for the tape, in one autograd function
whose backward is the same numbers again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from gliodil.pde.ode.heuristics import error_norm, stiffness_estimate
from gliodil.pde.ode.tableaus import Tableau

Field = Callable[[float, torch.Tensor], torch.Tensor]
"""f(t, z): the right-hand side, shaped like z."""


class Step(NamedTuple):
    """One attempted step.

    Attributes
    ----------
    t, h
        Where it starts and how far it goes.
    z, z_new
        State before and after.
    before
        g_{s−1}, the input of the stage before the last; the last one's is z_new.
    stages
        k_1 … k_s; the last is f(t + h, z_new).
    """

    t: float
    h: float
    z: torch.Tensor
    z_new: torch.Tensor
    before: torch.Tensor
    stages: list[torch.Tensor]

    def error(self, tableau: Tableau, rtol: float, atol: float) -> torch.Tensor:
        """Return E of this step (``heuristics``)."""
        return error_norm(self.z, self.z_new, self.stages, self.h, tableau, rtol, atol)

    def stiffness(self) -> torch.Tensor:
        """Return S of this step (``heuristics``)."""
        return stiffness_estimate(self.stages[-1], self.stages[-2], self.z_new, self.before)

    def at(self, t: float, tableau: Tableau) -> torch.Tensor:
        """Return the state at a time inside the step by dense output."""
        weights = [self.h * b for b in tableau.dense_weights((t - self.t) / self.h)]
        return combine(self.z, self.stages, weights)


def take_step(f: Field, t: float, h: float, z: torch.Tensor, k1: torch.Tensor, tableau: Tableau) -> Step:
    """Evaluate the stages after the first; on the tape where gradients are enabled."""
    stages, g, before = [k1], z, z
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        before = g
        g = combine(z, stages, [h * a for a in row])
        stages.append(f(t + c * h, g))
    return Step(t, h, z, g, before, stages)


def combine(z: torch.Tensor, stages: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return z + Σ w_l k_l."""
    if torch.is_grad_enabled():
        return _Combine.apply(tuple(weights), z, *stages)  # type: ignore[no-any-return, no-untyped-call]
    return _sum(z, stages, weights)


def _sum(z: torch.Tensor, stages: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    out: torch.Tensor | None = None
    for weight, k in zip(weights, stages, strict=True):
        if weight == 0:
            continue
        out = torch.add(z, k, alpha=weight) if out is None else out.add_(k, alpha=weight)
    return z.clone() if out is None else out


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: tuple[float, ...], z: torch.Tensor, *stages: torch.Tensor) -> torch.Tensor:
        ctx.weights = weights
        return _sum(z, stages, weights)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        needed = ctx.needs_input_grad[2:]
        bars = [
            grad * weight if need and weight else None
            for weight, need in zip(ctx.weights, needed, strict=True)
        ]
        return (None, grad, *bars)
