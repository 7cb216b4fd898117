"""Gaussian peaks in [-1, 1]², manufactured: -Δu = s with one or nine peaks, and the two-peak equation

    -∇·(u ∇|x|²) + Δu = s.

On one peak the zero function has a mean square error of 3.9e-4: the relative L2 error is the one to quote.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gliodil.sampling.derivatives import Jet, laplacian
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.problem import Field, Problem, Residual, box_distance, source_of, values

SHARPNESS = 1000.0  # the peak is exp(-1000 |x - c|²): a standard deviation of 0.022
SQUARE = Box((-1.0, -1.0), (1.0, 1.0))


def one_peak() -> Problem:
    """-Δu = s with u = exp(-1000 |x - (½, ½)|²)."""
    return _manufactured("one-peak", ((0.5, 0.5),), _minus_laplacian)


def two_peaks() -> Problem:
    """-∇·(u ∇|x|²) + Δu = s with peaks at (½, ½) and (-½, -½)."""
    return _manufactured("two-peaks", ((0.5, 0.5), (-0.5, -0.5)), _drift)


def nine_peaks() -> Problem:
    """-Δu = s with peaks at {-½, 0, ½}²."""
    places = (-0.5, 0.0, 0.5)
    return _manufactured("nine-peaks", tuple((a, b) for a in places for b in places), _minus_laplacian)


def _minus_laplacian(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
    return -u.laplacian


def _drift(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
    # ∇·(u 2x) = 2 x·∇u + 4 u in two dimensions.
    return u.laplacian - 2 * (x.T * u.gradient).sum(0) - 4 * u.value


def _manufactured(name: str, centres: Sequence[tuple[float, float]], operator: Residual) -> Problem:
    exact = _sum_of_peaks(centres)
    source = source_of(exact, operator, laplacian(2))

    def residual(x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        return operator(x, u, scalars) - source(x)

    # Off its own centre by half a unit or more a peak is below e^-250, so zero boundary values are exact.
    return Problem(
        name=name,
        box=SQUARE,
        second_order=laplacian(2),
        residual=residual,
        distance=box_distance(SQUARE),
        exact=lambda x: values(exact, x),
        test_points=_grid,
        evaluation="256 × 256 cell centres",
    )


def _sum_of_peaks(centres: Sequence[tuple[float, float]]) -> Field:
    def exact(x: Sequence[Jet]) -> Jet:
        peaks = [(((x[0] - a) ** 2 + (x[1] - b) ** 2) * -SHARPNESS).exp() for a, b in centres]
        total = peaks[0]
        for peak in peaks[1:]:
            total = total + peak
        return total

    return exact


def _grid(count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    """Return the 256 × 256 grid whatever the count: the peaks must not be missed."""
    line = (torch.arange(256, dtype=dtype, device=generator.device) + 0.5) / 128 - 1
    return torch.cartesian_prod(line, line)
