"""Three planes through the tumour: the picture every other panel figure starts from.

`planes` lays out axial, coronal and sagittal panels with the best image there is as background,
orientation letters and a scale bar; `plans_figure` adds the contours of the plans, `difference_figure`
what the model CTV gains and gives up against the standard CTV of the same volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.patient import Patient
from gliodil.planning.coverage import recurrence_masks
from gliodil.reporting.display import PLANES, Display, PlaneName, display_for
from gliodil.reporting.style import (
    INK,
    PANEL,
    QUIET,
    STRUCTURES,
    dark_legend,
    halo,
    line_handle,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gliodil.planning.plans import Plans

TISSUE_GREY = {"wm": 0.9, "gm": 0.6, "csf": 0.25}
"""Grey value of each tissue in the background drawn from tissue maps."""

SCALE_BAR_MM = 20.0


def background(
    patient: Patient, images: Sequence[str] = ("t1c", "flair", "t1", "t2")
) -> tuple[NDArray[np.float32], str]:
    """Return grey values in [0, 1] on the patient's grid, and the name of what they show.

    The first of `images` that has contrast inside the brain, windowed between its 1st and 99.5th percentile
    there; without any, the tissue maps; without those, the brain mask.
    """
    brain = patient.brain
    for key in images:
        if key not in patient.volumes:
            continue
        data = patient.volumes[key].data
        low, high = np.percentile(data[brain], (1.0, 99.5))
        if high > low:
            grey = np.clip((data - low) / (high - low), 0.0, 1.0)
            return grey.astype(np.float32), {"t1c": "contrast-enhanced T1"}.get(key, key.upper())
    tissues = [key for key in TISSUE_GREY if key in patient.volumes]
    if tissues:
        grey = sum(TISSUE_GREY[key] * np.clip(patient.volumes[key].data, 0.0, 1.0) for key in tissues)
        return np.clip(grey, 0.0, 1.0).astype(np.float32), "tissue maps"
    return (0.5 * brain).astype(np.float32), "brain mask"


def patient_display(patient: Patient, plans: Plans) -> Display:
    """Return the display for a patient: through the middle of the GTV, showing all plans."""
    region = plans.standard.data.astype(bool) | plans.model.data.astype(bool)
    return display_for(
        patient.segmentation, target=plans.gtv.data.astype(bool), region=region, brain=patient.brain
    )


def planes(
    patient: Patient,
    display: Display,
    *,
    title: str,
    room: float = 0.0,
    images: Sequence[str] = ("t1c", "flair", "t1", "t2"),
) -> tuple[Figure, list[Axes]]:
    """Return a figure with the three background panels, ready to be drawn on.

    Parameters
    ----------
    title
        Set in bold at the upper left.
    room
        Inches to leave free on the right, for a colour bar.
    images
        What may be the background, the preferred first.
    """
    side, gap, head, foot = 4.3, 0.12, 0.66, 0.96
    width, height = 3 * side + 4 * gap + room, side + head + foot
    figure = new_figure(width, height)
    top = 1 - 0.1 / height
    figure.text(gap / width, top, title, va="top", fontsize=13.5, fontweight="bold", color=INK)
    label = f"{patient.identity}  ·  research use only"
    figure.text(1 - gap / width, top, label, va="top", ha="right", fontsize=10.5, color=QUIET)
    grey, shows = background(patient, images)
    panels = []
    for column, plane in enumerate(PLANES):
        left = (gap + column * (side + gap)) / width
        axes = figure.add_axes((left, foot / height, side / width, side / height), facecolor=PANEL)
        axes.imshow(
            display.cut(grey, plane),
            cmap="gray",
            vmin=0.0,
            vmax=1.3,  # leaves white for letters and lines
            extent=display.extent(plane),
            interpolation="bilinear",
        )
        _furnish(axes, display, plane)
        panels.append(axes)
    note = f"Radiological convention: patient's left (L) on the right of the image. Background: {shows}."
    if display.oblique:
        note += " Oblique acquisition: planes follow the image axes, letters name the nearest direction."
    figure.text(gap / width, 0.06 / height, note, va="bottom", fontsize=9, color=QUIET)
    return figure, panels


def _furnish(axes: Axes, display: Display, plane: PlaneName) -> None:
    """Set window, heading, orientation letters and scale bar of one panel."""
    left, right, bottom, top = display.limits(plane)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    coordinate = {"axial": "z", "coronal": "y", "sagittal": "x"}[plane]
    heading = f"{plane.capitalize()}, {coordinate} = {display.position_mm(plane):.0f} mm"
    axes.set_title(heading.replace("-", "−"), fontsize=10.5, color=INK, pad=4)
    letters = display.letters(plane)
    places = {"left": (0.02, 0.5), "right": (0.98, 0.5), "top": (0.5, 0.98), "bottom": (0.5, 0.02)}
    for edge, (x, y) in places.items():
        axes.text(
            x,
            y,
            letters[edge],
            transform=axes.transAxes,
            ha={"left": "left", "right": "right"}.get(edge, "center"),
            va={"top": "top", "bottom": "bottom"}.get(edge, "center"),
            color="white",
            fontsize=11.5,
            fontweight="bold",
            zorder=6,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "black", "alpha": 0.6, "linewidth": 0},
        )
    x0, y0 = left + 0.04 * (right - left), bottom + 0.05 * (top - bottom)
    axes.plot([x0, x0 + SCALE_BAR_MM], [y0, y0], color="white", linewidth=3, solid_capstyle="butt", zorder=6)
    axes.text(
        x0 + SCALE_BAR_MM / 2,
        y0 + 0.012 * (top - bottom),
        f"{SCALE_BAR_MM:.0f} mm",
        ha="center",
        va="bottom",
        color="white",
        fontsize=9,
        path_effects=halo(1.2),
        zorder=6,
    )


def outline(axes: Axes, display: Display, plane: PlaneName, mask: NDArray[Any], name: str) -> None:
    """Draw the outline of a mask in the style of the structure `name`; nothing where the plane misses it."""
    picture = display.cut(mask, plane).astype(np.float32)
    if not picture.any():
        return
    style = STRUCTURES[name]
    x, y = display.pixel_centres(plane)
    lines = axes.contour(
        x,
        y,
        picture,
        levels=[0.5],
        colors=[style.colour],
        linestyles=[style.dashes],
        linewidths=[style.width],
    )
    lines.set_path_effects(list(halo(style.width)))


def plans_figure(patient: Patient, plans: Plans) -> Figure:
    """Return the contours of GTV, standard, trimmed and model CTV on the three planes."""
    display = patient_display(patient, plans)
    figure, panels = planes(patient, display, title="Gross tumour and clinical target volumes")
    masks = {"model": plans.model, "standard": plans.standard, "trimmed": plans.trimmed, "gtv": plans.gtv}
    for axes, plane in zip(panels, PLANES, strict=True):
        for name, volume in masks.items():
            outline(axes, display, plane, volume.data, name)
    volumes = plans.volumes_ml
    keys = {"gtv": "gtv", "standard": "ctv_standard", "trimmed": "ctv_trimmed", "model": "ctv_model"}
    handles = []
    for name, key in keys.items():
        handle = line_handle(name)
        handle.set_label(f"{STRUCTURES[name].label}, {volumes[key]:.0f} mL")
        handles.append(handle)
    dark_legend(figure, handles, columns=len(handles))
    return figure


def difference_figure(patient: Patient, plans: Plans) -> Figure:
    """Return what the model CTV gains and gives up against the standard CTV, on the three planes.

    A recurrence, if the patient has one, is outlined on top.
    """
    from matplotlib.patches import Patch

    display = patient_display(patient, plans)
    figure, panels = planes(patient, display, title="Model CTV against standard CTV of equal volume")
    change = plans.difference.data
    signs = {
        +1: ("Gained by the model", STRUCTURES["model"].colour, "////"),
        -1: ("Given up by the model", STRUCTURES["standard"].colour, "\\\\\\\\"),
    }
    recurrence = (
        None if patient.recurrence is None else recurrence_masks(patient.recurrence, patient.convention)[1]
    )
    for axes, plane in zip(panels, PLANES, strict=True):
        for sign, (_, colour, hatch) in signs.items():
            _hatched(axes, display, plane, change == sign, colour, hatch)
        outline(axes, display, plane, plans.gtv.data, "gtv")
        if recurrence is not None:
            outline(axes, display, plane, recurrence, "recurrence")
    per_voxel = plans.difference.voxel_volume_ml
    handles: list[Any] = [
        Patch(
            facecolor=colour,
            hatch=hatch,
            edgecolor="black",
            label=f"{words}, {(change == sign).sum() * per_voxel:.0f} mL",
        )
        for sign, (words, colour, hatch) in signs.items()
    ]
    handles.append(line_handle("gtv"))
    if recurrence is not None and recurrence.any():
        handles.append(line_handle("recurrence"))
    dark_legend(figure, handles, columns=len(handles))
    return figure


def _hatched(
    axes: Axes, display: Display, plane: PlaneName, mask: NDArray[np.bool_], colour: str, hatch: str
) -> None:
    """Fill a mask with a see-through colour and a hatch, so that the sign shows without colour too."""
    picture = display.cut(mask, plane).astype(np.float32)
    if not picture.any():
        return
    x, y = display.pixel_centres(plane)
    levels: Sequence[float] = (0.5, 1.5)
    axes.contourf(x, y, picture, levels=levels, colors=[colour], alpha=0.62, hatches=[hatch])
    axes.contour(x, y, picture, levels=[0.5], colors=[colour], linewidths=[1.0])
