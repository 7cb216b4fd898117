"""When the start of growth is freed: where point origins miss a lesion, or leave labels unexplained that can be seen.

The free start (``free_start``) is kept if it misses fewer lesions, or as many with a smaller label misfit.
"""

from __future__ import annotations

import math

import torch

from gliodil.data.patient import Patient
from gliodil.inference.agreement import agreement
from gliodil.inference.case import Case
from gliodil.inference.free_start import STEPS, FreeStart
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.label_misfit import explained, label_misfit_mm
from gliodil.inference.outcome import Outcome
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Recorder

EVALUATIONS = 80
"""Budget of gradients of the free start."""


def freed(patient: Patient, loss: InformedLoss, exact: Outcome, record: Recorder) -> Outcome:
    """Return exact growth from points, or from a free start where that is needed and does better.

    Parameters
    ----------
    exact
        How growth from points ended; its tissue and rates are kept.
    record
        Where gradients are counted.
    """
    missed, misfit = _unexplained(patient, loss.case, exact)
    if not missed and explained(loss.case, misfit):
        return exact
    record.stage = f"free start {loss.config.cells}³×{STEPS}"
    landscape = FreeStart(patient, loss, exact.scalars)
    options = LBFGSOptions(
        tolerance=loss.config.tolerance,
        max_evaluations=min(EVALUATIONS, loss.config.max_evaluations),
        memory=12,
        max_step=1.0,
    )
    found = lbfgs(landscape, landscape.start(), options, record)
    with torch.no_grad():
        run = landscape.run(found.x)
    if run is None:
        return exact
    scalars, levels = run[0], run[1].levels
    free = Outcome(
        levels,
        scalars,
        found,
        landscape.dtype,
        "free-start",
        label_misfit_mm(loss.case, levels[-1], loss.thresholds(landscape.seen(scalars))),
        "lbfgs",
    )
    return free if _unexplained(patient, loss.case, free) < (missed, misfit) else exact


def _unexplained(patient: Patient, case: Case, outcome: Outcome) -> tuple[int, float]:
    """Return how many lesions an outcome misses, and its label misfit [mm]."""
    p = outcome.scalars
    found = agreement(
        patient,
        case.volume_on(outcome.levels[-1], patient.segmentation),
        threshold_core=float(p.threshold_core),
        threshold_oedema=float(p.threshold_oedema),
    )
    misfit = math.inf if outcome.misfit_mm is None else outcome.misfit_mm
    return found.lesions_found - found.lesions_explained, misfit
