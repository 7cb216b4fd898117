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
from torch.nn.functional import pad

from gliodil.pde.grid import Grid
from gliodil.pde.operators import Faces


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
    _scratch: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._transforms = [_transform(n, self.rates[0]) for n in self.grid.shape]

    @classmethod
    def of(cls, grid: Grid, coefficients: Faces) -> CosineDiffusion | None:
        """Return the diffusion of these coefficients, or None where they are not constant (or a mask closes faces)."""
        rates = []
        for axis, (n, (c, s)) in enumerate(zip(grid.shape, coefficients, strict=True)):
            if n == 1:
                rates.append(c.new_zeros(()))
                continue
            inner = grid.box(pad(c.detach(), (0, s))).narrow(
                axis, 0, n - 1
            )  # without those where storage wraps
            low, high = (float(x) for x in torch.aminmax(inner))
            if high - low > 1e-6 * abs(high):
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
        matrices = self._known[days]
        if torch.is_grad_enabled() and (u.requires_grad or matrices[0].requires_grad):
            return _along_axes(self.grid, u, matrices)
        if self._scratch is None or self._scratch.dtype != u.dtype:
            self._scratch = torch.empty(2, self.grid.cells, dtype=u.dtype, device=u.device)
        return _along_axes(self.grid, u.detach(), [m.detach() for m in matrices], self._scratch)

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


def _along_axes(
    grid: Grid, u: torch.Tensor, matrices: list[torch.Tensor], scratch: torch.Tensor | None = None
) -> torch.Tensor:
    """Multiply a field by one matrix along each axis; ``scratch`` (two fields) saves allocations."""
    nx, ny, nz = grid.shape
    a, b, c = matrices
    first, second = (None, None) if scratch is None else (scratch[0], scratch[1])
    v = torch.mm(u.reshape(nx * ny, nz), c.T, out=None if first is None else first.view(nx * ny, nz))
    out = None if second is None else second.view(nx, ny, nz)
    v = torch.bmm(b.expand(nx, ny, ny), v.view(nx, ny, nz), out=out)
    return torch.mm(a, v.view(nx, ny * nz)).reshape(-1)


def _transform(n: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the orthonormal cosine matrix (rows: frequencies) and λ_k."""
    k = torch.arange(n, dtype=torch.float64, device=like.device)
    matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2 / n)
    matrix[0] = math.sqrt(1 / n)
    return matrix.to(like.dtype), (2 - 2 * torch.cos(math.pi / n * k)).to(like.dtype)
