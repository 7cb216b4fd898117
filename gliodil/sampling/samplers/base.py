"""What samplers that redraw all their points share: the points are drawn from the law of the moment."""

from __future__ import annotations

from typing import Protocol

import torch

from gliodil.sampling.laws import Law
from gliodil.sampling.points import Points, Sampler


class LawSampler(Sampler, Protocol):
    """A sampler whose law of the moment can be kept."""

    @property
    def law(self) -> Law:
        """The law of the next draw; it does not change."""


class Redrawing:
    """All points fresh at every draw, from ``law``, which ``update`` replaces."""

    def __init__(self, law: Law) -> None:
        self.law = law

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Return ``count`` fresh points."""
        x = self.law.sample(count, generator=generator)
        return Points(x, self.law.density(x))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the density of the law of the moment, shape (N,)."""
        return self.law.density(x)
