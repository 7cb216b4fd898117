"""The adaptive loop: try a step, read its error once, accept or reject, put out states at the times asked for.

Times, steps and decisions are Python floats; only the state is a tensor. The loop runs on the tape where gradients are
enabled, and off it otherwise. No step goes past the last time, which is hit exactly; states in between come from dense
output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from gliodil.errors import InputError
from gliodil.pde.ode.controller import SMALLEST_REMEMBERED_ERROR, PIController, first_step, trial_step
from gliodil.pde.ode.heuristics import noise_floor, scaled_rms
from gliodil.pde.ode.solution import EventHit, Status
from gliodil.pde.ode.step import Field, Step, take_step
from gliodil.pde.ode.tableaus import Tableau

SMALLEST_STEP = 16 * torch.finfo(torch.float64).eps
"""Smallest step, relative to the times: below it t + h is not told from t."""
STABILITY_BOUND = 0.6
"""h·S over the stability interval, from which on a step counts as held by stability."""
STIFF_STEPS = 20
"""Such steps in a row that end a solve which would not fit its limit."""


@dataclass(frozen=True)
class Rules:
    """How the loop goes.

    Attributes
    ----------
    tableau, controller
        The pair and what chooses its steps.
    rtol, atol
        Tolerances.
    max_steps
        Largest number of attempted steps.
    first
        Length of the first step; None: found by the heuristic, for one evaluation.
    frozen
        Take exactly these steps, signed, and accept them all; None: adapt.
    errors, stiffness, path
        What is recorded.
    """

    tableau: Tableau
    controller: PIController
    rtol: float
    atol: float
    max_steps: int = 10_000
    first: float | None = None
    frozen: tuple[float, ...] | None = None
    errors: bool = False
    stiffness: bool = False
    path: bool = False


@dataclass
class Path:
    """What the loop leaves behind."""

    states: list[torch.Tensor]
    status: Status = "done"
    message: str = "Reached the last time."
    steps: list[float] = field(default_factory=list)
    rejected: int = 0
    evaluations: int = 1
    noise: float = 0.0
    errors: list[torch.Tensor] = field(default_factory=list)
    stiffness: list[torch.Tensor] = field(default_factory=list)
    starts: list[torch.Tensor] = field(default_factory=list)
    events: list[EventHit] = field(default_factory=list)

    def end(self, status: Status, message: str) -> Path:
        """Set how it ended."""
        self.status, self.message = status, message
        return self


class Outputs(NamedTuple):
    """What gradients flow from.

    Attributes
    ----------
    states
        At the times that were reached.
    errors, stiffness
        Of the accepted steps; empty where they were not recorded.
    """

    states: torch.Tensor
    errors: torch.Tensor
    stiffness: torch.Tensor


def stacked(path: Path) -> Outputs:
    """Return the path's outputs as tensors."""
    states = torch.stack(path.states)
    errors, stiffness = (
        torch.stack(record) if record else states.new_zeros(0) for record in (path.errors, path.stiffness)
    )
    return Outputs(states, errors, stiffness)


Watch = Callable[[Step, float, list[EventHit]], float | None]
"""Told of every accepted step and of its end; appends events, and returns the time at which to stop, if any."""


