"""Solving a reaction-diffusion equation on a grid, with equal steps or with steps adapted to a tolerance.

Adapted steps keep the estimated local error of a step, largest over the cells, below the tolerance:

    E = max_i |e_i|,      accept where E ≤ tolerance,      h ← h · clip(0.8 (tolerance/E)^{1/3}, 0.2, 5)

The largest error is used and not a mean, because a tumour fills a small part of its box: a mean would change with the
size of the box. Step sizes and decisions are numbers, not tensors: a gradient is that of the method on the steps taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from gliodil.errors import InputError, NumericsError
from gliodil.pde.reaction_diffusion.methods import Method, Rkc2, make
from gliodil.pde.reaction_diffusion.problem import ReactionDiffusion

MethodName = Literal["strang", "rkc2", "imex"]
Status = Literal["finished", "diverged", "stalled", "budget"]

BEYOND_DENSITY = 10.0
"""A density, a fraction of what tissue can carry, that has left this range has diverged."""


@dataclass(frozen=True)
class GridSolution:
    """Where a solution ended.

    Attributes
    ----------
    u
        Density at ``day``, shape (N,).
    status
        ``"finished"``; ``"diverged"`` (not finite, or far outside [0, 1]), ``"stalled"`` (steps shrank to nothing) or
        ``"budget"`` (``max_steps`` taken): then u is the last density that was good, before the end.
    message
        The same in words.
    day
        Time reached [day].
    steps
        Sizes of the accepted steps [day].
    rejected
        Number of steps that were done again.
    evaluations
        Applications of the diffusion operator (of its exact flow where there is one), rejected steps included.
    """

    u: torch.Tensor
    status: Status
    message: str
    day: float
    steps: tuple[float, ...]
    rejected: int
    evaluations: int


def solve(
    problem: ReactionDiffusion,
    u0: torch.Tensor,
    *,
    duration: float,
    method: MethodName = "strang",
    steps: int | None = None,
    tolerance: float = 1e-3,
    max_steps: int = 10_000,
) -> GridSolution:
    """Advance a density.

    Parameters
    ----------
    problem
        Equation and grid.
    u0
        Density at the start, shape (N,), in [0, 1].
    duration
        Time span [day].
    method
        ``"strang"`` (try this first), ``"rkc2"`` or ``"imex"``.
    steps
        Number of equal steps; if not given, steps are adapted to the tolerance.
    tolerance
        Largest local error of an adapted step, as a density. For ``"strang"`` it is that of a second-order result, and a
        better one is returned. Where D varies, ``"strang"`` approximates the diffusion to the same tolerance, spread
        over the duration, with equal steps too.
    max_steps
        Budget of adapted steps, rejected ones included.

    Returns
    -------
    The density at the end, differentiable in u0, the coefficients and the reaction, and what it took. Trouble on the
    way is a status, not an exception.

    Raises
    ------
    InputError
        If an argument makes no sense.
    NumericsError
        If the coefficients are not finite.
    """
    if (
        not (duration >= 0 and math.isfinite(duration))
        or (steps is not None and steps < 1)
        or not tolerance > 0
    ):
        raise InputError(
            "The time span, the steps or the tolerance make no sense.",
            expected="a finite duration in days, at least one step, a positive tolerance",
            found=f"duration {duration}, steps {steps}, tolerance {tolerance}",
        )
    if not (math.isfinite(problem.bound) and math.isfinite(problem.reaction.stiffness())):
        raise NumericsError("The coefficients of the equation are not finite.", found=f"{problem.bound}")
    chosen = make(method, problem, tolerance / max(duration, 1e-9))
    if duration == 0:
        return GridSolution(u0, "finished", "Nothing to do.", 0.0, (), 0, 0)
    if steps is not None:
        return _equal(chosen, u0, duration, steps)
    return _adapted(chosen, u0, duration, tolerance, max_steps)


def _equal(method: Method, u0: torch.Tensor, duration: float, steps: int) -> GridSolution:
    h = duration / steps
    try:
        u = method.sweep(u0, h, steps)
    except NumericsError as error:
        return GridSolution(u0, "diverged", str(error), 0.0, (), 0, method.evaluations)
    if not sane(u):
        message = (
            f"{steps} steps of {h:.3g} days are too large for this equation; nothing of the result is kept."
        )
        return GridSolution(u0, "diverged", message, 0.0, (), 0, method.evaluations)
    message = f"{steps} equal steps of {h:.3g} days."
    return GridSolution(u, "finished", message, duration, (h,) * steps, 0, method.evaluations)


def _adapted(
    method: Method, u0: torch.Tensor, duration: float, tolerance: float, max_steps: int
) -> GridSolution:
    u, day, h = u0, 0.0, duration / 10
    taken: list[float] = []
    rejected, finite = 0, True
    status: Status = "finished"
    while day < duration * (1 - 1e-12):
        if len(taken) + rejected >= max_steps:
            status = "budget"
            break
        if h < 1e-9 * duration:
            status = "stalled" if finite else "diverged"
            break
        h = min(h, duration - day)
        try:
            after, estimate = method.estimated(u, h)
            error = float(estimate.abs().max()) / tolerance
            finite = math.isfinite(error) and sane(after)
        except NumericsError:  # an inner iteration failed: to be tried with a shorter step
            finite = False
        if finite and error <= 1:
            u, day = after, day + h
            taken.append(h)
        else:
            rejected += 1
            if isinstance(method, Rkc2):
                method.refuse()
        h *= min(5.0, max(0.2, 0.8 * error ** (-1 / 3))) if finite and error > 0 else (5.0 if finite else 0.2)
    message = {
        "finished": f"{len(taken)} steps, {rejected} done again.",
        "budget": f"{max_steps} steps were not enough; day {day:.3g} was reached.",
        "stalled": f"Steps shrank to nothing at day {day:.3g}.",
        "diverged": f"No step from day {day:.3g} leads to a finite density.",
    }[status]
    return GridSolution(u, status, message, day, tuple(taken), rejected, method.evaluations)


def sane(u: torch.Tensor) -> bool:
    """Whether a density is finite and not far outside [0, 1]."""
    return float(u.detach().abs().max()) < BEYOND_DENSITY


__all__ = ["GridSolution", "MethodName", "Status", "solve"]
