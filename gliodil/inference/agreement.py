"""How well a density reproduces the labels it was fitted to, on the labels' own grid.

    misfit            Σ |level predicted − level seen| · V_voxel / (area between levels)      [mm]
    core below level  share of the core's voxels with u ≤ θ_core
    lesions           parts of the core that do not touch, of 0.1 mL at least; explained where more than half of one
                      lies above θ_core

Levels are counted outwards in: nothing, oedema (where there is any) and core; the misfit is the mean distance between
predicted and seen boundaries, as in ``label_misfit``, but with voxels for cells: what a coarse grid cannot show counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.label_geometry import bounding_box
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume

SMALLEST_LESION_ML = 0.1
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How a density agrees with the labels; see the head of the file."""

    misfit_mm: float
    core_below_level: float
    lesions_found: int
    lesions_explained: int


def agreement(
    patient: Patient, density: Volume, *, threshold_core: float, threshold_oedema: float
) -> Agreement:
    """Return how a density agrees with a patient's labels.

    Parameters
    ----------
    density
        Tumour-cell density on the grid of the segmentation.
    threshold_core, threshold_oedema
        Densities at the edges of core and oedema.
    """
    # All that is predicted or seen, and a voxel around it.
    box = _around((density.data > min(threshold_core, threshold_oedema)) | patient.tumour)
    u, core, tumour = density.data[box], patient.core[box], patient.tumour[box]
    above = u > threshold_core
    seen: NDArray[np.int8] = core.astype(np.int8)
    predicted: NDArray[np.int8] = above.astype(np.int8)
    if patient.oedema.any():
        seen += tumour
        predicted += u > threshold_oedema
    wrong = float(np.abs(predicted - seen).sum()) * patient.segmentation.voxel_volume_ml * 1e3
    area = area_mm2(seen, patient.spacing)
    found, explained = _lesions(core, above, patient.segmentation.voxel_volume_ml)
    return Agreement(
        misfit_mm=wrong / area if area > 0 else 0.0,
        core_below_level=1 - np.count_nonzero(core & above) / max(int(np.count_nonzero(core)), 1),
        lesions_found=found,
        lesions_explained=explained,
    )


def _around(mask: Mask) -> tuple[slice, slice, slice]:
    if not mask.any():
        return slice(None), slice(None), slice(None)
    x, y, z = (slice(max(s.start - 1, 0), s.stop + 1) for s in bounding_box(mask))
    return x, y, z


def _lesions(core: Mask, above: Mask, voxel_ml: float) -> tuple[int, int]:
    """Count lesions, and those of which more than half lies above the level."""
    if not core.any():
        return 0, 0
    box = bounding_box(core)
    parts, count = ndimage.label(core[box], structure=np.ones((3, 3, 3)))
    size = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    reached = np.bincount(parts[above[box]].ravel(), minlength=count + 1)[1:]
    # The largest counts however small it is.
    large = (size * voxel_ml >= SMALLEST_LESION_ML) | (size == size.max())
    return int(np.count_nonzero(large)), int(np.count_nonzero(large & (reached > size / 2)))


def area_mm2(levels: NDArray[np.integer], spacing: tuple[float, float, float]) -> float:
    """Area of the boundaries between levels: of the faces, of which a slanted surface has 3/2 as much."""
    volume, total = float(np.prod(spacing)), 0.0
    for axis, h in enumerate(spacing):
        total += float(np.abs(np.diff(levels, axis=axis)).sum()) * volume / h
    return total / 1.5
