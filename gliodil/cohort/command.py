"""`gliodil cohort`: arguments in, the cohort run or summed up, what happened in words, exit code out."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gliodil.cohort.bids import is_bids
from gliodil.cohort.coverages import Analysis, is_coverage_table
from gliodil.cohort.group import summarize, summarize_table
from gliodil.cohort.inputs import find_rows
from gliodil.cohort.margin_table import REFERENCE, MarginResult, by_target
from gliodil.cohort.margins import MARGIN_FILE, are_scored
from gliodil.cohort.report import REPORT_FILE, points
from gliodil.cohort.rows import Row
from gliodil.cohort.run import WAIT_S, Event, Summary, check_cohort, reasons, run_cohort
from gliodil.cohort.task import Outcome
from gliodil.cohort.validate import Check, Request
from gliodil.cohort.workers import InProcess, Workers, choose_resources, local_workers, remote_workers
from gliodil.data.labels import get_convention
from gliodil.data.ownership import COHORT, keep_apart
from gliodil.data.publish import output_folder
from gliodil.planning.rules import get_rule

if TYPE_CHECKING:
    from gliodil.inference.config import FitConfig
    from gliodil.terminal import Terminal

FAILED_PATIENTS = 2
"""Exit code where a cohort has failed patients."""
_IN_PROCESS = "none"
_DECISIONS = {
    "run": "to be planned",
    "done": "done already",
    "failed": "failed before (--retry-failed tries again)",
    "invalid": "cannot be planned",
}


def run_participants(arguments: argparse.Namespace, config: FitConfig, terminal: Terminal) -> int:
    """Check and plan the patients of a cohort; return the exit code."""
    out = _output(arguments)
    rows = _rows(arguments)
    # What would fail every patient is one error.
    get_rule(arguments.rule)
    if arguments.labels is not None:
        get_convention(arguments.labels)
    request = Request(
        out,
        config,
        arguments.rule,
        arguments.force,
        arguments.retry_failed,
        rank=arguments.rank,
        overwrite=arguments.overwrite,
        started=time.time(),
    )
    with _workers(arguments, config, len(rows), terminal) as workers:
        if arguments.dry_run:
            return _tell_checks(check_cohort(rows, request, workers), terminal)
        summary = run_cohort(
            rows,
            request,
            workers,
            stop_on_first_error=arguments.stop_on_first_error,
            show=lambda event: terminal.note(_line(event)),
        )
    _tell(summary, terminal)
    terminal.say(str(arguments.out))
    return FAILED_PATIENTS if summary.failed else 0


def run_group(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Sum up what a cohort has finished, or a table of coverages; return the exit code."""
    out = _output(arguments)
    if is_coverage_table(arguments.source):
        for analysis in summarize_table(arguments.source, out):
            _tell_analysis(analysis, terminal)
    else:
        rows = _rows(arguments)
        members, analyses, margins = summarize(rows, out)
        states = Counter(member.state for member in members)
        terminal.note(", ".join(f"{number} {state}" for state, number in sorted(states.items())))
        if doubtful := [member.identity for member in members if member.metrics and not member.accepted]:
            terminal.note(f"NOT ACCEPTED: {', '.join(doubtful)}")
        for analysis in analyses:
            _tell_analysis(analysis, terminal)
        _tell_margins(margins, terminal)
        waiting = [row.identity for row in rows if _lacks_scores(row, out)]
        if waiting:
            terminal.note(
                f"note: {_count(len(waiting), 'patient')} not scored with these maps yet ({', '.join(waiting[:5])}"
                f"{' ...' if len(waiting) > 5 else ''}): run participant with the same --density first"
            )
    terminal.say(str(arguments.out / REPORT_FILE))
    return 0


def _output(arguments: argparse.Namespace) -> Path:
    """Return the output folder, apart from the input and writable; in BIDS it may be one of the derivatives."""
    with output_folder(arguments.out, wait_s=WAIT_S) as output:
        output.check_part(COHORT)
        out = output.path
    derivatives = arguments.source.resolve() / "derivatives"
    if derivatives not in out.parents or not is_bids(arguments.source):
        keep_apart(arguments.out, [arguments.source])
    return out


def _tell_analysis(analysis: Analysis, terminal: Terminal) -> None:
    terminal.note(f"{analysis.title}, {analysis.definition}: {analysis.empty} empty")
    for plan, found in analysis.primary.items():
        line = f"  {plan:<22} n {found.n:<4} mean {100 * found.mean:6.2f} %"
        if plan != analysis.reference:
            line += f"  difference {points(found.mean_difference)}"
            if found.low is not None:
                line += f" ({points(found.low)} to {points(found.high)})"
            line += f"  {found.better}/{found.equal}/{found.worse} better/equal/worse"
        terminal.note(line)


