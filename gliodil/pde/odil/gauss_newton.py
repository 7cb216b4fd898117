"""Gauss-Newton for a large smooth prior seen through few data, with conjugate gradients in the space of the data.

    L(x) = ‖x‖²_M + ‖d(x)‖² + small terms,      J = ∂d/∂x,      ½ ∇²L ≈ M + JᵀJ

The unknown x is a space-time field, the data d live on one level of it. Each iteration minimizes the quadratic model
with the exact gradient g and this Hessian, damped by μ (Levenberg-Marquardt): with M' = M + μI

    δ = a h + M'⁻¹ Jᵀ s,      h = ½ M'⁻¹ g,      (M' + JᵀJ) δ = −½ g .

Conjugate gradients for δ started at 0 stay in that form, so they run on the number a and the vector s alone
(restricted preconditioned conjugate gradients: Gratton & Tshimanga, Q. J. R. Meteorol. Soc. 135, 2009). One CG step
costs one application of Jᵀ and one of J; its vectors have the length of the data. M is diagonal, one number for each
tensor of x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from gliodil.pde.odil.problem import (
    Minimum,
    Neighbourhood,
    Point,
    Recorder,
    Status,
    add_scaled,
    dot,
)
from gliodil.pde.resume import State

LARGEST_DAMPING = 1e8
ROUND_OFF = 1e-13
FIRST_DAMPING = 0.02
SHORTEST_STEP = 0.01


class Linearized(Neighbourhood, Protocol):
    """A loss around one point, with the derivative of its data residuals d."""

    def push(self, dx: Point) -> torch.Tensor:
        """Return J dx, one-dimensional."""

    def pull(self, d: torch.Tensor) -> Point:
        """Return Jᵀ d; the tensors may be overwritten by the next call."""


class LinearizedLandscape(Protocol):
    """A loss as a function of the point; ``metric`` holds the diagonal of M, one number for each tensor."""

    @property
    def metric(self) -> Sequence[float]:
        """The diagonal of M."""

    def at(self, x: Point) -> Linearized:
        """Evaluate at x, which must not be changed as long as the result is in use."""


@dataclass(frozen=True)
class GaussNewtonOptions:
    """Settings of ``gauss_newton``.

    Attributes
    ----------
    tolerance
        Converged when three steps in a row lower the loss by less than this fraction, or an undamped one promises less
        than a tenth of it.
    max_evaluations
        Budget, counted in pairs of a forward and an adjoint sweep.
    cg_iterations, cg_tolerance
        The inner iteration ends there, or when its gradient has fallen by this factor.
    max_step
        Longest step allowed in the first tensor of the point (the parameters), Euclidean.
    """

    tolerance: float = 1e-3
    max_evaluations: int = 250
    cg_iterations: int = 30
    cg_tolerance: float = 5e-2
    max_step: float = math.inf


def gauss_newton(
    landscape: LinearizedLandscape, x0: Point, options: GaussNewtonOptions, record: Recorder
) -> Minimum:
    """Minimize from x0; never raises on numerical trouble, the status says what happened."""
    kept = record.begin(record.stage)
    if kept is not None and "minimum" in kept:
        return Minimum(**kept["minimum"])
    if kept is not None:
        before = record.evaluations - kept["spent"]
        x, mu, quiet = (kept.pop(name) for name in ("x", "mu", "quiet"))
        here = landscape.at(x)
    else:
        before, mu, quiet = record.evaluations, 0.0, 0
        x = x0
        here = landscape.at(x)
        record.evaluations += 1
    status: Status = "iteration_limit"
    message = f"Stopped after {options.max_evaluations} gradients; the loss was still falling."
    if not math.isfinite(here.value):
        message = "The loss is not finite at the start."
        return record.ended(Minimum(x, here.value, here.terms, "diverged", message, 1))
    if kept is None:
        record(here.value)

    def state() -> State:
        return {"x": x, "mu": mu, "quiet": quiet, "spent": record.evaluations - before}

    while record.evaluations - before < options.max_evaluations:
        record.keep(state)
        g = here.gradient()
        if dot(g, g) == 0:
            status, message = "converged", "The gradient is zero."
            break
        step, predicted = _step(here, g, landscape.metric, mu, options, record)
        if abs(predicted) <= ROUND_OFF * here.value:
            status, message = "converged", "What a step promises is round-off."
            break
        if not predicted > 0:
            status, message = "stalled", "The linear model finds no way down."
            break
        length = float(step[0].norm()) if step[0].numel() else 0.0
        scale = min(1.0, options.max_step / max(length, 1e-300))
        slope = dot(g, step)
        found = None
        while scale >= SHORTEST_STEP:
            trial = add_scaled(x, step, scale)
            there = landscape.at(trial)
            record.evaluations += 1
            if here.value - there.value > 1e-4 * -slope * scale:
                found = trial, there
                break
            scale *= 0.4
        decrease = 0.0
        if found is not None:
            decrease = here.value - found[1].value
            x, here = found
            record(here.value)
        if scale < 1:
            mu = min(max(mu, FIRST_DAMPING) / scale, 100 * max(mu, FIRST_DAMPING))
        elif decrease > 0.7 * predicted:
            mu = 0.0 if mu < FIRST_DAMPING else mu / 4
        if found is not None:
            quiet = quiet + 1 if decrease <= options.tolerance * here.value else 0
        if quiet >= 3 or (
            found is not None and mu == 0 and predicted <= 0.1 * options.tolerance * here.value
        ):
            status = "converged"
            message = f"Steps lower the loss by less than {options.tolerance:.2g} of its value."
            break
        if mu > LARGEST_DAMPING:
            status, message = "stalled", "No damped step lowers the loss any further."
            break
    return record.ended(Minimum(x, here.value, here.terms, status, message, record.evaluations - before))


def _step(
    here: Linearized,
    g: Point,
    metric: Sequence[float],
    mu: float,
    options: GaussNewtonOptions,
    record: Recorder,
) -> tuple[Point, float]:
    """Return the step δ and the decrease of the loss that the (undamped) model promises for it."""
    damped = [m + mu for m in metric]

    h = [t / (2 * m) for t, m in zip(g, damped, strict=True)]
    h_h = sum(m * dot([t], [t]) for t, m in zip(h, damped, strict=True))
    j_h = here.push(h)

    # Vectors x = a h + M'⁻¹ Jᵀ s are kept as (a, s, Jx); everything is linear in the three.
    def product(x: _Dual, y: _Dual) -> float:
        return x.a * y.a * h_h + x.a * _inner(j_h, y.s) + _inner(x.s, y.j)

    zero = torch.zeros_like(j_h)
    x, r = _Dual(0.0, zero.clone(), zero.clone()), _Dual(-1.0, zero.clone(), -j_h)
    p = r.copy()
    rho = first = h_h
    for _ in range(options.cg_iterations):
        alpha = rho / (product(p, p) + _inner(p.j, p.j))
        x.add_(p, alpha)
        r.a -= alpha * p.a
        r.s.sub_(p.s, alpha=alpha).sub_(p.j, alpha=alpha)
        pulled = here.pull(r.s)
        r.j = here.push([t if m == 1 else t / m for t, m in zip(pulled, damped, strict=True)])
        r.j.add_(j_h, alpha=r.a)
        record.evaluations += 1
        rho, before = product(r, r), rho
        if rho <= options.cg_tolerance**2 * first:
            break
        p.scale_(rho / before)
        p.add_(r, 1.0)
    step = [t.mul_(x.a).add_(q / m) for t, q, m in zip(h, here.pull(x.s), damped, strict=True)]
    promised = -dot(g, step) - _inner(x.j, x.j)
    promised -= sum(m * dot([t], [t]) for t, m in zip(step, metric, strict=True))
    return step, promised


@dataclass
class _Dual:
    """x = a h + M'⁻¹ Jᵀ s, with j = Jx."""

    a: float
    s: torch.Tensor
    j: torch.Tensor

    def copy(self) -> _Dual:
        return _Dual(self.a, self.s.clone(), self.j.clone())

    def add_(self, other: _Dual, factor: float) -> None:
        self.a += factor * other.a
        self.s.add_(other.s, alpha=factor)
        self.j.add_(other.j, alpha=factor)

    def scale_(self, factor: float) -> None:
        self.a *= factor
        self.s.mul_(factor)
        self.j.mul_(factor)


def _inner(a: torch.Tensor, b: torch.Tensor) -> float:
    return dot([a], [b])
