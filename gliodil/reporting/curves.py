"""Graphs: density against distance, the loss on its way down, its terms, and the relation to PET."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.patient import Patient
from gliodil.inference.result import Fit
from gliodil.planning.distance import bounding_box, distance_from
from gliodil.reporting.style import (
    BLUE,
    DEEP_BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    QUIET,
    STRUCTURES,
    VERMILLION,
    new_figure,
    plot_axes,
)
from gliodil.reporting.wording import TERM_NAMES, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gliodil.planning.plans import Plans


def density_by_distance(
    density: NDArray[Any],
    gtv: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    *,
    spacing: tuple[float, float, float],
    reach_mm: tuple[float, float] = (-10.0, 40.0),
    quantiles: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9),
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return quantiles of the density over the brain, per millimetre of distance from the GTV surface.

    Distances are those of `gliodil.planning.distance`, from voxel centre to voxel centre; inside the GTV
    they are the negative distance from its nearest voxel outside.

    Parameters
    ----------
    density, gtv, brain
        Arrays of one grid; density in [0, 1].
    spacing
        mm per axis.
    reach_mm
        Range of distances.
    quantiles
        Which ones, ascending.

    Returns
    -------
    distance
        Bin centres, mm, shape (bins,).
    values
        Shape (quantiles, bins). Bins with fewer than 10 voxels are left out, so that thick slices and the
        step from -1 to +1 voxel across the surface leave no holes.
    """
    use = brain | gtv
    outside = distance_from(gtv, spacing, region=use)
    box = bounding_box(gtv, pad=(1, 1, 1))
    inside = np.zeros(gtv.shape)
    inside[box] = distance_from(~gtv[box], spacing)
    distance = np.where(gtv, -inside, outside)[use]
    values = density[use]
    centres = np.arange(reach_mm[0], reach_mm[1] + 1.0)
    nearest = np.rint(distance - reach_mm[0]).astype(int)
    order = np.argsort(nearest, kind="stable")
    starts = np.searchsorted(nearest[order], np.arange(len(centres) + 1))
    bins = [values[order[first:last]] for first, last in pairwise(starts)]
    filled = np.asarray([len(members) >= 10 for members in bins], bool)
    table = [np.quantile(members, quantiles) for members, use in zip(bins, filled, strict=True) if use]
    return centres[filled], np.asarray(table).reshape(-1, len(quantiles)).T