def _tell_margins(results: Sequence[MarginResult], terminal: Terminal) -> None:
    for target, rankings in by_target(results).items():
        terminal.note(
            f"At the volume of isotropic margins, {target}: difference to them in points (interval) n"
        )
        for ranking, row in rankings.items():
            cells = (
                f"{r.margin_mm:g} mm {100 * r.mean:.1f} %"
                if ranking == REFERENCE
                else f"{r.margin_mm:g} mm {points(r.difference)} ({points(r.low)} to {points(r.high)}) {r.n}"
                for r in row
            )
            terminal.note(f"  {ranking:<18} {'  '.join(cells)}")


def _lacks_scores(row: Row, out: Path) -> bool:
    """Whether a patient with scores was scored without some of the maps."""
    scored = (out / row.place / MARGIN_FILE).exists()
    return scored and bool(row.densities) and not are_scored(out / row.place, row.densities)


def _rows(arguments: argparse.Namespace) -> list[Row]:
    return find_rows(
        arguments.source,
        arguments.out,
        only=arguments.only,
        labels=arguments.labels,
        validate_bids=not arguments.skip_bids_validation,
        recipe=arguments.recipe,
        densities=dict(arguments.density),
    )


@contextmanager
def _workers(
    arguments: argparse.Namespace, config: FitConfig, patients: int, terminal: Terminal
) -> Iterator[Workers]:
    if arguments.scheduler == _IN_PROCESS:
        yield InProcess()
        return
    if arguments.scheduler is not None:
        with remote_workers(arguments.scheduler) as workers:
            at = f"{_count(workers.count, 'worker')} at {arguments.scheduler}"
            terminal.note(f"{_count(patients, 'patient')}, {at}; all are checked first")
            yield workers
        return
    resources = choose_resources(config, workers=arguments.n_procs, memory_mb=arguments.mem_mb)
    count = min(resources.workers, patients)
    terminal.note(
        f"{_count(patients, 'patient')}, {_count(count, 'worker')} of {resources.threads} thread(s) "
        f"and {resources.memory_mb / 1000:.1f} GB; all are checked first"
    )
    with local_workers(resources, at_most=patients, scratch=arguments.work_dir) as workers:
        yield workers


def _line(event: Event) -> str:
    outcome, width = event.outcome, len(str(event.planned))
    if outcome.state == "failed":
        state = f"failed: {outcome.error.get('problem')}"
    elif outcome.state == "skipped":
        state = "skipped: an earlier patient failed"
    else:
        state = f"done in {_duration(outcome.seconds)}" if not outcome.kept else "done"
        state += f", {_count(outcome.warnings, 'warning')}" if outcome.warnings else ""
    before = " (before)" if outcome.kept else ""
    left = event.planned - event.finished
    rest = "" if event.remaining_s is None or not left else f"; about {_duration(event.remaining_s)} left"
    return f"[{event.finished:>{width}}/{event.planned}] {outcome.identity}  {state}{before}{rest}"


def _tell(summary: Summary, terminal: Terminal) -> None:
    kept = sum(outcome.kept for outcome in summary.outcomes if outcome.state == "done")
    parts = [f"{count} {state}" for state, count in sorted(summary.counts.items())]
    before = f" ({kept} of them before)" if kept else ""
    terminal.note(f"{', '.join(parts)}{before}; {_duration(summary.seconds)} in all")
    if summary.failed:
        terminal.note("")
        for line in failure_table(summary.failed):
            terminal.note(line)
        terminal.note("")
        for reason, count in reasons(summary.outcomes):
            terminal.note(f"{count} ×  {reason}")


def _tell_checks(checks: Sequence[Check], terminal: Terminal) -> int:
    width = max(len(c.identity) for c in checks)
    for c in checks:
        problem = f": {c.error.get('problem')}" if c.error and c.decision == "invalid" else ""
        terminal.note(f"{c.identity:<{width}}  {_DECISIONS[c.decision]}{problem}")
        for warning in c.warnings:
            terminal.note(f"{'':<{width}}  note: {warning}")
    return FAILED_PATIENTS if any(c.decision in ("invalid", "failed") for c in checks) else 0


def failure_table(failed: Sequence[Outcome]) -> list[str]:
    """Return one block of lines per failed patient: what was wrong and what helps."""
    width = max(len(outcome.identity) for outcome in failed)
    lines = []
    for outcome in failed:
        lines.append(f"{outcome.identity:<{width}}  {outcome.error.get('problem')}")
        for key in ("file", "expected", "found", "remedy"):
            if outcome.error.get(key):
                lines.append(f"{'':<{width}}    {key + ':':<10}{outcome.error[key]}")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
