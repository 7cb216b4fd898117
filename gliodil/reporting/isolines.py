"""The density on three planes, with labelled isolines; and next to the truth where it is known.

Density is the fraction of the tissue's carrying capacity, shown in per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.reporting.display import PLANES, Display, PlaneName
from gliodil.reporting.panels import outline, patient_display, planes
from gliodil.reporting.style import INK, STRUCTURES, VERMILLION, dark_legend, halo, line_handle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gliodil.planning.plans import Plans

LEVELS = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75)
"""Isolines, as fractions of carrying capacity."""
LIKELY = (0.001, 0.003, 0.01, 0.03, 0.1, 0.25)
"""Isolines of the probability of later tumour."""
LIKELIEST = 0.5
"""Where its scale ends: next to the GTV it is 0.4."""


def density_figure(patient: Patient, plans: Plans) -> Figure:
    """Return the density as coloured bands with isolines labelled in per cent, and the GTV."""
    return _bands(patient, plans, plans.density.data, LEVELS, 1.0, "Estimated tumour-cell density")


def probability_figure(patient: Patient, plans: Plans) -> Figure | None:
    """Return the probability of later tumour likewise, with the model CTV; None where it is not known."""
    if plans.probability is None:
        return None
    shown = np.where(plans.gtv.data > 0, LIKELIEST, plans.probability.data)
    title = "Probability of tumour at a later visit"
    return _bands(patient, plans, shown, LIKELY, LIKELIEST, title, structures=("gtv", "model"))


def _bands(
    patient: Patient,
    plans: Plans,
    values: NDArray[Any],
    levels: Sequence[float],
    highest: float,
    title: str,
    structures: Sequence[str] = ("gtv",),
) -> Figure:
    """Return a map of fractions as coloured bands with isolines labelled in per cent, and outlines."""
    display = patient_display(patient, plans)
    figure, panels = planes(patient, display, title=title, room=0.95)
    bands = (*levels, highest)
    for axes, plane in zip(panels, PLANES, strict=True):
        picture = display.cut(values, plane)
        x, y = display.pixel_centres(plane)
        colours = axes.contourf(
            x, y, np.minimum(picture, highest), levels=bands, colors=_band_colours(len(levels)), alpha=0.55
        )
        _isolines(axes, display, plane, picture, levels)
        for name in structures:
            outline(axes, display, plane, getattr(plans, name).data, name)
    first = panels[0].get_position()
    last = panels[-1].get_position()
    inches = figure.get_figwidth()
    bar_axes = figure.add_axes((last.x1 + 0.14 / inches, first.y0, 0.2 / inches, first.height))
    bar = figure.colorbar(colours, cax=bar_axes, ticks=list(bands), spacing="uniform")
    bar.ax.set_yticklabels([f"{100 * level:g} %" for level in bands])
    bar.ax.tick_params(labelsize=9.5, colors=INK)
    dark_legend(figure, [line_handle(name) for name in structures], columns=len(structures))
    return figure


def truth_figure(patient: Patient, plans: Plans, truth: Volume, *, other: str = "True density") -> Figure:
    """Return the isolines of the true and of the estimated density, for simulated patients.

    Parameters
    ----------
    truth
        True density (or another estimate) in [0, 1] on the patient's grid.
    other
        What it is called.
    """
    from matplotlib.lines import Line2D

    display = patient_display(patient, plans)
    figure, panels = planes(
        patient, display, title=f"Estimated density against {other[0].lower()}{other[1:]}"
    )
    levels = (0.01, 0.10, 0.50)
    for axes, plane in zip(panels, PLANES, strict=True):
        _isolines(axes, display, plane, display.cut(plans.density.data, plane), levels, colour=VERMILLION)
        x, y = display.pixel_centres(plane)
        style = STRUCTURES["truth"]
        picture = display.cut(truth.data, plane)
        if picture.max() > levels[0]:
            lines = axes.contour(
                x,
                y,
                picture,
                levels=levels,
                colors=style.colour,
                linestyles=[style.dashes],
                linewidths=style.width,
            )
            lines.set_path_effects(list(halo(style.width - 0.6)))
    handles: Sequence[Any] = [
        Line2D([], [], color=VERMILLION, linewidth=2.2, label="Estimated density: 1 %, 10 %, 50 %"),
        line_handle("truth"),
    ]
    handles[1].set_label(f"{other}: 1 %, 10 %, 50 %")
    dark_legend(figure, handles, columns=2)
    return figure


def _band_colours(count: int) -> list[Any]:
    """Return one colour per band, dark to light: lightness alone tells the order."""
    from matplotlib import colormaps

    return [colormaps["inferno"](value) for value in np.linspace(0.22, 0.78, count)]


def _isolines(
    axes: Axes,
    display: Display,
    plane: PlaneName,
    picture: NDArray[Any],
    levels: Sequence[float],
    colour: str | None = None,
) -> None:
    """Draw the isolines and label each once, the labels spread around the tumour's centre."""
    if picture.max() <= levels[0]:
        return
    x, y = display.pixel_centres(plane)
    colours = [colour] * len(levels) if colour else _band_colours(len(levels))
    width = 2.2 if colour else 1.3
    lines = axes.contour(x, y, picture, levels=list(levels), colors=colours, linewidths=width)
    lines.set_path_effects(list(halo(width)))
    centre = np.asarray(display.centre_mm(plane))
    left, right, bottom, top = display.limits(plane)
    inset = 0.07 * (right - left)
    taken: list[NDArray[np.float64]] = []
    for rank, (level, segments) in enumerate(zip(levels, lines.allsegs, strict=True)):
        # The longest piece is the outer one; small ones circle ventricles and specks.
        points = max(segments, key=len, default=np.empty((0, 2)))
        inside = (np.abs(points[:, 0] - 0.5 * (left + right)) < 0.5 * (right - left) - inset) & (
            np.abs(points[:, 1] - 0.5 * (bottom + top)) < 0.5 * (bottom - top) - inset
        )
        points = points[inside]
        place = _label_place(points, centre, angle=2.4 * rank - 0.6, taken=taken, apart=0.09 * (right - left))
        if place is None:
            continue
        taken.append(place)
        axes.text(
            float(place[0]),
            float(place[1]),
            f"{100 * level:g} %",
            ha="center",
            va="center",
            fontsize=8.5,
            color="white",
            zorder=6,
            bbox={"boxstyle": "round,pad=0.18", "facecolor": "black", "alpha": 0.72, "linewidth": 0},
        )


def _label_place(
    points: NDArray[np.float64],
    centre: NDArray[np.float64],
    *,
    angle: float,
    taken: Sequence[NDArray[np.float64]],
    apart: float,
) -> NDArray[np.float64] | None:
    """Return the point of a line nearest to a direction from the centre that keeps clear of other labels."""
    for other in taken:
        points = points[np.linalg.norm(points - other, axis=1) > apart]
    if len(points) == 0:
        return None
    away = points - centre
    towards = np.asarray([np.cos(angle), np.sin(angle)])
    alignment = away @ towards / np.maximum(np.linalg.norm(away, axis=1), 1e-9)
    place: NDArray[np.float64] = points[int(alignment.argmax())]
    return place
