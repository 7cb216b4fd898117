"""The plan folder: everything a run leaves behind, complete or not at all.

All files are first written into a hidden folder beside the target and moved into place, one rename each,
when the last of them is done. A run that fails or is interrupted leaves no trace; a folder that exists keeps
the files in it that are not ours.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil.data.patient import Patient
from gliodil.data.registration.prepare import Prepared, preprocess_files
from gliodil.data.volume import Volume
from gliodil.errors import OutputError
from gliodil.inference.result import Fit
from gliodil.planning.export import FILES as DICOM_FILES
from gliodil.planning.export import Exported, export_plan
from gliodil.planning.plans import OPTIONAL_FILES
from gliodil.reporting.figures import FIGURES, save_figures
from gliodil.reporting.jsonable import read_json, write_json
from gliodil.reporting.metrics import build_metrics, peak_memory_mb
from gliodil.reporting.provenance import build_provenance, input_record
from gliodil.reporting.report import render_report
from gliodil.reporting.viewer import save_viewer

if TYPE_CHECKING:
    from gliodil.planning.plans import Plans

PREPROCESS = "preprocess"
"""Folder of what was made because it was not given."""


def ensure_writable(out: Path | str) -> Path:
    """Check, before any long computation, that a plan folder can be written at `out`; create nothing there.

    Raises
    ------
    OutputError
        If `out` is a file, or the folder (or the nearest one above it that exists) does not take new files.
    """
    out = Path(out)
    existing = out
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise _unwritable(out, f"{existing.name} is a file")
    # Asking the permission bits is not enough: file systems can be read-only or full.
    for folder in {existing, out.parent if out.parent.is_dir() else existing}:
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise _unwritable(out, error.strerror or str(error)) from error
    return out


def write_plan_folder(
    out: Path | str,
    *,
    patient: Patient,
    fit: Fit,
    plans: Plans,
    config: Mapping[str, Any],
    wall_s: float,
    truth: Mapping[str, float | None] | None = None,
    truth_density: Volume | None = None,
    comparison: Mapping[str, Any] | None = None,
    other_density: Volume | None = None,
    prepared: Prepared | None = None,
    log_text: str | Callable[[], str] = "",
    organs: Mapping[str, Volume] | None = None,
    keyholes: bool = False,
) -> Path:
    """Write plans, figures, metrics, provenance, log and report; return the path of the report.

    If the patient has a reference series, the plans are written on it as DICOM too.

    Parameters
    ----------
    config
        Every setting of the run, for `provenance.json`.
    wall_s
        Time since the run began, s.
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

    Raises
    ------
    OutputError
        If the folder cannot be written to, or a DICOM file does not give back what was written.
    MissingExtraError
        If matplotlib or jinja2 is not installed.
    """
    out = ensure_writable(out)
    with _all_or_nothing(out) as partial:
        # Volumes are compressed while figures are drawn.
        with ThreadPoolExecutor() as pool:
            saved: list[Future[Any]] = [
                pool.submit(plans.save, partial),
                pool.submit(save_viewer, patient, plans, partial / "figures"),
            ]
            exported = _export(partial, patient, plans, keyholes=keyholes)
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
        )
        write_json(metrics, partial / "metrics.json")
        render_report(partial)
        text = log_text() if callable(log_text) else log_text
        (partial / "log.txt").write_text(text, encoding="utf-8")
    return out / "report.html"


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
    out = Path(out)
    metrics, provenance = read_json(out / "metrics.json"), read_json(out / "provenance.json")
    metrics["coverage"] = coverage
    if recurrence is not None:
        inputs = [record for record in provenance.get("inputs", []) if record["key"] != "recurrence"]
        provenance["inputs"] = [*inputs, input_record("recurrence", recurrence)]
        write_json(provenance, out / "provenance.json")
    write_json(metrics, out / "metrics.json")
    return render_report(out)


def _export(folder: Path, patient: Patient, plans: Plans, *, keyholes: bool) -> Exported | None:
    """Write the plans as DICOM if there is a series to write them on."""
    if patient.reference is None:
        return None
    return export_plan(folder, plans, patient.reference.files, keyholes=keyholes)


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; move its files into `out` if the block ends well."""
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        partial.mkdir(parents=True)
        yield partial
        _remove_stale(out, partial)
        for source in sorted(path for path in partial.rglob("*") if path.is_file()):
            target = out / source.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
    except OSError as error:
        raise _unwritable(out, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(out: Path, partial: Path) -> None:
    """Remove what an earlier run wrote and this one did not: it would belong to another plan."""
    stale = [
        Path(name) for name in (*(f"figures/{name}.png" for name in FIGURES), *OPTIONAL_FILES, *DICOM_FILES)
    ]
    stale += [path.relative_to(out) for path in preprocess_files(out / PREPROCESS)]
    for relative in stale:
        if not (partial / relative).exists():
            (out / relative).unlink(missing_ok=True)


def _unwritable(out: Path, found: str) -> OutputError:
    return OutputError(
        "The output folder cannot be written.",
        file=out,
        expected="a folder that can be created and written to",
        found=found,
        remedy="choose another one with --out",
    )
