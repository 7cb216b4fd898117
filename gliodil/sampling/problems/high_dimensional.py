"""Gaussian bumps in [-1, 1]^d, d = 10: u = exp(-10 |x|²), manufactured.

    linear       -Δu = s
    nonlinear    -Δu + u - u³ = s

Boundary values are hard. u reaches e⁻¹⁰ at the middle of a face; the lift is made of the values g on the faces alone, by
weights of inverse distance (transfinite interpolation),

    G(x) = Σᵢ wᵢ gᵢ(x) / Σᵢ wᵢ,     wᵢ = 1/(1 - xᵢ²),     gᵢ(x) = g(x with xᵢ = ±1),

which near face i is gᵢ, as wᵢ is unbounded there (both faces of an axis have the same g here).

Points drawn uniformly see u ≈ 0 only, so the evaluation law is stated: one half of the test points follows a density
proportional to u itself (normal, variance 1/20 in every coordinate, inside the box), the other half is uniform; the
error is the root mean square difference over all of them relative to the root mean square of u over the same points.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import torch

from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, box_distance, source_of, values

ON_A_FACE = 1e-12
"""Keeps the weights finite on the faces."""


def linear_bump(*, dimension: int = 10) -> Problem:
    """-Δu = s."""
    return _bump("bump-linear", dimension, reaction=False)


def nonlinear_bump(*, dimension: int = 10) -> Problem:
    """-Δu + u - u³ = s."""
    return _bump("bump-nonlinear", dimension, reaction=True)


def _bump(name: str, dimension: int, *, reaction: bool) -> Problem:
    box = Box((-1.0,) * dimension, (1.0,) * dimension)

    def exact(x: Sequence[Jet]) -> Jet:
        return (total([c * c for c in x]) * -10.0).exp()

    def equation(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return -u.laplacian + (u.value - u.value**3 if reaction else 0.0)

    def lift(x: Sequence[Jet]) -> Jet:
        square = total([c * c for c in x])
        weights = [(1.0 + ON_A_FACE - c * c) ** -1 for c in x]
        faces = [w * ((square - c * c + 1.0) * -10.0).exp() for w, c in zip(weights, x, strict=True)]
        return total(faces) / total(weights)

    source = source_of(exact, equation, laplacian(dimension))
    return Problem(
        name=name,
        box=box,
        second_order=laplacian(dimension),
        residual=lambda x, u, scalars: equation(x, u, scalars) - source(x),
        lift=lift,
        distance=box_distance(box),
        exact=lambda x: values(exact, x),
        test_points=lambda count, *, generator, dtype: half_on_the_bump(
            box, count, generator=generator, dtype=dtype
        ),
        evaluation="half normal with variance 1/20 per coordinate (∝ u), half uniform in the box",
    )


def total(terms: Sequence[Jet]) -> Jet:
    """Return the sum."""
    return reduce(operator.add, terms)


def half_on_the_bump(box: Box, count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Draw the evaluation law: (count, d)."""
    d, half = box.dimension, count // 2
    device = generator.device
    bump = torch.randn(half, d, generator=generator, dtype=dtype, device=device) / 20**0.5
    # A standard deviation of 0.22: what falls outside (1 in 130,000 coordinates) is drawn back to the face.
    bump = bump.clamp(-1.0, 1.0)
    flat = torch.rand(count - half, d, generator=generator, dtype=dtype, device=device)
    return torch.cat([bump, box.from_unit(flat)])
