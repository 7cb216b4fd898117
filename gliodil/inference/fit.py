"""Fit one patient: from files on a grid to a density with parameters, a status and a loss that can be checked.

The default path (``optimizer="lbfgs"``) runs in stages, each a start for the next:

1. *parameters*  exact physics (w = v = 0) on the coarsest of nested grids, from what the segmentation suggests;
2. *full*        the reference loss in (parameters, initial misfit, model error), from grid to grid.

``"gauss-newton"`` replaces the last grid's optimizer; ``"adam-multigrid"`` is the public path from its own start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from gliodil.data.patient import Patient
from gliodil.errors import GeometryError, NumericsError
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import InformedLoss, make_loss
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
RECENTRINGS = 4
"""Times the full loss is re-centred at most (see ``variables``)."""

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
    """Parameters alone on the coarsest grid, then the full loss from grid to grid."""
    rungs = ladder(loss.config)
    losses = [*_coarser(patient, rungs[:-1]), loss]
    record.stage = "parameters"
    coordinates = fit_parameters(losses[0], record)

    start = TransformedLoss(losses[0], coordinates).start()
    for rung, finer in zip(losses, [*losses[1:], None], strict=True):
        record.stage = f"full {rung.config.cells}³×{rung.config.steps}"
        objective, found = _minimize(rung, coordinates, start, record, gauss_newton_too=finer is None)
        coordinates = objective.coordinates
        if finer is not None:
            start = objective.prolong_to(finer, found.x)
    return Outcome(
        objective.trajectory(found.x).last, coordinates.scalars(found.x[0]), found, objective.dtype
    )


def _coarser(patient: Patient, rungs: list[FitConfig]) -> list[ReferenceLoss]:
    """Losses on the coarser grids; a grid so coarse that a small core falls between its cells is left out."""
    losses = []
    for rung in rungs:
        with suppress(GeometryError):
            losses.append(make_loss(set_up(patient, rung), rung))
    return losses


def fit_parameters(loss: ReferenceLoss, record: Recorder) -> Coordinates:
    """Fit the parameters with exact physics (w = v = 0); return coordinates centred there and whitened.

    The informed loss finds them whichever loss follows: it has one minimum where the reference loss has several. In
    float64: a coarse grid costs little, and a search through a curved valley amplifies round-off until a patient and
    its mirror image part ways.
    """
    informed = InformedLoss(loss.case, loss.config)
    box = informed.box()
    z = box.encode(from_segmentation(loss.case, loss.config))
    left = PARAMETER_EVALUATIONS
    while True:
        objective = TransformedLoss(informed, Coordinates.plain(box, z), dtype=torch.float64)
        options = LBFGSOptions(
            tolerance=1e-3,
            max_evaluations=left,
            memory=12,
            curvature=_first_curvature(objective),
            max_step=1.0,
        )
        best = lbfgs(objective.hard, [objective.coordinates.zero()], options, record)
        if best.status == "diverged":
            raise NumericsError(
                "The loss is not finite at the starting parameters.",
                found=str(objective.coordinates.scalars(objective.coordinates.zero())),
                remedy="check the tissue maps and the segmentation",
            )
        left -= best.evaluations
        z = z + best.x[0]
        if left <= 0 or not objective.near_stability_limit(best.x[0]):
            break  # otherwise go on with a sweep that takes a larger diffusivity
    z = loss.box().encode(box.decode(z))
    objective = TransformedLoss(loss, Coordinates.plain(loss.box(), z), dtype=torch.float64)

    def gradient(at: torch.Tensor) -> torch.Tensor:
        record.evaluations += 1
        return objective.hard([at - z]).gradient[0]

    return Coordinates.scaled(loss.box(), z, whitening(gradient, z))


def _first_curvature(objective: TransformedLoss) -> float:
    """Curvature that makes the first step 0.1 long in the parameters' coordinates."""
    gradient = objective.hard([objective.coordinates.zero()]).gradient
    length = float(gradient[0].norm()) if gradient else 0.0
    return 10 * length if length > 0 else 2.0


def _minimize(
    loss: ReferenceLoss, coordinates: Coordinates, start: Point, record: Recorder, *, gauss_newton_too: bool
) -> tuple[TransformedLoss, Minimum]:
    """Minimize the reference loss on one grid; the sweep gets more stages if the diffusivity asks for them."""
    config = loss.config
    if config.optimizer == "gauss-newton" and gauss_newton_too:
        objective = TransformedLoss(loss, coordinates, dtype=torch.float64)
        options = GaussNewtonOptions(tolerance=config.tolerance, max_iterations=config.max_evaluations)
        found = gauss_newton(objective.residuals, [t.double() for t in start], options, record)
        return objective, replace(found, terms=objective.full(found.x).terms)
    objective, left = TransformedLoss(loss, coordinates), config.max_evaluations
    evaluate = record.count(objective.full)
    best = objective, start, evaluate(start)
    for _ in range(RECENTRINGS):
        options_lbfgs = LBFGSOptions(tolerance=config.tolerance, max_evaluations=left)
        found = lbfgs(objective.full, start, options_lbfgs, record)
        objective, candidates = objective.recentred(found.x)
        evaluate = record.count(objective.full)
        exact, start = min(((evaluate(x), x) for x in candidates), key=lambda pair: pair[0].value)
        left -= found.evaluations + len(candidates)
        agrees = exact.value <= found.value * (1 + 10 * config.tolerance)
        improved = exact.value < best[2].value * (1 - config.tolerance)
        if exact.value <= best[2].value:
            best = objective, start, exact
        if left <= 0 or found.status == "diverged" or not improved:
            break
        if agrees and found.status == "converged":
            break
    objective, start, exact = best
    found = replace(found, x=start, value=exact.value, terms=exact.terms)
    if found.status == "converged" and not agrees:
        message = (
            "The seed's cutoff keeps moving with its origin; the loss changes by more than the tolerance."
        )
        found = replace(found, status="stalled", message=message)
    return objective, found


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
        optimizer=config.optimizer,
        grid_shape=case.grid.shape,
        steps=config.steps,
        spacing_mm=case.grid.spacing,
        device=str(case.grid.device),
        dtype=str(outcome.dtype).removeprefix("torch."),
        wall_s=time.perf_counter() - record.started,
        warnings=tuple(warnings),
    )
