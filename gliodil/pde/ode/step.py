"""One Runge-Kutta step, and the weighted sums it is made of.

Stages are summed as z + Σ w_l k_l with the weights as numbers: out of place for the tape, in one autograd function
whose backward is the same numbers again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from gliodil.pde.ode.heuristics import error_norm, most_of_error, stiffness_estimate
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
    most
        h Σ_{i<s} e_i k_i on the tape; None where no gradient of the error was asked for.
    """

    t: float
    h: float
    z: torch.Tensor
    z_new: torch.Tensor
    before: torch.Tensor
    stages: list[torch.Tensor]
    most: torch.Tensor | None

    def error(self, tableau: Tableau, rtol: float, atol: float) -> torch.Tensor:
        """Return E of this step (``heuristics``); on the tape if the step was taken with its error."""
        most = self.most
        if most is None:
            assert not torch.is_grad_enabled(), "the tape lacks this step's error"
            most = most_of_error(self.stages, [self.h * e for e in tableau.e[:-1]])
        weight = self.h * tableau.e[-1]
        return error_norm(self.z, self.z_new, most, self.stages[-1], weight, rtol, atol)

    def stiffness(self) -> torch.Tensor:
        """Return S of this step (``heuristics``)."""
        return stiffness_estimate(self.stages[-1], self.stages[-2], self.z_new, self.before)

    def at(self, t: float, tableau: Tableau) -> torch.Tensor:
        """Return the state at a time inside the step by dense output."""
        weights = [self.h * b for b in tableau.dense_weights((t - self.t) / self.h)]
        return combine(self.z, self.stages, weights)


def take_step(
    f: Field,
    t: float,
    h: float,
    z: torch.Tensor,
    k1: torch.Tensor,
    tableau: Tableau,
    *,
    error: bool = False,
) -> Step:
    """Evaluate the stages after the first; on the tape where gradients are enabled, the error where asked for."""
    stages, g = [k1], z
    for c, row in zip(tableau.c[1:-1], tableau.a[1:-1], strict=True):
        g = combine(z, stages, [h * a for a in row])
        stages.append(f(t + c * h, g))
    weights = tuple(h * a for a in tableau.a[-1])
    most = None
    if error and torch.is_grad_enabled():
        errors = tuple(h * e for e in tableau.e[:-1])
        z_new, most = _CombineEnd.apply(weights, errors, z, *stages)  # type: ignore[no-untyped-call]
    else:
        z_new = combine(z, stages, weights)
    stages.append(f(t + tableau.c[-1] * h, z_new))
    return Step(t, h, z, z_new, g, stages, most)


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


class _CombineEnd(torch.autograd.Function):
    """The end of a step and most of its error, which go back to the same stages."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: tuple[float, ...],
        errors: tuple[float, ...],
        z: torch.Tensor,
        *stages: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.weights, ctx.errors = weights, errors
        ctx.set_materialize_grads(False)
        return _sum(z, stages, weights), most_of_error(stages, errors)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, z_bar: torch.Tensor | None, e_bar: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        bars: list[torch.Tensor | None] = []
        for weight, error, need in zip(ctx.weights, ctx.errors, ctx.needs_input_grad[3:], strict=True):
            bar = z_bar * weight if need and z_bar is not None and weight else None
            if need and e_bar is not None and error:
                bar = e_bar * error if bar is None else bar.add_(e_bar, alpha=error)
            bars.append(bar)
        return (None, None, z_bar, *bars)
