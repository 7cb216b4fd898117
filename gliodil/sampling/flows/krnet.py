"""Bounded KRnet: a flow on the unit cube made of conditional cumulative distribution functions.

A coupling splits the active coordinates in two, keeps one part and maps each coordinate of the other by a CDF whose
density is piecewise linear with parameters from the kept part:

    y₁ = x₁,    y₂ = F(x₂; θ(x₁)),    log |det| = Σ log F′(x₂; θ(x₁))

Couplings alternate which part they keep. After every few of them the last coordinate is squeezed off, that is, keeps
its value from there on, so that the map has the block-triangular structure of the Knothe-Rosenblatt rearrangement. A
coupling needs two coordinates, hence the last block is the identity. The cube is mapped onto itself, exactly and
invertibly: mass 1, nothing is clipped or projected (Zeng, Wan & Zhou, arXiv 2305.09063, here on [0, 1] for [−1, 1]).
"""

from __future__ import annotations

import torch
from torch import nn

from gliodil.errors import InputError
from gliodil.sampling.flows.base import Conditioner, Flow
from gliodil.sampling.flows.piecewise import PiecewiseLinear, parameter_count


class CdfCoupling(nn.Module):
    """Maps coordinates ``moved`` given coordinates ``kept``."""

    def __init__(
        self, kept: list[int], moved: list[int], *, bins: int, width: int, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.kept, self.moved, self.bins = kept, moved, bins
        self.conditioner = Conditioner(len(kept), len(moved) * parameter_count(bins), width, dtype=dtype)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return y and log |det ∂y/∂x|."""
        y, log_slope = self._densities(x).cdf(x[:, self.moved])
        return self._joined(x, y), log_slope.sum(-1)

    def decode(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x and log |det ∂y/∂x| there."""
        x, log_slope = self._densities(y).quantile(y[:, self.moved])
        return self._joined(y, x), log_slope.sum(-1)

    def _densities(self, x: torch.Tensor) -> PiecewiseLinear:
        raw = self.conditioner(2 * x[:, self.kept] - 1)
        return PiecewiseLinear.from_parameters(raw.reshape(len(x), len(self.moved), -1), self.bins)

    def _joined(self, x: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        columns = list(x.unbind(-1))
        for column, i in zip(moved.unbind(-1), self.moved, strict=True):
            columns[i] = column
        return torch.stack(columns, -1)


class BoundedKRnet(Flow):
    """A flow of CDF couplings with squeezing.

    Parameters
    ----------
    dimension
        Two or more.
    couplings
        Before each squeeze; an even number moves every coordinate equally often.
    bins, width
        Of each density, and of the conditioners' two hidden layers.
    squeeze
        Coordinates squeezed off at a time.
    scale
        Of the first layer's slopes: how sharply densities may depend on the kept coordinates from the start.
    """

    def __init__(
        self,
        dimension: int,
        *,
        seed: int,
        dtype: torch.dtype,
        couplings: int = 6,
        bins: int = 4,
        width: int = 32,
        squeeze: int = 1,
        scale: float = 6.0,
    ) -> None:
        super().__init__()
        check_dimension(dimension)
        self.dimension = dimension
        layers = [
            CdfCoupling(kept, moved, bins=bins, width=width, dtype=dtype)
            for kept, moved in schedule(dimension, couplings, squeeze)
        ]
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            layer.conditioner.start(generator, scale=scale)
        self.couplings = nn.ModuleList(layers)

    def encode(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z = f(u), shape (N, d), and log |det ∂f/∂u|, shape (N,)."""
        total = torch.zeros_like(u[:, 0])
        for coupling in self.layers():
            u, log_det = coupling.encode(u)
            total = total + log_det
        return u, total

    def decode(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return u = f⁻¹(z) and log |det ∂f/∂u| at u."""
        total = torch.zeros_like(z[:, 0])
        for coupling in reversed(self.layers()):
            z, log_det = coupling.decode(z)
            total = total + log_det
        return z, total

    def layers(self) -> list[CdfCoupling]:
        """Return the couplings in the order of ``encode``."""
        return [layer for layer in self.couplings if isinstance(layer, CdfCoupling)]

    def latent_log_density(self, z: torch.Tensor) -> torch.Tensor:
        """Return zeros: the latent law is uniform on the unit cube."""
        return torch.zeros_like(z[:, 0])

    def latent_from_uniform(self, v: torch.Tensor) -> torch.Tensor:
        """Return v."""
        return v


def schedule(dimension: int, couplings: int, squeeze: int) -> list[tuple[list[int], list[int]]]:
    """Return which coordinates each coupling keeps and which it moves."""
    steps = []
    active = list(range(dimension))
    while len(active) >= 2:
        half = (len(active) + 1) // 2
        for i in range(couplings):
            first, second = active[:half], active[half:]
            steps.append((first, second) if i % 2 == 0 else (second, first))
        active = active[: len(active) - squeeze]
    return steps


def check_dimension(dimension: int) -> None:
    """Refuse dimensions in which no coupling exists."""
    if dimension < 2:
        raise InputError(
            "A coupling flow needs two coordinates, one to condition the other.",
            expected="2 or more dimensions",
            found=str(dimension),
            remedy="In one dimension, h1 has the exact solution.",
        )
