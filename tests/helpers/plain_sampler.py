"""Samplers simple enough to be beyond doubt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gliodil.sampling.domain import Box
from gliodil.sampling.points import Points


@dataclass(frozen=True)
class PlainUniform:
    """The uniform law."""

    box: Box

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Draw points (count, d)."""
        unit = torch.rand(count, self.box.dimension, generator=generator, dtype=torch.float64)
        x = self.box.from_unit(unit)
        return Points(x, self.density(x))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """1/|Ω|."""
        return x.new_full((x.shape[0],), 1 / self.box.volume)

    def update(
        self, squared_residual: Callable[[torch.Tensor], torch.Tensor], *, generator: torch.Generator
    ) -> None:
        """Nothing adapts."""


@dataclass(frozen=True)
class Tilted:
    """Density (1 + z)/1.5 along the first axis of the unit coordinates z."""

    box: Box

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Draw points (count, d) by the inverse distribution function."""
        z = torch.rand(count, self.box.dimension, generator=generator, dtype=torch.float64)
        # F(z) = (z + z²/2)/1.5
        z[:, 0] = (1 + 3 * z[:, 0]).sqrt() - 1
        x = self.box.from_unit(z)
        return Points(x, self.density(x))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """(1 + z)/(1.5 |Ω|)."""
        return (1 + self.box.to_unit(x)[:, 0]) / 1.5 / self.box.volume

    def update(
        self, squared_residual: Callable[[torch.Tensor], torch.Tensor], *, generator: torch.Generator
    ) -> None:
        """Nothing adapts."""
