"""Conservative diffusion on a grid, as fluxes through cell faces.

    ∇·(D∇u) in cell i  ≈  Σ_faces c_f (u_neighbour − u_i),     c_f = D_f / h²        [1/day]

The face coefficients carry everything else: they are zero on the outer boundary (zero flux), at faces
of impassable cells (tissue mask) and at the places where flat storage wraps from one row to the next.
Each face adds to one cell exactly what it takes from its neighbour, so mass is conserved to round-off
and the operator is symmetric: it is its own adjoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from gliodil.pde.grid import Grid


@dataclass(frozen=True)
class Faces:
    """One value per inner face; entry i of ``values[a]`` belongs to the face between i and i + stride_a.

    Attributes
    ----------
    values
        Three flat tensors of length N − stride_a.
    strides
        Neighbour distances in flat storage.
    """

    values: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    strides: tuple[int, int, int]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(zip(self.values, self.strides, strict=True))

    def to(self, dtype: torch.dtype) -> Faces:
        """Return the faces in another precision."""
        x, y, z = (c.to(dtype) for c in self.values)
        return Faces((x, y, z), self.strides)

    def map(self, *factors: float | torch.Tensor) -> Faces:
        """Return the faces multiplied by one factor per axis."""
        x, y, z = (c * f for c, f in zip(self.values, factors, strict=True))
        return Faces((x, y, z), self.strides)

    def __add__(self, other: Faces) -> Faces:
        x, y, z = (a + b for a, b in zip(self.values, other.values, strict=True))
        return Faces((x, y, z), self.strides)

    def __mul__(self, factor: float | torch.Tensor) -> Faces:
        return self.map(factor, factor, factor)


def open_faces(grid: Grid, passable: torch.Tensor) -> Faces:
    """Return 1 at faces between two passable cells, 0 at all others (and where storage wraps).

    Parameters
    ----------
    passable
        Boolean field, shape (N,).
    """
    box = grid.box(passable)
    values = []
    for axis, (n, stride) in enumerate(zip(grid.shape, grid.strides, strict=True)):
        full = torch.zeros(grid.shape, device=grid.device, dtype=grid.dtype)
        inner = full.narrow(axis, 0, n - 1)
        inner.copy_(box.narrow(axis, 0, n - 1) & box.narrow(axis, 1, n - 1))
        values.append(full.reshape(-1)[: grid.cells - stride].clone())
    return Faces((values[0], values[1], values[2]), grid.strides)


def face_means(grid: Grid, field: torch.Tensor, passable: torch.Tensor) -> Faces:
    """Return the mean of the two cells at every open face and 0 at closed ones."""
    opened = open_faces(grid, passable)
    x, y, z = (o * 0.5 * (field[..., s:] + field[..., : field.shape[-1] - s]) for o, s in opened)
    return Faces((x, y, z), grid.strides)


def diffuse(u: torch.Tensor, coefficients: Faces) -> torch.Tensor:
    """Return ∇·(D∇u) [1/day]; out of place, differentiable in both arguments.

    Parameters
    ----------
    u
        Field or stack of fields, shape (..., N).
    coefficients
        D/h² at the faces [1/day].
    """
    out = torch.zeros_like(u)
    for c, s in coefficients:
        if c.numel() == 0:
            continue
        flux = c * (u[..., s:] - u[..., :-s])
        out = out + pad(flux, (0, s)) - pad(flux, (s, 0))
    return out


def add_diffusion_(out: torch.Tensor, u: torch.Tensor, coefficients: Faces, scratch: torch.Tensor) -> None:
    """Add ∇·(D∇u) to ``out`` in place; ``scratch`` has the shape of one field."""
    for c, s in coefficients:
        if c.numel() == 0:
            continue
        flux = torch.sub(u[s:], u[:-s], out=scratch[: c.numel()])
        flux.mul_(c)
        out[:-s].add_(flux)
        out[s:].sub_(flux)


def spectral_bound(coefficients: Faces, cells: int) -> torch.Tensor:
    """Return an upper bound of the largest eigenvalue of −∇·(D∇) [1/day] (Gershgorin)."""
    reference = coefficients.values[0]
    total = torch.zeros(cells, device=reference.device, dtype=reference.dtype)
    for c, s in coefficients:
        if c.numel():
            total[:-s] += c.detach()
            total[s:] += c.detach()
    return 2 * total.max()
