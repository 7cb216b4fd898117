"""Every sample with steps of its own, and finished samples leave the batch.

One attempt evaluates f once per stage for all rows still under way; each row has its own t, h, error and decision. Rows
that reached the last time, or cannot, are dropped at once (compaction), so the work is the mean number of steps over
the samples and not the largest. f must treat rows one by one: a row's rate may not depend on which others are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gliodil.pde.ode.controller import SMALLEST_REMEMBERED_ERROR, first_step, trial_step
from gliodil.pde.ode.heuristics import NOISE_LIMIT, noise_floor, warn_of_noise
from gliodil.pde.ode.march import SMALLEST_STEP, STABILITY_BOUND, STIFF_STEPS, Rules, first_rate
from gliodil.pde.ode.rows import Attempt, RowField, attempt, column
from gliodil.pde.ode.solution import Solution, Status
from gliodil.pde.ode.tableaus import Tableau


@dataclass
class Row:
    """Where one sample is; all of it numbers."""

    sample: int
    t: float
    h: float
    next_time: int = 1
    last_error: float = SMALLEST_REMEMBERED_ERROR
    attempts: int = 0
    held: int = 0
    status: Status | None = None


@dataclass
class Found:
    """What the rows put out: tensors, and where they belong."""

    outputs: list[torch.Tensor]
    places: list[int]
    errors: list[torch.Tensor] = field(default_factory=list)
    stiffness: list[torch.Tensor] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    rejected: int = 0
    evaluations: int = 2
    noise: float = 0.0


def solve_per_sample(f: RowField, z0: torch.Tensor, times: tuple[float, ...], rules: Rules) -> Solution:
    """Solve every row of z0, shape (B, …), with steps of its own; on the tape."""
    tableau, rtol, atol = rules.tableau, rules.rtol, rules.atol
    samples, count = len(z0), len(times)
    found = Found([z0], list(range(samples)))
    rows, k1 = _start(f, z0, times, rules, found)
    ended: list[Row] = []
    z = z0
    sign, end = math.copysign(1.0, times[-1] - times[0]), times[-1]
    smallest = SMALLEST_STEP * max(abs(times[0]), abs(end))
    while rows:
        lasts = [abs(end - row.t) <= abs(row.h) * (1 + 1e-10) for row in rows]
        for row, last in zip(rows, lasts, strict=True):
            row.h, row.attempts = end - row.t if last else row.h, row.attempts + 1
        step = attempt(f, [row.t for row in rows], [row.h for row in rows], z, k1, tableau)
        found.evaluations += tableau.stages - 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and rules.errors):
            estimates = step.errors(tableau, rtol, atol)
        values: list[float] = estimates.tolist()
        if not all(map(math.isfinite, values)):
            # Their NaN would reach the gradients of the others: what is not finite must not be on the tape at all.
            finite = [n for n, value in enumerate(values) if math.isfinite(value)]
            z, k1, step, estimates = _without(f, rows, finite, z, k1, step, tableau, rules, found)
        else:
            finite = list(range(len(rows)))
        taken = [n for n in finite if values[n] <= 1]
        within = {n: i for i, n in enumerate(finite)}
        chosen = [within[n] for n in taken]
        _record(step, estimates, rows, taken, chosen, rules, found)
        held = _held(step, rows, finite, times, rules)
        outputs: list[tuple[int, int, float]] = []
        for n, (row, last, value) in enumerate(zip(rows, lasts, values, strict=True)):
            if n in within and value <= 1:
                t_new = end if last else row.t + row.h
                while row.next_time < count and sign * (t_new - times[row.next_time]) >= 0:
                    q = (times[row.next_time] - row.t) / row.h
                    outputs.append((within[n], row.next_time * samples + row.sample, q))
                    row.next_time += 1
                row.t = t_new
                row.h, row.last_error = rules.controller.accepted(row.h, value, row.last_error)
                row.held = row.held + 1 if held.get(n, False) else 0
            else:
                found.rejected += 1
                row.h = rules.controller.rejected(row.h, value)
            row.status = _status(row, count, smallest, rules)
        if outputs:
            found.outputs.append(step.at([(row, q) for row, _, q in outputs], tableau))
            found.places += [place for _, place, _ in outputs]

        stay = [n for n, row in enumerate(rows) if row.status is None]
        ended += [row for row in rows if row.status is not None]
        z, k1 = _advance(step, z, k1, stay, set(taken), within)
        rows = [rows[n] for n in stay]
    return _solution(found, ended, z0, times, rules)


def _row_norms(x: torch.Tensor, z: torch.Tensor, rules: Rules) -> list[float]:
    scaled = (x / (rules.atol + rules.rtol * z.abs())).flatten(1)
    norms: list[float] = (torch.linalg.vector_norm(scaled, dim=1) / math.sqrt(scaled.shape[1])).tolist()
    return norms


def _start(
    f: RowField, z0: torch.Tensor, times: tuple[float, ...], rules: Rules, found: Found
) -> tuple[list[Row], torch.Tensor]:
    t, span = times[0], times[-1] - times[0]
    begin = column([t] * len(z0), z0)
    k1 = first_rate(lambda _, z: f(begin, z), t, z0)
    with torch.no_grad():
        states, rates = _row_norms(z0, z0, rules), _row_norms(k1, z0, rules)
        trials = [min(trial_step(s, r), abs(span)) for s, r in zip(states, rates, strict=True)]
        ahead = column([math.copysign(trial, span) for trial in trials], z0)
        moved = f(begin + ahead, z0 + ahead * k1)
        changes = [c / trial for c, trial in zip(_row_norms(moved - k1, z0, rules), trials, strict=True)]
    rows = []
    for sample, facts in enumerate(zip(states, rates, changes, trials, strict=True)):
        h = rules.first if rules.first is not None else first_step(*facts, rules.tableau.order)
        h = math.copysign(min(abs(h), abs(span)), span)
        rows.append(Row(sample, t, h))
        if math.isfinite(facts[1]):
            found.noise = max(found.noise, noise_floor(h, facts[1], rules.tableau, z0.dtype))
    return rows, k1


def _without(
    f: RowField,
    rows: Sequence[Row],
    finite: list[int],
    z: torch.Tensor,
    k1: torch.Tensor,
    step: Attempt,
    tableau: Tableau,
    rules: Rules,
    found: Found,
) -> tuple[torch.Tensor, torch.Tensor, Attempt, torch.Tensor]:
    """Repeat an attempt with the rows that gave finite numbers."""
    if not finite:
        return z, k1, step, step.h.flatten()
    index = torch.tensor(finite, device=z.device)
    t, h = [rows[n].t for n in finite], [rows[n].h for n in finite]
    again = attempt(f, t, h, z[index], k1[index], tableau)
    found.evaluations += tableau.stages - 1
    return z, k1, again, again.errors(tableau, rules.rtol, rules.atol)


def _record(
    step: Attempt,
    estimates: torch.Tensor,
    rows: Sequence[Row],
    taken: list[int],
    chosen: list[int],
    rules: Rules,
    found: Found,
) -> None:
    found.steps += [rows[n].h for n in taken]
    found.samples += [rows[n].sample for n in taken]
    if taken and rules.errors:
        found.errors.append(estimates[chosen])
    if taken and rules.stiffness:
        found.stiffness.append(step.stiffness()[chosen])


def _held(
    step: Attempt, rows: Sequence[Row], finite: list[int], times: tuple[float, ...], rules: Rules
) -> dict[int, bool]:
    """Return which rows that would not fit their limit are held by stability."""
    late = [
        (i, n)
        for i, n in enumerate(finite)
        if abs(times[-1] - rows[n].t) > abs(rows[n].h) * (rules.max_steps - rows[n].attempts)
    ]
    if not late:
        return {}
    with torch.no_grad():
        S = step.stiffness().tolist()
    bound = STABILITY_BOUND * rules.tableau.stability
    return {n: abs(rows[n].h) * S[i] > bound for i, n in late}


def _status(row: Row, count: int, smallest: float, rules: Rules) -> Status | None:
    if row.next_time == count:
        return "done"
    if abs(row.h) < smallest:
        return "diverged"
    if row.held >= STIFF_STEPS:
        return "stiff"
    return "step_limit" if row.attempts >= rules.max_steps else None


def _advance(
    step: Attempt,
    z: torch.Tensor,
    k1: torch.Tensor,
    stay: list[int],
    taken: set[int],
    within: dict[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return z and k₁ of the rows that stay: new where the step was taken, old where not."""
    if len(stay) == len(within) == len(z) and taken.issuperset(stay):
        return step.z_new, step.stages[-1]
    parts = [([n for n in stay if n in taken], True), ([n for n in stay if n not in taken], False)]
    order = torch.tensor(parts[0][0] + parts[1][0], device=z.device).argsort()
    pieces: list[tuple[torch.Tensor, torch.Tensor]] = []
    for group, new in parts:
        index = torch.tensor([within[n] if new else n for n in group], dtype=torch.long, device=z.device)
        pieces.append((step.z_new[index], step.stages[-1][index]) if new else (z[index], k1[index]))
    if not stay:
        return z[:0], k1[:0]
    return (
        torch.cat((pieces[0][0], pieces[1][0]))[order],
        torch.cat((pieces[0][1], pieces[1][1]))[order],
    )


