"""Labels as a front: the coordinate ψ that a travelling front would have where the labels put its levels.

    u = (1 + e^ψ)⁻²,      ψ = x/(√6 ℓ) along a front, x outwards [mm]                (Ablowitz & Zeppetella 1979)

T_k is the time [mm] of a front of speed √m from the surface of what lies within boundary k, below 0 inside; k counts
boundaries from without: oedema (o), core (c), necrosis (n). Where level k has its threshold θ_k, ψ_k = ψ(θ_k),

    outside      ψ_o + T_o/(√6 ℓ)
    between      ψ_k + (ψ_{k+1} − ψ_k) T_k/(T_k − T_{k+1})          (oedema, enhancing rim)
    innermost    ψ_k + T_k/(√6 ℓ)

Every lesion has its own level set, however small. Boundaries are where the voxels have them, on whatever grid ψ is
asked for: T is the distance d to the voxels' faces times the ratio of two travel times on the grid, at speeds √m and 1,
which have the same error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from gliodil.data.patient import Patient
from gliodil.inference.case import Case
from gliodil.inference.informed_loss import front_coordinate
from gliodil.inference.own_voxels import OwnVoxels
from gliodil.pde.eikonal import travel_time

SHORTEST_MM = 0.5
"""Distance between two boundaries below which they count as this far apart."""
SLOWEST = 0.05
"""Smallest m where anything passes [-]."""


class FrontLabels:
    """Signed travel times from the boundaries of a patient's labels, and ψ in terms of them.

    Parameters
    ----------
    patient, case
        The labels, and the grid ψ is wanted on.
    mobility
        m per cell of that grid, shape (N,): in [SLOWEST, 1], 0 where nothing passes.
    with_necrosis
        Whether necrosis is a level of its own.

    Attributes
    ----------
    oedema
        Whether oedema is labelled. If not, the core's is the outermost boundary.
    oedema_mm3, width_mm
        Its volume, and the geometric mean over it of the time from the core's surface to its own [mm].
    """

    def __init__(self, patient: Patient, case: Case, mobility: torch.Tensor, *, with_necrosis: bool) -> None:
        grid = case.grid
        centres = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)
        index = patient.segmentation.to_index(centres @ case.affine[:3, :3].T + case.affine[:3, 3])
        self.oedema = bool(case.oedema.any())
        wanted = ((patient.tumour, self.oedema), (patient.core, True), (patient.necrotic, with_necrosis))
        within = [mask for mask, is_one in wanted if is_one]
        m = grid.box(mobility).cpu().numpy()
        self.times = [
            grid.field(_signed_time(signed_distance(mask, patient.spacing, index), m, grid.spacing))
            for mask in within
        ]
        self.voxels = OwnVoxels(patient, case, within)
        pairs = pairwise(self.times)
        ones = torch.ones_like(self.voxels.volume_mm3)
        between = [self.voxels.at(b - a).clamp(min=SHORTEST_MM).to(ones.dtype) for a, b in pairs]
        self._widths = torch.stack([ones, *between, ones]).gather(0, self.voxels.level[None])[0]
        seen = (self.voxels.level == 1) & self.oedema
        volume = self.voxels.volume_mm3[seen].double()
        self.oedema_mm3 = float(volume.sum())
        thickness = float((self._widths[seen].double() * volume).sum())
        self.width_mm = thickness / self.oedema_mm3 if self.oedema else math.nan

    def front(self, length: torch.Tensor, thresholds: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return ψ per cell for ℓ [mm] and the densities at the boundaries, outwards in; differentiable."""
        levels = [front_coordinate(t) for t in thresholds]
        per_mm = 1 / (math.sqrt(6) * length)
        psi = levels[0] + self.times[0] * per_mm
        for (outer, inner), (level, deeper) in zip(pairwise(self.times), pairwise(levels), strict=True):
            share = (outer / (outer - inner).clamp(max=-1e-6)).clamp(0, 1)
            between = level + (deeper - level) * share
            psi = torch.where(outer <= 0, torch.where(inner > 0, between, deeper + inner * per_mm), psi)
        return psi

    def misfit_mm(
        self, u: torch.Tensor, length: torch.Tensor, thresholds: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return how far each point of ``voxels`` is from where the density has the level of its label [mm].

        A difference in ψ is a distance by the slope that ψ has there: 1/(√6 ℓ), or that between two boundaries
        as far apart as labelled.
        """
        nothing = torch.full_like(length, math.inf)
        levels = [front_coordinate(t) for t in thresholds]
        per_psi = [math.sqrt(6) * length] * (len(levels) + 1)
        for k, (a, b) in enumerate(pairwise(levels), start=1):
            per_psi[k] = 1 / (a - b)
        here, at = front_coordinate(self.voxels.at(u)), self.voxels.level
        scale = torch.stack(per_psi).to(u.dtype)[at] * self._widths.to(u.dtype)
        above = torch.stack([nothing, *levels]).to(u.dtype)[at]
        below = torch.stack([*levels, -nothing]).to(u.dtype)[at]
        return scale * ((here - above).clamp(min=0) + (below - here).clamp(min=0))


def _signed_time(
    distance: NDArray[np.float64], mobility: NDArray[np.float64], spacing: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Return d [mm] times the slowness on the way from the surface, at least 1."""
    speed = np.sqrt(mobility).astype(np.float32)
    ones = np.ones_like(speed)
    inside = distance <= 0
    slowness = np.where(mobility > 0, 1 / np.maximum(speed, math.sqrt(SLOWEST)), 1.0)
    for start in (inside, ~inside):
        if not start.any() or start.all():
            continue
        slow, plain = (travel_time(start, s, spacing=spacing) for s in (speed, ones))
        reached = ~start & np.isfinite(slow) & (plain > 0)
        slowness[reached] = slow[reached] / plain[reached]
    return distance * slowness


def signed_distance(
    mask: NDArray[np.bool_], spacing: Sequence[float], index: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance to the faces between voxels inside and outside a mask, below 0 inside [mm].

    Parameters
    ----------
    mask
        3-D, on voxels of ``spacing`` [mm].
    index
        Voxel coordinates of the points, shape (..., 3).
    """
    h = np.asarray(spacing, np.float64)
    points = []
    for axis in range(3):
        along = np.moveaxis(mask, axis, 0)
        faces = np.argwhere(np.moveaxis(along[1:] != along[:-1], 0, axis)).astype(np.float64)
        faces[:, axis] += 0.5
        # The middles of a slanted surface's faces lie along it, their edges do not; long faces have several.
        parts = [1 if k == axis else math.ceil(h[k] / h.min() - 0.5) for k in range(3)]
        shifts = [(np.arange(n) + 0.5) / n - 0.5 for n in parts]
        offsets = np.stack(np.meshgrid(*shifts, indexing="ij"), axis=-1).reshape(-1, 3)
        points.append((faces[:, None] + offsets).reshape(-1, 3))
    surface = np.concatenate(points) * h
    last = np.asarray(mask.shape) - 1
    nearest = tuple(np.moveaxis(np.clip(np.rint(index), 0, last).astype(np.int64), -1, 0))
    sign = np.where(mask[nearest], -1.0, 1.0)
    if not surface.size:
        return sign * float(np.linalg.norm(h * last))
    away, _ = cKDTree(surface).query(index * h, workers=torch.get_num_threads())
    return np.asarray(sign * away)
