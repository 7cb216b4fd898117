"""The plan folder: everything a run leaves behind, complete or not at all (`gliodil.data.publish`)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gliodil.data.manifest import Owner, verified
from gliodil.data.ownership import keep_apart
from gliodil.data.patient import Patient
from gliodil.data.publish import SPACE_MB, Output, output_folder
from gliodil.data.registration.prepare import Prepared
from gliodil.data.volume import Volume
from gliodil.inference.result import Fit
from gliodil.planning.export import Exported, export_plan
from gliodil.reporting.ct import write_on_ct
from gliodil.reporting.figures import save_figures
from gliodil.reporting.jsonable import read_json, write_json
from gliodil.reporting.metrics import build_metrics, peak_memory_mb
from gliodil.reporting.provenance import build_provenance, input_record
from gliodil.reporting.report import render_report
from gliodil.reporting.viewer import save_viewer

if TYPE_CHECKING:
    from gliodil.planning.dose import DoseFigures
    from gliodil.planning.on_ct import PlansOnCT
    from gliodil.planning.plans import Plans

PREPROCESS = "preprocess"
"""Folder of what was made because it was not given."""
CT = "ct"
"""Folder of what lies on the planning CT."""

PLAN = "plan"
NOT_FINISHED = {
    "problem": "This is not a finished plan folder.",
    "remedy": "run `gliodil plan` first (again, if it was stopped or its files were changed), or name another folder",
}


def ensure_writable(out: Path | str, *, wait_s: float = 0.5) -> Path:
    """Check, before any long computation, that results can be written at `out`; leave nothing there.

    Raises
    ------
    OutputError
        If `out` is a file, the folder (or the nearest one above it that exists) does not take new files, or another
        process writes there.
    """
    with output_folder(out, wait_s=wait_s):
        return Path(out)


def plan_owner(patient: Patient) -> Owner:
    """Return whose result a plan of this patient is."""
    segmentation = hashlib.sha256(np.ascontiguousarray(patient.segmentation.data).tobytes())
    segmentation.update(patient.segmentation.affine.tobytes())
    place = next(iter(patient.places), None)
    digits = ""
    if place is not None:
        folder = place if place.is_dir() else place.parent
        digits = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:8]
    return Owner(PLAN, patient.identity, segmentation.hexdigest(), digits)


@contextmanager
def plan_folder(patient: Patient, out: Path | str, *, overwrite: bool = False) -> Iterator[Output]:
    """Hold the folder of a patient's plan; what would keep the plan from being written comes to light here.

    Raises
    ------
    OutputError
        If it cannot be written, is not apart from the inputs, or holds what is not this patient's earlier plan.
    """
    keep_apart(out, [*patient.places, *patient.files.values()])
    with output_folder(out, space_mb=SPACE_MB + patient.segmentation.data.size / 1e6) as output:
        output.claim(plan_owner(patient), overwrite=overwrite)
        yield output


@contextmanager
def finished_folder(out: Path | str) -> Iterator[tuple[Output, dict[str, Any], dict[str, Any]]]:
    """Hold a finished plan folder, whole and as it was written; yields it with its metrics and provenance.

    Raises
    ------
    InputError
        If it is none.
    OutputError
        If it cannot be written to, or another process writes there.
    """
    out = Path(out)
    if not out.is_dir():
        verified(out, PLAN, **NOT_FINISHED)
    with output_folder(out) as output:
        verified(output.path, PLAN, **NOT_FINISHED)
        yield output, read_json(out / "metrics.json"), read_json(out / "provenance.json")


def write_plan_folder(
    out: Path | str | Output,
    *,
    patient: Patient,
    fit: Fit,
    plans: Plans,
    config: Mapping[str, Any],
    wall_s: float,
    on_ct: PlansOnCT | None = None,
    truth: Mapping[str, float | None] | None = None,
    truth_density: Volume | None = None,
    comparison: Mapping[str, Any] | None = None,
    other_density: Volume | None = None,
    prepared: Prepared | None = None,
    log_text: str | Callable[[], str] = "",
    organs: Mapping[str, Volume] | None = None,
    keyholes: bool = False,
    dose: DoseFigures | None = None,
    clinic_files: Mapping[str, Path] | None = None,
) -> Path:
    """Write plans, figures, metrics, provenance, log and report; return the path of the report.

    If the patient has a reference series, the plans are written on it as DICOM too.

    Parameters
    ----------
    out
        Folder to write, or one that is held already.
    config
        Every setting of the run, for `provenance.json`.
    wall_s
        Time since the run began, s.
    on_ct
        The plans on the planning CT, if there is one; go into `ct/`.
    truth, truth_density
        Scores against the true density, and that density, for simulated patients.
    comparison, other_density
        What another method makes of the patient (``planning.compare``), and its density.
    prepared
        What was made because it was not given; goes into `preprocess/`.
    log_text
        Content of `log.txt`; a function is called last, so that it can hold what this one logs.
    keyholes
        Tie holes of contours to their island, see `gliodil.planning.export.export_plan`.
    organs
        Masks of organs by name, to be recorded among the inputs.
    dose, clinic_files
        Figures of the clinic's dose, and files of the clinic's plan, to be recorded likewise.

    Raises
    ------
    OutputError
        If the folder cannot be written to, holds what is not this patient's earlier plan, or a DICOM file does not give
        back what was written.
    MissingExtraError
        If matplotlib or jinja2 is not installed.
    """
    with ExitStack() as stack:
        output = out if isinstance(out, Output) else stack.enter_context(plan_folder(patient, out))
        partial = stack.enter_context(output.new())
        # Volumes are compressed while figures are drawn.
        with ThreadPoolExecutor() as pool:
            saved: list[Future[Any]] = [
                pool.submit(plans.save, partial),
                pool.submit(save_viewer, patient, plans, partial / "figures"),
            ]
            exported = _export(partial, patient, plans, keyholes=keyholes)
            ct = None if on_ct is None else write_on_ct(partial / CT, patient, on_ct, keyholes=keyholes)
            save_figures(
                patient,
                fit,
                plans,
                partial / "figures",
                truth_density=truth_density,
                other_density=other_density,
            )
            for task in saved:
                task.result()
        provenance = build_provenance(patient, fit, config=config)
        files = {f"organ {name}": v.path for name, v in (organs or {}).items() if v.path is not None}
        files |= {f"clinic {name}": path for name, path in (clinic_files or {}).items()}
        provenance["inputs"] += [input_record(key, path) for key, path in files.items()]
        write_json(provenance, partial / "provenance.json")
        if prepared is not None:
            prepared.save(partial / PREPROCESS)
        metrics = build_metrics(
            patient,
            fit,
            plans,
            wall_s=wall_s,
            peak_memory_mb=peak_memory_mb(),
            truth=truth,
            comparison=comparison,
            exported=exported,
            preprocessing=prepared.record or None if prepared else None,
            ct=ct,
            dose=dose,
        )
        write_json(metrics, partial / "metrics.json")
        render_report(partial)
        text = log_text() if callable(log_text) else log_text
        (partial / "log.txt").write_text(text, encoding="utf-8")
    return output.path / "report.html"


def update_coverage(
    out: Path | str, coverage: Mapping[str, Any] | None, *, recurrence: Path | None = None
) -> Path:
    """Put recurrence coverage into an existing plan folder and make its report again; return its path.

    Parameters
    ----------
    coverage
        As returned by `gliodil.planning.coverage.coverage`.
    recurrence
        The file it was computed from, to be named in `provenance.json`.

    Raises
    ------
    InputError
        If `out` is not a finished plan folder.
    OutputError
        If it cannot be written to.
    """
    with finished_folder(out) as (output, metrics, provenance), output.revised() as folder:
        put_coverage(folder, metrics, provenance, coverage, recurrence=recurrence)
    return Path(out) / "report.html"


def put_coverage(
    folder: Path,
    metrics: dict[str, Any],
    provenance: dict[str, Any],
    coverage: Mapping[str, Any] | None,
    *,
    recurrence: Path | None = None,
) -> None:
    """Write coverage into a folder that is being revised, and its report again; what stood there before is kept."""
    if metrics["coverage"] not in (None, coverage):
        metrics["coverage_history"] = [*metrics.get("coverage_history", ()), metrics["coverage"]]
    metrics["coverage"] = coverage
    if recurrence is not None:
        inputs = [record for record in provenance["inputs"] if record["key"] != "recurrence"]
        provenance["inputs"] = [*inputs, input_record("recurrence", recurrence)]
        write_json(provenance, folder / "provenance.json")
    write_json(metrics, folder / "metrics.json")
    render_report(folder)


def _export(folder: Path, patient: Patient, plans: Plans, *, keyholes: bool) -> Exported | None:
    """Write the plans as DICOM if there is a series to write them on."""
    if patient.reference is None:
        return None
    return export_plan(folder, plans, patient.reference.files, keyholes=keyholes)
