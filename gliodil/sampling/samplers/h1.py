"""Points from the exact maximizer of the adversary's problem with H¹ penalty, in up to three dimensions."""

from __future__ import annotations

import torch

from gliodil.errors import InputError
from gliodil.sampling.cells import CellLaw, GridPartition
from gliodil.sampling.domain import Box
from gliodil.sampling.h1 import BetaKind, Maximum, maximize
from gliodil.sampling.laws import UniformLaw
from gliodil.sampling.residual_map import SquaredResidual, evaluate
from gliodil.sampling.samplers.base import Redrawing

CELLS = {1: 512, 2: 96, 3: 32}


class H1Sampler(Redrawing):
    """All points redrawn from the H¹ maximizer, constant on the cells of a grid; no flow is trained.

    Parameters
    ----------
    box, dtype
        The domain (d ≤ 3), and the type of the points.
    beta, kind
        Penalty of the density's gradient; ``gliodil.sampling.h1`` says in which units.
    cells
        Along each axis; r² is evaluated cells^d times at each update, at one random position of each cell.
    """

    def __init__(
        self,
        box: Box,
        *,
        dtype: torch.dtype,
        beta: float = 1e-3,
        kind: BetaKind = "relative",
        cells: int | None = None,
    ) -> None:
        if box.dimension not in CELLS:
            raise InputError(
                "The exact maximizer needs a grid of the whole domain.",
                expected="1 to 3 dimensions",
                found=f"{box.dimension} dimensions",
                remedy="Use aas, which learns the same density with a flow.",
            )
        super().__init__(UniformLaw(box, dtype))
        self.box, self.dtype, self.beta, self.kind = box, dtype, beta, kind
        self.shape = (CELLS[box.dimension] if cells is None else cells,) * box.dimension
        self.maximum: Maximum | None = None

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Adapt to r², evaluated once in each cell."""
        partition = GridPartition(self.shape, generator.device)
        lower, upper = partition.corners()
        inside = torch.rand(lower.shape, dtype=lower.dtype, device=lower.device, generator=generator)
        x = self.box.from_unit((lower + inside * (upper - lower)).to(self.dtype))
        squared = evaluate(squared_residual, x).reshape(self.shape)
        self.maximum = maximize(squared, self.box, beta=self.beta, kind=self.kind, tolerance=1e-5)
        self.law = CellLaw(self.box, partition, self.maximum.density.reshape(-1), dtype=self.dtype)
