"""A parametric family: -Δu = s in x and y for every place c of a peak, u = exp(-200 [(x - c)² + y²]), |c| ≤ ½.

The parameter is the third coordinate of the box; no derivative is taken in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Problem, box_distance, source_of, values


def moving_peak(*, sharpness: float = 200.0) -> Problem:
    """The family; coordinates (x, y, c)."""
    box = Box((-1.0, -1.0, -0.5), (1.0, 1.0, 0.5))
    second_order = ((1.0, 1.0, 0.0),)

    def exact(x: Sequence[Jet]) -> Jet:
        off = x[0] - x[2]
        return ((off * off + x[1] * x[1]) * -sharpness).exp()

    def operator(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return -u.laplacian

    source = source_of(exact, operator, second_order)
    return Problem(
        name="moving-peak",
        box=box,
        second_order=second_order,
        residual=lambda x, u, scalars: operator(x, u, scalars) - source(x),
        distance=box_distance(box, (0, 1)),
        exact=lambda x: values(exact, x),
    )
