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


def evaluate(
    out: Path | str,
    recurrence: Path | str,
    *,
    same_patient: bool = False,
    parts: Mapping[str, str] | None = None,
) -> Evaluated:
    """Add recurrence coverage to an existing plan folder; nothing in it changes where that is refused.

    The recurrence's labels are read in the convention the plan was made with.

    Parameters
    ----------
    out
        Folder written by ``plan_patient``.
    recurrence
        NIfTI label map, DICOM SEG or RTSTRUCT, registered to the planning scan.
    same_patient
        Whether the user says that both are one person's although their PatientIDs differ.
    parts
        What structures and segments are, by name (core, enhancing, ..., ignore), where the user says it.

    Raises
    ------
    InputError, GeometryError, LabelError
        If `out` is not a finished plan folder, or the recurrence cannot be read or does not belong to it.
    OutputError
        If the folder cannot be written.
    """
    from gliodil.data.ownership import keep_apart
    from gliodil.planning.evaluate import evaluate_recurrence, keep_recurrence
    from gliodil.reporting.folder import finished_folder, put_coverage

    keep_apart(out, [recurrence])
    with finished_folder(out) as (output, metrics, provenance):
        try:
            with collected_warnings() as warnings:
                found = evaluate_recurrence(
                    output.path,
                    recurrence,
                    convention=metrics["label_convention"],
                    same_patient=same_patient,
                    parts=parts,
                )
            with output.revised() as folder:
                keep_recurrence(folder, found.recurrence)
                put_coverage(folder, metrics, provenance, found.coverage, recurrence=Path(recurrence))
        except GliodilError as error:
            error.for_patient(metrics["patient"])
            raise
    return Evaluated(Path(out) / "report.html", dict(found.coverage), (*found.notes, *warnings))
