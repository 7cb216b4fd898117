"""HTML for notebooks: a table with units, warnings in words, and three planes if matplotlib is there.

Planes follow the radiological convention, as the report does: the patient's left is on the right of axial and coronal
pictures; sagittal ones are seen from the patient's left. They pass through the centre of mass of what they show.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gliodil.data.patient import Patient
    from gliodil.data.volume import Volume

# Plane, the RAS axis it cuts, and the letters at its left, right and top.
_PLANES = (("axial", 2, "RLA"), ("coronal", 1, "RLS"), ("sagittal", 0, "APS"))

RIM_VOXELS = 2

_LEFT = "text-align:left"


@dataclass(frozen=True)
class Outline:
    """A line to draw round a mask: its label, matplotlib colour and dash pattern."""

    label: str
    mask: NDArray[Any]
    colour: str = "#E69F00"
    dashes: Any = "-"


def volume_html(volume: Volume) -> str:
    """Return a table of the volume's geometry and three planes through what it shows."""
    rows = {
        "kind": volume.kind,
        "shape": " x ".join(map(str, volume.shape)),
        "spacing (mm)": " x ".join(f"{s:.4g}" for s in volume.spacing),
        "origin (mm, RAS)": ", ".join(f"{o:.4g}" for o in volume.origin),
        "orientation": volume.orientation + (" (oblique)" if volume.is_oblique else ""),
        "values": f"{volume.data.min():.4g} to {volume.data.max():.4g}",
        "file": "" if volume.path is None else volume.path.name,
    }
    outlines = [Outline("", volume.data != 0)] if volume.kind == "label" else []
    picture = planes_html(
        volume, volume.data, outlines, alt="Axial, coronal and sagittal plane of the volume"
    )
    return f"<div>{table_html(rows)}{picture}{notes_html(volume.notes)}</div>"


def patient_html(patient: Patient) -> str:
    """Return the patient's files, the volume of the tumour and warnings, and three planes through the tumour."""
    rows = {
        row["role"]: f"{row['file']} ({row['shape']}, {row['spacing']} mm)".strip()
        for row in patient.describe()
    }
    per_voxel = patient.segmentation.voxel_volume_ml
    sizes = {"tumour": patient.tumour, "core": patient.core, "cavity": patient.cavity}
    volumes = [f"{name} {np.count_nonzero(m) * per_voxel:.1f} mL" for name, m in sizes.items() if m.any()]
    head = {
        "patient": patient.identity,
        "labels": patient.convention.name,
        "visible": ", ".join(volumes),
        **rows,
    }
    names = ("t1c", "t1", "flair", "t2", "wm")
    background = next((patient.volumes[name] for name in names if name in patient.volumes), None)
    picture = np.zeros(patient.shape, np.float32) if background is None else background.data
    outlines = [
        Outline("tumour", patient.tumour | patient.cavity),
        Outline("core", patient.core | patient.cavity, "#F0E442", (0, (2, 1))),
    ]
    planes = planes_html(
        patient.segmentation,
        picture,
        outlines,
        alt="Axial, coronal and sagittal plane through the tumour, with its outline and that of its core",
    )
    return f"<div>{table_html(head)}{planes}{notes_html(patient.warnings)}</div>"


def table_html(rows: Mapping[str, str]) -> str:
    """Return a table of names and values; rows without a value are left out."""
    cells = "".join(
        f"<tr><th style='{_LEFT}'>{html.escape(key)}</th><td style='{_LEFT}'>{html.escape(value)}</td></tr>"
        for key, value in rows.items()
        if value
    )
    return f"<table>{cells}</table>"


