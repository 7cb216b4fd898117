"""What a cohort's finished patients say together: `cohort.tsv`, `cohort.json`, `cohort_statistics.json`, `cohort.html`.

Only what the patients' folders hold is read. Every patient of the input is in the table, whatever became of it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gliodil import __version__
from gliodil.cohort.coverages import Analysis, Coverages, analyse, read_coverage_table
from gliodil.cohort.curves import CURVE_FILE
from gliodil.cohort.margin_table import COLUMNS as MARGIN_COLUMNS
from gliodil.cohort.margin_table import MarginResult, margin_results, margin_table
from gliodil.cohort.margins import MARGIN_FILE
from gliodil.cohort.report import write_cohort_report
from gliodil.cohort.rows import Row
from gliodil.cohort.run import cohort_files
from gliodil.cohort.statistics import recurrence_class
from gliodil.cohort.status import locked, read_status
from gliodil.data.manifest import verified
from gliodil.data.ownership import STATUS_FILE
from gliodil.data.stage import look_after
from gliodil.errors import InputError
from gliodil.reporting.folder import NOT_FINISHED, PLAN
from gliodil.reporting.jsonable import read_json, write_json
from gliodil.reporting.metrics import STATEMENT

PLANS = {"standard": "Standard CTV", "trimmed": "Trimmed CTV", "model": "Model CTV"}
RECURRENCES = {"enhancing": "enhancing recurrence", "any": "any recurrence"}

CLASS_LEVELS = {
    "central": "more than 95 % inside the plan",
    "in-field": "more than 80 %",
    "marginal": "20 % or more",
    "distant": "less",
}

COLUMNS: dict[str, dict[str, Any]] = {
    "patient_id": {"Description": "Name of the patient"},
    "state": {
        "Description": "What became of the patient; only `done` has results",
        "Levels": {
            "done": "planned",
            "failed": "could not be planned, see reason",
            "running": "being planned",
            "interrupted": "its run ended before it did",
            "not run": "never begun",
        },
    },
    "stage": {"Description": "Stage at which a patient that is not done stopped"},
    "reason": {"Description": "Why a patient failed"},
    "plan": {"Description": "Plan of this row", "Levels": PLANS},
    "volume_ml": {"Description": "Volume of the plan", "Units": "mL"},
    "coverage_enhancing": {"Description": "Fraction of the enhancing recurrence inside; n/a if it is empty"},
    "coverage_any": {"Description": "Fraction of any recurrence inside; n/a if it is empty"},
    "difference_enhancing": {"Description": "coverage_enhancing minus that of the standard plan"},
    "difference_any": {"Description": "coverage_any minus that of the standard plan"},
    "missed_enhancing_ml": {"Description": "Enhancing recurrence outside the plan", "Units": "mL"},
    "missed_any_ml": {"Description": "Any recurrence outside the plan", "Units": "mL"},
    "iou_enhancing": {"Description": "Enhancing recurrence and plan, intersection over union"},
    "iou_any": {"Description": "The same for any recurrence"},
    "class_enhancing": {"Description": "Where the enhancing recurrence lies", "Levels": CLASS_LEVELS},
    "class_any": {"Description": "The same for any recurrence", "Levels": CLASS_LEVELS},
    "area_enhancing": {"Description": "Mean coverage over volumes from 0 to 2 times the standard plan's"},
    "area_any": {"Description": "The same for any recurrence"},
    "recurrence_enhancing_ml": {"Description": "Volume of the enhancing recurrence", "Units": "mL"},
    "recurrence_any_ml": {"Description": "Volume of any recurrence", "Units": "mL"},
    "accepted": {
        "Description": "Whether the estimate passed the gate between fit and plan",
        "Levels": {"yes": "it did", "no": "it did not; see reasons"},
    },
    "reasons": {"Description": "Why the estimate was not accepted"},
    "rank": {"Description": "What the model CTV ranks by: reach or density"},
    "label_misfit_mm": {
        "Description": "Mean distance of the density's boundaries from the labels'",
        "Units": "mm",
    },
    "fit_status": {"Description": "How the optimizer ended: converged, iteration_limit, stalled or diverged"},
    "infiltration_length_mm": {"Description": "Square root of D over rho", "Units": "mm"},
    "seconds": {"Description": "Time the patient took", "Units": "s"},
    "peak_memory_mb": {"Description": "Largest resident memory of its worker meanwhile", "Units": "MB"},
    "warnings": {"Description": "Number of warnings; they stand in the patient's report"},
}
"""Columns of `cohort.tsv`, as its JSON sidecar describes them."""


@dataclass(frozen=True)
class Member:
    """One patient of a cohort, as its folder tells it."""

    identity: str
    place: str
    state: str
    status: Mapping[str, Any]
    metrics: Mapping[str, Any] | None = None
    curves: Mapping[str, Any] | None = None
    margins: Mapping[str, Any] | None = None

    @property
    def accepted(self) -> bool:
        """Whether it is done, and its estimate passed the gate between fit and plan."""
        return bool(((self.metrics or {}).get("acceptance") or {"accepted": self.metrics})["accepted"])

    @property
    def reason(self) -> str:
        """Why it failed; empty otherwise."""
        return str((self.status.get("error") or {}).get("problem") or "")


def summarize(rows: Sequence[Row], out: Path) -> tuple[list[Member], list[Analysis], list[MarginResult]]:
    """Write the group results of a cohort; return its patients, the analyses, and the results at several margins.

    Raises
    ------
    InputError
        If no patient is done.
    MissingExtraError
        If matplotlib, jinja2 or filelock is not installed.
    OutputError
        If the folder cannot be written to.
    """
    for place in {(out / row.place).parent for row in rows}:
        look_after(place)
    members = [read_member(row.identity, row.place, out) for row in rows]
    if not any(member.state == "done" for member in members):
        raise InputError(
            "No patient of this cohort is done.",
            file=out,
            expected="at least one patient planned by `gliodil cohort INPUT OUT participant`",
            found=", ".join(f"{n} {state}" for state, n in Counter(m.state for m in members).items()),
            remedy="plan the patients first, into the same folder",
        )
    scored = {member.identity: member.margins for member in members if member.margins is not None}
    margins = margin_results(list(scored.values()))
    with cohort_files(out) as folder:
        (folder / "cohort.tsv").write_text(cohort_table(members), encoding="utf-8")
        write_json(COLUMNS, folder / "cohort.json")
        if scored:
            (folder / "cohort_margins.tsv").write_text(margin_table(scored), encoding="utf-8")
            write_json(MARGIN_COLUMNS, folder / "cohort_margins.json")
        return members, _write(coverages_of(members), members, folder, margins), margins


def summarize_table(table: Path, out: Path) -> list[Analysis]:
    """Write statistics and report for a table of coverages; return the analyses.

    Raises
    ------
    InputError
        If the table cannot be read.
    MissingExtraError
        If matplotlib or jinja2 is not installed.
    OutputError
        If the folder cannot be written to.
    """
    tables = read_coverage_table(table)
    with cohort_files(out) as folder:
        return _write(tables, [], folder)


def _write(
    tables: Sequence[Coverages],
    members: Sequence[Member],
    out: Path,
    margins: Sequence[MarginResult] = (),
) -> list[Analysis]:
    analyses = [analyse(table) for table in tables]
    write_json(
        {
            "schema_version": 1,
            "statement": STATEMENT,
            "gliodil_version": __version__,
            "patients": dict(Counter(member.state for member in members)),
            "not_accepted": [member.identity for member in members if member.metrics and not member.accepted],
            "analyses": [asdict(analysis) for analysis in analyses],
            "margins": [asdict(result) for result in margins],
        },
        out / "cohort_statistics.json",
    )
    write_cohort_report(out, tables=tables, analyses=analyses, members=members, margins=margins)
    return analyses


def read_member(identity: str, place: str, out: Path) -> Member:
    """Return what the folder of a patient says."""
    folder = out / place
    status = read_status(folder)
    if status is None and (folder / STATUS_FILE).exists():
        damaged = {"problem": f"{STATUS_FILE} is damaged: run participant again"}
        return Member(identity, place, "failed", {"error": damaged})
    if status is None:
        return Member(identity, place, "not run", {})
    state = str(status.get("state"))
    if state == "running":
        with locked(folder) as free:
            state = "interrupted" if free else "running"
    if state != "done":
        return Member(identity, place, state, status)
    try:
        verified(folder, PLAN, **NOT_FINISHED)
        metrics = read_json(folder / "metrics.json")
        curves, margins = (
            read_json(folder / name) if (folder / name).exists() else None
            for name in (CURVE_FILE, MARGIN_FILE)
        )
    except InputError as error:
        found = f"{error.problem.rstrip('.')}: {error.found}"
        return Member(identity, place, "failed", {**status, "error": {"problem": found}})
    return Member(identity, place, state, status, metrics, curves, margins)


def coverages_of(members: Sequence[Member]) -> list[Coverages]:
    """Return the coverages of the patients with a follow-up, by kind of recurrence."""
    followed = [m for m in members if m.metrics is not None and m.metrics.get("coverage") is not None]
    title = f"{len(followed)} patient{'' if len(followed) == 1 else 's'} with follow-up"
    tables = []
    for key, words in RECURRENCES.items():
        plans: dict[str, dict[str, float | None]] = {plan: {} for plan in PLANS}
        for member in followed:
            assert member.metrics is not None
            found = member.metrics["coverage"].get(key)
            for plan in PLANS:
                plans[plan][member.identity] = None if found is None else found[plan]
        tables.append(Coverages(title, words, {PLANS[plan]: values for plan, values in plans.items()}))
    return tables if followed else []


def cohort_table(members: Sequence[Member]) -> str:
    """Return the content of `cohort.tsv`: one row per patient and plan; n/a for what is not known."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(COLUMNS), restval="n/a", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for member in members:
        for row in _table_rows(member):
            writer.writerow({key: _cell(value) for key, value in row.items()})
    return stream.getvalue()


