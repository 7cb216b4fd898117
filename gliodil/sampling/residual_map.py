"""The squared residual seen through a budget of evaluations: one value on each cell of an adapted partition.

The unit cube is cut into equal cells and r² is evaluated at one random position of each (stratified candidates). Then,
in rounds, the cells that hold most of ∫r² are halved and the new halves evaluated: the map zooms in on peaks. Laws made
from it have exact densities, and can still be evaluated when the network has changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gliodil.errors import NumericsError
from gliodil.sampling.cells import TreePartition
from gliodil.sampling.domain import Box

SquaredResidual = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class ResidualMap:
    """r² on cells.

    Attributes
    ----------
    partition
        C cells of the unit cube.
    value
        r² at one position of each cell, shape (C,), float64.
    """

    box: Box
    partition: TreePartition
    value: torch.Tensor

    @property
    def volume(self) -> torch.Tensor:
        """Volumes of the cells in the unit cube, shape (C,); they sum to 1."""
        lower, upper = self.partition.corners()
        return (upper - lower).prod(-1)

    @property
    def mean(self) -> float:
        """Mean of r² over the domain."""
        return float((self.volume * self.value).sum())

    def at(self, x: torch.Tensor) -> torch.Tensor:
        """Return the value of the cell of each position, shape (N,)."""
        return self.value[self.partition.locate(self.box.to_unit(x).clamp(0, 1))]


def map_residual(
    squared_residual: SquaredResidual,
    box: Box,
    *,
    budget: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    rounds: int = 6,
) -> ResidualMap:
    """Evaluate r² about ``budget`` times, half of it on equal cells, half where ∫r² is concentrated."""
    partition = TreePartition(box.dimension, generator.device)
    for _ in range(max(0, math.floor(math.log2(max(budget, 2))) - 1)):
        partition.halve(torch.arange(len(partition), device=generator.device))

    def evaluated(cells: torch.Tensor) -> torch.Tensor:
        size = partition.upper[cells] - partition.lower[cells]
        inside = torch.rand(size.shape, dtype=torch.float64, device=size.device, generator=generator)
        u = partition.lower[cells] + inside * size
        return evaluate(squared_residual, box.from_unit(u.to(dtype))).to(torch.float64)

    value = evaluated(torch.arange(len(partition), device=generator.device))
    spent = len(partition)
    for left in range(rounds, 0, -1):
        number = min((budget - spent) // (2 * left), len(partition))
        if number < 1:
            break
        mass = (partition.upper - partition.lower).prod(-1) * value
        largest = mass.topk(number).indices
        new = evaluated(torch.cat([largest, partition.halve(largest)]))
        value[largest] = new[:number]
        value = torch.cat([value, new[number:]])
        spent += 2 * number
    return ResidualMap(box, partition, value)


def evaluate(squared_residual: SquaredResidual, x: torch.Tensor, *, batch: int = 16384) -> torch.Tensor:
    """Return r²(x), shape (N,), detached; raises NumericsError where it is negative or not finite."""
    parts = [squared_residual(part).detach().reshape(-1) for part in torch.split(x, batch)]
    value = torch.cat(parts) if parts else x.new_zeros(0)
    if len(value) != len(x):
        raise NumericsError(
            "The squared residual has the wrong shape.",
            expected=f"one number for each of {len(x)} points",
            found=f"{len(value)} numbers",
        )
    wrong = ~torch.isfinite(value) | (value < 0)
    if bool(wrong.any()):
        raise NumericsError(
            "The squared residual cannot guide the points.",
            expected="finite numbers, none negative",
            found=f"{int(wrong.sum())} others of {len(value)}",
            remedy="The network has probably diverged: lower the step or return to an earlier state.",
        )
    return value
