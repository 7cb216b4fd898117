"""The whole job for one patient: files in, plan folder out."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from gliodil.fingerprint import DEFAULT_RANK, DEFAULT_RULE, fingerprint, finished, reaching, settings_record
from gliodil.inference.config import FitConfig, Method
from gliodil.logs import log_text
from gliodil.preflight import check_request, memory_errors, naming, on_planning_ct
from gliodil.reporting.jsonable import read_json

if TYPE_CHECKING:
    from gliodil.data.patient import Patient
    from gliodil.data.volume import Volume
    from gliodil.inference.checkpoint import Checkpoint
    from gliodil.inference.result import Fit
    from gliodil.planning.clinic import ClinicPlan
    from gliodil.planning.organs import Organs
    from gliodil.planning.plans import Plans
    from gliodil.planning.rules import PlanRule

logger = logging.getLogger(__name__)

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
    rule: str | PlanRule = DEFAULT_RULE,
    rank: str = DEFAULT_RANK,
    organs: Organs | None = None,
    exclude: Collection[str] = (),
    settings: Mapping[str, Any] | None = None,
    keyholes: bool = False,
    resume: bool = False,
    register: bool = False,
    density: Volume | None = None,
    overwrite: bool = False,
    clinic: ClinicPlan | None = None,
    progress: Progress | None = None,
) -> Planned:
    """Fit, plan, evaluate and write the plan folder of one patient.

    Without tissue maps but with an anatomical MRI, the maps are made first (`gliodil.data.registration`).

    Parameters
    ----------
    patient
        From ``load_patient``; a recurrence in it is evaluated, a truth density scored.
    out
        Folder to write; an earlier result in it stays as it was until the new one is whole.
    config, rule
        Fit settings, and plan rule (or its name, or its file).
    rank
        What the model CTV takes first: `reach` or `density` (``gliodil.planning.ranking``).
    organs, exclude
        Masks of organs at risk by name, on the grid of the segmentation (``gliodil.data.organs``), and the names
        of those that no CTV may enter.
    settings
        Further settings to keep in ``provenance.json`` (for instance the seed of a synthetic patient).
    keyholes
        Tie holes of RTSTRUCT contours to their island, for systems that do not understand holes.
    resume
        Keep an existing result if it was made from the same files, settings and version; continue a fit of them that
        was interrupted. What an interrupted fit leaves lies beside `out` (`.NAME.METHOD.checkpoint.npz`) until `out` is
        finished.
    register
        Align the images rigidly with the one the segmentation was drawn on; otherwise they are taken as aligned.
    density
        A density made elsewhere, in [0, 1] (``gliodil.inference.given``); planned in the place of a fit.
    overwrite
        Replace the result of another patient. Files that are not those of an earlier result are never replaced.
    clinic
        The clinic's own plan (``planning.clinic.read_clinic_plan``): its dose gets figures, its CTV is one more plan.
    progress
        Called with (stage, gradients so far, loss) during the fit, with (stage, 0, nan) for other stages.

    Raises
    ------
    InputError, GeometryError, LabelError
        If the patient cannot be planned.
    OutputError
        If the folder cannot be written, holds anything but an earlier result of this patient, or does not lie apart
        from the inputs.
    MissingExtraError
        If what the report needs is not installed.
    """
    from gliodil.data.barriers import falx_and_tentorium
    from gliodil.data.registration.prepare import prepare
    from gliodil.inference.checkpoint import Checkpoint
    from gliodil.inference.fit import fit as run_fit
    from gliodil.inference.given import given_fit
    from gliodil.inference.score import score
    from gliodil.planning.clinic import check_frames, clinic_dose, with_clinic
    from gliodil.planning.compare import compare
    from gliodil.planning.on_ct import plans_on_ct
    from gliodil.planning.plan import plan
    from gliodil.planning.ranking import check_rank
    from gliodil.planning.resected import as_before_surgery
    from gliodil.planning.rules import get_rule
    from gliodil.reporting.folder import plan_folder, write_plan_folder

    config = config or FitConfig()
    started = time.perf_counter()
    stage = progress or (lambda *_: None)
    given = {} if clinic is None else clinic.files
    patient = replace(patient, places=(*patient.places, *given.values()))
    with (
        naming(patient),
        log_text() as log,
        plan_folder(patient, out, overwrite=overwrite) as output,
    ):
        check_request(patient, config=config, rule=rule, organs=organs, exclude=exclude, register=register)
        record = settings_record(
            config,
            rule,
            rank=rank,
            exclude=exclude,
            keyholes=keyholes,
            register=register,
            settings=settings,
        )
        rule = get_rule(rule) if isinstance(rule, str) else rule
        config = reaching(config, rule)
        if density is not None:
            rank = record["rank"] = "density"  # what a given map is for
            record["density"] = hashlib.sha256(density.data.tobytes()).hexdigest()
        if clinic is not None:
            record["clinic"] = clinic.to_record()
        record["fingerprint"] = fingerprint(patient, record, organs, given.values())
        # One for each method: the report compares a network with the discrete loss.
        checkpoints = {
            method: Checkpoint(output.hidden(f"{method}.checkpoint.npz")) for method in get_args(Method)
        }
        if not resume:
            _remove(checkpoints)
        if resume and (kept := finished(output.path, record["fingerprint"])) is not None:
            logger.info("%s: already planned with the same inputs and settings", patient.identity)
            _remove(checkpoints)
            return Planned(Path(out) / "report.html", kept)
        patient = on_planning_ct(patient, rule, progress=progress)
        if clinic is not None:
            check_frames(patient, clinic)
            patient = replace(patient, warnings=(*patient.warnings, *clinic.notes))
        sheets = {"barriers": falx_and_tentorium}
        prepared = prepare(patient, register=register, carry=sheets, progress=progress)
        patient = prepared.patient
        logger.info("patient %s: %r", patient.identity, patient)
        seen = as_before_surgery(patient, rule)
        patient = replace(patient, warnings=seen.warnings)
        with memory_errors(config):
            fitted = (
                run_fit(seen, config=config, progress=progress, checkpoint=checkpoints[config.method])
                if density is None
                else given_fit(density, patient.segmentation)
            )
        logger.info("%r: %s", fitted, fitted.message)
        stage("plans", 0, float("nan"))
        asked: dict[str, Any] = {"rule": rule, "rank": check_rank(rank), "organs": organs, "exclude": exclude}
        plans = plan(patient, fitted, **asked)
        if clinic is not None:
            plans = with_clinic(patient, plans, clinic)
        logger.info("%r", plans)
        on_ct = None if patient.planning is None else plans_on_ct(patient, plans)
        known = patient.volumes.get("truth")
        truth = None if known is None else score(fitted.density, known, patient.tumour)
        comparison, other = None, None
        if config.method != "odil" and density is None:
            other = run_fit(
                seen,
                config=replace(config, method="odil"),
                progress=progress,
                checkpoint=checkpoints["odil"],
            )
            comparison = compare(
                fitted,
                plans,
                other,
                plan(patient, other, **asked),
                visible=patient.tumour,
                truth=None if known is None else score(other.density, known, patient.tumour),
            )
        stage("report", 0, float("nan"))
        write_plan_folder(
            output,
            patient=patient,
            fit=fitted,
            plans=plans,
            on_ct=on_ct,
            config=record,
            wall_s=time.perf_counter() - started,
            truth=truth,
            truth_density=known,
            comparison=comparison,
            other_density=None if other is None else other.density,
            prepared=prepared if prepared.made else None,
            log_text=log,
            organs=organs,
            keyholes=keyholes,
            dose=None if clinic is None else clinic_dose(patient, plans, clinic),
            clinic_files=given,
        )
        _remove(checkpoints)
        metrics = read_json(output.path / "metrics.json")
    return Planned(Path(out) / "report.html", metrics, fitted, plans)


def _remove(checkpoints: Mapping[str, Checkpoint]) -> None:
    for left in checkpoints.values():
        left.remove()
