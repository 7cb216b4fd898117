"""-Δu = s on [-1, 1]² with u = sin(πx) sin(πy): smooth, zero on the boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, box_distance, values


def poisson() -> Problem:
    """The smooth problem, boundary values hard."""
    box = Box((-1.0, -1.0), (1.0, 1.0))

    def exact(x: Sequence[Jet]) -> Jet:
        return (x[0] * math.pi).sin() * (x[1] * math.pi).sin()

    def residual(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return -u.laplacian - 2 * math.pi**2 * (math.pi * x).sin().prod(1)

    return Problem(
        name="poisson",
        box=box,
        second_order=laplacian(2),
        residual=residual,
        distance=box_distance(box),
        exact=lambda x: values(exact, x),
    )
