"""Fit one patient: from files on a grid to a density with parameters, a status and a loss that can be checked.

The default path (``optimizer="lbfgs"``) runs in stages, each a start for the next:

1. *coarse parameters*  hard physics (w = v = 0) on a grid of 24 cells per axis, from what the segmentation suggests;
2. *parameters*         the same on the full grid;
3. *full*               the reference loss in (parameters, initial misfit, model error).

``"gauss-newton"`` replaces the last stage; ``"adam-multigrid"`` is the public path from its own start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gliodil.data.patient import Patient
from gliodil.errors import NumericsError
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.parameters import Scalars
from gliodil.inference.public_path import fit_public
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.result import Fit, LossHistory, Parameter
from gliodil.inference.start import from_segmentation
from gliodil.inference.variables import Coordinates, TransformedLoss, whitening
from gliodil.pde.odil.gauss_newton import GaussNewtonOptions, gauss_newton
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Minimum, Point, Recorder

COARSE_CELLS, COARSE_STEPS = 24, 96
COARSE_EVALUATIONS, HARD_EVALUATIONS = 90, 30

Progress = Callable[[str, int, float], None]
"""Called with (stage, gradients so far, loss)."""


@dataclass(frozen=True)
class Outcome:
    """What every path hands back: the last level, the parameters, and the optimizer's account."""

    last: torch.Tensor
    scalars: Scalars
    minimum: Minimum
    dtype: torch.dtype


def fit(patient: Patient, *, config: FitConfig | None = None, progress: Progress | None = None) -> Fit:
    """Infer the tumour-cell density of a patient.

    Parameters
    ----------
    patient
        Segmentation, white- and grey-matter maps, and optionally FET-PET.
    config
        Settings; ``FitConfig()`` if not given.
    progress
        Called with (stage, gradients so far, loss).

    Returns
    -------
    The density on the grid of the segmentation, the parameters, and how the optimizer fared. A fit that did not converge
    is returned with a status that says so.

    Raises
    ------
    InputError, GeometryError
        If the patient cannot be set up (see ``case.set_up``).
    NumericsError
        If the loss is not finite from the start.
    """
    config = config or FitConfig()
    record = Recorder(progress=progress)
    try:
        case = set_up(patient, config)
        loss = ReferenceLoss(case, config)
        if config.optimizer == "adam-multigrid":
            outcome = Outcome(*fit_public(loss, record), torch.float64)
        else:
            outcome = _fit_transformed(patient, loss, record)
    except NumericsError as error:
        raise error.for_patient(patient.identity) from None
    return _result(patient, case, config, outcome, record)


def hard_start(patient: Patient, config: FitConfig, record: Recorder) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit the parameters alone on a coarse grid; return z and the whitening S there."""
    coarse = replace(
        config, cells=min(config.cells, COARSE_CELLS), steps=min(config.steps, COARSE_STEPS)
    )
    case = set_up(patient, coarse)
    loss = ReferenceLoss(case, coarse)
    z = from_segmentation(case, coarse).coordinates(with_pet=case.pet is not None)
    record.stage = "coarse parameters"
    found = _hard_fit(loss, Coordinates.plain(z), COARSE_EVALUATIONS, record)

    def gradient(at: torch.Tensor) -> torch.Tensor:
        record.evaluations += 1
        return objective.hard([at - objective.coordinates.origin]).gradient[0]

    objective = TransformedLoss(loss, Coordinates.plain(found))
    return found, whitening(gradient, found)


def _hard_fit(loss: ReferenceLoss, coordinates: Coordinates, budget: int, record: Recorder) -> torch.Tensor:
    """Minimize over the parameters alone; return z."""
    left = budget
    while True:
        objective = TransformedLoss(loss, coordinates)
        options = LBFGSOptions(
            tolerance=1e-3, max_evaluations=left, memory=12, curvature=_first_curvature(objective), max_step=1.0
        )
        best = lbfgs(objective.hard, [coordinates.zero()], options, record)
        if best.status == "diverged":
            raise NumericsError(
                "The loss is not finite at the starting parameters.",
                found=str(coordinates.scalars(coordinates.zero())),
                remedy="check the tissue maps and the segmentation",
            )
        left -= best.evaluations
        z = coordinates.origin + coordinates.scaling @ best.x[0]
        if left <= 0 or not objective.near_stability_limit(best.x[0]):
            return z
        coordinates = Coordinates(z, coordinates.scaling)  # go on with more stages


def _first_curvature(objective: TransformedLoss) -> float:
    """Curvature that makes the first step 0.1 long in the parameters' coordinates."""
    gradient = objective.hard([objective.coordinates.zero()]).gradient
    return 10 * float(gradient[0].norm()) if gradient and float(gradient[0].norm()) > 0 else 2.0


