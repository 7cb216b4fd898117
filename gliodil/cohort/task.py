"""One patient of a cohort: planned under its lock, with status, log and hashes beside the result."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gliodil import __version__
from gliodil.cohort.curves import CURVE_FILE, write_curves
from gliodil.cohort.margins import are_scored, write_margins
from gliodil.cohort.rows import Row
from gliodil.cohort.status import (
    configuration_hash,
    describe_error,
    locked,
    may_record,
    read_status,
    set_aside_damaged,
    write_status,
)
from gliodil.cohort.validate import Check, Request, decide
from gliodil.data.ownership import LOG_FILE
from gliodil.data.registration.prepare import restore
from gliodil.errors import BusyError, GliodilError, OutputError
from gliodil.logs import logged_to
from gliodil.pipeline import plan_patient
from gliodil.reporting.folder import PREPROCESS, finished_folder
from gliodil.reporting.metrics import peak_memory_mb

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How one patient ended: small, so that it can travel between processes."""

    identity: str
    state: Literal["done", "failed", "skipped", "elsewhere"]
    """`elsewhere`: another runner is at it."""
    seconds: float = 0.0
    kept: bool = False
    """Whether it had been decided before, by an earlier run or by another runner."""
    warnings: int = 0
    error: Mapping[str, Any] = field(default_factory=dict)


def plan_row(row: Row, check: Check, request: Request) -> Outcome:
    """Plan one patient and record how it went; whatever goes wrong is in the result.

    Raises
    ------
    OutputError
        If the patient's folder cannot be written to, or holds what is not ours.
    """
    out = request.out / row.place
    with locked(out) as mine:
        if not mine:
            return Outcome(row.identity, "elsewhere")
        if (decided := _decided_elsewhere(row, check, request)) is not None:
            return decided
        aside = set_aside_damaged(out)
        if not may_record(out):
            raise OutputError(
                "The patient's folder of results holds files that are not ours.",
                patient=row.identity,
                file=out,
                expected="no folder, or one that an earlier run wrote",
                found="others",
                remedy="choose another output folder, or move it away",
            )
        out.mkdir(parents=True, exist_ok=True)
        return _plan(row, check, request, out, aside)


def record_failure(
    row: Row, check: Check, request: Request, error: Mapping[str, Any], stage: str = ""
) -> Outcome:
    """Record that a patient failed where the patient's own task could not: before it began, or killed."""
    out = request.out / row.place
    seconds = 0.0
    try:
        with locked(out) as mine:
            if mine:
                set_aside_damaged(out)
            if mine and may_record(out):
                status = read_status(out) or {}
                if not stage:  # killed: what its task last wrote still stands
                    stage = status.get("stage") or "start"
                    seconds = time.time() - (status.get("started_s") or time.time())
                record = _record(check, request, state="failed", stage=stage, seconds=seconds)
                peak = status.get("peak_memory_mb")
                write_status(out, {**record, "peak_memory_mb": peak, "error": dict(error)})
    except OutputError as unwritten:  # then the summary alone says it; the others must not fail with this one
        logger.error("%s: %s", row.identity, unwritten)
    return Outcome(row.identity, "failed", seconds, error=error)


def _plan(row: Row, check: Check, request: Request, out: Path, aside: list[str]) -> Outcome:
    """Plan, with `status.json` following the stages; it tells what was set aside before."""
    _forget_peak_memory()
    status = _record(check, request, state="running", stage="load", seconds=0.0)
    started = time.perf_counter()

    def say(**news: Any) -> None:
        status.update(news)
        status["seconds"] = round(time.perf_counter() - started, 3)
        status["peak_memory_mb"] = peak_memory_mb()
        write_status(out, status)

    def progress(stage: str, *_: float) -> None:
        if stage != status["stage"]:
            say(stage=stage)

    log = logging.FileHandler(out / LOG_FILE, mode="w", encoding="utf-8", errors="backslashreplace")
    with logged_to(log):
        try:
            say()
            patient = row.load()
            planned = plan_patient(
                patient,
                out,
                config=request.config,
                rule=request.rule,
                rank=request.rank,
                resume=not request.force,
                overwrite=request.overwrite,
                progress=progress,
            )
            warnings = [*aside, *planned.metrics["warnings"]]
            if planned.fit is not None or not _is_scored(row, check, out):
                say(stage="coverage")
                patient = restore(patient, out / PREPROCESS)
                with finished_folder(out) as (output, *_), output.revised() as folder:
                    write_curves(patient, folder, request.rule)
                    warnings += write_margins(patient, folder, request.rule, row.densities)
            say(state="done", stage="done", warnings=warnings)
        except BusyError:  # by something that is no cohort
            return Outcome(row.identity, "elsewhere")
        except Exception as error:
            if isinstance(error, GliodilError):
                error.for_patient(row.identity)
            told = describe_error(error)
            logger.error("%s failed: %s\n%s", row.identity, told["problem"], told["traceback"])
            say(state="failed", error=told)
            return Outcome(row.identity, "failed", status["seconds"], error=told)
    return Outcome(row.identity, "done", status["seconds"], planned.fit is None, len(warnings))


def _is_scored(row: Row, check: Check, out: Path) -> bool:
    return not check.followed or ((out / CURVE_FILE).exists() and are_scored(out, row.densities))


def _decided_elsewhere(row: Row, check: Check, request: Request) -> Outcome | None:
    """Return what another runner made of this patient since this run began, or None."""
    status = read_status(request.out / row.place) or {}
    if status.get("fingerprint") != check.fingerprint:
        return None
    since = (status.get("started_s") or 0.0) + (status.get("seconds") or 0.0)
    if since >= request.started and status.get("state") in ("done", "failed"):
        failed = status["state"] == "failed"
        return Outcome(
            row.identity, status["state"], 0.0, True, error=status.get("error") or {} if failed else {}
        )
    if (
        check.fingerprint is not None
        and decide(request.out / row.place, check.fingerprint, request)[0] == "done"
        and _is_scored(row, check, request.out / row.place)
    ):
        return Outcome(row.identity, "done", 0.0, True, len(status.get("warnings") or ()))
    return None


def _record(check: Check, request: Request, *, state: str, stage: str, seconds: float) -> dict[str, Any]:
    return {
        "patient": check.identity,
        "state": state,
        "stage": stage,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "started_s": time.time() - seconds,
        "seconds": round(seconds, 3),
        "peak_memory_mb": None,
        "warnings": list(check.warnings),
        "error": None,
        "gliodil_version": __version__,
        "fingerprint": check.fingerprint,
        "configuration_sha256": configuration_hash(request.settings),
        "inputs": check.hashes,
        "host": platform.node(),
        "pid": os.getpid(),
    }


def _forget_peak_memory() -> None:
    """Let the peak of resident memory start again (Linux): a worker plans one patient after another."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
