"""Cumulative distribution functions of piecewise-linear densities on [0, 1], and their inverses.

Nodes 0 = s_0 < … < s_n = 1 with density values w_i, h_i = s_{i+1} − s_i, t = s − s_i:

    F(s)      = q_i + w_i t + (w_{i+1} − w_i) t² / (2 h_i),             q_i = Σ_{k<i} (w_k + w_{k+1}) h_k / 2
    F⁻¹(q)    = s_i + 2 (q − q_i) / (w_i + √(w_i² + 2 (w_{i+1} − w_i)(q − q_i)/h_i))
    F′(s)     = w_i + (w_{i+1} − w_i) t / h_i

The root is written so that nothing cancels where the density is flat. F is C¹, F′ is continuous. Any real numbers give
a valid density (Zeng, Wan & Zhou, arXiv 2305.09063): each node takes its share of what is left to the right of it,

    s_{i+1} = s_i + (1 − s_i)/(n − i) · (1 + b_i tanh a_i),     w_i ∝ 1 + 0.99 tanh v_i ,

with b_0 = 65/66 and b_i = 0.97. Zeros give the uniform density.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

FIRST_STRETCH, STRETCH, CONTRAST = 65 / 66, 0.97, 0.99


def parameter_count(bins: int) -> int:
    """Numbers needed for a density of ``bins`` bins: inner nodes and values at all nodes."""
    return bins - 1 + bins + 1


@dataclass(frozen=True)
class PiecewiseLinear:
    """Densities, one for each leading index: nodes, values and cumulated masses at the nodes, each (…, n + 1)."""

    nodes: torch.Tensor
    values: torch.Tensor
    cumulated: torch.Tensor

    @staticmethod
    def from_parameters(raw: torch.Tensor, bins: int) -> PiecewiseLinear:
        """Build from unconstrained numbers, shape (…, ``parameter_count(bins)``)."""
        mesh, heights = raw[..., : bins - 1], raw[..., bins - 1 :]
        stretch = raw.new_tensor([FIRST_STRETCH] + [STRETCH] * (bins - 2))[: bins - 1]
        left = raw.new_tensor([bins - i for i in range(bins - 1)])
        rest = torch.cumprod(1 - (1 + stretch * torch.tanh(mesh)) / left, -1)
        zero = torch.zeros_like(raw[..., :1])
        nodes = torch.cat([zero, 1 - rest, zero + 1], -1)
        values = 1 + CONTRAST * torch.tanh(heights)
        masses = (values[..., :-1] + values[..., 1:]) * torch.diff(nodes) / 2
        total = masses.sum(-1, keepdim=True)
        # The last is 1 by definition, not up to round-off: what maps to 1 must come back from it.
        cumulated = torch.cat([zero, torch.cumsum(masses[..., :-1] / total, -1), zero + 1], -1)
        return PiecewiseLinear(nodes, values / total, cumulated)

    def cdf(self, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return F(s) and log F′(s), shapes of s (one position for each density)."""
        left, width, w, slope, q = self._bin(self.nodes, s)
        t = s - left
        value = q + t * (w + slope * t / (2 * width))
        return value.clamp(0, 1), torch.log(w + slope * (t / width))

    def quantile(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return s = F⁻¹(q) and log F′(s)."""
        left, width, w, slope, before = self._bin(self.cumulated, q)
        mass = q - before
        root = torch.sqrt((w * w + 2 * slope * mass / width).clamp_min(0))
        t = torch.minimum(2 * mass / (w + root), width)
        return (left + t).clamp(0, 1), torch.log(w + slope * (t / width))

    def _bin(self, edges: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the left node, width, left value, rise of the value and cumulated mass of the bins."""
        i = (at.detach()[..., None] >= edges.detach()[..., 1:-1]).sum(-1, keepdim=True)
        left, right = (self.nodes.gather(-1, j)[..., 0] for j in (i, i + 1))
        w, v = (self.values.gather(-1, j)[..., 0] for j in (i, i + 1))
        return left, right - left, w, v - w, self.cumulated.gather(-1, i)[..., 0]
