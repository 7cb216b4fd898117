"""Fit one patient: from files on a grid to a density with parameters, a status and a loss that can be checked.

The default path runs in stages, each a start for the next:

1. *parameters*  exact physics (w = v = 0), from grid to grid, from what the segmentation suggests;
2. *full*        everything: parameters, initial misfit and model error, from grid to grid. Left out where exact physics
                 explains the labels as well as they can be seen (``label_misfit``), unless asked for.

``optimizer="adam-multigrid"`` is the public path from its own start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch

from gliodil.data.patient import Patient
from gliodil.errors import GeometryError, NumericsError
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.label_misfit import explained, label_misfit_mm
from gliodil.inference.landscape import HardPhysics, LossLandscape
from gliodil.inference.parameters import Scalars
from gliodil.inference.public_path import fit_public
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.result import Fit, LossHistory, Parameter
from gliodil.inference.start import from_segmentation
from gliodil.inference.variables import Coordinates, TransformedLoss, whitening
from gliodil.pde.odil.gauss_newton import GaussNewtonOptions, gauss_newton
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Minimum, Point, Recorder

COARSEST_CELLS, COARSEST_STEPS = 24, 96
"""Nested grids are not made coarser than this."""
PARAMETER_EVALUATIONS = 120

Progress = Callable[[str, int, float], None]
"""Called with (stage, gradients so far, loss)."""


@dataclass(frozen=True)
class Outcome:
    """What every path hands back: the last level, the parameters, and the optimizer's account."""

    last: torch.Tensor
    scalars: Scalars
    minimum: Minimum
    dtype: torch.dtype
    physics: str = "soft"
    misfit_mm: float | None = None


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
        loss = make_loss(case, config)
        if config.optimizer == "adam-multigrid":
            outcome = Outcome(*fit_public(loss, record), torch.float64)
        else:
            outcome = _fit_nested(patient, loss, record)
    except NumericsError as error:
        raise error.for_patient(patient.identity) from None
    return _result(patient, case, config, outcome, record)


