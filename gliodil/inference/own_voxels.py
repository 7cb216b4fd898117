"""Labels read where they were drawn: on the patient's voxels along boundaries, at cell centres elsewhere.

Cells of 2 to 3 mm hold several voxels. Where the cells around a voxel carry different labels, the density is
interpolated linearly, as everywhere on the patient's grid, and compared with the label of the voxel, which stands for
its volume; elsewhere cells are compared, standing for what is left of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.patient import Patient
from gliodil.inference.case import Case

MOST_VOXELS = 200_000
"""Along boundaries; of more, every second, third, … is read."""


class OwnVoxels:
    """Points at which labels are read.

    Parameters
    ----------
    patient, case
        The voxels and the cells, which divide the same axes.
    within
        What lies within each boundary, outwards in; boolean, on the voxels.

    Attributes
    ----------
    level
        Number of boundaries a point lies within, shape (P,).
    volume_mm3
        What a point stands for, shape (P,).
    """

    def __init__(self, patient: Patient, case: Case, within: Sequence[NDArray[np.bool_]]) -> None:
        grid, device = case.grid, case.grid.device
        seen = np.stack(within).sum(axis=0, dtype=np.int8)
        to_cell = np.linalg.inv(case.affine) @ patient.affine
        where, low, share = [], [], []
        for axis, n in enumerate(grid.shape):
            position = to_cell[axis, axis] * np.arange(seen.shape[axis]) + to_cell[axis, 3]
            voxels = np.flatnonzero((position >= -0.5) & (position < n - 0.5))
            below = np.clip(np.floor(position[voxels]), 0, n - 2).astype(np.int64)
            where.append(voxels)
            low.append(below)
            share.append(np.clip(position[voxels] - below, 0, 1))
        index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"))
        nearest = [
            np.clip(np.rint((index[a] - to_cell[a, 3]) / to_cell[a, a]), 0, seen.shape[a] - 1).astype(
                np.int64
            )
            for a in range(3)
        ]
        cells = seen[tuple(nearest)]
        least, most = (
            f(cells, 2, origin=-1)[:-1, :-1, :-1] for f in (ndimage.minimum_filter, ndimage.maximum_filter)
        )
        box, around = seen[np.ix_(*where)], np.ix_(*low)
        points = np.argwhere((least != most)[around] | (box != least[around]))
        stride = -(-len(points) // MOST_VOXELS) or 1
        points = points[::stride]

        corner = np.stack([low[a][points[:, a]] for a in range(3)], axis=1)
        part = np.stack([share[a][points[:, a]] for a in range(3)], axis=1)
        columns, weights = [], []
        for offset in np.ndindex(2, 2, 2):
            columns.append(np.ravel_multi_index(tuple((corner + offset).T), grid.shape))
            weights.append(np.prod(np.where(offset, part, 1 - part), axis=1))
        self._columns = torch.as_tensor(np.stack(columns, axis=1).reshape(-1), device=device)
        self._weights = torch.as_tensor(np.stack(weights, axis=1), dtype=torch.float32, device=device)

        mixed = np.pad((least != most).astype(np.float64), 1)
        own = 1 - ndimage.uniform_filter(mixed, 2, origin=-1, mode="constant")[:-1, :-1, :-1]
        voxel = stride * patient.segmentation.voxel_volume_ml * 1000
        volumes = np.concatenate([np.full(len(points), voxel), own.ravel() * grid.cell_volume_mm3])
        levels = np.concatenate([box[tuple(points.T)], cells.ravel()])
        self.level = torch.as_tensor(levels.astype(np.int64), device=device)
        self.volume_mm3 = torch.as_tensor(volumes, device=device, dtype=torch.float32)

    def at(self, field: torch.Tensor) -> torch.Tensor:
        """Return a field at the points, shape (P,); differentiable."""
        corners = field.index_select(0, self._columns).reshape(-1, 8)
        return torch.cat([(corners * self._weights.to(field.dtype)).sum(dim=1), field])
