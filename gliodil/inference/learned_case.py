"""A patient's visits cut out, with tissue, ready for a law to be fitted.

The crop is what the tumour reaches, with a margin, on the voxels of the patient. Where smoothed densities show nothing
at the first visit the model starts from zero, so that noise in healthy tissue does not grow into a tumour.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.label_geometry import bounding_box
from gliodil.data.longitudinal import LongitudinalPatient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError
from gliodil.inference.case import choose_device
from gliodil.inference.learned_start import StartField
from gliodil.pde.grid import Grid
from gliodil.pde.models.learned_growth import LearnedGrowth
from gliodil.pde.seed import gaussian_seed

SMOOTHING_VOXELS, NOISE_LEFT = 1.5, 0.082
"""Width of the smoothing, and the part of independent noise that is left after it."""
SMOOTHED_START = 0.7
"""Width of the smoothing of a start to be estimated, in voxels."""
VISIBLE = 0.005
"""Smoothed density that counts as tumour, where noise does not ask for more."""
BEYOND_VOXELS, MARGIN_MM = 2, 8.0
"""How far the start and the comparison reach beyond visible tumour, and the grid beyond that."""

Field = NDArray[np.float64]


@dataclass(frozen=True)
class LearnedCase:
    """What the loss sees of the visits.

    Attributes
    ----------
    model
        The equation on the crop.
    start
        Density the model starts from, shape (N,).
    seen
        Density at each visit.
    spans
        Days from each visit to the next; from the start to the only one.
    field
        The start as an unknown, where the first visit is noisy; else None.
    region
        Where they are compared, boolean, shape (N,).
    observed_range
        Smallest and largest density seen there.
    """

    model: LearnedGrowth
    start: torch.Tensor
    seen: tuple[torch.Tensor, ...]
    spans: tuple[float, ...]
    field: StartField | None
    region: torch.Tensor
    observed_range: tuple[float, float]
    box: tuple[slice, ...]
    reference: Volume

    def volume(self, field: torch.Tensor) -> Volume:
        """Return a field on the patient's grid, zero outside the crop."""
        values = np.zeros(self.reference.shape, np.float32)
        values[self.box] = self.model.tissue.grid.box(field).detach().clamp(0, 1).float().cpu().numpy()
        return self.reference.with_data(values, kind="scalar")


def set_up_visits(visits: LongitudinalPatient, age_days: float, *, device: str = "auto") -> LearnedCase:
    """Build the case.

    Parameters
    ----------
    age_days
        Age of the tumour assumed at a single visit [day].

    Raises
    ------
    InputError
        If tissue maps are missing or a density is not finite.
    GeometryError
        If no tumour is visible in the densities.
    """
    patient = visits.patient
    missing = [name for name in ("wm", "gm") if name not in patient.volumes]
    fields = [np.asarray(d.data, dtype=np.float64) for d in visits.densities]
    if missing or not all(np.isfinite(f).all() for f in fields):
        raise InputError(
            "White- and grey-matter maps and finite densities are needed.",
            patient=patient.identity,
            found=f"no {' and no '.join(missing)}" if missing else "a density that is not finite",
        )
    visible = [_visible(f, visits.noise) for f in fields]
    if not visible[0].any():
        raise GeometryError("No tumour is visible in the first density.", patient=patient.identity)
    there = np.logical_or.reduce(visible)
    pad = np.ceil(MARGIN_MM / np.asarray(patient.spacing)).astype(int)
    box = tuple(
        slice(max(s.start - int(p), 0), min(s.stop + int(p), n))
        for s, p, n in zip(bounding_box(there), pad, patient.shape, strict=True)
    )
    nx, ny, nz = there[box].shape
    grid = Grid((nx, ny, nz), patient.spacing, device=choose_device(device))
    white, grey = (patient.volumes[name].data[box].astype(np.float64).clip(0, 1) for name in ("wm", "gm"))
    model = LearnedGrowth.on(grid, torch.as_tensor(white), torch.as_tensor(grey))
    seen = [grid.field(f[box]) for f in fields]
    if len(fields) > 1:
        start = torch.where(grid.mask(visible[0][box]) & model.tissue.passable, seen[0], 0.0)
    if len(fields) > 1:
        spans = tuple(b - a for a, b in pairwise(visits.days))
    else:
        weight = seen[0].clamp(min=0)
        origin = (grid.centres() * weight).sum(dim=1) / weight.sum()
        seed = gaussian_seed(grid.centres(), origin)
        start, spans = torch.where(model.tissue.passable, seed, 0.0), (age_days,)
    field = None
    if len(fields) > 1 and visits.noise > 0:
        smooth = grid.field(ndimage.gaussian_filter(fields[0], SMOOTHED_START, mode="nearest")[box])
        field = StartField(grid, smooth, model.tissue.passable)
    region = grid.mask(there[box]) & model.tissue.passable
    if not bool(region.any()) or not bool(start.any()):
        raise GeometryError(
            "The visible tumour lies outside white and grey matter.", patient=patient.identity
        )
    values = torch.cat([s[region] for s in seen]).cpu().numpy()
    low, high = np.quantile(values, [0.001, 0.999]).clip(0, 1)
    return LearnedCase(
        model=model,
        start=start,
        seen=tuple(seen),
        spans=spans,
        field=field,
        region=region,
        observed_range=(float(low), float(high)),
        box=box,
        reference=patient.segmentation,
    )


def _visible(density: Field, noise: float) -> NDArray[np.bool_]:
    """Where a smoothed density shows tumour, and a little beyond."""
    smooth = ndimage.gaussian_filter(density, SMOOTHING_VOXELS, mode="nearest")
    level = max(VISIBLE, 4 * NOISE_LEFT * noise)
    found: NDArray[np.bool_] = ndimage.binary_dilation(smooth > level, iterations=BEYOND_VOXELS)
    return found