def _table_rows(member: Member) -> list[dict[str, Any]]:
    common: dict[str, Any] = {
        "patient_id": member.identity,
        "state": member.state,
        "seconds": member.status.get("seconds"),
        "peak_memory_mb": member.status.get("peak_memory_mb"),
        "warnings": len(member.status.get("warnings") or ()) if member.status else None,
    }
    if member.metrics is None:
        return [{**common, "stage": member.status.get("stage"), "reason": member.reason}]
    metrics, curves = member.metrics, member.curves or {}
    common["fit_status"] = metrics["status"]
    if (gate := metrics.get("acceptance")) is not None:  # folders of version 0.1 have none
        common |= {"accepted": "yes" if gate["accepted"] else "no", "reasons": "; ".join(gate["reasons"])}
    common["rank"] = metrics.get("rank", "density")
    common["label_misfit_mm"] = metrics["fit"].get("label_misfit_mm")
    common["infiltration_length_mm"] = metrics["parameters"]["infiltration_length_mm"]["value"]
    rows = []
    for plan in PLANS:
        row: dict[str, Any] = {**common, "plan": plan, "volume_ml": metrics["volumes_ml"][f"ctv_{plan}"]}
        for kind in RECURRENCES:
            covered = (metrics["coverage"] or {}).get(kind)
            curve = curves.get(kind) or {}
            volume = curve.get("recurrence_ml")
            row[f"recurrence_{kind}_ml"] = volume
            row[f"area_{kind}"] = (curve.get("area") or {}).get(plan)
            if covered is not None:
                row[f"coverage_{kind}"] = covered[plan]
                row[f"difference_{kind}"] = covered[plan] - covered["standard"]
                row[f"class_{kind}"] = recurrence_class(covered[plan])
                if volume is not None:
                    inside = covered[plan] * volume
                    row[f"missed_{kind}_ml"] = volume - inside
                    row[f"iou_{kind}"] = inside / (volume + row["volume_ml"] - inside)
        rows.append(row)
    return rows


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "n/a"
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).split())
