"""A function of a few coordinates as a sum of cubic B-splines, with continuous second derivatives everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.inference.blur import blur
from gliodil.pde.grid import Grid
from gliodil.sampling.derivatives import Jet


@dataclass(frozen=True)
class Spline:
    """A tensor product of cubic B-splines; beyond the outermost nodes their coefficients go on.

    Attributes
    ----------
    coefficients
        One axis for every coordinate.
    spacing, first
        Distance of the nodes, and where the first one is, along every axis.
    """

    coefficients: torch.Tensor
    spacing: tuple[float, ...]
    first: tuple[float, ...]

    @classmethod
    def through(
        cls,
        values: NDArray[np.float64],
        like: torch.Tensor,
        *,
        spacing: tuple[float, ...],
        first: tuple[float, ...],
    ) -> Spline:
        """Return the spline that takes these values at the nodes, on the device and in the precision of ``like``."""
        found = ndimage.spline_filter(values, order=3, mode="nearest")
        return cls(torch.as_tensor(found, device=like.device, dtype=like.dtype), spacing, first)

    def jet(self, *at: Jet) -> Jet:
        """Return its jet, given those of the coordinates, of which no two may vary along the same axis."""
        like, axes = at[0], len(at)
        taps, weights = [], []
        for axis, (y, h, first) in enumerate(zip(at, self.spacing, self.first, strict=True)):
            s = (y.value - first) / h
            left = s.floor()
            tap = left.long()[:, None] + torch.arange(-1, 3, device=s.device)
            tap = tap.clamp(0, self.coefficients.shape[axis] - 1)
            taps.append(tap.reshape(-1, *(4 if a == axis else 1 for a in range(axes))))
            weights.append([w / h**k for k, w in enumerate(_basis(s - left))])
        around = self.coefficients.to(like.value)[tuple(taps)]

        def derivative(axis: int, order: int) -> torch.Tensor:
            found = around
            for a in range(axes):
                found = torch.einsum("ni...,ni->n...", found, weights[a][order if a == axis else 0])
            return found

        c = like.coefficients
        streams = torch.zeros_like(like.streams)
        streams[0] = derivative(0, 0)
        for axis, y in enumerate(at):
            streams[1:] += derivative(axis, 1) * y.streams[1:]
            if len(c):
                streams[1 + c.shape[1] :] += derivative(axis, 2) * (c @ y.gradient.square())
        return Jet(streams, c)


def smooth_field(grid: Grid, field: torch.Tensor, like: torch.Tensor, *, width_mm: float) -> Spline:
    """Return a field of cells (N,), smoothed by a Gaussian of this standard deviation, over x, y, z from the corner."""
    x, y, z = grid.spacing
    values = blur(grid.box(field), [width_mm / h for h in grid.spacing]).cpu().numpy()
    return Spline.through(values, like, spacing=(x, y, z), first=(x / 2, y / 2, z / 2))


def _basis(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the four cubic B-splines over a cell at t in [0, 1), and their derivatives: (N, 4) each."""
    r = 1 - t
    values = torch.stack([r**3, 3 * t**3 - 6 * t**2 + 4, 3 * r**3 - 6 * r**2 + 4, t**3], 1) / 6
    slopes = torch.stack([-(r**2), 3 * t**2 - 4 * t, 4 * r - 3 * r**2, t**2], 1) / 2
    bends = torch.stack([r, 3 * t - 2, 3 * r - 2, t], 1)
    return values, slopes, bends
