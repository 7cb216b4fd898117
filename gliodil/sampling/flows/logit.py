"""Logit-KRnet: the flow of the published deep adaptive sampling, on a box through the logit (Tang, Wan & Yang, 2023).

    u ∈ (0, 1)^d → y = log u/(1 − u) → stages → z ~ N(0, I)

A stage is a number of (actnorm, affine coupling, reversal), after which the last coordinates are squeezed off; the last
block is an actnorm and a one-dimensional CDF layer.

* Actnorm: y = e^a (x + b), set so that the first points seen get mean 0 and variance 1; |a| ≤ 5.
* Affine coupling: y₁ = x₁, y₂ = x₂ (1 + 0.6 tanh s(x₁)) + e^g tanh t(x₁), |g| ≤ 5.
* CDF layer: a piecewise-linear density on [−50, 50], 32 bins that widen by 1.2 away from 0, density 1 at the ends and
  outside, where the map is the identity.

The published flow maps a box enlarged by 1 % and projects points that leave the box to its faces. Here the box itself is
mapped, so that the mass in it is 1. At faces the logit leaves every density 0 or unbounded: distances to a face below
1e-9 edges (1e-6 in float32) are read as that. The bounded flow has no such places.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from gliodil.sampling.flows.base import Conditioner, Flow
from gliodil.sampling.flows.krnet import check_dimension
from gliodil.sampling.flows.piecewise import PiecewiseLinear

Mapped = tuple[torch.Tensor, torch.Tensor]
SLOPE, LARGEST_LOG = 0.6, 5.0


class Actnorm(nn.Module):
    """y = e^a (x + b)."""

    def __init__(self, dimension: int, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.dimension = dimension
        self.log_scale = nn.Parameter(torch.zeros(dimension, dtype=dtype))
        self.shift = nn.Parameter(torch.zeros(dimension, dtype=dtype))

    def prepare(self, x: torch.Tensor) -> None:
        """Give x mean 0 and variance 1."""
        with torch.no_grad():
            self.shift.copy_(-x.mean(0))
            self.log_scale.copy_(-torch.log(x.std(0).clamp_min(1e-6)).clamp(-LARGEST_LOG, LARGEST_LOG))

    def encode(self, x: torch.Tensor) -> Mapped:
        """Return y and log |det ∂y/∂x|."""
        a = self.log_scale.clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.exp(a) * (x + self.shift), a.sum().expand(len(x))

    def decode(self, y: torch.Tensor) -> Mapped:
        """Return x and log |det ∂y/∂x| there."""
        a = self.log_scale.clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.exp(-a) * y - self.shift, a.sum().expand(len(y))


class AffineCoupling(nn.Module):
    """Keeps the first half of the coordinates and moves the rest by a bounded affine map."""

    def __init__(self, dimension: int, *, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dimension = dimension
        self.kept = (dimension + 1) // 2
        moved = dimension - self.kept
        self.conditioner = Conditioner(self.kept, 2 * moved, width, dtype=dtype)
        self.log_reach = nn.Parameter(torch.zeros(moved, dtype=dtype))

    def encode(self, x: torch.Tensor) -> Mapped:
        """Return y and log |det ∂y/∂x|."""
        kept, moved = x[:, : self.kept], x[:, self.kept :]
        slope, shift = self._coefficients(kept)
        return torch.cat([kept, moved * slope + shift], -1), torch.log(slope).sum(-1)

    def decode(self, y: torch.Tensor) -> Mapped:
        """Return x and log |det ∂y/∂x| there."""
        kept, moved = y[:, : self.kept], y[:, self.kept :]
        slope, shift = self._coefficients(kept)
        return torch.cat([kept, (moved - shift) / slope], -1), torch.log(slope).sum(-1)

    def _coefficients(self, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s, t = self.conditioner(kept).chunk(2, -1)
        reach = torch.exp(self.log_reach.clamp(-LARGEST_LOG, LARGEST_LOG))
        return 1 + SLOPE * torch.tanh(s), reach * torch.tanh(t)


class CdfLayer(nn.Module):
    """A monotone map of each coordinate, the identity outside [−reach, reach]."""

    def __init__(self, dimension: int, *, dtype: torch.dtype, bins: int = 32, reach: float = 50.0) -> None:
        super().__init__()
        self.dimension = dimension
        self.reach = reach
        widths = torch.tensor([1.2**i for i in range(bins // 2)], dtype=dtype).cumsum(0)
        half = torch.cat([widths.new_zeros(1), widths / widths[-1]])
        nodes = torch.cat([-half.flip(0)[:-1], half])
        self.nodes: torch.Tensor
        self.register_buffer("nodes", (nodes + 1) / 2)
        self.raw = nn.Parameter(torch.zeros(dimension, bins - 1, dtype=dtype))

    def encode(self, x: torch.Tensor) -> Mapped:
        """Return y and log |det ∂y/∂x|."""
        inside = x.abs() < self.reach
        y, log_slope = self._density(len(x)).cdf(self._to_unit(x))
        return (
            torch.where(inside, self.reach * (2 * y - 1), x),
            torch.where(inside, log_slope, 0).sum(-1),
        )

    def decode(self, y: torch.Tensor) -> Mapped:
        """Return x and log |det ∂y/∂x| there."""
        inside = y.abs() < self.reach
        x, log_slope = self._density(len(y)).quantile(self._to_unit(y))
        return (
            torch.where(inside, self.reach * (2 * x - 1), y),
            torch.where(inside, log_slope, 0).sum(-1),
        )

    def _to_unit(self, x: torch.Tensor) -> torch.Tensor:
        return (x / (2 * self.reach) + 0.5).clamp(0, 1)

    def _density(self, count: int) -> PiecewiseLinear:
        h = torch.diff(self.nodes)
        area = (h[:-1] + h[1:]) / 2
        w = torch.exp(self.raw)
        w = w * (1 - (h[0] + h[-1]) / 2) / (w * area).sum(-1, keepdim=True)
        one = torch.ones_like(w[:, :1])
        w = torch.cat([one, w, one], -1)
        masses = (w[:, :-1] + w[:, 1:]) * h / 2
        cumulated = torch.cat([0 * one, torch.cumsum(masses[:, :-1], -1), one], -1)
        nodes = self.nodes.expand_as(w)
        return PiecewiseLinear(*(t.expand(count, *t.shape) for t in (nodes, w, cumulated)))


Layer = Actnorm | AffineCoupling | CdfLayer


class LogitKRnet(Flow):
    """The published flow.

    Parameters
    ----------
    dimension
        Two or more.
    couplings
        In each stage; even, so that every coordinate is moved.
    width
        Of the conditioners' two hidden layers.
    squeeze
        Coordinates squeezed off after each stage.
    """

    def __init__(
        self,
        dimension: int,
        *,
        seed: int,
        dtype: torch.dtype,
        couplings: int = 6,
        width: int = 24,
        squeeze: int = 1,
    ) -> None:
        super().__init__()
        check_dimension(dimension)
        self.dimension = dimension
        self.edge = 1e-6 if dtype == torch.float32 else 1e-9
        self.squeeze = squeeze
        generator = torch.Generator().manual_seed(seed)
        layers: list[Layer] = []
        active = dimension
        while active > squeeze and active >= 2:
            for _ in range(couplings):
                coupling = AffineCoupling(active, width=width, dtype=dtype)
                coupling.conditioner.start(generator, scale=1.0)
                layers += [Actnorm(active, dtype=dtype), coupling]
            active -= squeeze
        layers += [Actnorm(active, dtype=dtype), CdfLayer(active, dtype=dtype)]
        self.layers = layers
        self.registered = nn.ModuleList(layers)

    def encode(self, u: torch.Tensor) -> Mapped:
        """Return z = f(u), shape (N, d), and log |det ∂f/∂u|, shape (N,)."""
        return self._encode(u, prepare=False)

    def prepare(self, u: torch.Tensor) -> None:
        """Set the actnorms from points of the cube, one after the other."""
        with torch.no_grad():
            self._encode(u, prepare=True)

    def _encode(self, u: torch.Tensor, *, prepare: bool) -> Mapped:
        v = u.clamp(self.edge, 1 - self.edge)
        x = torch.log(v) - torch.log1p(-v)
        total = -(torch.log(v) + torch.log1p(-v)).sum(-1)
        for layer in self.layers:
            # A layer sees the coordinates that are still active; those squeezed off follow them.
            active, rest = x[:, : layer.dimension], x[:, layer.dimension :]
            if prepare and isinstance(layer, Actnorm):
                layer.prepare(active)
            active, log_det = layer.encode(active)
            if isinstance(layer, AffineCoupling):
                active = active.flip(-1)
            x = torch.cat([active, rest], -1)
            total = total + log_det
        return x, total

    def decode(self, z: torch.Tensor) -> Mapped:
        """Return u = f⁻¹(z) and log |det ∂f/∂u| at u."""
        x, total = z, torch.zeros_like(z[:, 0])
        for layer in reversed(self.layers):
            active, rest = x[:, : layer.dimension], x[:, layer.dimension :]
            if isinstance(layer, AffineCoupling):
                active = active.flip(-1)
            active, log_det = layer.decode(active)
            x = torch.cat([active, rest], -1)
            total = total + log_det
        log_jacobian = (nn.functional.softplus(x) + nn.functional.softplus(-x)).sum(-1)
        return torch.sigmoid(x), total + log_jacobian

    def latent_log_density(self, z: torch.Tensor) -> torch.Tensor:
        """Return the log density of the standard normal law."""
        return -0.5 * z.square().sum(-1) - 0.5 * self.dimension * math.log(2 * math.pi)

    def latent_from_uniform(self, v: torch.Tensor) -> torch.Tensor:
        """Return normal quantiles."""
        z: torch.Tensor = torch.special.ndtri(v.clamp(self.edge, 1 - self.edge))
        return z
