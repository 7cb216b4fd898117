"""One look for every figure: colours, line styles, and how a figure is made and saved.

Colours are from the Okabe-Ito palette, which stays distinct under the common colour-vision deficiencies;
every line also has a style of its own, so nothing rests on colour alone. Figures are made with
matplotlib's object interface on the Agg canvas: no window, no pyplot, no global state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil.data.atomic import atomic_path
from gliodil.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1a1a1a"
"""Text and axes."""
QUIET = "#595959"
"""Secondary text (contrast 7:1 on white)."""
PANEL = "#000000"
"""Background of image panels."""
BLUE, VERMILLION, GREEN, YELLOW = "#56B4E9", "#D55E00", "#009E73", "#F0E442"
DEEP_BLUE, PURPLE, ORANGE = "#0072B2", "#CC79A7", "#E69F00"
PINK = "#F4A6D0"
"""A lighter PURPLE, for thin lines on dark tissue."""

DPI = 144


@dataclass(frozen=True)
class LineStyle:
    """How one structure is drawn, everywhere: matplotlib colour, dash pattern and width (points)."""

    label: str
    colour: str
    dashes: Any
    width: float


STRUCTURES = {
    "gtv": LineStyle("GTV", YELLOW, "-", 1.4),
    "standard": LineStyle("Standard CTV", BLUE, (0, (5, 2)), 2.2),
    "trimmed": LineStyle("Trimmed CTV", PINK, (0, (1, 1.4)), 1.7),
    "model": LineStyle("Model CTV", VERMILLION, "-", 2.2),
    "recurrence": LineStyle("Recurrence", "#FFFFFF", (0, (3, 1.5, 1, 1.5)), 1.4),
    "truth": LineStyle("True density", "#FFFFFF", (0, (3, 1.5)), 1.4),
    "wm": LineStyle("White matter", ORANGE, "-", 1.0),
    "bone": LineStyle("Bone on the CT", ORANGE, "-", 1.0),
    "csf": LineStyle("CSF", BLUE, (0, (4, 1.5)), 1.0),
}
"""Line styles by structure; where two lines coincide, the thinner one is drawn on top."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty white figure of the given size in inches, with an Agg canvas attached.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write a figure as PNG; the file appears complete or not at all.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    target = Path(path)
    with atomic_path(target) as temporary:
        # No software or date in the file: the same figure gives the same bytes.
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})
    return target


def plot_axes(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Give a graph its title, axis labels, a light grid and no box."""
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=10.5, color=INK)
    axes.set_ylabel(y, fontsize=10.5, color=INK)
    axes.tick_params(labelsize=9.5, colors=INK)
    axes.grid(True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def halo(width: float) -> Sequence[Any]:
    """Return path effects that put a dark rim around a line, so that it shows on bright tissue too."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width + 1.4, foreground="black", alpha=0.75)]


def line_handle(name: str) -> Any:
    """Return the legend entry of a structure in `STRUCTURES`."""
    from matplotlib.lines import Line2D

    style = STRUCTURES[name]
    return Line2D(
        [], [], color=style.colour, linestyle=style.dashes, linewidth=style.width, label=style.label
    )


def dark_legend(figure: Figure, handles: Sequence[Any], *, columns: int) -> None:
    """Put one legend for all panels at the foot of the figure, on the panels' black."""
    legend = figure.legend(
        handles=list(handles),
        loc="lower center",
        ncols=columns,
        bbox_to_anchor=(0.5, 0.055),
        fontsize=10.5,
        labelcolor="white",
        facecolor=PANEL,
        edgecolor=PANEL,
        framealpha=1.0,
        handlelength=3.2,
        columnspacing=2.2,
        borderpad=0.6,
    )
    legend.set_zorder(5)
