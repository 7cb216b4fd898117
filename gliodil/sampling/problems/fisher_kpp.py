"""The Fisher-KPP equation, u_t = D u_xx + ρ u (1 - u), with the travelling wave of Ablowitz and Zeppetella:

    u = (1 + exp(ξ/√6))⁻²,     ξ = √(ρ/D) (x - x₀) - (5/√6) ρ t

on [-1, 1] × [0, 1]. The initial value is hard (u = u(x, 0) + t N), the values at both ends are soft.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Condition, Problem, values


def fisher_kpp(*, diffusion: float = 0.004, rate: float = 10.0, start: float = -0.4) -> Problem:
    """The front starts at `start` and moves at 5 √(Dρ/6); coordinates (x, t)."""
    box = Box((-1.0, 0.0), (1.0, 1.0))

    def wave(x: Jet, t: Jet | float) -> Jet:
        xi = (x - start) * math.sqrt(rate / diffusion) - t * (5 * rate / math.sqrt(6))
        # (1 + e^y)⁻¹ without overflow.
        return (0.5 - 0.5 * (xi * (0.5 / math.sqrt(6))).tanh()) ** 2

    def exact(x: Sequence[Jet]) -> Jet:
        return wave(x[0], x[1])

    def residual(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return u.gradient[1] - diffusion * u.second[0] - rate * u.value * (1 - u.value)

    def ends(count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        left = box.face(0, upper=False, count=count // 2, generator=generator, dtype=dtype)
        right = box.face(0, upper=True, count=count - count // 2, generator=generator, dtype=dtype)
        return torch.cat([left, right])

    return Problem(
        name="fisher-kpp",
        box=box,
        second_order=((1.0, 0.0),),
        residual=residual,
        lift=lambda x: wave(x[0], 0.0),
        distance=lambda x: x[1],
        conditions=(Condition(lambda x, u, scalars: u.value - values(exact, x), ends, weight=100.0 * rate),),
        exact=lambda x: values(exact, x),
    )
