"""HTML pictures of volumes and patients for notebooks: a table, and three planes if matplotlib is there."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gliodil.data.patient import Patient
    from gliodil.data.volume import Volume

_PLANES = (("axial", 2, "R", "A"), ("coronal", 1, "R", "S"), ("sagittal", 0, "A", "S"))


def volume_html(volume: Volume) -> str:
    """Return a table of the volume's geometry and its three middle planes (through the labels, if any)."""
    rows = {
        "kind": volume.kind,
        "shape": " x ".join(map(str, volume.shape)),
        "spacing (mm)": " x ".join(f"{s:.4g}" for s in volume.spacing),
        "origin (mm, RAS)": ", ".join(f"{o:.4g}" for o in volume.origin),
        "orientation": volume.orientation + (" (oblique)" if volume.is_oblique else ""),
        "file": "" if volume.path is None else str(volume.path),
    }
    mask = volume.data != 0 if volume.kind == "label" else None
    return f"<div>{_table(rows)}{_planes(volume, volume.data, mask)}</div>"


def patient_html(patient: Patient) -> str:
    """Return the patient's files and warnings, and three planes through the tumour."""
    rows = {row["role"]: f"{row['file']} ({row['shape']}, {row['spacing']} mm)" for row in patient.describe()}
    head = {"patient": patient.identity, "labels": patient.convention.name, **rows}
    notes = "".join(f"<li>{html.escape(text)}</li>" for text in patient.warnings)
    names = ("t1c", "t1", "flair", "t2", "wm")
    background = next((patient.volumes[name] for name in names if name in patient.volumes), None)
    picture = np.zeros(patient.shape, np.float32) if background is None else background.data
    planes = _planes(patient.segmentation, picture, patient.tumour)
    return f"<div>{_table(head)}{planes}{f'<ul>{notes}</ul>' if notes else ''}</div>"


def _table(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>"
        for key, value in rows.items()
        if value
    )
    return f"<table>{cells}</table>"


def _planes(volume: Volume, picture: NDArray[Any], mask: NDArray[np.bool_] | None) -> str:
    """Return an `<img>` of three planes in RAS order, the mask outlined; empty without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return ""
    flips = nib.io_orientation(volume.affine)
    image = nib.apply_orientation(np.asarray(picture), flips)
    spacing = np.asarray(volume.spacing)[np.argsort(flips[:, 0])]
    marked = None if mask is None else nib.apply_orientation(mask.astype(np.uint8), flips)
    centre = _centre(image.shape, marked)
    figure = Figure(figsize=(7.5, 2.7), layout="constrained")
    for axes, (name, axis, right, up) in zip(figure.subplots(1, 3), _PLANES, strict=True):
        across, upward = (k for k in range(3) if k != axis)
        aspect = spacing[upward] / spacing[across]
        axes.imshow(np.take(image, centre[axis], axis).T, origin="lower", cmap="gray", aspect=aspect)
        if marked is not None and (outline := np.take(marked, centre[axis], axis).T).any():
            axes.contour(outline, levels=[0.5], colors="#e69f00", linewidths=1.0)
        axes.set(title=name, xlabel=f"to {right}", ylabel=f"to {up}", xticks=[], yticks=[])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return (
        f"<img alt='three planes' src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
    )


def _centre(shape: Sequence[int], mask: NDArray[Any] | None) -> tuple[int, ...]:
    """Return the middle of the mask, or of the array if there is none."""
    if mask is None or not mask.any():
        return tuple(n // 2 for n in shape)
    return tuple(round(float(c)) for c in np.argwhere(mask).mean(axis=0))
