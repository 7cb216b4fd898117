"""Points with the law they were drawn from, and what draws them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Points:
    """Collocation points and the density they were drawn from.

    Attributes
    ----------
    x
        Positions in the domain's own coordinates, shape (N, d).
    density
        The law p(x) they were drawn from, shape (N,); p integrates to 1 over the domain.
    """

    x: torch.Tensor
    density: torch.Tensor


class Sampler(Protocol):
    """A source of points that always knows its density."""

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Return ``count`` points."""

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,), for x of shape (N, d)."""

    def update(
        self, squared_residual: Callable[[torch.Tensor], torch.Tensor], *, generator: torch.Generator
    ) -> None:
        """Adapt to r²(x): takes (N, d), returns (N,). It is not called again after ``update`` returns."""
