"""The Helmholtz equation, Δu + k² u = s on [-1, 1]² with u = sin(πx) sin(4πy) and k = 1, zero on the boundary."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, box_distance, source_of, values


def helmholtz(*, waves: tuple[float, float] = (1.0, 4.0), wavenumber: float = 1.0) -> Problem:
    """The usual benchmark; `waves` are whole numbers of half periods per unit length."""
    box = Box((-1.0, -1.0), (1.0, 1.0))

    def exact(x: Sequence[Jet]) -> Jet:
        return (x[0] * (waves[0] * math.pi)).sin() * (x[1] * (waves[1] * math.pi)).sin()

    def operator(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return u.laplacian + wavenumber**2 * u.value

    source = source_of(exact, operator, laplacian(2))
    return Problem(
        name="helmholtz",
        box=box,
        second_order=laplacian(2),
        residual=lambda x, u, scalars: operator(x, u, scalars) - source(x),
        distance=box_distance(box),
        exact=lambda x: values(exact, x),
    )
