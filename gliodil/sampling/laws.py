"""Laws: immutable probability densities on a box that can be sampled and evaluated anywhere.

A sampler changes during training, a law does not. Samplers hand out the law of the moment, so that mixtures and
histories of laws remain exact when the network has moved on.

A mixture Σ a_j p_j is drawn with n_j points of each part, where the n_j are rounded at random with E n_j = a_j N. For
any function f, the mean of f/p over the points then has expectation ∫f exactly, at a lower variance than independent
choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from gliodil.errors import InputError
from gliodil.sampling.domain import Box


class Law(Protocol):
    """A density on a box; zero outside."""

    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) positions."""

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""


@dataclass(frozen=True)
class UniformLaw:
    """p(x) = 1/|Ω|, independent points."""

    box: Box
    dtype: torch.dtype

    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) positions."""
        return self.box.from_unit(uniform(count, self.box.dimension, self.dtype, generator))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""
        return self.box.contains(x).to(x.dtype) / self.box.volume


@dataclass(frozen=True)
class MixtureLaw:
    """p(x) = Σ shares_j p_j(x); shares are non-negative and sum to 1."""

    parts: tuple[Law, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if (
            len(self.parts) != len(self.shares)
            or not self.parts
            or min(self.shares) < 0
            or abs(sum(self.shares) - 1) > 1e-9
        ):
            raise InputError(
                "These shares do not make a mixture.",
                expected=f"{len(self.parts)} non-negative shares that sum to 1",
                found=str(self.shares),
            )

    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) positions in random order."""
        numbers = split(count, self.shares, generator)
        x = torch.cat(
            [part.sample(n, generator=generator) for part, n in zip(self.parts, numbers, strict=True) if n]
        )
        return x[torch.randperm(len(x), generator=generator, device=generator.device)]

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""
        p = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for part, share in zip(self.parts, self.shares, strict=True):
            if share > 0:
                p = p + share * part.density(x)
        return p


def uniform(count: int, dimension: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Return (count, dimension) independent uniform numbers on the generator's device."""
    return torch.rand(count, dimension, dtype=dtype, device=generator.device, generator=generator)


def split(count: int, shares: Sequence[float], generator: torch.Generator) -> list[int]:
    """Return integers that sum to ``count`` with expectation count·shares, each within one of it."""
    offset = float(torch.rand((), dtype=torch.float64, device=generator.device, generator=generator))
    numbers, total, before = [], 0.0, 0
    for share in shares[:-1]:
        total += share
        after = min(count, int(total * count + offset))
        numbers.append(after - before)
        before = after
    return [*numbers, count - before]


def sobol(count: int, dimension: int, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Return (count, dimension) scrambled Sobol points of the unit cube on the generator's device."""
    seed = int(torch.randint(2**31 - 1, (), device=generator.device, generator=generator))
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    return engine.draw(count, dtype=torch.float64).to(device=generator.device, dtype=dtype)
