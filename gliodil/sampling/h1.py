"""The density that an H¹-penalized adversary chooses, on a regular grid.

    max_p  ∫ r² p dx − β ∫ |∇p|² dx      over  p ≥ 0,  ∫ p dx = 1,      no condition on ∂Ω

is a strictly concave problem (β > 0). With multipliers λ for the mass and μ for the sign, p solves it if and only if

    −2β Δp = r² − λ + μ,   ∂p/∂n = 0,   p ≥ 0,   μ ≥ 0,   μ p = 0,   ∫ p = 1 .

Where p > 0 everywhere, λ is the mean of r² and one cosine transform solves it: p is a constant plus r² smoothed by the
Neumann Poisson solver. Else it is an obstacle problem, p touches zero smoothly and λ exceeds the mean. It is solved by
the alternating direction method of multipliers (ADMM): the penalty and the mass in cosine space, the sign cell by cell.

In the unit cube, P = |Ω| p and u_i = (x_i − a_i)/ℓ_i. *Relative* β: ∫ (r²/mean r²) P du − β ∫ |∇_u P|² du, so that the
points stay adapted while r → 0. *Fixed* β (as published): the functional above in the domain's coordinates; β has the
units of r² · length^(d+2), and the law becomes uniform as r → 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from gliodil.errors import InputError
from gliodil.sampling.domain import Box

BetaKind = Literal["relative", "fixed"]


@dataclass(frozen=True)
class Maximum:
    """The discrete solution and how well its optimality conditions hold.

    Attributes
    ----------
    density
        P = |Ω| p at the cells, shape (n_1, …, n_d); P ≥ 0 and its mean is 1, to round-off.
    level, sign
        The multipliers λ and μ ≥ 0 of the scaled problem (r² divided by its mean).
    stationarity
        Root mean square of −2Σβ_i ∂_i²P − g + λ − μ against that of g − 1, where g = r²/mean r².
    complementarity
        Mean of μP.
    iterations
        Of ADMM; 0 where no sign condition is active.
    converged
        Whether ADMM met its tolerance.
    """

    density: torch.Tensor
    level: float
    sign: torch.Tensor
    stationarity: float
    complementarity: float
    iterations: int
    converged: bool


def stiffness(beta: float, kind: BetaKind, box: Box, mean: float) -> tuple[float, ...]:
    """Return β_i of the scaled problem −2 Σ β_i ∂²P/∂u_i² = r²/mean r² − λ + μ."""
    if not beta > 0:
        raise InputError("The penalty of the density must be positive.", expected="β > 0", found=str(beta))
    if kind == "relative":
        return (beta,) * box.dimension
    return tuple(beta / (box.volume * edge**2 * mean) for edge in box.edges)


def maximize(
    squared: torch.Tensor,
    box: Box,
    *,
    beta: float,
    kind: BetaKind = "relative",
    tolerance: float = 1e-7,
    max_iterations: int = 3000,
) -> Maximum:
    """Return the maximizer for r² given at the cells' centres.

    Parameters
    ----------
    squared
        r², shape (n_1, …, n_d), none negative.
    box
        The domain the cells tile.
    beta, kind
        Penalty; see the module's top.
    tolerance
        ADMM ends when P and its non-negative copy, and successive copies, differ by this fraction of their norm.
    """
    g = squared.to(torch.float64)
    mean = float(g.mean())
    if mean == 0:
        one = torch.ones_like(g)
        return Maximum(one, 0.0, torch.zeros_like(g), 0.0, 0.0, 0, True)
    g = g / mean
    cosine = CosineTransform(tuple(g.shape), g.device)
    K = 2 * cosine.laplacian(stiffness(beta, kind, box, mean))
    first = (0,) * g.ndim

    def solve(right: torch.Tensor, rho: float) -> torch.Tensor:
        c = cosine.forward(right) / (K + rho).clamp_min(1e-300)
        c[first] = math.sqrt(g.numel())  # the mean is 1
        return cosine.inverse(c)

    p = solve(g, 0.0)
    if bool((p >= 0).all()):
        return Maximum(p, 1.0, torch.zeros_like(g), *_conditions(cosine, K, p, g, 1.0, None), 0, True)

    # Between the softest and the stiffest mode; adapted below where the two residuals differ much.
    rho = float(torch.sqrt(K[K > 0].min() * K.max()))
    z = p.clamp_min(0)
    z = z / z.mean()
    y = torch.zeros_like(g)
    converged, iteration = False, 0
    for iteration in range(1, max_iterations + 1):
        p = solve(g + rho * (z - y), rho)
        relaxed = 1.7 * p - 0.7 * z
        before, z = z, (relaxed + y).clamp_min(0)
        y = y + relaxed - z
        size = max(float(p.norm()), float(z.norm()))
        apart, moved = float((p - z).norm()) / size, float((z - before).norm()) / size
        if max(apart, moved) < tolerance:
            converged = True
            break
        if iteration % 10 == 0 and not 0.2 * moved < apart < 5 * moved:
            factor = 2.0 if apart > moved else 0.5
            rho, y = rho * factor, y / factor
    sign = (-rho * y).clamp_min(0)
    P = z / z.mean()
    level = float((g + sign).mean())  # the mean of −∂²P is zero
    return Maximum(P, level, sign, *_conditions(cosine, K, P, g, level, sign), iteration, converged)


def _conditions(
    cosine: CosineTransform,
    K: torch.Tensor,
    P: torch.Tensor,
    g: torch.Tensor,
    level: float,
    sign: torch.Tensor | None,
) -> tuple[float, float]:
    gap = cosine.inverse(K * cosine.forward(P)) - g + level
    if sign is not None:
        gap = gap - sign
    size = (g - 1).norm().clamp_min(1e-300)
    return float(gap.norm() / size), 0.0 if sign is None else float((sign * P).mean())


class CosineTransform:
    """The orthonormal cosine transform between cell centres (type II) of every axis, as small dense products."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.matrices = []
        for n in shape:
            k = torch.arange(n, dtype=torch.float64, device=device)
            matrix = torch.cos(math.pi / n * k[:, None] * (k[None, :] + 0.5)) * math.sqrt(2 / n)
            matrix[0] /= math.sqrt(2)
            self.matrices.append(matrix)
        self.shape = shape
        self.device = device

    def forward(self, f: torch.Tensor) -> torch.Tensor:
        """Return the coefficients of a field."""
        for axis, matrix in enumerate(self.matrices):
            f = torch.tensordot(f, matrix, dims=([axis], [1])).movedim(-1, axis)
        return f

    def inverse(self, c: torch.Tensor) -> torch.Tensor:
        """Return the field of coefficients."""
        for axis, matrix in enumerate(self.matrices):
            c = torch.tensordot(c, matrix, dims=([axis], [0])).movedim(-1, axis)
        return c

    def laplacian(self, weights: tuple[float, ...]) -> torch.Tensor:
        """Return the eigenvalues of −Σ w_i ∂_i², three-point differences between cells, no flux through faces."""
        total = torch.zeros(self.shape, dtype=torch.float64, device=self.device)
        for axis, (n, w) in enumerate(zip(self.shape, weights, strict=True)):
            k = torch.arange(n, dtype=torch.float64, device=self.device)
            line = w * n**2 * (2 - 2 * torch.cos(math.pi * k / n))
            total = total + line.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
        return total
