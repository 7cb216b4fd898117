"""Mixtures of Gaussians with independent coordinates, truncated to a box, and their fit to points.

    p(x) = Σ_k a_k ∏_i N(u_i; m_ki, s_ki) / (Φ_ki(1) − Φ_ki(0)) / |Ω|,     u in the unit cube

Every factor is normalized on the cube by itself, so that the mass is 1 without any estimate, in any dimension.
"""

from __future__ import annotations

import math

import torch

from gliodil.sampling.domain import Box


class GaussianMixtureLaw:
    """A truncated Gaussian mixture.

    Parameters
    ----------
    weight, mean, deviation
        Shapes (K,), (K, d), (K, d), float64, in the unit cube.
    """

    def __init__(
        self,
        box: Box,
        weight: torch.Tensor,
        mean: torch.Tensor,
        deviation: torch.Tensor,
        *,
        dtype: torch.dtype,
    ) -> None:
        self.box, self.dtype = box, dtype
        self.weight, self.mean, self.deviation = weight / weight.sum(), mean, deviation
        self._below = _phi(-mean / deviation)
        self._inside = _phi((1 - mean) / deviation) - self._below

    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) independent positions."""
        k = torch.multinomial(self.weight, count, replacement=True, generator=generator)
        v = torch.rand(count, self.box.dimension, dtype=torch.float64, device=k.device, generator=generator)
        z = torch.special.ndtri(self._below[k] + v * self._inside[k])
        u = (self.mean[k] + self.deviation[k] * z).clamp(0, 1)
        return self.box.from_unit(u.to(self.dtype))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""
        u = self.box.to_unit(x).clamp(0, 1).to(torch.float64)
        p = torch.exp(self.log_parts(u).logsumexp(-1)) / self.box.volume
        return torch.where(self.box.contains(x), p, 0).to(x.dtype)

    def log_parts(self, u: torch.Tensor) -> torch.Tensor:
        """Return the logarithms of the weighted parts in the unit cube, shape (N, K)."""
        z = (u[:, None] - self.mean) / self.deviation
        norm = torch.log(self.deviation) + torch.log(self._inside) + 0.5 * math.log(2 * math.pi)
        return torch.log(self.weight) - (0.5 * z.square() + norm).sum(-1)


def fit_gaussians(
    u: torch.Tensor,
    box: Box,
    *,
    parts: int,
    dtype: torch.dtype,
    generator: torch.Generator,
    rounds: int = 15,
    widen: float = 1.3,
    least: float = 2e-3,
) -> GaussianMixtureLaw:
    """Fit to points of the unit cube, (N, d), by expectation-maximization; deviations are then widened.

    ``least`` bounds deviations from below. Parts that hold less than one point are left out.
    """
    u = u.to(torch.float64)
    parts = min(parts, len(u))
    # Farthest-point start: peaks apart from each other each get a part.
    first = int(torch.randint(len(u), (), generator=generator, device=u.device))
    chosen = [first]
    distance = (u - u[first]).square().sum(-1)
    for _ in range(parts - 1):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (u - u[chosen[-1]]).square().sum(-1))
    mean = u[chosen].clone()
    spread = u.std(0).clamp_min(least)
    deviation = (spread / parts ** (1 / u.shape[1])).expand_as(mean).clamp_min(least)
    weight = u.new_full((parts,), 1 / parts)
    for _ in range(rounds):
        z = (u[:, None] - mean) / deviation
        log_part = torch.log(weight) - (0.5 * z.square() + torch.log(deviation)).sum(-1)
        share = torch.softmax(log_part, -1)
        held = share.sum(0)
        keep = held > 1
        if bool(keep.any()):
            share, held = share[:, keep], held[keep]
        weight = held / held.sum()
        mean = (share.T @ u) / held[:, None]
        second = (share.T @ u.square()) / held[:, None]
        deviation = (second - mean.square()).clamp_min(0).sqrt().clamp_min(least)
    return GaussianMixtureLaw(box, weight, mean, deviation * widen, dtype=dtype)


def _phi(z: torch.Tensor) -> torch.Tensor:
    value: torch.Tensor = torch.special.ndtr(z)
    return value
