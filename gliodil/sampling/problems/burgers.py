"""Burgers' equation, u_t + u u_x = ν u_xx on [-1, 1] × [0, 1] with u = -sin(πx) at first and 0 at both ends.

A layer of width ν forms at x = 0. The solution is Cole and Hopf's,

    u = -∫ sin(π(x-η)) f(x-η) e^(-η²/4νt) dη / ∫ f(x-η) e^(-η²/4νt) dη,     f(y) = e^(-cos(πy)/2πν),

by the trapezoidal rule, which converges faster than any power here.
"""

from __future__ import annotations

import math

import torch

from gliodil.sampling.derivatives import Jet
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, box_distance

VISCOSITY = 0.01 / math.pi


def burgers(*, viscosity: float = VISCOSITY) -> Problem:
    """The usual benchmark; coordinates (x, t)."""
    box = Box((-1.0, 0.0), (1.0, 1.0))
    walls = box_distance(box, (0,))

    def residual(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return u.gradient[1] + u.value * u.gradient[0] - viscosity * u.second[0]

    return Problem(
        name="burgers",
        box=box,
        second_order=((1.0, 0.0),),
        residual=residual,
        lift=lambda x: -(x[0] * math.pi).sin(),
        distance=lambda x: x[1] * walls(x),
        exact=lambda x: cole_hopf(x, viscosity),
    )


def cole_hopf(x: torch.Tensor, viscosity: float, *, nodes: int = 1201) -> torch.Tensor:
    """Return u at (N, 2): (N,)."""
    z = torch.linspace(-24, 24, nodes, dtype=x.dtype, device=x.device)
    found = []
    for piece in torch.split(x, 4000):
        eta = (4 * viscosity * piece[:, 1:].clamp_min(0)).sqrt() * z
        y = math.pi * (piece[:, :1] - eta)
        exponent = -y.cos() / (2 * math.pi * viscosity) - z**2
        weight = (exponent - exponent.amax(1, keepdim=True)).exp()
        found.append(-(y.sin() * weight).sum(1) / weight.sum(1))
    return torch.cat(found)
