"""Exact diffusion on a box with constant coefficients, by cosine transform.

The cosines cos(πk(i+½)/n) are the eigenvectors of the zero-flux difference operator along an axis, with eigenvalues
−c λ_k, λ_k = 2 − 2cos(πk/n), c = D/h². Along each axis, with the orthonormal matrix C of these cosines,

    e^{tL} = Cᵀ diag(e^{−c t λ_k}) C,

one small dense matrix. It is the exact solution of the discretized equation, not of another one; its entries are not
negative and its rows sum to one, so it conserves mass and keeps u between its smallest and largest value. Spacing and
diffusivity may differ between axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from gliodil.pde.grid import Grid
from gliodil.pde.operators import Faces, open_faces


@dataclass
class CosineDiffusion:
    """The diffusion of a box whose coefficients are constant along each axis.

    Attributes
    ----------
    grid
        The box.
    rates
        c = D/h² along each axis [1/day], tensors without dimensions; differentiable.
    """

    grid: Grid
    rates: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    _known: dict[float, list[torch.Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._transforms = [_transform(n, self.rates[0]) for n in self.grid.shape]

    @classmethod
    def of(cls, grid: Grid, coefficients: Faces) -> CosineDiffusion | None:
        """Return the diffusion of these coefficients, or None where they are not constant (or a mask closes faces)."""
        rates = []
        everywhere = open_faces(grid, torch.ones(grid.cells, dtype=torch.bool, device=grid.device))
        for (c, _), (inner, _) in zip(coefficients, everywhere, strict=True):
            if c.numel() == 0 or not bool(inner.any()):
                rates.append(c.new_zeros(()))
                continue
            values = c.detach()
            if float((values - values[0] * inner).abs().max()) > 1e-6 * float(values[0].abs()):
                return None
            rates.append(c[0])
        return cls(grid, (rates[0], rates[1], rates[2]))

    def flow(self, u: torch.Tensor, days: float) -> torch.Tensor:
        """Return the density after some days of diffusion alone; differentiable in u and the rates."""
        if days not in self._known:
            matrices = [
                (c.T * torch.exp(-rate * days * values)) @ c
                for (c, values), rate in zip(self._transforms, self.rates, strict=True)
            ]
            self._known[days] = matrices
        return _along_axes(self.grid, u, self._known[days])

    def solve(self, b: torch.Tensor, days: float) -> torch.Tensor:
        """Return (I − days ∇·(D∇))⁻¹ b, detached from the rates."""
        forward = [c for c, _ in self._transforms]
        total = b.new_zeros(())
        for axis, ((_, values), rate) in enumerate(zip(self._transforms, self.rates, strict=True)):
            total = total + (rate.detach() * days * values).reshape(
                [-1 if k == axis else 1 for k in range(3)]
            )
        spectrum = _along_axes(self.grid, b, forward) / (1 + total).reshape(-1)
        return _along_axes(self.grid, spectrum, [c.T for c in forward])


def _along_axes(grid: Grid, u: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
    """Multiply a field by one matrix along each axis."""
    nx, ny, nz = grid.shape
    a, b, c = matrices
    v = u.reshape(nx * ny, nz)
    if nz > 1:
        v = v @ c.T
    v = v.reshape(nx, ny, nz)
    if ny > 1:
        v = b @ v
    v = v.reshape(nx, ny * nz)
    if nx > 1:
        v = a @ v
    return v.reshape(-1)


def _transform(n: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the orthonormal cosine matrix (rows: frequencies) and λ_k."""
    k = torch.arange(n, dtype=torch.float64, device=like.device)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix.to(like.dtype), (2 - 2 * torch.cos(math.pi / n * k)).to(like.dtype)
