"""A box of equal cells in millimetres; values live at the cell centres.

Fields are stored flat, C order: cell (i, j, k) of an (nx, ny, nz) grid is entry (i·ny + j)·nz + k.
Neighbours along an axis then lie a constant *stride* apart, which turns every difference operator
into plain contiguous slices (see ``operators``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from gliodil.errors import GeometryError


@dataclass(frozen=True)
class Grid:
    """Cell-centred Cartesian grid.

    Parameters
    ----------
    shape
        Number of cells along each axis; an axis of one cell is inactive.
    spacing
        Cell size along each axis [mm].
    device, dtype
        Where fields on this grid live and in which precision; everything built on the grid follows it.

    Raises
    ------
    GeometryError
        If a cell count or a spacing is not positive.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError("A grid needs three positive cell counts.", found=str(self.shape))
        if len(self.spacing) != 3 or not all(h > 0 and math.isfinite(h) for h in self.spacing):
            raise GeometryError("A grid needs three positive spacings in mm.", found=str(self.spacing))
        object.__setattr__(self, "device", torch.device(self.device))

    @property
    def cells(self) -> int:
        """Number of cells N."""
        return math.prod(self.shape)

    @property
    def strides(self) -> tuple[int, int, int]:
        """Distance in flat storage between neighbours along each axis."""
        _, ny, nz = self.shape
        return (ny * nz, nz, 1)

    @property
    def cell_volume_mm3(self) -> float:
        """Volume of one cell [mm³]."""
        return math.prod(self.spacing)

    def with_dtype(self, dtype: torch.dtype) -> Grid:
        """Return the same grid in another precision."""
        return replace(self, dtype=dtype)

    def zeros(self, *leading: int) -> torch.Tensor:
        """Return a zero field, shape (*leading, N)."""
        return torch.zeros(*leading, self.cells, device=self.device, dtype=self.dtype)

    def field(self, values: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return values given as (nx, ny, nz) or (N,) as a flat field on this grid's device and dtype."""
        if isinstance(values, np.ndarray):
            values = np.ascontiguousarray(values)
        tensor = torch.as_tensor(values, device=self.device)
        if tensor.shape not in (torch.Size(self.shape), torch.Size((self.cells,))):
            raise GeometryError(
                "The values do not fit the grid.", expected=str(self.shape), found=str(tuple(tensor.shape))
            )
        return tensor.reshape(-1).to(self.dtype)

    def mask(self, values: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Return a flat boolean field on this grid's device."""
        return self.field(values) != 0

    def box(self, field: torch.Tensor) -> torch.Tensor:
        """Return a flat field viewed as (..., nx, ny, nz)."""
        return field.reshape(*field.shape[:-1], *self.shape)

    def centres(self) -> torch.Tensor:
        """Return the cell centres measured from the grid's corner, shape (3, N) [mm]."""
        axes = [
            (torch.arange(n, device=self.device, dtype=self.dtype) + 0.5) * h
            for n, h in zip(self.shape, self.spacing, strict=True)
        ]
        return torch.stack([x.reshape(-1) for x in torch.meshgrid(*axes, indexing="ij")])

    def coarsen(self, factor: int = 2) -> Grid:
        """Return the grid of the same box with 1/factor as many cells per axis (at least one)."""
        nx, ny, nz = (max(1, round(n / factor)) for n in self.shape)
        hx, hy, hz = (h * n / m for h, n, m in zip(self.spacing, self.shape, (nx, ny, nz), strict=True))
        return replace(self, shape=(nx, ny, nz), spacing=(hx, hy, hz))

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        mm = " x ".join(f"{h:.3g}" for h in self.spacing)
        return f"Grid({size}, {mm} mm, {self.device}, {str(self.dtype).removeprefix('torch.')})"
