"""dz/dt = f(t, z): adaptive explicit Runge-Kutta solves whose error and stiffness estimates can be differentiated.

Gradients are those of the method on the grid it chose: steps h_j, accept and reject decisions and the first step are
constants (discretize, then optimize).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch

from gliodil.errors import InputError
from gliodil.pde.ode.controller import PIController
from gliodil.pde.ode.heuristics import NOISE_LIMIT, PrecisionWarning
from gliodil.pde.ode.march import Path, Rules, march
from gliodil.pde.ode.solution import Solution
from gliodil.pde.ode.step import Field
from gliodil.pde.ode.tableaus import Tableau, get_tableau

Adjoint = Literal["tape", "checkpointed", "continuous"]
RECORDS = ("error", "stiffness", "path")


def solve(
    f: Field,
    z0: torch.Tensor,
    times: Sequence[float] | torch.Tensor,
    *,
    method: str = "tsit5",
    rtol: float = 1e-6,
    atol: float = 1e-6,
    adjoint: Adjoint = "tape",
    record: Iterable[str] = (),
    max_steps: int = 10_000,
    first_step: float | None = None,
    steps: Sequence[float] | None = None,
    controller: PIController | None = None,
) -> Solution:
    """Solve dz/dt = f(t, z) from z(times[0]) = z0; see `gliodil.pde.ode` for what this guarantees."""
    tableau = get_tableau(method)
    moments = check_times(times)
    wanted = check_record(record, tableau)
    check_state(z0)
    check_tolerances(rtol, atol, max_steps)
    rules = Rules(
        tableau=tableau,
        controller=controller or PIController.of(tableau),
        rtol=float(rtol),
        atol=float(atol),
        max_steps=max_steps,
        first=first_step,
        frozen=None if steps is None else tuple(float(h) for h in steps),
        errors="error" in wanted,
        stiffness="stiffness" in wanted,
        path="path" in wanted,
    )
    path = march(f, z0, moments, rules)
    return to_solution(path, torch.stack(padded(path.states, len(moments))), moments, rules)


def to_solution(path: Path, states: torch.Tensor, times: tuple[float, ...], rules: Rules) -> Solution:
    """Wrap what the loop left, and warn where it worked at the level of round-off."""
    if path.noise > NOISE_LIMIT:
        message = (
            f"Round-off is {path.noise:.2g} of what the tolerances rtol = {rules.rtol:g}, atol = {rules.atol:g} "
            f"allow in {states.dtype}: steps follow noise, and gradients of the error estimate are noise. Use "
            "float64, looser tolerances, method='dp5', or a local regularizer in float64."
        )
        warnings.warn(message, PrecisionWarning, stacklevel=3)
    empty = states.new_zeros(0)
    return Solution(
        times=times,
        states=states,
        reached=len(path.states),
        status=path.status,
        message=path.message,
        steps=tuple(path.steps),
        accepted=len(path.steps),
        rejected=path.rejected,
        evaluations=path.evaluations,
        method=rules.tableau.name,
        noise_floor=path.noise,
        recorded_errors=(torch.stack(path.errors) if path.errors else empty) if rules.errors else None,
        recorded_stiffness=(torch.stack(path.stiffness) if path.stiffness else empty)
        if rules.stiffness
        else None,
        recorded_path=tuple(path.starts) if rules.path else None,
        events=tuple(path.events),
    )


def padded(states: list[torch.Tensor], count: int) -> list[torch.Tensor]:
    """Return the states, and NaN for the times that were not reached."""
    if len(states) == count:
        return states
    return states + [torch.full_like(states[0], math.nan)] * (count - len(states))


def check_times(times: Sequence[float] | torch.Tensor) -> tuple[float, ...]:
    """Return the times as floats: at least two, finite, strictly increasing or strictly decreasing."""
    values = times.tolist() if isinstance(times, torch.Tensor) else list(times)
    moments = tuple(float(t) for t in values)
    gaps = [b - a for a, b in pairwise(moments)]
    monotone = all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)
    if len(moments) < 2 or not monotone or not all(map(math.isfinite, moments)):
        raise InputError(
            "These are not times to solve for.",
            expected="at least two finite times, strictly increasing or strictly decreasing",
            found=", ".join(f"{t:g}" for t in moments[:8]) or "none",
        )
    return moments


def check_record(record: Iterable[str], tableau: Tableau) -> frozenset[str]:
    """Return what is recorded, or say what cannot be."""
    wanted = frozenset((record,) if isinstance(record, str) else record)
    if not wanted <= set(RECORDS):
        raise InputError(
            "There is no such record of a solve.",
            expected=", ".join(RECORDS),
            found=", ".join(sorted(wanted - set(RECORDS))),
        )
    if "stiffness" in wanted and not tableau.same_abscissa:
        raise InputError(
            f"{tableau.title} has no two stages at one time, which the stiffness estimate compares.",
            remedy="method='tsit5', 'dp5' or 'heun'",
        )
    return wanted


def check_state(z0: torch.Tensor) -> None:
    """Refuse states that are not real floating-point tensors with entries."""
    if not isinstance(z0, torch.Tensor) or not z0.dtype.is_floating_point or z0.numel() == 0:
        found = f"{tuple(z0.shape)}, {z0.dtype}" if isinstance(z0, torch.Tensor) else type(z0).__name__
        raise InputError(
            "The initial state is not a floating-point tensor with entries.",
            expected="a tensor of float32 or float64",
            found=found,
        )


def check_tolerances(rtol: float, atol: float, max_steps: int) -> None:
    """Refuse tolerances that nothing can meet."""
    if not (rtol >= 0 and atol >= 0 and 0 < rtol + atol < math.inf) or max_steps < 1:
        raise InputError(
            "Tolerances must not be negative, nor both zero, and there must be a step to take.",
            found=f"rtol = {rtol:g}, atol = {atol:g}, max_steps = {max_steps}",
        )