def distance_figure(patient: Patient, plans: Plans) -> Figure:
    """Return density against distance from the GTV, on a linear and a logarithmic scale."""
    distance, table = density_by_distance(
        plans.density.data,
        plans.gtv.data.astype(bool),
        patient.brain,
        spacing=plans.density.spacing,
    )
    figure = new_figure(12.0, 4.4)
    scales = {"linear": "Density against distance", "log": "The same on a logarithmic scale"}
    per_cent = 100.0 * table
    for axes, (scale, title) in zip(figure.subplots(1, 2), scales.items(), strict=True):
        if scale == "log":
            axes.set_yscale("log")
            axes.set_ylim(0.01, 130.0)
            shown = np.maximum(per_cent, 1e-6)
        else:
            axes.set_ylim(0.0, 102.0)
            shown = per_cent
        axes.fill_between(
            distance,
            shown[0],
            shown[4],
            color=VERMILLION,
            alpha=0.16,
            linewidth=0,
            label="10th to 90th percentile",
        )
        axes.fill_between(
            distance,
            shown[1],
            shown[3],
            color=VERMILLION,
            alpha=0.30,
            linewidth=0,
            label="25th to 75th percentile",
        )
        axes.plot(distance, shown[2], color=VERMILLION, linewidth=2.2, label="Median over the brain")
        axes.axvline(0.0, color=INK, linewidth=1.2, label="GTV surface")
        axes.axvline(
            plans.rule.margin_mm,
            color=DEEP_BLUE,
            linestyle=STRUCTURES["standard"].dashes,
            linewidth=1.8,
            label=f"Standard margin, {plans.rule.margin_mm:g} mm",
        )
        axes.set_xlim(-10.0, 40.0)
        plot_axes(axes, title=title, x="Distance from the GTV surface (mm), negative inside", y="Density (%)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if scale == "linear":
            axes.legend(fontsize=9.5, frameon=False, loc="upper right")
    figure.tight_layout(w_pad=2.5)
    return figure


def loss_figure(fit: Fit) -> Figure:
    """Return the loss against gradient evaluations, one line per stage, and the loss by terms."""
    figure = new_figure(12.0, 4.4)
    course, terms = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
    history = fit.history
    evaluations, total = np.asarray(history.evaluations), np.asarray(history.total, float)
    looks = (
        (DEEP_BLUE, "-", "o"),
        (VERMILLION, "-", "s"),
        (GREEN, "--", "^"),
        (PURPLE, "-.", "D"),
        (ORANGE, ":", "v"),
    )
    for rank, stage in enumerate(dict.fromkeys(history.stage)):
        colour, dashes, marker = looks[rank % len(looks)]
        use = np.asarray([name == stage for name in history.stage]) & (total > 0)
        course.plot(
            evaluations[use],
            total[use],
            color=colour,
            linestyle=dashes,
            linewidth=1.8,
            marker=marker,
            markersize=5,
            markevery=max(1, int(use.sum()) // 12),
            label=f"Stage “{stage}”",
        )
    course.set_yscale("log")
    plot_axes(course, title="Loss during the fit", x="Gradient evaluations", y="Loss")
    if history.stage:
        course.legend(fontsize=9.5, frameon=False, loc="upper right")
    _bars(terms, dict(fit.loss_terms), fit.loss_total)
    figure.tight_layout(w_pad=2.5)
    return figure


def _bars(axes: Any, terms: dict[str, float], total: float) -> None:
    """Draw one horizontal bar per loss term, with value and share beside it."""
    names = [name for name in TERM_NAMES if name in terms] + [
        name for name in terms if name not in TERM_NAMES
    ]
    values = np.nan_to_num(np.asarray([terms[name] for name in names], float))
    places = np.arange(len(names))[::-1]
    axes.barh(places, values, height=0.62, color=BLUE, edgecolor=DEEP_BLUE, linewidth=0.8)
    axes.set_yticks(places, [TERM_NAMES.get(name, name) for name in names])
    for place, value in zip(places, values, strict=True):
        share = f"  ({100 * value / total:.0f} %)" if value > 0.005 * total > 0 else ""
        axes.text(value, place, f"  {number(value)}{share}", va="center", fontsize=9, color=INK)
    axes.set_xlim(0.0, 1.5 * max(float(values.max(initial=0.0)), 1e-300))
    plot_axes(axes, title=f"Loss by term, total {number(total)}", x="Contribution to the loss", y="")
    axes.grid(False, axis="y")
    axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3), useMathText=True)


def pet_figure(patient: Patient, plans: Plans, fit: Fit) -> Figure | None:
    """Return estimated density against PET uptake inside the visible tumour; None where PET was not used.

    The line is the imaging model, density = s (PET − b), with PET scaled to its maximum there.
    """
    if patient.pet is None or fit.method == "pinn":  # a network does not see PET
        return None
    visible = patient.enhancing | patient.oedema
    uptake = np.where(visible, patient.pet.data, 0.0)
    if not uptake.max() > 0:
        return None
    uptake = uptake[visible] / uptake.max()
    use = uptake > 0.1
    figure = new_figure(6.4, 4.6)
    axes = figure.subplots()
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(0.0, 102.0)
    cells = axes.hexbin(
        uptake[use],
        100.0 * plans.density.data[visible][use],
        gridsize=36,
        extent=(0.0, 1.0, 0.0, 100.0),
        cmap="Greys",
        bins="log",
        mincnt=1,
        linewidths=0.2,
    )
    bar = figure.colorbar(cells, ax=axes, pad=0.02)
    bar.set_label("Voxels", fontsize=10, color=INK)
    bar.ax.tick_params(labelsize=9, colors=QUIET)
    scale, background = fit.parameters.get("pet_scale"), fit.parameters.get("pet_background")
    if scale is not None and background is not None:
        s, b = float(np.asarray(scale.value)), float(np.asarray(background.value))
        x = np.linspace(0.1, 1.0, 50)
        axes.plot(
            x,
            100.0 * s * (x - b),
            color=VERMILLION,
            linewidth=2.2,
            label=f"Density = {s:.2f} · (PET − {b:.2f})",
        )
        axes.legend(fontsize=9.5, frameon=False, loc="lower right")
    plot_axes(axes, title="Density against PET", x="PET uptake, fraction of its maximum", y="Density (%)")
    figure.tight_layout()
    return figure
