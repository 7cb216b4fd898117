"""Collocation points and the law they were drawn from.

Every sampler knows its density p(x), so that a mean over its points can be turned into an integral over the
domain: ∫ f dx ≈ (1/N) Σ f(xᵢ)/p(xᵢ). Without p no importance weight exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Points:
    """Points with their density.

    Attributes
    ----------
    x
        (N, d), in the domain's own coordinates.
    density
        (N,), the law p(x) they were drawn from; it integrates to 1 over the domain (1/volume, length-units^-d).
    """

    x: torch.Tensor
    density: torch.Tensor


class Sampler(Protocol):
    """A source of points whose density is known."""

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Draw `count` points."""
        ...

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x) at any points of the domain: (N,)."""
        ...

    def update(
        self, squared_residual: Callable[[torch.Tensor], torch.Tensor], *, generator: torch.Generator
    ) -> None:
        """Adapt to the squared residual r²(x), a function from (N, d) to (N,)."""
        ...
