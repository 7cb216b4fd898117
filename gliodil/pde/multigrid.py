"""Multigrid decomposition of a space-time field (Karnakov et al., PNAS Nexus 2024, section on mODIL).

    u = u_0 + P(u_1 + P(u_2 + …))

Level ℓ lives on a grid 2^ℓ times coarser in space and time; P prolongs linearly between cell centres. Gradient
descent on the levels moves large structures by moving few coarse unknowns. On the CPU P runs compiled
(``prolongation``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate

from gliodil.pde import fused
from gliodil.pde.grid import Grid
from gliodil.pde.prolongation import add_prolonged, restricted


class MultigridField:
    """A field of Nt × N entries written as a sum over coarser and coarser levels.

    Parameters
    ----------
    grid, steps
        Finest grid and number of time levels Nt.
    levels
        Number of levels, at least one; an axis stops coarsening below two cells.
    """

    def __init__(self, grid: Grid, steps: int, *, levels: int = 4) -> None:
        self.grid = grid
        self.shapes: list[tuple[int, int, int, int]] = []
        shape = (steps, *grid.shape)
        for _ in range(levels):
            self.shapes.append(shape)
            shape = tuple(max(1, n // 2) for n in shape)  # type: ignore[assignment]

    def split(self, u: torch.Tensor) -> list[torch.Tensor]:
        """Return level fields that compose to u: u itself on the finest level, zeros on the others."""
        fine = u.detach().reshape(self.shapes[0]).clone()
        return [fine, *(torch.zeros(s, device=u.device, dtype=u.dtype) for s in self.shapes[1:])]

    def compose(self, levels: list[torch.Tensor]) -> torch.Tensor:
        """Return the field, shape (Nt, N); differentiable in every level."""
        if fused.applies(levels[0]):
            u: torch.Tensor = _Composition.apply(*levels)  # type: ignore[no-untyped-call]
        else:
            u = levels[-1]
            for finer in reversed(levels[:-1]):
                u = finer + prolong(u, (finer.shape[0], finer.shape[1], finer.shape[2], finer.shape[3]))
        return u.reshape(u.shape[0], -1)


class _Composition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *levels: torch.Tensor) -> torch.Tensor:
        ctx.shapes = [level.shape for level in levels]
        u = levels[-1].clone()
        for finer in reversed(levels[:-1]):
            coarser, u = u, finer.clone()
            add_prolonged(u.numpy(), coarser.numpy())
        return u

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = [grads[0].contiguous()]
        for shape in ctx.shapes[1:]:
            found.append(torch.from_numpy(restricted(found[-1].numpy(), shape)))
        return tuple(found)


def prolong(u: torch.Tensor, shape: tuple[int, int, int, int]) -> torch.Tensor:
    """Interpolate a (t, x, y, z) field linearly between cell centres onto a finer shape of the same box."""
    steps, *space = shape
    u = interpolate(u[:, None], size=tuple(space), mode="trilinear", align_corners=False)[:, 0]
    if u.shape[0] != steps:
        flat = u.reshape(u.shape[0], -1).T[None]
        u = interpolate(flat, size=steps, mode="linear", align_corners=False)[0].T.reshape(shape)
    return u
