"""Convection and diffusion across a curved internal layer, manufactured: not Gaussian, not along an axis.

    -ε Δu + b·∇u = s,     u = tanh((|x|² - ¼)/δ),     ε = 0.01, b = (1, ½), δ = 0.02 on [-1, 1]²

The layer is a circle of radius ½ and about 0.02 wide; on the boundary u = 1 to double precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet, constant, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, box_distance, source_of, values


def ring_layer(*, epsilon: float = 0.01, width: float = 0.02) -> Problem:
    """The circular layer; `width` is δ."""
    box = Box((-1.0, -1.0), (1.0, 1.0))

    def exact(x: Sequence[Jet]) -> Jet:
        return ((x[0] * x[0] + x[1] * x[1] - 0.25) / width).tanh()

    def operator(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return -epsilon * u.laplacian + u.gradient[0] + 0.5 * u.gradient[1]

    source = source_of(exact, operator, laplacian(2))

    def residual(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return operator(x, u, scalars) - source(x)

    return Problem(
        name="ring-layer",
        box=box,
        second_order=laplacian(2),
        residual=residual,
        lift=lambda x: constant(1.0, x[0]),
        distance=box_distance(box),
        exact=lambda x: values(exact, x),
    )
