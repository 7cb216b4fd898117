"""The interactive three-plane viewer of `report.html`: its data, and the NiiVue bundle that shows them.

The volumes of a plan are cropped to the brain, stored as 8-bit NIfTI (density in steps of 0.5 %, margin in steps
of 0.25 mm; targets as outlines) and embedded as base64, so that the page works from disk, offline. NiiVue
(BSD 2-Clause) comes with nilearn; where that has none, or WebGL 2 is missing, the static figures remain.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.planning.coverage import recurrence_masks
from gliodil.planning.distance import Box, Mask, bounding_box
from gliodil.reporting.jsonable import write_json
from gliodil.reporting.style import STRUCTURES

if TYPE_CHECKING:
    from gliodil.planning.plans import Plans

VIEWER_FILE = "viewer.json"
DENSITY_STEP, MARGIN_STEP_MM = 1 / 200, 0.25
_BACKGROUNDS = {"t1c": "T1 with contrast", "flair": "FLAIR", "t1": "T1", "t2": "T2", "wm": "White matter"}
_PADDING = 3


@dataclass(frozen=True)
class _Layer:
    """One volume as the viewer shows it."""

    key: str
    name: str
    data: NDArray[np.uint8]
    step: float = 1.0
    """Value of one unit of `data`."""
    colour: str = ""
    """Name of a NiiVue colour map, or #rrggbb for an outline; empty: never shown, only read out."""
    low: float = 0.0
    high: float = 1.0
    opacity: float = 0.0
    shown: float = 1.0
    """Opacity once it is switched on."""


def save_viewer(patient: Patient, plans: Plans, folder: Path) -> Path:
    """Write what the viewer shows as `<folder>/viewer.json`.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    box = bounding_box(patient.brain | (plans.gtv.data != 0), pad=(_PADDING,) * 3)
    layers = []
    for layer in _layers(patient, plans, box):
        entry = {
            "key": layer.key,
            "name": layer.name,
            "colour": layer.colour,
            "low": layer.low,
            "high": layer.high,
            "opacity": layer.opacity,
            "shown": layer.shown,
            "data": _encoded(layer, plans.density, box),
        }
        layers.append(entry)
    names = [STRUCTURES[key].label for key in _masks(patient, plans)]
    structures = [{"bit": 1 << i, "name": name} for i, name in enumerate(names)]
    middle = np.mean(np.argwhere(plans.gtv.data != 0), axis=0)
    centre = nib.affines.apply_affine(plans.density.affine, middle)
    content = {"layers": layers, "structures": structures, "centre_mm": centre}
    return write_json(content, folder / VIEWER_FILE)


@cache
def niivue_bundle() -> str | None:
    """Return NiiVue's script, or None where nilearn does not bring it."""
    spec = find_spec("nilearn")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_assets" / "js" / "niivue.umd.js"
    if not path.is_file():
        return None
    script = path.read_text(encoding="utf-8")
    return None if "</script" in script else script


def _layers(patient: Patient, plans: Plans, box: Box) -> Iterator[_Layer]:
    """Yield the layers, from the bottom up."""
    role = next((role for role in _BACKGROUNDS if role in patient.volumes), None)
    if role is not None:
        image = _stretched(patient.volumes[role].data, patient.brain)[box]
    else:
        image = (60 * patient.brain[box]).astype(np.uint8)
    yield _Layer("image", _BACKGROUNDS.get(role or "", "Brain"), image, 1.0, "gray", 0, 255, 1.0)
    if patient.pet is not None:
        uptake = _stretched(patient.pet.data, patient.brain)[box]
        yield _Layer("pet", "PET", uptake, 1.0, "hot", 25, 255, 0.0, 0.6)
    density = np.rint(plans.density.data[box] / DENSITY_STEP).astype(np.uint8)
    yield _Layer("density", "Density", density, DENSITY_STEP, "inferno", 0.01, 1.0, 0.45, 0.45)
    margin = np.rint(np.clip(plans.margin.data[box] / MARGIN_STEP_MM, 0, 255)).astype(np.uint8)
    yield _Layer("margin", "Margin", margin, MARGIN_STEP_MM, "viridis", 0.1, 40.0, 0.0, 0.6)
    masks = _masks(patient, plans)
    for key, mask in masks.items():
        style = STRUCTURES[key]
        on = 0.0 if key == "trimmed" else 1.0
        yield _Layer(key, style.label, _outline(mask[box]), 1.0, style.colour, 0.5, 1.0, on)
    bits = sum((mask[box].astype(np.uint8) << i for i, mask in enumerate(masks.values())), np.uint8(0))
    yield _Layer("structures", "", np.asarray(bits, np.uint8))


def _masks(patient: Patient, plans: Plans) -> dict[str, Mask]:
    masks = {
        "standard": plans.standard.data != 0,
        "trimmed": plans.trimmed.data != 0,
        "model": plans.model.data != 0,
        "gtv": plans.gtv.data != 0,
    }
    if patient.recurrence is not None:
        masks["recurrence"] = recurrence_masks(patient.recurrence, patient.convention)[1]
    return {name: np.asarray(mask) for name, mask in masks.items()}


def _outline(mask: Mask) -> NDArray[np.uint8]:
    """Return the voxels of a mask that touch its outside by a face."""
    return np.asarray(mask & ~ndimage.binary_erosion(mask), np.uint8)


def _stretched(data: NDArray[Any], brain: Mask) -> NDArray[np.uint8]:
    """Return an image in 8 bits, from the 1st to the 99.5th percentile of the brain."""
    low, high = np.percentile(data[brain], (1, 99.5))
    scaled = (np.asarray(data, np.float64) - low) * (255 / max(high - low, 1e-9))
    return np.asarray(np.rint(np.clip(np.nan_to_num(scaled), 0, 255)), np.uint8)


def _encoded(layer: _Layer, grid: Volume, box: Box) -> str:
    """Return a layer as base64 of a compressed NIfTI file, the same bytes for the same data."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in box]
    image = nib.Nifti1Image(layer.data, affine)
    image.header.set_slope_inter(layer.step, 0)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode("ascii")
