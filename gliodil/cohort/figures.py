"""Pictures of a cohort: paired differences patient by patient, and coverage against volume."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliodil.cohort.coverages import Analysis, Coverages
from gliodil.reporting.style import (
    DEEP_BLUE,
    INK,
    QUIET,
    STRUCTURES,
    VERMILLION,
    new_figure,
    plot_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def difference_figure(coverages: Coverages, analysis: Analysis) -> Figure:
    """Return the difference to the standard plan of every patient, plan by plan, with mean and interval.

    Patients are spread vertically where their differences are alike. Empty recurrences are left out.
    """
    plans = [name for name in analysis.primary if name != analysis.reference]
    figure = new_figure(12.0, 1.2 + 1.3 * max(1, len(plans)))
    axes = figure.subplots()
    reference = coverages.plans[analysis.reference]
    for place, plan in enumerate(reversed(plans)):
        pairs = [(v, reference.get(p)) for p, v in coverages.plans[plan].items()]
        d = 100 * np.asarray([v - r for v, r in pairs if v is not None and r is not None])
        shown = place + 0.08 + 0.30 * _spread(d)
        for use, colour, marker in ((d > 0, VERMILLION, "^"), (d == 0, QUIET, "o"), (d < 0, DEEP_BLUE, "v")):
            axes.scatter(d[use], shown[use], s=26, color=colour, marker=marker, alpha=0.55, linewidths=0)
        found = analysis.primary[plan]
        mean, below = 100 * found.mean_difference, place - 0.36
        if found.low is not None and found.high is not None:
            axes.plot([100 * found.low, 100 * found.high], [below, below], color=INK, linewidth=3, zorder=3)
        axes.plot([mean], [below], marker="D", color="white", markeredgecolor=INK, markersize=8, zorder=4)
        axes.text(
            1.01,
            place,
            f"{found.better} better\n{found.equal} equal\n{found.worse} worse",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=9.5,
            color=INK,
        )
    axes.axvline(0.0, color=INK, linewidth=1.0)
    axes.set_yticks(range(len(plans)), list(reversed(plans)))
    axes.set_ylim(-0.55, len(plans) - 0.45)
    plot_axes(
        axes,
        title=f"Coverage of {analysis.definition}: difference to {analysis.reference}",
        x="Percentage points, one mark per patient; diamond and bar: mean and 95 % interval",
        y="",
    )
    axes.grid(False, axis="y")
    figure.tight_layout()
    return figure


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return offsets in [-1, 1] that fan out values falling into the same of 60 bins."""
    if not values.size:
        return values
    width = max(float(np.ptp(values)) / 60, 1e-9)
    bins = np.rint(values / width).astype(int)
    offsets = np.zeros(values.size)
    fullest = int(np.unique(bins, return_counts=True)[1].max())
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        order = members[np.argsort(values[members], kind="stable")]
        steps = np.arange(order.size)
        offsets[order] = np.where(steps % 2, -1, 1) * ((steps + 1) // 2) / max(1, (fullest + 1) // 2)
    return offsets


def curve_figure(curves: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Figure | None:
    """Return mean coverage against volume by kind of recurrence; None if no patient has one.

    Parameters
    ----------
    curves
        Content of `coverage_volume.json` of each patient.
    kinds
        Key in it to the words for it.
    """
    panels = {
        words: [c[key]["coverage"] for c in curves if c[key]["coverage"]]
        for key, words in kinds.items()
        if any(c[key]["coverage"] for c in curves)
    }
    if not panels:
        return None
    x = np.asarray(curves[0]["relative_volume"], float)
    figure = new_figure(12.0, 4.6)
    for axes, (words, found) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for plan, order in (("standard", "by distance from the GTV"), ("model", "as the model ranks it")):
            values = 100 * np.asarray([curve[plan] for curve in found], float)
            style = STRUCTURES[plan]
            colour = {"standard": DEEP_BLUE, "model": VERMILLION}[plan]
            low, high = np.quantile(values, (0.25, 0.75), axis=0)
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
            axes.plot(
                x,
                values.mean(0),
                color=colour,
                linestyle=style.dashes,
                linewidth=2.2,
                label=f"{plan}, {order}",
            )
        axes.axvline(1.0, color=INK, linewidth=1.0)
        axes.set_xlim(0.0, x[-1])
        axes.set_ylim(0.0, 102.0)
        plot_axes(
            axes,
            title=f"{words[0].upper()}{words[1:]}, {len(found)} patient{'' if len(found) == 1 else 's'}",
            x="Volume over that of the standard CTV",
            y="Covered (%)",
        )
        axes.legend(fontsize=9.5, frameon=False, loc="lower right")
    figure.tight_layout(w_pad=2.5)
    return figure


def embedded(figure: Figure) -> str:
    """Return a figure as base64 PNG, the same for the same figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")
