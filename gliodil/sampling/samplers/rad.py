"""RAD: residual-based adaptive distribution (Wu, Zhu, Tan, Kartha & Lu, Comput. Methods Appl. Mech. Eng. 403, 2023).

    p(x) ∝ |r(x)|^k / mean |r|^k + c

The publication draws from a pool of candidates with these weights. Here a candidate stands for its cell, in which the
point is uniform, so the density is known exactly and not only in the limit of a large pool.
"""

from __future__ import annotations

import torch

from gliodil.sampling.cells import CellLaw
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import UniformLaw
from gliodil.sampling.residual_map import ResidualMap, SquaredResidual, map_residual
from gliodil.sampling.samplers.base import Redrawing


class RadSampler(Redrawing):
    """All points redrawn from the residual's distribution.

    Parameters
    ----------
    box, dtype
        The domain, and the type of the points.
    k, c
        Exponent of |r| and share of uniform points against it: c = 1 makes half of the points uniform.
    budget
        Evaluations of r² at each update.
    """

    def __init__(
        self, box: Box, *, dtype: torch.dtype, k: float = 1.0, c: float = 1.0, budget: int = 8192
    ) -> None:
        super().__init__(UniformLaw(box, dtype))
        self.box, self.dtype, self.k, self.c, self.budget = box, dtype, k, c, budget

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Adapt to r², evaluated ``budget`` times."""
        seen = map_residual(
            squared_residual, self.box, budget=self.budget, dtype=self.dtype, generator=generator
        )
        self.law = residual_law(seen, k=self.k, c=self.c, dtype=self.dtype)


def residual_law(seen: ResidualMap, *, k: float, c: float, dtype: torch.dtype) -> CellLaw | UniformLaw:
    """Return p ∝ |r|^k/mean|r|^k + c on the map's cells; uniform where r is zero everywhere."""
    largest = float(seen.value.max())
    if largest == 0:
        return UniformLaw(seen.box, dtype)
    power = (seen.value / largest) ** (k / 2)
    mean = (seen.volume * power).sum()
    return CellLaw(seen.box, seen.partition, seen.volume * (power / mean + c), dtype=dtype)