def march(
    f: Field,
    z0: torch.Tensor,
    times: Sequence[float],
    rules: Rules,
    *,
    k1: torch.Tensor | None = None,
    watch: Watch | None = None,
    on_step: Callable[[Step, range], None] | None = None,
) -> Path:
    """Integrate from times[0] to times[-1], putting out z at all of them.

    ``k1`` is f(times[0], z0) where it is known. ``on_step`` is told of every accepted step, and of the indices of the
    times that fell into it.
    """
    tableau, control = rules.tableau, rules.controller
    t, end = times[0], times[-1]
    sign = math.copysign(1.0, end - t)
    path = Path([z0])
    k1 = first_rate(f, t, z0) if k1 is None else k1
    rate = scaled_rms(k1, z0, rules.rtol, rules.atol)
    h = 0.0 if rules.frozen is not None else choose_first_step(f, t, z0, k1, end, rules, path)
    smallest = SMALLEST_STEP * max(abs(t), abs(end))
    frozen = iter(rules.frozen) if rules.frozen is not None else None

    z, last_error, held, done = z0, SMALLEST_REMEMBERED_ERROR, 0, 1
    while done < len(times):
        if len(path.steps) + path.rejected >= rules.max_steps:
            return path.end("step_limit", _too_many(t, rules))
        if frozen is not None:
            h = next(frozen, 0.0)
            if h == 0:
                raise InputError("The frozen steps end before the last time.", found=f"t = {t:g} of {end:g}")
        is_last = abs(end - t) <= abs(h) * (1 + 1e-10)
        if is_last and frozen is None:
            h = end - t
        step = take_step(f, t, h, z, k1, tableau, error=rules.errors)
        path.evaluations += tableau.stages - 1

        estimate = None
        if rules.errors:
            estimate = step.error(tableau, rules.rtol, rules.atol)
        elif frozen is None:
            with torch.no_grad():
                estimate = step.error(tableau, rules.rtol, rules.atol)
        if frozen is None:
            assert estimate is not None
            error = estimate.item()
            if not error <= 1:
                path.rejected += 1
                h = control.rejected(h, error)
                if abs(h) < smallest:
                    return path.end("diverged", _singular(t, error))
                continue
        else:
            error = 0.0

        t_new = end if is_last else t + h
        path.steps.append(h)
        if rules.errors and estimate is not None:
            path.errors.append(estimate)
        if rules.stiffness:
            path.stiffness.append(step.stiffness())
        if rules.path:
            path.starts.append(z)
        if len(path.steps) == 1 or is_last:
            if is_last:
                rate = scaled_rms(step.stages[-1], step.z_new, rules.rtol, rules.atol)
            path.noise = max(path.noise, noise_floor(h, rate, tableau, z0.dtype))

        stop = watch(step, t_new, path.events) if watch is not None else None
        horizon = t_new if stop is None else stop
        first = done
        while done < len(times) and sign * (horizon - times[done]) >= 0:
            inside = times[done] != t_new
            path.states.append(step.at(times[done], tableau) if inside else step.z_new)
            done += 1
        if on_step is not None:
            on_step(step, range(first, done))
        if stop is not None:
            return path.end("event", f"A terminal event stopped the solve at t = {stop:g}.")

        if frozen is None:
            wanted, last_error = control.accepted(h, error, last_error)
            if not is_last and abs(end - t_new) > abs(wanted) * (rules.max_steps - len(path.steps)):
                held = held + 1 if _held_by_stability(step, tableau) else 0
                if held >= STIFF_STEPS:
                    return path.end("stiff", _stiff(t_new, wanted, end))
            if not is_last and abs(wanted) < smallest:
                return path.end("diverged", _singular(t_new, error))
            h = wanted
        t, z, k1 = t_new, step.z_new, step.stages[-1]
    if frozen is not None and not bool(torch.isfinite(z).all()):
        return path.end("diverged", "The frozen steps led to values that are not finite.")
    return path


def first_rate(f: Field, t: float, z0: torch.Tensor) -> torch.Tensor:
    """Return f(t, z0), checked: what it returns must be a tensor like the state."""
    k1 = f(t, z0)
    if not isinstance(k1, torch.Tensor) or k1.shape != z0.shape or k1.dtype != z0.dtype:
        found = f"{tuple(k1.shape)}, {k1.dtype}" if isinstance(k1, torch.Tensor) else type(k1).__name__
        raise InputError(
            "The right-hand side does not return a tensor like the state.",
            expected=f"{tuple(z0.shape)}, {z0.dtype}",
            found=found,
        )
    return k1


def choose_first_step(
    f: Field, t: float, z0: torch.Tensor, k1: torch.Tensor, end: float, rules: Rules, path: Path
) -> float:
    """Return the signed length of the first step: the one given, or one found by looking ahead."""
    span = abs(end - t)
    if rules.first is not None:
        return math.copysign(min(abs(rules.first), span), end - t)
    with torch.no_grad():
        state = scaled_rms(z0, z0, rules.rtol, rules.atol)
        rate = scaled_rms(k1, z0, rules.rtol, rules.atol)
        trial = min(trial_step(state, rate), span)
        signed = math.copysign(trial, end - t)
        moved = f(t + signed, torch.add(z0.detach(), k1.detach(), alpha=signed))
        change = scaled_rms(moved - k1.detach(), z0, rules.rtol, rules.atol) / trial
    path.evaluations += 1
    return math.copysign(min(first_step(state, rate, change, trial, rules.tableau.order), span), end - t)


def _held_by_stability(step: Step, tableau: Tableau) -> bool:
    with torch.no_grad():
        return abs(step.h) * step.stiffness().item() > STABILITY_BOUND * tableau.stability


def _too_many(t: float, rules: Rules) -> str:
    return (
        f"Took {rules.max_steps} steps and is at t = {t:g}: loosen rtol and atol ({rules.rtol:g}, {rules.atol:g}), "
        "or raise max_steps."
    )


def _singular(t: float, error: float) -> str:
    what = "is not finite" if not math.isfinite(error) else "does not shrink with the step"
    return (
        f"At t = {t:g} the error {what} and the step fell below round-off of the time: the solution leaves "
        "the numbers, or f is discontinuous there."
    )


def _stiff(t: float, h: float, end: float) -> str:
    return (
        f"At t = {t:g} stability holds the steps at {abs(h):.2g}; {abs(end - t) / abs(h):.2g} more would be needed. "
        "The equation is stiff: split off or solve implicitly what is fast, or regularize its stiffness."
    )
