"""The whole job for one patient: files in, plan folder out."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil import __version__
from gliodil.data.patient import Patient
from gliodil.errors import GliodilError
from gliodil.inference.config import FitConfig

if TYPE_CHECKING:
    from gliodil.inference.result import Fit
    from gliodil.planning.plans import Plans

logger = logging.getLogger(__name__)

DEFAULT_RULE = "benchmark-15mm"
Progress = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Planned:
    """A finished plan folder, and the objects behind it (None where an earlier result was kept)."""

    report: Path
    metrics: Mapping[str, Any]
    fit: Fit | None = None
    plans: Plans | None = None


def plan_patient(
    patient: Patient,
    out: Path | str,
    *,
    config: FitConfig | None = None,
    rule: str = DEFAULT_RULE,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Planned:
    """Fit, plan, evaluate and write the plan folder of one patient.

    Parameters
    ----------
    patient
        From ``load_patient``; a recurrence in it is evaluated, a truth density scored.
    out
        Folder to write; nothing is left in it if anything fails.
    config, rule
        Fit settings and plan rule.
    settings
        Further settings to keep in ``provenance.json`` (for instance the seed of a synthetic patient).
    resume
        Keep an existing result if it was made from the same files, settings and version.
    progress
        Called with (stage, gradients so far, loss) during the fit and with (stage, 0, nan) for the other stages.

    Raises
    ------
    InputError, GeometryError, LabelError
        If the patient cannot be planned.
    OutputError
        If the folder cannot be written.
    """
    from gliodil.inference.fit import fit as run_fit
    from gliodil.inference.score import score
    from gliodil.planning.plan import plan
    from gliodil.reporting.folder import ensure_writable, write_plan_folder

    config = config or FitConfig()
    out = ensure_writable(out)
    started = time.perf_counter()
    stage = progress or (lambda *_: None)
    record = {"fit": config.to_dict(), "rule": rule, **(settings or {})}
    record["fingerprint"] = fingerprint(patient, record)
    if resume and (kept := _finished(out, record["fingerprint"])) is not None:
        logger.info("%s: already planned with the same inputs and settings", patient.identity)
        return Planned(out / "report.html", kept)
    try:
        with _log_text() as log:
            logger.info("patient %s: %r", patient.identity, patient)
            fitted = run_fit(patient, config=config, progress=progress)
            logger.info("%r: %s", fitted, fitted.message)
            stage("plans", 0, float("nan"))
            plans = plan(patient, fitted, rule=rule)
            logger.info("%r", plans)
            known = patient.volumes.get("truth")
            truth = None if known is None else score(fitted.density, known, patient.tumour)
            stage("report", 0, float("nan"))
            report = write_plan_folder(
                out,
                patient=patient,
                fit=fitted,
                plans=plans,
                config=record,
                wall_s=time.perf_counter() - started,
                truth=truth,
                truth_density=known,
                log_text=log,
            )
    except GliodilError as error:
        raise error.for_patient(patient.identity) from error.__cause__
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return Planned(report, metrics, fitted, plans)


def evaluate(out: Path | str, recurrence: Path | str) -> dict[str, Any]:
    """Add recurrence coverage to an existing plan folder; return it.

    The recurrence's labels are read in the convention the plan was made with.
    """
    from gliodil.planning.evaluate import evaluate_plan_folder
    from gliodil.reporting.folder import ensure_writable, update_coverage
    from gliodil.reporting.jsonable import read_json

    out = Path(out)
    convention = read_json(out / "metrics.json").get("label_convention")
    ensure_writable(out)
    coverage = evaluate_plan_folder(out, recurrence, convention=convention)
    update_coverage(out, coverage, recurrence=Path(recurrence))
    return dict(coverage)


def fingerprint(patient: Patient, settings: Mapping[str, Any]) -> str:
    """Return a hash of the input files, the label convention, the settings and the version."""
    digest = hashlib.sha256(__version__.encode())
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(patient.convention.name.encode())
    for role, path in sorted(patient.files.items()):
        digest.update(role.encode())
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()


def _finished(out: Path, wanted: str) -> dict[str, Any] | None:
    """Metrics of a finished folder with this fingerprint, else None."""
    try:
        provenance = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
        metrics: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = provenance.get("config", {}).get("fingerprint") == wanted
    return metrics if same and (out / "report.html").is_file() else None


@contextmanager
def _log_text() -> Iterator[Callable[[], str]]:
    """Collect what the package logs inside the block; yields a function that returns it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("gliodil")
    level = root.level
    root.addHandler(handler)
    if root.getEffectiveLevel() > logging.INFO:
        root.setLevel(logging.INFO)
    try:
        yield stream.getvalue
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