def _fit_transformed(patient: Patient, loss: ReferenceLoss, record: Recorder) -> Outcome:
    config = loss.config
    z, scaling = hard_start(patient, config, record)
    record.stage = "parameters"
    z = _hard_fit(loss, Coordinates(z.to(loss.case.grid.device), scaling), HARD_EVALUATIONS, record)
    coordinates = Coordinates(z, scaling)

    record.stage = "full"
    if config.optimizer == "gauss-newton":
        objective = TransformedLoss(loss, coordinates, dtype=torch.float64)
        start: Point = [coordinates.zero(), objective.zero_w(), objective.zero_v()]
        found = gauss_newton(
            objective.residuals,
            start,
            GaussNewtonOptions(tolerance=config.tolerance, max_iterations=config.max_evaluations),
            record,
        )
        found = replace(found, terms=objective.full(found.x).terms)
    else:
        objective = TransformedLoss(loss, coordinates)
        start = [coordinates.zero(), objective.zero_w(), objective.zero_v()]
        options = LBFGSOptions(tolerance=config.tolerance, max_evaluations=config.max_evaluations)
        found = lbfgs(objective.full, start, options, record)
        if objective.near_stability_limit(found.x[0]):
            message = f"{found.message} The diffusivity reached the stability limit of the sweep."
            found = replace(found, status="stalled", message=message)
    last = objective.trajectory(found.x).last
    return Outcome(last, coordinates.scalars(found.x[0]), found, objective.dtype)


def _result(patient: Patient, case: Case, config: FitConfig, outcome: Outcome, record: Recorder) -> Fit:
    p, found = outcome.scalars, outcome.minimum
    diffusivity, rate = float(p.diffusivity), float(p.proliferation_rate)
    parameters = {
        "diffusivity_wm_mm2_per_day": Parameter(diffusivity, "mm²/day"),
        "proliferation_rate_per_day": Parameter(rate, "1/day"),
        "wm_gm_ratio": Parameter(float(p.wm_gm_ratio), "1"),
        "infiltration_length_mm": Parameter(math.sqrt(diffusivity / rate), "mm"),
        "threshold_core": Parameter(float(p.threshold_core), "1"),
        "threshold_oedema": Parameter(float(p.threshold_oedema), "1"),
        "origin_mm": Parameter(case.world(p.origin), "mm"),
    }
    if case.pet is not None:
        parameters["pet_scale"] = Parameter(float(p.pet_scale), "1")
        parameters["pet_background"] = Parameter(float(p.pet_background), "1")
    terms = {"pet": 0.0, **found.terms}
    warnings = list(case.warnings)
    if found.status != "converged":
        warnings.append(f"The fit did not converge. {found.message}")
    evaluations, seconds, totals, stages = zip(*record.rows, strict=True)
    return Fit(
        density=case.volume_on(outcome.last, patient.segmentation),
        parameters=parameters,
        status=found.status,
        message=found.message,
        loss_total=found.value,
        loss_terms=terms,
        evaluations=record.evaluations,
        history=LossHistory(evaluations, seconds, totals, stages),
        method="odil",
        optimizer=config.optimizer,
        grid_shape=case.grid.shape,
        steps=config.steps,
        spacing_mm=case.grid.spacing,
        device=str(case.grid.device),
        dtype=str(outcome.dtype).removeprefix("torch."),
        wall_s=time.perf_counter() - record.started,
        warnings=tuple(warnings),
    )
