"""A tree of boxes that is refined where the residual is: a law with known density, and scales to go with it.

Every leaf holds the same number of points, so the law is p(x) = 1/(n |leaf(x)|), piecewise constant and exact. A leaf is
split along the axes in which the solution bends most, hᵢ² |∂ᵢᵢu|, so that layers get flat cells. Leaves stay inside the
box; one ring of nodes around it (`ring`) gives functions placed at the nodes something to lean on at the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gliodil.sampling.domain import Box


@dataclass(frozen=True)
class Cells:
    """Boxes given by centres and sizes, (n, d) each; together they tile something."""

    centres: torch.Tensor
    sizes: torch.Tensor

    def __len__(self) -> int:
        return self.centres.shape[0]

    @property
    def volumes(self) -> torch.Tensor:
        """(n,)"""
        return self.sizes.prod(1)

    def select(self, which: torch.Tensor) -> Cells:
        """Return the cells of a mask or of indices."""
        return Cells(self.centres[which], self.sizes[which])

    def join(self, other: Cells) -> Cells:
        """Return the cells of both, in order."""
        return Cells(torch.cat([self.centres, other.centres]), torch.cat([self.sizes, other.sizes]))

    def halve(self, axes: torch.Tensor) -> Cells:
        """Return the pieces after halving each cell along the axes marked for it (n, d)."""
        cells = Cells(self.centres, self.sizes)
        for axis in range(self.centres.shape[1]):
            marked = axes[:, axis]
            if not bool(marked.any()):
                continue
            halves = cells.select(marked)
            sizes = halves.sizes.clone()
            sizes[:, axis] /= 2
            shift = torch.zeros_like(sizes)
            shift[:, axis] = sizes[:, axis] / 2
            pieces = Cells(halves.centres - shift, sizes).join(Cells(halves.centres + shift, sizes))
            cells = cells.select(~marked).join(pieces)
            axes = torch.cat([axes[~marked], axes[marked], axes[marked]])
        return cells

    def draw(self, each: int, *, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw `each` points per cell: (n·each, d), cell by cell, and the law's density there (n·each,).

        Within a cell the points are one draw of a randomly shifted lattice: they do not clump.
        """
        count, d = self.centres.shape
        # Additive recurrence with the d-dimensional golden ratio, shifted at random per cell.
        ratio = 2.0
        for _ in range(40):
            ratio = (1 + ratio) ** (1 / (d + 1))
        steps = self.centres.new_tensor([ratio ** -(axis + 1) for axis in range(d)])
        lattice = torch.arange(each).to(self.centres)[:, None] * steps
        shift = torch.rand(
            count, 1, d, generator=generator, dtype=self.centres.dtype, device=self.centres.device
        )
        z = (lattice + shift) % 1.0 - 0.5
        x = (self.centres[:, None] + z * self.sizes[:, None]).reshape(-1, d)
        return x, (1 / (count * self.volumes)).repeat_interleave(each)

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the law's density at x: (N,)."""
        return 1 / (len(self) * self.volumes[self.find(x)])

    def find(self, x: torch.Tensor) -> torch.Tensor:
        """Return which cell holds each point: (N,)."""
        found = []
        for piece in torch.split(x, max(1, 4_000_000 // max(1, len(self)))):
            off = (piece[:, None] - self.centres).abs() / self.sizes
            found.append(off.amax(-1).argmin(1))
        return torch.cat(found)


def lattice(box: Box, counts: tuple[int, ...], *, like: torch.Tensor) -> Cells:
    """Return the box cut into a regular lattice."""
    lower, upper = box.bounds(like)
    size = (upper - lower) / like.new_tensor([float(c) for c in counts])
    lines = [lower[a] + (torch.arange(c).to(like) + 0.5) * size[a] for a, c in enumerate(counts)]
    centres = torch.cartesian_prod(*lines).reshape(-1, box.dimension)
    return Cells(centres, size.expand_as(centres).clone())


def ring(cells: Cells, box: Box) -> Cells:
    """Return mirror images, just outside, of the cells that touch the boundary (corners included)."""
    lower, upper = box.bounds(cells.centres)
    known = cells
    images = Cells(cells.centres[:0], cells.sizes[:0])
    for axis in range(box.dimension):
        for sign, face in ((-1.0, lower), (1.0, upper)):
            reach = sign * (known.centres[:, axis] - face[axis]) + known.sizes[:, axis] / 2
            touching = known.select(reach.abs() < 1e-9 * (upper[axis] - lower[axis]))
            centres = touching.centres.clone()
            centres[:, axis] += sign * touching.sizes[:, axis]
            images = images.join(Cells(centres, touching.sizes))
        known = cells.join(images)
    return images
