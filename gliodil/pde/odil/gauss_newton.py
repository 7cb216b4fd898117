"""Gauss-Newton with conjugate gradients and a Levenberg-Marquardt damping, in float64.

Loss = ‖r(x)‖². With J = ∂r/∂x each iteration solves (JᵀJ + μI) d = −Jᵀr by CG, applying J and Jᵀ by
automatic differentiation, never forming them. μ follows the ratio of the actual to the predicted
decrease (Nocedal & Wright, ch. 10). CG on the normal equations squares the condition number, hence float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from gliodil.pde.odil.problem import Minimum, Point, Recorder, Status

FREE_STEP = 1e-2
"""A step counts as free while the damping μ is below this fraction of ‖g‖/‖d‖."""

ROUND_OFF = 1e-13
"""Fraction of the first loss below which changes of a float64 sum of squares mean nothing."""

Residuals = Callable[[Point], Point]
"""Maps a point to residual tensors whose squares sum to the loss; built of differentiable torch operations."""


@dataclass(frozen=True)
class GaussNewtonOptions:
    """Settings of ``gauss_newton``: relative tolerance on the decrease, iterations, CG steps, first damping μ."""

    tolerance: float = 1e-6
    max_iterations: int = 30
    cg_iterations: int = 40
    cg_tolerance: float = 1e-2
    damping: float = 1e-3


def gauss_newton(residuals: Residuals, x0: Point, options: GaussNewtonOptions, record: Recorder) -> Minimum:
    """Minimize ‖r(x)‖² from x0; the status says whether and why it stopped."""
    shapes = [t.shape for t in x0]
    ends = torch.tensor([0, *(t.numel() for t in x0)]).cumsum(0).tolist()

    def flat_residuals(x: torch.Tensor) -> torch.Tensor:
        point = [x[a:b].reshape(s) for (a, b), s in zip(pairwise(ends), shapes, strict=True)]
        return torch.cat([r.reshape(-1) for r in residuals(point)])

    x = torch.cat([t.detach().reshape(-1) for t in x0]).double()
    mu, status, message = options.damping, "iteration_limit", "Stopped at the limit of iterations."
    r = flat_residuals(x)
    value = float(r @ r)
    first = value
    record.evaluations += 1
    record(value)
    for _ in range(options.max_iterations):
        if not math.isfinite(value):
            status, message = "diverged", "The loss is not finite."
            break
        r, forward, transpose = _linearized(flat_residuals, x)
        g = transpose(r)
        d, applications = _cg(forward, transpose, mu, -g, options)
        record.evaluations += 1 + applications
        predicted = -float(2 * g @ d) - float(forward(d).square().sum())
        trial = flat_residuals(x + d)
        actual = value - float(trial @ trial)
        if actual > 0:
            x, value = x + d, value - actual
            record(value)
        # A heavily damped step promises little wherever it stands; only a nearly free one says something.
        free = mu <= max(options.damping, FREE_STEP * float(g.norm()) / max(float(d.norm()), 1e-300))
        small = predicted <= options.tolerance * value
        if value <= ROUND_OFF * first or (small and abs(actual) <= ROUND_OFF * first):
            status, message = "converged", "Converged: what is left of the loss is round-off."
            break
        if free and actual >= 0 and (small or actual <= options.tolerance * value):
            status, message = "converged", "Converged: the linear model promises no further decrease."
            break
        gain = actual / predicted if predicted > 0 else -1.0
        mu = mu / 4 if gain > 0.75 else mu * (1 if gain > 0.25 else 8)
        if mu > 1e12:
            status, message = "stalled", "No damped step decreases the loss any further."
            break
    point = [x[a:b].reshape(s) for (a, b), s in zip(pairwise(ends), shapes, strict=True)]
    final: Status = status  # type: ignore[assignment]
    return Minimum(point, value, {}, final, message, record.evaluations)


def _linearized(
    residuals: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """Return r, p ↦ Jp and q ↦ Jᵀq; Jp is the derivative of the linear map q ↦ Jᵀq, applied to p."""
    x = x.detach().requires_grad_()
    r = residuals(x)
    probe = torch.zeros_like(r, requires_grad=True)
    (transposed,) = torch.autograd.grad(r, x, probe, create_graph=True)

    def forward(p: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(transposed, probe, p, retain_graph=True)[0]

    def transpose(q: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(r, x, q, retain_graph=True)[0]

    return r.detach(), forward, transpose


def _cg(
    forward: Callable[[torch.Tensor], torch.Tensor],
    transpose: Callable[[torch.Tensor], torch.Tensor],
    mu: float,
    b: torch.Tensor,
    options: GaussNewtonOptions,
) -> tuple[torch.Tensor, int]:
    """Solve (JᵀJ + μI) d = b approximately; return d and the number of applications."""
    d, r = torch.zeros_like(b), b.clone()
    p, rr = r.clone(), float(b @ b)
    stop = options.cg_tolerance**2 * rr
    for k in range(options.cg_iterations):
        if rr <= stop or rr == 0:
            return d, k
        ap = transpose(forward(p)) + mu * p
        alpha = rr / float(p @ ap)
        d.add_(p, alpha=alpha)
        r.sub_(ap, alpha=alpha)
        rr, before = float(r @ r), rr
        p.mul_(rr / before).add_(r)
    return d, options.cg_iterations
