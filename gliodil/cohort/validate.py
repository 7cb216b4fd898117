"""Can each patient be planned, and has that been done already? Asked of all of them before any is planned."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gliodil.cohort.margins import are_scored
from gliodil.cohort.rows import Row
from gliodil.cohort.status import describe_error, input_hashes, read_status
from gliodil.data.atomic import atomic_path
from gliodil.errors import BusyError, GliodilError
from gliodil.fingerprint import DEFAULT_RANK, DEFAULT_RULE, fingerprint, finished, settings_record
from gliodil.inference.config import FitConfig
from gliodil.preflight import check

CHECK_FILE = "cohort_check.tsv"
Decision = Literal["run", "done", "failed", "invalid"]
"""To be run; done already; failed before with the same inputs; cannot be run."""


@dataclass(frozen=True)
class Request:
    """How the patients of a cohort are planned, and what is done again."""

    out: Path
    config: FitConfig = field(default_factory=FitConfig)
    rule: str = DEFAULT_RULE
    force: bool = False
    retry_failed: bool = False
    rank: str = DEFAULT_RANK
    overwrite: bool = False
    """Replace results of other patients that have the place of one of these."""
    started: float = 0.0
    """When this run began [s since the epoch]; what another runner finished later is not done again."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that enter the fingerprint of a result."""
        return settings_record(self.config, self.rule, rank=self.rank)


@dataclass(frozen=True)
class Check:
    """What validation found out about one patient: small, so that it can travel between processes."""

    identity: str
    decision: Decision
    fingerprint: str | None = None
    convention: str | None = None
    shape: str = ""
    spacing_mm: str = ""
    tumour_ml: float | None = None
    inputs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hashes: Mapping[str, Any] = field(default_factory=dict)
    followed: bool = False
    """Whether there is a recurrence to cover."""
    error: Mapping[str, Any] | None = None
    """As in `status.json`, for what cannot be run and for what failed before."""


def check_row(row: Row, request: Request) -> Check:
    """Read and check one patient; write nothing.

    Whatever goes wrong is in the result: one broken patient must not keep the others from being checked.
    """
    out = request.out / row.place
    try:
        patient = row.load()
        try:
            notes = check(
                patient,
                out,
                config=request.config,
                rule=request.rule,
                overwrite=request.overwrite,
                relate=False,
            )
        except BusyError:  # whoever plans it has checked it
            notes = ()
        wanted = fingerprint(patient, request.settings)
    except Exception as error:
        if isinstance(error, GliodilError):
            error.for_patient(row.identity)
        return Check(row.identity, "invalid", hashes=input_hashes(row.find()), error=describe_error(error))
    followed = patient.recurrence is not None
    decision, known = decide(out, wanted, request)
    if decision == "done" and followed and not are_scored(out, row.densities):
        decision = "run"  # the plan is kept, and only what is missing computed
    described = patient.describe()[0]
    return Check(
        row.identity,
        decision,
        wanted,
        patient.convention.name,
        described["shape"],
        described["spacing"],
        float(np.count_nonzero(patient.tumour)) * patient.segmentation.voxel_volume_ml,
        ("seg", *patient.volumes),
        tuple(dict.fromkeys((*patient.warnings, *notes))),
        input_hashes(patient.files),
        followed,
        known,
    )


def decide(out: Path, wanted: str, request: Request) -> tuple[Decision, Mapping[str, Any] | None]:
    """Return what to do with a valid patient, and the earlier error if it failed before."""
    status = read_status(out) or {}
    state = status.get("state") if status.get("fingerprint") == wanted else None
    if request.force:
        return "run", None
    if state == "done" and finished(out, wanted) is not None:
        return "done", None
    if state == "failed" and not request.retry_failed:
        return "failed", status.get("error")
    return "run", None


def check_table(checks: Iterable[Check]) -> str:
    """Return the content of `cohort_check.tsv`: one row per patient, n/a for what is not known."""
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    known = ("patient_id", "valid", "decision", "label_convention", "shape", "spacing_mm", "tumour_ml")
    error_columns = ("problem", "file", "expected", "found", "remedy")
    writer.writerow((*known, "inputs", "warnings", *error_columns))
    for c in checks:
        error = c.error or {}
        row = [
            c.identity,
            "no" if c.decision == "invalid" else "yes",
            c.decision,
            c.convention,
            c.shape,
            c.spacing_mm,
            None if c.tumour_ml is None else f"{c.tumour_ml:.2f}",
            " ".join(c.inputs),
            "; ".join(c.warnings),
            *map(error.get, error_columns),
        ]
        writer.writerow([" ".join(str(cell).split()) if cell else "n/a" for cell in row])
    return stream.getvalue()


def write_check_table(checks: Iterable[Check], out: Path) -> Path:
    """Write `cohort_check.tsv` into the cohort's output folder.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    target = out / CHECK_FILE
    with atomic_path(target) as temporary:
        temporary.write_text(check_table(checks), encoding="utf-8")
    return target
