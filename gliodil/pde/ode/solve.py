"""dz/dt = f(t, z): adaptive explicit Runge-Kutta solves whose error and stiffness estimates can be differentiated.

Gradients are those of the method on the grid it chose: steps h_j, accept and reject decisions and the first step are
constants (discretize, then optimize).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch

from gliodil.errors import InputError
from gliodil.pde.ode.checkpointed import solve_checkpointed
from gliodil.pde.ode.continuous import solve_continuous
from gliodil.pde.ode.controller import PIController
from gliodil.pde.ode.events import Event, Watcher, check_events
from gliodil.pde.ode.heuristics import NOISE_LIMIT, warn_of_noise
from gliodil.pde.ode.march import Outputs, Path, Rules, march, stacked
from gliodil.pde.ode.parameters import parameters_of
from gliodil.pde.ode.per_sample import solve_per_sample
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
    parameters: Iterable[torch.Tensor] | None = None,
    record: Iterable[str] = (),
    per_sample: bool = False,
    events: Sequence[Event] | None = None,
    max_steps: int = 10_000,
    first_step: float | None = None,
    steps: Sequence[float] | None = None,
    controller: PIController | None = None,
) -> Solution:
    """Solve dz/dt = f(t, z) from z(times[0]) = z0 and return the states at all times.

    Parameters
    ----------
    f
        ``f(t: float, z) -> tensor`` shaped like z.
    z0
        Initial state, any shape, float32 or float64. The error is a mean over all its entries: one step for all.
    times
        At least two, strictly increasing or decreasing; dense output in between. No gradient goes to them.
    method
        ``tsit5``, ``dp5``, ``bs3`` or ``heun`` (``tableaus``).
    rtol, atol
        A step is accepted where rms(e / (atol + rtol max(|z|, |z⁺|))) ≤ 1.
    adjoint
        ``tape``: every operation is on autograd's tape; f may close over anything. ``checkpointed``: the same
        gradient from two states per step, for about 1.4 times the time. ``continuous``: the adjoint equation, solved
        backwards to the same tolerances; approximate, and blind to error and stiffness.
    parameters
        For the last two: the tensors besides z0 that f depends on and that need gradients. None: those of f where it
        is an nn.Module. One that is forgotten is an error, not a gradient of zero.
    record
        Any of ``error``, ``stiffness`` and ``path``; see `Solution`. ``path`` needs the tape.
    per_sample
        Every row of z0, shape (B, …), has steps of its own and leaves the batch when it is done. f gets t of shape
        (rows, 1, …) and the rows under way, and must treat them one by one. Records then run over the steps of all
        samples; ``sample_of_step`` says whose each is. Tape only, without events and given steps.
    events
        Functions whose zeros are found (`Event`). Tape only.
    max_steps
        Largest number of attempted steps, per sample where they have their own.
    first_step
        Length of the first step; None: found by looking ahead with one evaluation.
    steps
        Take exactly these signed steps and adapt nothing: the grid of another solve, or a fixed one.
    controller
        Exponents and limits of the step control; None: the pair's own.

    Raises
    ------
    InputError
        Arguments that make no sense. How the solve ended is in the solution's status, not raised.
    """
    tableau = get_tableau(method)
    moments = check_times(times)
    wanted = check_record(record, tableau)
    check_state(z0)
    check_tolerances(rtol, atol, max_steps)
    check_adjoint(adjoint, wanted, parameters)
    watched = check_events(events or ())
    if adjoint != "tape" and (watched or per_sample):
        raise InputError("Events and steps per sample need the tape.", found=adjoint, remedy='adjoint="tape"')
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
    if per_sample:
        check_per_sample(z0, rules, watched)
        return solve_per_sample(f, z0, moments, rules)  # type: ignore[arg-type]
    if adjoint == "tape":
        watch = Watcher(watched, moments[0], z0, tableau) if watched else None
        path = march(f, z0, moments, rules, watch=watch)
        return to_solution(path, stacked(path), moments, rules)
    named = parameters_of(f, parameters)
    solver = solve_checkpointed if adjoint == "checkpointed" else solve_continuous
    path, outputs = solver(f, z0, moments, rules, named)
    return to_solution(path, outputs, moments, rules)


def to_solution(path: Path, outputs: Outputs, times: tuple[float, ...], rules: Rules) -> Solution:
    """Wrap what the loop left, and warn where it worked at the level of round-off."""
    if path.noise > NOISE_LIMIT:
        warn_of_noise(path.noise, rules.rtol, rules.atol, outputs.states.dtype)
    return Solution(
        times=times,
        states=padded(outputs.states, len(times)),
        reached=len(path.states),
        status=path.status,
        message=path.message,
        steps=tuple(path.steps),
        accepted=len(path.steps),
        rejected=path.rejected,
        evaluations=path.evaluations,
        method=rules.tableau.name,
        noise_floor=path.noise,
        recorded_errors=outputs.errors if rules.errors else None,
        recorded_stiffness=outputs.stiffness if rules.stiffness else None,
        recorded_path=tuple(path.starts) if rules.path else None,
        events=tuple(path.events),
    )


def padded(states: torch.Tensor, count: int) -> torch.Tensor:
    """Return the states, and NaN for the times that were not reached."""
    missing = count - len(states)
    if missing == 0:
        return states
    return torch.cat((states, states.new_full((missing, *states.shape[1:]), math.nan)))


def check_adjoint(adjoint: str, wanted: frozenset[str], parameters: Iterable[torch.Tensor] | None) -> None:
    """Refuse what an adjoint cannot do."""
    if adjoint not in get_args(Adjoint):
        raise InputError(
            "There is no such adjoint.", expected=", ".join(get_args(Adjoint)), found=str(adjoint)
        )
    impossible = {"tape": set(), "checkpointed": {"path"}, "continuous": set(RECORDS)}[adjoint] & wanted
    if impossible:
        raise InputError(
            f"The {adjoint} adjoint has no gradient of: {', '.join(sorted(impossible))}.",
            remedy='adjoint="tape"' + (' or "checkpointed"' if "path" not in wanted else ""),
        )
    if parameters is not None and adjoint == "tape":
        raise InputError(
            "The tape finds its parameters by itself.",
            remedy='leave parameters out, or adjoint="checkpointed"',
        )


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


def check_per_sample(z0: torch.Tensor, rules: Rules, events: Sequence[Event]) -> None:
    """Refuse what steps per sample cannot do."""
    if z0.ndim < 2 or rules.frozen is not None or rules.path or events:
        raise InputError(
            "Steps per sample need a state of shape (B, …), and have neither events, given steps nor a path.",
            found=f"a state of shape {tuple(z0.shape)}",
        )


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
