"""Partitions of the unit cube into boxes, and laws that are constant on their cells.

    p(x) = P_c / (|c| |Ω|)   for x in cell c,      Σ P_c = 1

The cell is found by a stratified inverse of the cumulated P_c, the position in it is uniform: what is reported is
exactly what is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from gliodil.errors import NumericsError
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import uniform


class Partition(Protocol):
    """Boxes that tile the unit cube."""

    def corners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lower and upper corners, each (C, d), float64."""

    def locate(self, u: torch.Tensor) -> torch.Tensor:
        """Return the cell of each (N, d) position of the closed unit cube, shape (N,)."""


@dataclass(frozen=True)
class GridPartition:
    """A regular grid; cells in C order."""

    shape: tuple[int, ...]
    device: torch.device

    def corners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lower and upper corners, each (C, d), float64."""
        axes = [torch.arange(n, dtype=torch.float64, device=self.device) for n in self.shape]
        index = torch.stack([a.reshape(-1) for a in torch.meshgrid(*axes, indexing="ij")], dim=-1)
        size = index.new_tensor(self.shape)
        return index / size, (index + 1) / size

    def centres(self) -> torch.Tensor:
        """Return the centres of the cells, shape (C, d), float64."""
        lower, upper = self.corners()
        return (lower + upper) / 2

    def locate(self, u: torch.Tensor) -> torch.Tensor:
        """Return the cell of each (N, d) position of the closed unit cube, shape (N,)."""
        cell = torch.zeros(len(u), dtype=torch.long, device=u.device)
        for axis, n in enumerate(self.shape):
            cell = cell * n + (u[:, axis] * n).long().clamp(0, n - 1)
        return cell


class TreePartition:
    """Cells that come from halving cells, each time along its longest edge."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.lower = torch.zeros(1, dimension, dtype=torch.float64, device=device)
        self.upper = torch.ones(1, dimension, dtype=torch.float64, device=device)
        self._node = torch.zeros(1, dtype=torch.long, device=device)  # of each cell
        # Of each node: the cell it is, or −1 and where it was cut; the first of its two children.
        self._cell = torch.zeros(1, dtype=torch.long, device=device)
        self._axis = torch.zeros(1, dtype=torch.long, device=device)
        self._cut = torch.zeros(1, dtype=torch.float64, device=device)
        self._child = torch.zeros(1, dtype=torch.long, device=device)

    def __len__(self) -> int:
        return len(self.lower)

    def corners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the lower and upper corners, each (C, d), float64."""
        return self.lower, self.upper

    def halve(self, cells: torch.Tensor) -> torch.Tensor:
        """Halve the cells (K,), all different; cell c keeps its lower half, the upper ones are new and returned."""
        axis = (self.upper[cells] - self.lower[cells]).argmax(-1)
        rows = torch.arange(len(cells), device=cells.device)
        cut = (self.lower[cells, axis] + self.upper[cells, axis]) / 2
        new = len(self) + rows
        upper_lower = self.lower[cells].clone()
        upper_lower[rows, axis] = cut
        upper_upper = self.upper[cells].clone()
        self.upper[cells, axis] = cut
        self.lower = torch.cat([self.lower, upper_lower])
        self.upper = torch.cat([self.upper, upper_upper])

        node = self._node[cells]
        child = len(self._cell) + 2 * rows
        self._axis[node], self._cut[node], self._child[node], self._cell[node] = axis, cut, child, -1
        self._cell = torch.cat([self._cell, torch.stack([cells, new], -1).reshape(-1)])
        for name in ("_axis", "_cut", "_child"):
            old = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros(2 * len(cells))]))
        self._node[cells] = child
        self._node = torch.cat([self._node, child + 1])
        return new

    def locate(self, u: torch.Tensor) -> torch.Tensor:
        """Return the cell of each (N, d) position of the closed unit cube, shape (N,)."""
        u = u.to(torch.float64)
        node = torch.zeros(len(u), dtype=torch.long, device=u.device)
        while True:
            inner = self._cell[node] < 0
            if not bool(inner.any()):
                return self._cell[node]
            right = u.gather(1, self._axis[node, None])[:, 0] >= self._cut[node]
            node = torch.where(inner, self._child[node] + right.long(), node)


class CellLaw:
    """A law constant on the cells of a partition.

    Parameters
    ----------
    box
        The domain.
    partition
        Cells of its unit cube.
    mass
        Non-negative, shape (C,); probabilities up to a factor.
    dtype
        Of the points drawn.
    """

    def __init__(self, box: Box, partition: Partition, mass: torch.Tensor, *, dtype: torch.dtype) -> None:
        mass = mass.to(torch.float64)
        total = mass.sum()
        if not bool(torch.isfinite(total)) or not bool(total > 0) or not bool((mass >= 0).all()):
            raise NumericsError(
                "Cell masses do not make a probability.",
                expected="finite, none negative, not all zero",
                found=f"sum {float(total):.3g}, least {float(mass.min()):.3g}",
            )
        self.box, self.partition, self.dtype = box, partition, dtype
        self.lower, self.upper = partition.corners()
        self.volume = (self.upper - self.lower).prod(-1)
        self.probability = mass / total
        self._cumulated = self.probability.cumsum(0)

    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) positions in random order."""
        strata = torch.randperm(count, generator=generator, device=generator.device)
        level = (strata + uniform(count, 1, torch.float64, generator)[:, 0]) / max(count, 1)
        cell = self.choose(level)
        inside = uniform(count, self.box.dimension, torch.float64, generator)
        u = self.lower[cell] + inside * (self.upper[cell] - self.lower[cell])
        return self.box.from_unit(u.to(self.dtype))

    def choose(self, level: torch.Tensor) -> torch.Tensor:
        """Return the cell where the cumulated probability passes ``level`` ∈ [0, 1], never one of probability 0."""
        total = self._cumulated[-1]
        # Just below the total, the first cell that reaches it, which has mass; `right` skips empty cells at the start.
        cell = torch.searchsorted(self._cumulated, level * total, right=True)
        return torch.minimum(cell, torch.searchsorted(self._cumulated, total))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""
        cell = self.partition.locate(self.box.to_unit(x).clamp(0, 1))
        p = self.probability[cell] / (self.volume[cell] * self.box.volume)
        return torch.where(self.box.contains(x), p, 0).to(x.dtype)