def _solution(
    found: Found, rows: Sequence[Row], z0: torch.Tensor, times: tuple[float, ...], rules: Rules
) -> Solution:
    if found.noise > NOISE_LIMIT:
        warn_of_noise(found.noise, rules.rtol, rules.atol, z0.dtype)
    samples, count = len(z0), len(times)
    places = torch.tensor(found.places, device=z0.device)
    blank = z0.new_full((count * samples, *z0.shape[1:]), math.nan)
    states = blank.index_copy(0, places, torch.cat(found.outputs)).view(count, *z0.shape)
    failed = [row for row in rows if row.status != "done"]
    status: Status = failed[0].status or "done" if failed else "done"
    message = "Reached the last time."
    if failed:
        message = (
            f"{len(failed)} of {samples} samples did not reach the last time, the first of them sample "
            f"{failed[0].sample} at t = {failed[0].t:g} ({status}). Their later states are NaN."
        )
    empty = z0.new_zeros(0)
    return Solution(
        times=times,
        states=states,
        reached=min(row.next_time for row in rows),
        status=status,
        message=message,
        steps=tuple(found.steps),
        accepted=len(found.steps),
        rejected=found.rejected,
        evaluations=found.evaluations,
        method=rules.tableau.name,
        noise_floor=found.noise,
        recorded_errors=(torch.cat(found.errors) if found.errors else empty) if rules.errors else None,
        recorded_stiffness=(torch.cat(found.stiffness) if found.stiffness else empty)
        if rules.stiffness
        else None,
        samples=samples,
        sample_of_step=tuple(found.samples),
    )