def ladder(config: FitConfig) -> list[FitConfig]:
    """Return the settings of the nested grids, coarsest first: cells and steps halve from rung to rung."""
    rungs = [config]
    while rungs[0].cells // 2 >= COARSEST_CELLS:
        finer = rungs[0]
        steps = max(min(finer.steps, COARSEST_STEPS), finer.steps // 2)
        rungs.insert(0, replace(finer, cells=finer.cells // 2, steps=steps))
    return rungs


def _fit_nested(patient: Patient, loss: ReferenceLoss, record: Recorder) -> Outcome:
    """Fit the parameters alone, then, unless exact physics is enough, everything; both from grid to grid."""
    rungs = ladder(loss.config)
    losses = [*_coarser(patient, rungs[:-1]), loss]
    coordinates, parameters = fit_parameters(losses, record)
    exact = _exact(loss, coordinates, parameters)
    if loss.config.physics == "exact" or (
        loss.config.physics == "auto" and loss.anchored and _enough(loss, exact)
    ):
        return exact
    coordinates = coordinates.with_origin_fixed()
    start = TransformedLoss(losses[0], coordinates).start()
    for rung, finer in zip(losses, [*losses[1:], None], strict=True):
        record.stage = f"full {rung.config.cells}³×{rung.config.steps}"
        objective, found = _minimize(rung, coordinates, start, record)
        if finer is not None:
            start = objective.prolong_to(finer, found.x)
    scalars, last = coordinates.scalars(found.x[0]), objective.trajectory(found.x).last
    return Outcome(last, scalars, found, objective.dtype, misfit_mm=label_misfit_mm(loss.case, last, scalars))


def _exact(loss: ReferenceLoss, coordinates: Coordinates, parameters: Minimum) -> Outcome:
    """Return the outcome of exact physics, judged by the full loss."""
    objective = TransformedLoss(loss, coordinates)
    start = objective.start()
    here = LossLandscape(objective).at(start)
    found = replace(parameters, x=start, value=here.value, terms=here.terms)
    scalars, last = coordinates.scalars(start[0]), objective.trajectory(start).last
    misfit = label_misfit_mm(loss.case, last, scalars)
    return Outcome(last, scalars, found, objective.dtype, "exact", misfit)


def _enough(loss: ReferenceLoss, exact: Outcome) -> bool:
    return exact.misfit_mm is not None and explained(loss.case, exact.misfit_mm)


def _coarser(patient: Patient, rungs: list[FitConfig]) -> list[ReferenceLoss]:
    """Losses on the coarser grids; a grid so coarse that a small core falls between its cells is left out."""
    losses = []
    for rung in rungs:
        with suppress(GeometryError):
            losses.append(make_loss(set_up(patient, rung), rung))
    return losses


def fit_parameters(losses: list[ReferenceLoss], record: Recorder) -> tuple[Coordinates, Minimum]:
    """Fit the parameters with exact physics from grid to grid.

    Returns
    -------
    Coordinates centred at the estimate and whitened, and how the search on the finest grid ended.

    Fronts travel differently on grids that do not resolve them, so the parameters are those of the finest grid. The
    coarsest is searched in float64: it costs little there, and a search through a curved valley amplifies round-off
    until a patient and its mirror image part ways.
    """
    coarsest = losses[0]
    box = coarsest.box()
    coordinates = Coordinates.plain(box, box.encode(from_segmentation(coarsest.case, coarsest.config)))
    for loss in losses:
        record.stage = f"parameters {loss.config.cells}³×{loss.config.steps}"
        if loss.box() != box:  # finer cells carry shorter fronts
            z = loss.box().encode(coordinates.scalars(coordinates.zero()))
            box, coordinates = loss.box(), Coordinates.scaled(loss.box(), z, coordinates.scaling)
        dtype = torch.float64 if loss is coarsest else torch.float32
        landscape = HardPhysics(TransformedLoss(loss, coordinates, dtype=dtype))
        options = LBFGSOptions(
            tolerance=1e-3,
            max_evaluations=PARAMETER_EVALUATIONS,
            memory=12,
            curvature=_first_curvature(landscape) if loss is coarsest else 2.0,
            max_step=1.0,
        )
        best = lbfgs(landscape, [coordinates.zero()], options, record)
        if best.status == "diverged":
            raise NumericsError(
                "The loss is not finite at the starting parameters.",
                found=str(coordinates.scalars(coordinates.zero())),
                remedy="check the tissue maps and the segmentation",
            )
        coordinates = coordinates.moved(best.x[0])

        scaling = coordinates.scaling @ whitening(
            partial(_gradient, landscape, best.x[0], record), coordinates.zero()
        )
        coordinates = Coordinates.scaled(box, coordinates.origin, scaling)
    return coordinates, best


def _gradient(
    landscape: HardPhysics, centre: torch.Tensor, record: Recorder, y: torch.Tensor
) -> torch.Tensor:
    record.evaluations += 1
    return landscape.at([centre + y]).gradient()[0]


def _first_curvature(landscape: HardPhysics) -> float:
    """Curvature that makes the first step 0.1 long in the parameters' coordinates."""
    here = landscape.at([landscape.loss.coordinates.zero()])
    length = float(here.gradient()[0].norm()) if math.isfinite(here.value) else 0.0
    return 10 * length if length > 0 else 2.0


def _minimize(
    loss: ReferenceLoss, coordinates: Coordinates, start: Point, record: Recorder
) -> tuple[TransformedLoss, Minimum]:
    """Minimize the loss on one grid."""
    landscape = LossLandscape(TransformedLoss(loss, coordinates))
    return landscape.loss, _run(landscape, start, loss.config.max_evaluations, record)


def _run(landscape: LossLandscape, start: Point, budget: int, record: Recorder) -> Minimum:
    config = landscape.loss.loss.config
    if config.optimizer == "gauss-newton":
        newton = GaussNewtonOptions(tolerance=config.tolerance, max_evaluations=budget)
        return gauss_newton(landscape, start, newton, record)
    options = LBFGSOptions(tolerance=config.tolerance, max_evaluations=budget)
    return lbfgs(landscape, start, options, record)


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
    evaluations, seconds, totals, stages = zip(*record.rows, strict=True) if record.rows else ((),) * 4
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
        physics=outcome.physics,
        label_misfit_mm=outcome.misfit_mm,
        optimizer=config.optimizer,
        grid_shape=case.grid.shape,
        steps=config.steps,
        spacing_mm=case.grid.spacing,
        device=str(case.grid.device),
        dtype=str(outcome.dtype).removeprefix("torch."),
        wall_s=time.perf_counter() - record.started,
        warnings=tuple(warnings),
    )
