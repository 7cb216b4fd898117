"""Recurrence coverage for a plan folder that was written before the follow-up existed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliodil.errors import GliodilError
from gliodil.logs import collected_warnings


@dataclass(frozen=True)
class Evaluated:
    """Recurrence coverage added to a plan folder, and what to know about it."""

    report: Path
    coverage: Mapping[str, Any]
    warnings: tuple[str, ...]


def evaluate(out: Path | str, recurrence: Path | str) -> Evaluated:
    """Add recurrence coverage to an existing plan folder.

    The recurrence's labels are read in the convention the plan was made with.

    Raises
    ------
    InputError, GeometryError, LabelError
        If `out` is not a finished plan folder, or the recurrence cannot be read or does not belong to it.
    OutputError
        If the folder cannot be written.
    """
    from gliodil.planning.evaluate import evaluate_plan_folder, keep_recurrence
    from gliodil.reporting.folder import ensure_writable, update_coverage
    from gliodil.reporting.jsonable import read_json

    out = Path(out)
    metrics = read_json(out / "metrics.json")
    try:
        ensure_writable(out)
        with collected_warnings() as warnings:
            coverage = evaluate_plan_folder(out, recurrence, convention=metrics.get("label_convention"))
        report = update_coverage(out, coverage, recurrence=Path(recurrence))
        keep_recurrence(out, Path(recurrence))
    except GliodilError as error:
        error.for_patient(str(metrics.get("patient")))
        raise
    return Evaluated(report, dict(coverage), tuple(warnings))
