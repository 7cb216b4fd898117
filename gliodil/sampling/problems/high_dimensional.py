"""Gaussian bumps in [-1, 1]^d, d = 10: u = exp(-10 |x|²), manufactured.

    linear       -Δu = s
    nonlinear    -Δu + u - u³ = s

Boundary values are soft: u reaches e⁻¹⁰ at the middle of a face. Points drawn uniformly see u ≈ 0 only, so the
evaluation law is stated: one half of the test points follows a density proportional to u itself (normal, variance 1/20
in every coordinate, inside the box), the other half is uniform; the error is the root mean square difference over all
of them relative to the root mean square of u over the same points.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Condition, Problem, source_of, values


def linear_bump(*, dimension: int = 10) -> Problem:
    """-Δu = s."""
    return _bump("bump-linear", dimension, reaction=False)


def nonlinear_bump(*, dimension: int = 10) -> Problem:
    """-Δu + u - u³ = s."""
    return _bump("bump-nonlinear", dimension, reaction=True)


def _bump(name: str, dimension: int, *, reaction: bool) -> Problem:
    box = Box((-1.0,) * dimension, (1.0,) * dimension)

    def exact(x: Sequence[Jet]) -> Jet:
        square = x[0] * x[0]
        for coordinate in x[1:]:
            square = square + coordinate * coordinate
        return (square * -10.0).exp()

    def operator(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return -u.laplacian + (u.value - u.value**3 if reaction else 0.0)

    source = source_of(exact, operator, laplacian(dimension))
    boundary = Condition(lambda x, u, scalars: u.value - values(exact, x), box.boundary, weight=100.0)
    return Problem(
        name=name,
        box=box,
        second_order=laplacian(dimension),
        residual=lambda x, u, scalars: operator(x, u, scalars) - source(x),
        conditions=(boundary,),
        exact=lambda x: values(exact, x),
        test_points=lambda count, *, generator, dtype: half_on_the_bump(
            box, count, generator=generator, dtype=dtype
        ),
        evaluation="half normal with variance 1/20 per coordinate (∝ u), half uniform in the box",
    )


def half_on_the_bump(box: Box, count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Draw the evaluation law: (count, d)."""
    d, half = box.dimension, count // 2
    device = generator.device
    bump = torch.randn(half, d, generator=generator, dtype=dtype, device=device) / 20**0.5
    # A standard deviation of 0.22: what falls outside (1 in 130,000 coordinates) is drawn back to the face.
    bump = bump.clamp(-1.0, 1.0)
    flat = torch.rand(count - half, d, generator=generator, dtype=dtype, device=device)
    return torch.cat([bump, box.from_unit(flat)])
