"""Fit one patient: from files on a grid to a density with parameters, a status and a loss that can be checked.

The default path runs in stages, each a start for the next:

1. *parameters*  exact physics, from grid to grid, from what the segmentation suggests, with as many foci as it asks for;
2. *free start*  the density a short while ago, of any shape, physics exact since (``free_start``). Left out where the
                 parameters explain the labels as well as they can be seen (``label_misfit``).

Soft physics, which the reference loss has unless exact physics is asked for, replaces the second stage:

2. *full*        parameters, initial misfit and model error, from grid to grid.

``method="pinn"`` is a network instead (``network_fit``). ``optimizer="adam-multigrid"`` is the public path from its own
start.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, overload

import torch

from gliodil.data.longitudinal import LongitudinalPatient
from gliodil.data.patient import Patient
from gliodil.errors import InputError, NumericsError
from gliodil.inference.agreement import agreement
from gliodil.inference.case import Case, set_up
from gliodil.inference.checkpoint import Checkpoint, fit_key
from gliodil.inference.config import FitConfig
from gliodil.inference.exact import ExactPhysics
from gliodil.inference.foci import search, search_foci
from gliodil.inference.free_start import UNRELIABLE
from gliodil.inference.freed import freed
from gliodil.inference.informed_loss import InformedLoss, make_loss
from gliodil.inference.label_misfit import label_misfit_mm
from gliodil.inference.landscape import LossLandscape
from gliodil.inference.learned_result import LearnedFit
from gliodil.inference.nested import nested
from gliodil.inference.network_fit import fit_network
from gliodil.inference.outcome import Outcome
from gliodil.inference.public_path import fit_public
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.result import Fit, LossHistory, Parameter
from gliodil.inference.start import from_segmentation
from gliodil.inference.variables import Coordinates, TransformedLoss, whitening
from gliodil.pde.odil.gauss_newton import GaussNewtonOptions, gauss_newton
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Minimum, Point, Recorder

LARGE_FIELD = 10**8
"""Entries of a space-time field of which few fit into memory: 0.4 GB."""

GROWTHS = ("fisher-kolmogorov", "learned")

Progress = Callable[[str, int, float], None]
"""Called with (stage, gradients so far, loss)."""


@overload
def fit(
    patient: Patient,
    *,
    growth: Literal["fisher-kolmogorov"] = ...,
    config: FitConfig | None = ...,
    progress: Progress | None = ...,
    checkpoint: Path | str | Checkpoint | None = ...,
) -> Fit: ...


@overload
def fit(
    patient: Patient | LongitudinalPatient,
    *,
    growth: Literal["learned"],
    config: FitConfig | None = ...,
    progress: Progress | None = ...,
) -> LearnedFit: ...


def fit(
    patient: Patient | LongitudinalPatient,
    *,
    growth: str = "fisher-kolmogorov",
    config: FitConfig | None = None,
    progress: Progress | None = None,
    checkpoint: Path | str | Checkpoint | None = None,
) -> Fit | LearnedFit:
    """Infer the tumour-cell density of a patient, or the law that it grows by.

    Parameters
    ----------
    patient
        Segmentation, white- and grey-matter maps, and optionally FET-PET; for a learned law, its visits.
    growth
        ``"fisher-kolmogorov"``, or ``"learned"``: a law of growth is fitted to the densities of several visits
        (``learned.fit_learned``, which has further settings).
    config
        Settings; ``FitConfig()`` if not given.
    progress
        Called with (stage, gradients so far, loss).
    checkpoint
        File in which the state of a long fit is kept, once a minute. If an interrupted fit of the same patient, settings
        and version left it, this one continues that and comes to the same answer. The file is removed when the fit
        ends; a ``Checkpoint`` is left for the caller to remove.

    Returns
    -------
    The density on the grid of the segmentation, the parameters, and how the optimizer fared. A fit that did not converge
    is returned with a status that says so.

    Raises
    ------
    InputError, GeometryError
        If the patient cannot be set up (see ``case.set_up``), the growth is unknown, a learned law is asked to keep
        a checkpoint, or the checkpoint's path names a file that is none.
    NumericsError
        If the loss is not finite from the start, or the public path ends at rates that are not positive.
    """
    config = config or FitConfig()
    if growth == "learned":
        if checkpoint is not None:
            raise InputError("The fit of a learned law keeps no checkpoint.", patient=patient.identity)
        from gliodil.inference.learned import fit_learned

        return fit_learned(patient, fit_config=config, progress=progress)
    if growth != "fisher-kolmogorov":
        raise InputError(
            "Unknown growth.",
            patient=patient.identity,
            expected=" or ".join(GROWTHS),
            found=str(growth),
        )
    if not isinstance(patient, Patient):
        raise InputError(
            "Fisher-Kolmogorov growth is fitted to one visit.",
            patient=patient.identity,
            found="a patient with several visits",
            remedy="hand in its .patient, or growth='learned'",
        )
    keeper = Checkpoint.at(checkpoint) if isinstance(checkpoint, Path | str) else checkpoint
    record = Recorder(progress=progress, keeper=keeper)
    try:
        case = set_up(patient, config)
        if keeper is not None:
            keeper.open(lambda: fit_key(patient, config, case.grid.device))
        loss = make_loss(case, config)
        if isinstance(loss, InformedLoss) and config.method == "pinn":
            outcome = fit_network(loss, record)
        elif config.optimizer == "adam-multigrid":
            outcome = Outcome(*fit_public(loss, record), torch.float64)
        else:
            outcome = _fit_nested(patient, loss, record)
    except NumericsError as error:
        if keeper is not None:  # it would end there again
            keeper.remove()
        raise error.for_patient(patient.identity) from None
    found = _result(patient, case, config, outcome, record)
    if keeper is not None:
        keeper.close(keep=keeper is checkpoint)
        found = replace(found, warnings=(*found.warnings, *keeper.warnings))
        if keeper is not checkpoint:
            keeper.remove()
    return found


def _fit_nested(patient: Patient, loss: ReferenceLoss, record: Recorder) -> Outcome:
    """Fit the parameters, then, unless exact physics is enough, a free start or everything; from grid to grid."""
    losses = nested(patient, loss)
    landscape, found = fit_parameters(losses, record)
    exact = _exact(landscape, found)
    if loss.config.physics == "exact":
        return exact
    if loss.config.physics == "auto" and isinstance(loss, InformedLoss):
        return freed(patient, loss, exact, record)
    return _soft(losses, landscape, found, record)


def _exact(landscape: ExactPhysics, found: Minimum) -> Outcome:
    """Return the outcome of exact physics at a minimum."""
    loss = landscape.objective.loss
    with torch.no_grad():
        run = landscape.run(found.x)
    if run is None:
        raise NumericsError("The best parameters cannot be evaluated again.", found=str(found.terms))
    scalars, levels = run[0], run[1].levels
    found = replace(found, terms={"pde": 0.0, "initial": 0.0, **found.terms})
    misfit = label_misfit_mm(loss.case, levels[-1], loss.thresholds(scalars))
    return Outcome(levels, scalars, found, landscape.objective.dtype, "exact", misfit, "lbfgs")


def _soft(losses: list[ReferenceLoss], landscape: ExactPhysics, found: Minimum, record: Recorder) -> Outcome:
    """Minimize the loss in parameters, initial misfit and model error, from grid to grid."""
    coordinates = landscape.objective.coordinates
    coarsest = ExactPhysics(TransformedLoss(losses[0], coordinates, dtype=torch.float64))
    # The curvature of the coarsest grid will do; the terms of the last level are divided by the number of levels.
    per_level = math.sqrt(losses[-1].config.steps / losses[0].config.steps)
    scaling = coordinates.scaling @ _whitening(coarsest, found.x[0], record) * per_level
    fixed = replace(coordinates.moved(found.x[0]), scaling=scaling).with_origin_fixed()
    start: Point | None = None
    for loss, finer in zip(losses, [*losses[1:], None], strict=True):
        record.stage = f"full {loss.config.cells}³×{loss.config.steps}"
        full = LossLandscape(TransformedLoss(loss, fixed))
        found = _minimize(full, full.loss.start() if start is None else start, record)
        if finer is not None:
            start = full.loss.prolong_to(finer, found.x)
    scalars, levels = fixed.scalars(found.x[0]), full.loss.trajectory(found.x).levels
    misfit = label_misfit_mm(loss.case, levels[-1], loss.thresholds(scalars))
    return Outcome(levels, scalars, found, full.loss.dtype, "soft", misfit)


def fit_parameters(losses: list[ReferenceLoss], record: Recorder) -> tuple[ExactPhysics, Minimum]:
    """Fit the parameters with exact physics from grid to grid.

    Returns
    -------
    The loss on the finest grid, and how the search on it ended.

    Fronts travel differently on grids that do not resolve them, so the parameters are those of the finest grid. The
    coarsest is searched in float64: it costs little there, and a search through a curved valley amplifies round-off
    until a patient and its mirror image part ways. The number of foci is found there too (``foci``).
    """
    coarsest = losses[0]
    record.stage = f"parameters {coarsest.config.cells}³×{coarsest.config.steps}"
    landscape, found = search_foci(coarsest, from_segmentation(coarsest.case, coarsest.config), record)
    for loss in losses[1:]:
        record.stage = f"parameters {loss.config.cells}³×{loss.config.steps}"
        coordinates = landscape.objective.coordinates
        scaling = coordinates.scaling @ _whitening(landscape, found.x[0], record)
        box = replace(loss.box(), foci=coordinates.box.foci)  # finer cells carry shorter fronts
        z = box.encode(coordinates.scalars(found.x[0]))
        landscape = ExactPhysics(TransformedLoss(loss, Coordinates(box, z, scaling)))
        found = search(landscape, record)
    return landscape, found


def _whitening(landscape: ExactPhysics, y: torch.Tensor, record: Recorder) -> torch.Tensor:
    """Return the scaling that makes the Hessian in the parameters about 2I at y."""

    def gradient(at: torch.Tensor) -> torch.Tensor:
        record.evaluations += 1
        here = landscape.at([at])
        return here.gradient()[0] if math.isfinite(here.value) else torch.full_like(at, math.nan)

    return whitening(gradient, y)


def _minimize(landscape: LossLandscape, start: Point, record: Recorder) -> Minimum:
    """Minimize the loss on one grid with the optimizer asked for."""
    config = landscape.loss.loss.config
    if config.optimizer == "gauss-newton":
        newton = GaussNewtonOptions(tolerance=config.tolerance, max_evaluations=config.max_evaluations)
        return gauss_newton(landscape, start, newton, record)
    # A pair is two space-time fields. Four do as well as six; where they are large, two have to.
    pairs = 4 if start[-1].numel() < LARGE_FIELD else 2
    options = LBFGSOptions(tolerance=config.tolerance, max_evaluations=config.max_evaluations, memory=pairs)
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
        "origin_mm": Parameter(case.world(p.origins[0]), "mm"),
    }
    if case.model.csf is not None:
        parameters["csf_speed"] = Parameter(float(p.csf_speed), "1")
    if case.pet is not None and config.method == "odil":
        parameters["pet_scale"] = Parameter(float(p.pet_scale), "1")
        parameters["pet_background"] = Parameter(float(p.pet_background), "1")
    terms = {"pet": 0.0, **found.terms}
    warnings = list(case.warnings)
    if outcome.physics == "free-start":
        warnings.append(UNRELIABLE)
    if found.status != "converged":
        warnings.append(f"The fit did not converge. {found.message}")
    density = case.volume_on(outcome.levels[-1], patient.segmentation)
    evaluations, seconds, totals, stages = zip(*record.rows, strict=True) if record.rows else ((),) * 4
    return Fit(
        density=density,
        parameters=parameters,
        status=found.status,
        message=found.message,
        loss_total=found.value,
        loss_terms=terms,
        evaluations=record.evaluations,
        history=LossHistory(evaluations, seconds, totals, stages),
        method=config.method,
        physics=outcome.physics,
        origins_mm=tuple(case.world(origin) for origin in p.origins),
        agreement=agreement(
            patient,
            density,
            threshold_core=float(p.threshold_core),
            threshold_oedema=float(p.threshold_oedema),
        ),
        optimizer=outcome.optimizer or config.optimizer,
        grid_shape=case.grid.shape,
        steps=config.steps,
        spacing_mm=case.grid.spacing,
        device=str(case.grid.device),
        dtype=str(outcome.dtype).removeprefix("torch."),
        wall_s=time.perf_counter() - record.started,
        warnings=tuple(warnings),
    )
