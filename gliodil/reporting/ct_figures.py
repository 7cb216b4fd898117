"""The planning CT over the MR: a checkerboard of both, and the edges of bone on the MR.

Where the two are off, tissue breaks at the squares' borders, and the outline of the skull leaves its dark band.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.patient import Patient
from gliodil.reporting.display import PLANES, Display, display_for
from gliodil.reporting.panels import outline, planes
from gliodil.reporting.style import dark_legend, line_handle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gliodil.planning.plans import Plans

BONE_HU = 250.0
"""Hounsfield units above which there is bone."""
SOFT_HU = (-60.0, 140.0)
"""Window in which soft tissue is shown."""
SQUARE_MM = 30.0
"""Side of the squares of the checkerboard."""
HEAD_MM = 30.0
"""How far around the brain the pictures reach."""
_LIFT = 2000.0


def ct_on_mr(patient: Patient) -> NDArray[np.float32]:
    """Return the CT in Hounsfield units on the grid of the patient; NaN beyond its field of view."""
    planning = patient.planning
    assert planning is not None
    ct, grid = planning.series.volume(), patient.segmentation
    lifted = ct.with_data(ct.data.astype(np.float32) + _LIFT)  # resampling puts 0 where there is no data
    placed = lifted.carried(planning.related_link.inverse.matrix, grid.frame).resample_to(grid).data
    return np.where(placed == 0, np.nan, placed - _LIFT).astype(np.float32)


def checkerboard_figure(patient: Patient, plans: Plans) -> Figure:
    """Return squares of MR and CT in turn, on three planes."""
    hounsfield, display = ct_on_mr(patient), _display(patient, plans)
    figure, panels = planes(patient, display, title="MR and planning CT, square by square")
    low, high = SOFT_HU
    grey = np.clip((hounsfield - low) / (high - low), 0, 1)
    for axes, plane in zip(panels, PLANES, strict=True):
        x, y = display.pixel_centres(plane)
        odd = (np.floor(x / SQUARE_MM)[None, :] + np.floor(y / SQUARE_MM)[:, None]) % 2 == 1
        picture = display.cut(grey, plane)
        axes.imshow(
            np.ma.masked_where(~odd | ~np.isfinite(picture), picture),
            cmap="bone",
            vmin=0.0,
            vmax=1.3,
            extent=display.extent(plane),
            interpolation="nearest",
        )
        outline(axes, display, plane, plans.gtv.data, "gtv")
    dark_legend(figure, [line_handle("gtv")], columns=1)
    return figure


def bone_figure(patient: Patient, plans: Plans) -> Figure:
    """Return the edges of bone, from the CT, over the MR, on three planes."""
    hounsfield, display = ct_on_mr(patient), _display(patient, plans)
    figure, panels = planes(patient, display, title="Bone of the planning CT over the MR")
    masks = {"bone": np.nan_to_num(hounsfield, nan=-1000.0) > BONE_HU, "gtv": plans.gtv.data > 0}
    for axes, plane in zip(panels, PLANES, strict=True):
        for name, mask in masks.items():
            outline(axes, display, plane, mask, name)
    dark_legend(figure, [line_handle(name) for name in masks], columns=2)
    return figure


def _display(patient: Patient, plans: Plans) -> Display:
    brain = patient.brain
    near = ndimage.distance_transform_edt(~brain, sampling=patient.spacing) <= HEAD_MM
    return display_for(patient.segmentation, target=plans.gtv.data > 0, region=near, brain=near)