def notes_html(notes: Iterable[str]) -> str:
    """Return warnings as a list; nothing without any."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
    return f"<ul>{items}</ul>" if items else ""


def planes_html(
    grid: Volume,
    picture: NDArray[Any],
    outlines: Sequence[Outline] = (),
    *,
    alt: str,
    levels: Sequence[float] = (),
) -> str:
    """Return an `<img>` of three planes; empty without matplotlib.

    Parameters
    ----------
    grid
        Any volume on the grid of the arrays, for its geometry.
    picture
        Grey values, shape of the grid.
    outlines
        Masks to outline, each of the shape of the grid; the planes pass through the last one that is not empty.
    alt
        What is read out instead of the picture.
    levels
        Values of `picture` to draw labelled isolines of, in per cent.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        return ""
    turn = nib.io_orientation(grid.affine)
    image = np.nan_to_num(nib.apply_orientation(np.asarray(picture), turn))
    masks = [nib.apply_orientation(np.asarray(o.mask) > 0, turn) for o in outlines]
    spacing = np.empty(3)
    spacing[turn[:, 0].astype(int)] = grid.spacing
    shown = [mask for mask in masks if mask.any()]
    centre = _centre(shown[-1] if shown else np.clip(image, 0, None))
    window = _window([image > 0, *masks])
    named = [o for o in outlines if o.label]
    figure = Figure(figsize=(7.5, 3.2 if named else 2.9), layout="constrained")
    bright = float(image[window].max()) or 1.0
    for axes, (name, axis, letters) in zip(figure.subplots(1, 3), _PLANES, strict=True):

        def cut(array: NDArray[Any], axis: int = axis) -> NDArray[Any]:
            return np.asarray(np.take(array[window], centre[axis] - window[axis].start, axis).T[:, ::-1])

        across, upward = (k for k in range(3) if k != axis)
        aspect = spacing[upward] / spacing[across]
        axes.imshow(
            cut(image), origin="lower", cmap="gray", aspect=aspect, vmin=min(0.0, image.min()), vmax=bright
        )
        for outline, mask in zip(outlines, masks, strict=True):
            if (there := cut(mask)).any() and not there.all():
                axes.contour(
                    there, levels=[0.5], colors=outline.colour, linewidths=1.2, linestyles=[outline.dashes]
                )
        if levels and cut(image).max() > levels[0]:
            lines = axes.contour(cut(image), levels=list(levels), colors="#56B4E9", linewidths=0.9)
            axes.clabel(lines, fmt=lambda value: f"{100 * value:.0f} %", fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.set(xlabel=f"{letters[0]} – {letters[1]}", ylabel=f"{letters[2]} up", xticks=[], yticks=[])
    if named:
        lines = [Line2D([], [], color=o.colour, linestyle=o.dashes, label=o.label) for o in named]
        legend = figure.legend(
            handles=lines, loc="outside lower center", ncols=len(lines), fontsize=8, labelcolor="white"
        )
        legend.get_frame().set(facecolor="black", alpha=1.0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(alt, quote=True)}' src='data:image/png;base64,{data}'>"


def _centre(weights: NDArray[Any]) -> tuple[int, ...]:
    """Return the centre of mass of an array, in voxels; the middle of the array if it is empty."""
    sums = [weights.sum(axis=tuple(k for k in range(3) if k != axis), dtype=float) for axis in range(3)]
    if sums[0].sum() <= 0:
        return tuple(n // 2 for n in weights.shape)
    return tuple(round(float(np.arange(s.size) @ s / s.sum())) for s in sums)


def _window(masks: Sequence[NDArray[np.bool_]]) -> tuple[slice, ...]:
    """Return the box of everything that is shown, with a rim; the whole image if nothing is."""
    window = []
    for axis, n in enumerate(masks[0].shape):
        others = tuple(k for k in range(3) if k != axis)
        hit = np.flatnonzero(np.any([mask.any(axis=others) for mask in masks], axis=0))
        first, last = (hit[0], hit[-1]) if hit.size else (0, n - 1)
        window.append(slice(max(int(first) - RIM_VOXELS, 0), int(last) + 1 + RIM_VOXELS))
    return tuple(window)
