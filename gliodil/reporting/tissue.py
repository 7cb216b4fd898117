"""The tissue maps over the MRI, whole brain: where lines leave the edges they should follow, the maps are off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gliodil.data.patient import Patient
from gliodil.reporting.display import PLANES, display_for
from gliodil.reporting.panels import outline, planes
from gliodil.reporting.style import STRUCTURES, dark_legend, line_handle

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gliodil.planning.plans import Plans

# T1 shows white and grey matter best.
IMAGES = ("t1", "t1c", "flair", "t2")


def tissue_figure(patient: Patient, plans: Plans) -> Figure | None:
    """Return where white matter and CSF prevail, outlined over the MRI; None without maps or without MRI."""
    volumes = patient.volumes
    if not {"wm", "gm"} <= volumes.keys() or not any(name in volumes for name in IMAGES):
        return None
    brain, gtv = patient.brain, plans.gtv.data.astype(bool)
    display = display_for(patient.segmentation, target=gtv, region=brain, brain=brain)
    figure, panels = planes(patient, display, title="Tissue maps over the MRI", images=IMAGES)
    white, grey = (np.clip(volumes[name].data, 0, 1) for name in ("wm", "gm"))
    fluid = volumes["csf"].data if "csf" in volumes else brain - white - grey
    masks = {"csf": brain & (fluid > 0.5), "wm": brain & (white > 0.5), "gtv": gtv}
    for axes, plane in zip(panels, PLANES, strict=True):
        for name, mask in masks.items():
            outline(axes, display, plane, mask, name)
    handles = []
    for name in masks:
        handle = line_handle(name)
        if name != "gtv":
            handle.set_label(f"{STRUCTURES[name].label} above 1/2")
        handles.append(handle)
    dark_legend(figure, handles, columns=len(handles))
    return figure
