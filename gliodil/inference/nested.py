"""The nested grids of a fit: cells and steps halve from each to the next coarser one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from gliodil.data.patient import Patient
from gliodil.errors import GeometryError
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.reference_loss import ReferenceLoss

COARSEST_CELLS, COARSEST_STEPS = 24, 96
"""Grids are not made coarser than this."""


def ladder(config: FitConfig) -> list[FitConfig]:
    """Return the settings of the nested grids, coarsest first: cells and steps halve from rung to rung."""
    rungs = [config]
    while rungs[0].cells // 2 >= COARSEST_CELLS:
        finer = rungs[0]
        steps = max(min(finer.steps, COARSEST_STEPS), finer.steps // 2)
        rungs.insert(0, replace(finer, cells=finer.cells // 2, steps=steps))
    return rungs


def nested(patient: Patient, loss: ReferenceLoss) -> list[ReferenceLoss]:
    """Return the losses on the nested grids, coarsest first, ``loss`` last.

    A grid so coarse that a small core falls between its cells is left out.
    """
    losses = []
    for rung in ladder(loss.config)[:-1]:
        with suppress(GeometryError):
            case = replace(set_up(patient, rung), has_necrosis=loss.case.has_necrosis)
            losses.append(make_loss(case, rung))
    return [*losses, loss]
