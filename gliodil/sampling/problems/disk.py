"""-Δu = s on the unit disk, u = (1 - |x|²) e^x: a domain that is no box, through its distance function 1 - |x|²."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, source_of, values


def disk() -> Problem:
    """The smooth problem in the disk inscribed in [-1, 1]²."""

    def distance(x: Sequence[Jet]) -> Jet:
        return 1.0 - (x[0] * x[0] + x[1] * x[1])

    def exact(x: Sequence[Jet]) -> Jet:
        return distance(x) * x[0].exp()

    def operator(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return -u.laplacian

    source = source_of(exact, operator, laplacian(2))
    return Problem(
        name="disk",
        box=Box((-1.0, -1.0), (1.0, 1.0)),
        second_order=laplacian(2),
        residual=lambda x, u, scalars: operator(x, u, scalars) - source(x),
        distance=distance,
        exact=lambda x: values(exact, x),
        inside=lambda x: x.square().sum(-1) < 1,
        evaluation="uniform in the disk",
    )
