"""Points that do not adapt: p(x) = 1/|Ω|."""

from __future__ import annotations

import torch

from gliodil.pde.resume import State
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import UniformLaw, sobol
from gliodil.sampling.points import Points
from gliodil.sampling.residual_map import SquaredResidual


class UniformSampler:
    """Independent uniform points, fresh at every draw."""

    def __init__(self, box: Box, *, dtype: torch.dtype) -> None:
        self.law = UniformLaw(box, dtype)

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Return ``count`` points."""
        x = self.law.sample(count, generator=generator)
        return Points(x, self.density(x))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return 1/|Ω| inside the box, 0 outside."""
        return self.law.density(x)

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Do nothing: these points do not adapt."""

    def state(self) -> State:
        """Return nothing."""
        return {}

    def restore(self, state: State) -> None:
        """Do nothing."""


class SobolSampler(UniformSampler):
    """Sobol points with a fresh scrambling at every draw.

    Each point is uniform and together they fill the box evenly. Counts that are powers of 2 do so best.
    """

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Return ``count`` points."""
        u = sobol(count, self.law.box.dimension, self.law.dtype, generator)
        x = self.law.box.from_unit(u)
        return Points(x, self.density(x))
