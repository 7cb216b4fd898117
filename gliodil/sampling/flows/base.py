"""Flows: invertible maps between a simple law and a learned one, and the law a trained flow stands for.

    p(x) = p_Z(f(x)) |det ∂f/∂x|,      x = f⁻¹(z),   z ~ p_Z

Flows work in the unit cube; the law scales to the box.
"""

from __future__ import annotations

import copy
from abc import abstractmethod

import torch
from torch import nn

from gliodil.sampling.domain import Box
from gliodil.sampling.laws import sobol, uniform


class Flow(nn.Module):
    """A map f from the unit cube to the space of a latent law."""

    dimension: int

    @abstractmethod
    def encode(self, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z = f(u), shape (N, d), and log |det ∂f/∂u|, shape (N,)."""

    @abstractmethod
    def decode(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return u = f⁻¹(z) and log |det ∂f/∂u| at u."""

    @abstractmethod
    def latent_log_density(self, z: torch.Tensor) -> torch.Tensor:
        """Return log p_Z(z), shape (N,)."""

    @abstractmethod
    def latent_from_uniform(self, v: torch.Tensor) -> torch.Tensor:
        """Return latent points from uniform ones of the unit cube, random or quasi-random."""

    def log_density(self, u: torch.Tensor) -> torch.Tensor:
        """Return log p(u) in the unit cube, shape (N,); differentiable in u and in the flow's weights."""
        z, log_det = self.encode(u)
        return self.latent_log_density(z) + log_det

    def prepare(self, u: torch.Tensor) -> None:
        """Set what depends on the first points seen, if anything does."""

    def freeze(self) -> Flow:
        """Return a copy that training does not change."""
        frozen = copy.deepcopy(self)
        frozen.requires_grad_(False)
        return frozen


class FlowLaw:
    """The law of a frozen flow on a box.

    Parameters
    ----------
    flow
        Is copied.
    box, dtype
        The domain, and the type of the points.
    quasi_random
        Latent points are scrambled Sobol points instead of independent ones.
    """

    def __init__(self, flow: Flow, box: Box, *, dtype: torch.dtype, quasi_random: bool = False) -> None:
        self.flow, self.box, self.dtype, self.quasi_random = flow.freeze(), box, dtype, quasi_random

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) positions."""
        if self.quasi_random:
            v = sobol(count, self.box.dimension, self.dtype, generator)
        else:
            v = uniform(count, self.box.dimension, self.dtype, generator)
        u, _ = self.flow.decode(self.flow.latent_from_uniform(v))
        return self.box.from_unit(u.clamp(0, 1))

    @torch.no_grad()
    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""
        u = self.box.to_unit(x).clamp(0, 1).to(self.dtype)
        p = torch.exp(self.flow.log_density(u)).to(x.dtype) / self.box.volume
        return torch.where(self.box.contains(x), p, 0)


class Conditioner(nn.Module):
    """A small smooth network from the coordinates that stay to the parameters of the map of the others.

    Its last layer starts at zero, so that a new coupling is the identity.
    """

    def __init__(self, inputs: int, outputs: int, width: int, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width, dtype=dtype)
        self.second = nn.Linear(width, width, dtype=dtype)
        self.last = nn.Linear(width, outputs, dtype=dtype)

    def start(self, generator: torch.Generator, *, scale: float) -> None:
        """Draw the weights; the first layer's slopes have standard deviation ``scale``."""
        first, second, last = self.first, self.second, self.last
        with torch.no_grad():
            first.weight.copy_(_normal(first.weight, generator) * (scale / first.in_features**0.5))
            first.bias.copy_(_normal(first.bias, generator) * (scale / 2))
            second.weight.copy_(_normal(second.weight, generator) / second.in_features**0.5)
            second.bias.zero_()
            last.weight.zero_()
            last.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, outputs) for (N, inputs)."""
        y: torch.Tensor = self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return y


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(like)
