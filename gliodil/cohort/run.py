"""A cohort from rows to results: check all, then plan those that need it, whoever else is at the same folder.

check every row -> cohort_check.tsv -> plan -> wait for what other runners hold -> summary
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gliodil import __version__
from gliodil.cohort.rows import Row
from gliodil.cohort.status import describe_error
from gliodil.cohort.task import Outcome, plan_row, record_failure
from gliodil.cohort.validate import Check, Request, check_row, write_check_table
from gliodil.cohort.workers import Workers
from gliodil.data.ownership import COHORT
from gliodil.data.publish import output_folder
from gliodil.reporting.jsonable import write_json

WAIT_S = 60.0
"""How long to wait for another runner that writes the files of the whole cohort [s]."""
POLL_S = 2.0
"""How often to ask whether another runner has finished a patient [s]."""


@dataclass(frozen=True)
class Event:
    """Something happened: for whoever shows progress."""

    outcome: Outcome
    finished: int
    planned: int
    """Patients decided so far, and to be decided, in this run."""
    remaining_s: float | None
    """Estimate of the time left; None before the first patient was planned."""


@dataclass(frozen=True)
class Summary:
    """How a cohort ended."""

    outcomes: tuple[Outcome, ...]
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """Number of patients by state."""
        return dict(Counter(outcome.state for outcome in self.outcomes))

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Patients that failed, now or before."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "failed")


@dataclass
class _Progress:
    """Counts, and guesses when it will be over: mean time per patient, times those left, over workers."""

    total: int
    workers: Workers
    show: Callable[[Event], None]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.identity] = outcome
        if outcome.state == "done" and not outcome.kept:
            self.times.append(outcome.seconds)
        left = self.total - len(self.outcomes)
        mean = sum(self.times) / len(self.times) if self.times else None
        rest = None if mean is None else mean * left / max(1, min(self.workers.count, left))
        self.show(Event(outcome, len(self.outcomes), self.total, rest))


def check_cohort(rows: Sequence[Row], request: Request, workers: Workers) -> list[Check]:
    """Return what validation says of every row, in their order; write nothing."""
    found: dict[str, Check] = {}
    for row, result in workers.map(partial(check_row, request=request), rows):
        if isinstance(result, Exception):  # the worker died over it
            result = Check(row.identity, "invalid", error=describe_error(result))
        found[row.identity] = result
    return [found[row.identity] for row in rows]


def run_cohort(
    rows: Sequence[Row],
    request: Request,
    workers: Workers,
    *,
    stop_on_first_error: bool = False,
    show: Callable[[Event], None] = lambda _: None,
) -> Summary:
    """Check all patients, then plan those that are missing, stale or asked for.

    Parameters
    ----------
    stop_on_first_error
        Start no further patient once one has failed; those not started are skipped.
    show
        Called when a patient has been decided.

    Raises
    ------
    OutputError
        If the output folder cannot be written to.
    """
    began = time.perf_counter()
    checks = check_cohort(rows, request, workers)
    with cohort_files(request.out) as folder:
        write_check_table(checks, folder)
        describe_dataset(folder)
    progress = _Progress(len(rows), workers, show)
    by_name = {c.identity: c for c in checks}
    for row, check in zip(rows, checks, strict=True):
        if check.decision == "invalid":
            progress.add(record_failure(row, check, request, check.error or {}, stage="check"))
        elif check.decision == "failed":
            progress.add(Outcome(row.identity, "failed", kept=True, error=check.error or {}))
        elif check.decision == "done":
            progress.add(Outcome(row.identity, "done", kept=True, warnings=len(check.warnings)))
    to_run = [(row, by_name[row.identity]) for row in rows if by_name[row.identity].decision == "run"]
    _plan_all(to_run, request, workers, progress, stop=stop_on_first_error)
    for row in rows:
        if row.identity not in progress.outcomes:
            progress.add(Outcome(row.identity, "skipped"))
    outcomes = tuple(progress.outcomes[row.identity] for row in rows)
    return Summary(outcomes, time.perf_counter() - began)


@contextmanager
def cohort_files(out: Path) -> Iterator[Path]:
    """Yield an empty folder whose files are put into a cohort's folder together if the block ends well.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or holds files of these names that are not of an earlier cohort.
    """
    with output_folder(out, wait_s=WAIT_S) as output, output.part(COHORT) as folder:
        yield folder


def _plan_all(
    pairs: list[tuple[Row, Check]], request: Request, workers: Workers, progress: _Progress, *, stop: bool
) -> None:
    """Plan every pair; what another runner holds is asked for again until it is decided."""
    task = partial(_plan_pair, request=request)
    while pairs:
        if stop and any(outcome.state == "failed" for outcome in progress.outcomes.values()):
            return
        elsewhere = []
        for (row, check), result in workers.map(task, pairs):
            if isinstance(result, Exception):
                result = record_failure(row, check, request, describe_error(result))
            if result.state == "elsewhere":
                elsewhere.append((row, check))
                continue
            progress.add(result)
            if stop and result.state == "failed":
                return
        pairs = elsewhere
        if pairs:
            time.sleep(POLL_S)


def _plan_pair(pair: tuple[Row, Check], *, request: Request) -> Outcome:
    return plan_row(*pair, request)


def reasons(outcomes: Sequence[Outcome], most: int = 3) -> list[tuple[str, int]]:
    """Return the most frequent reasons of failure and how often each occurred."""
    counts = Counter(str(o.error.get("problem") or "unknown") for o in outcomes if o.state == "failed")
    return counts.most_common(most)


def describe_dataset(out: Path) -> None:
    """Write `dataset_description.json`, which makes the output folder a BIDS derivative.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    content: dict[str, Any] = {
        "Name": "gliodil: tumour-cell density and margin maps",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "gliodil", "Version": __version__}],
    }
    write_json(content, out / "dataset_description.json")
