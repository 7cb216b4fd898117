"""Where exact growth starts from: the search for the parameters, and for as many foci as the labels ask for.

With n effective observations (``informed_loss``) −2 ln(posterior) is n ln L up to a constant, L being the value of the
parameter stage. A further focus has three coordinates, so it is kept where it lowers n ln L by more than 3 ln n (Schwarz
1978). It is looked for where the labels show tumour that the foci so far do not reach, as deep inside as possible.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from gliodil.errors import NumericsError
from gliodil.inference.exact import ExactPhysics
from gliodil.inference.informed_loss import EFFECTIVE_OBSERVATIONS
from gliodil.inference.label_misfit import explained, label_misfit_mm
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.variables import Coordinates, TransformedLoss
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Minimum, Recorder

MOST_FOCI = 5
EVALUATIONS = 120
"""Budget of gradients of one search."""


def search_foci(loss: ReferenceLoss, start: Scalars, record: Recorder) -> tuple[ExactPhysics, Minimum]:
    """Search the parameters from a start with one focus; add foci while that pays.

    Returns
    -------
    The loss in the coordinates of the chosen number of foci, float64, and how the search for them ended. The reference
    loss keeps the one focus it is defined with.
    """
    landscape = _plain(loss, start)
    found = search(landscape, record, curvature=_first_curvature(landscape))
    while loss.several_foci and landscape.objective.coordinates.box.foci < MOST_FOCI:
        p, last = _seen(landscape, found)
        if explained(loss.case, label_misfit_mm(loss.case, last, loss.thresholds(p))):
            break
        further = unreached(loss, last, p)
        if further is None:
            break
        trial = _plain(loss, replace(p, origins=torch.cat([p.origins, further[None]])))
        try:
            ended = search(trial, record, curvature=_first_curvature(trial))
        except NumericsError:  # a place no tumour can grow from; the foci found so far stand
            break
        if not ended.value < found.value * EFFECTIVE_OBSERVATIONS ** (-3 / EFFECTIVE_OBSERVATIONS):
            break
        landscape, found = trial, ended
    return landscape, found


def search(landscape: ExactPhysics, record: Recorder, *, curvature: float = 2.0) -> Minimum:
    """Minimize in the parameters alone.

    Raises
    ------
    NumericsError
        If the loss is not finite at the start.
    """
    options = LBFGSOptions(
        tolerance=1e-3, max_evaluations=EVALUATIONS, memory=12, curvature=curvature, max_step=1.0
    )
    found = lbfgs(landscape, landscape.start(), options, record)
    if found.status == "diverged":
        coordinates = landscape.objective.coordinates
        raise NumericsError(
            "The loss is not finite at the starting parameters.",
            found=str(coordinates.scalars(coordinates.zero())),
            remedy="check the tissue maps and the segmentation",
        )
    return found


def unreached(loss: ReferenceLoss, last: torch.Tensor, p: Scalars) -> torch.Tensor | None:
    """Return the deepest point of the visible tumour in which ``last`` shows none [mm from the grid's corner]."""
    case = loss.case
    missed = (case.core | case.oedema) & case.model.passable & (last < p.threshold_oedema)
    if not bool(missed.any()):
        return None
    box = np.pad(case.grid.box(missed).cpu().numpy(), 1)
    depth = ndimage.distance_transform_edt(box, sampling=case.grid.spacing)[1:-1, 1:-1, 1:-1]
    return loss.centres[:, int(depth.argmax())]


def _plain(loss: ReferenceLoss, start: Scalars) -> ExactPhysics:
    box = replace(loss.box(), foci=start.origins.shape[0])
    return ExactPhysics(TransformedLoss(loss, Coordinates.plain(box, box.encode(start)), dtype=torch.float64))


def _seen(landscape: ExactPhysics, found: Minimum) -> tuple[Scalars, torch.Tensor]:
    with torch.no_grad():
        run = landscape.run(found.x)
    assert run is not None  # it was the best point of the search
    return run[0], run[1].last


def _first_curvature(landscape: ExactPhysics) -> float:
    """Curvature that makes the first step 0.1 long in the parameters' coordinates."""
    here = landscape.at(landscape.start())
    length = float(here.gradient()[0].norm()) if math.isfinite(here.value) else 0.0
    return 10 * length if length > 0 else 2.0
