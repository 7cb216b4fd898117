"""One step of each method: the new state, the two parts of its embedded error, and its stiffness.

    E = rms( (|E₁| + |E₂|) / (atol + rtol max(|u|, |u₁|)) )

E₁ = h Σ kᵢ is the drift's part (how far the drift moves the state, so it never falls faster than h), E₂ the part of
the noise terms that the lower-order method inside does not have. Stiffness S = ‖kᵢ − kⱼ‖ / ‖Hᵢ − Hⱼ‖ compares two
drift stages at one time. Source: C. Rackauckas and Q. Nie, Discrete Contin. Dyn. Syst. B 22, 2731 (2017); for
Euler-Maruyama, H. Lamba, J. Comput. Appl. Math. 161, 417 (2003).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from gliodil.pde.sde.brownian import Increment
from gliodil.pde.sde.tableaus import AdditiveTableau, DiagonalTableau

Field: TypeAlias = Callable[[float, torch.Tensor], torch.Tensor]
"""A right-hand side: (time, state) to a tensor of the state's shape."""
TINY = 1e-30


@dataclass(frozen=True)
class Attempt:
    """A step that may still be rejected. E₁ and E₂ are elementwise; the stage differences are for stiffness."""

    u: torch.Tensor
    E1: torch.Tensor | None
    E2: torch.Tensor | None
    difference: tuple[torch.Tensor, torch.Tensor] | None = None


def step_diagonal(
    tableau: DiagonalTableau, f: Field, g: Field, t: float, u: torch.Tensor, noise: Increment
) -> Attempt:
    """Take one step of an SRI method."""
    h = noise.length
    dW = noise.W
    root = math.sqrt(h)
    chi1 = (dW * dW).sub_(h).div_(2 * root)
    chi2 = noise.J / h
    chi3 = (dW * dW).sub_(3 * h).mul_(dW).div_(6 * h)

    ks: list[torch.Tensor] = []
    gs: list[torch.Tensor] = []
    starts: list[torch.Tensor] = []
    for i in range(len(tableau.alpha)):
        H0 = H1 = u
        if i:
            H0 = torch.addcmul(_along(u, h, tableau.A0[i], ks), chi2, _sum(tableau.B0[i], gs[:i]))
            H1 = _along(_along(u, h, tableau.A1[i], ks), root, tableau.B1[i], gs)
        starts.append(H0)
        ks.append(f(t + tableau.c0[i] * h, H0))
        gs.append(g(t + tableau.c1[i] * h, H1))

    u1 = _along(u, h, tableau.alpha, ks)
    for b1, b2, gi in zip(tableau.beta1, tableau.beta2, gs, strict=True):
        u1 = torch.addcmul(u1, torch.add(b1 * dW, chi1, alpha=b2), gi)
    weights = [
        torch.add(b3 * chi2, chi3, alpha=b4) for b3, b4 in zip(tableau.beta3, tableau.beta4, strict=True)
    ]
    E2 = weights[0] * gs[0]
    for weight, gi in zip(weights[1:], gs[1:], strict=True):
        E2 = torch.addcmul(E2, weight, gi)
    return Attempt(u1 + E2, h * _sum((1.0,) * len(ks), ks), E2, _difference(tableau.equal_stages, ks, starts))


def step_additive(
    tableau: AdditiveTableau, f: Field, g: Field, t: float, u: torch.Tensor, noise: Increment
) -> Attempt:
    """Take one step of an SRA method; g must not depend on the state."""
    h = noise.length
    chi2 = noise.J / h
    gs = [g(t + c * h, u) for c in tableau.c1]
    ks: list[torch.Tensor] = []
    starts: list[torch.Tensor] = []
    for i in range(len(tableau.alpha)):
        H = u
        if i:
            H = torch.addcmul(_along(u, h, tableau.A0[i], ks), chi2, _sum(tableau.B0[i], gs[:i]))
        starts.append(H)
        ks.append(f(t + tableau.c0[i] * h, H))
    E2 = chi2 * _sum(tableau.beta2, gs)
    u1 = torch.addcmul(_along(u, h, tableau.alpha, ks) + E2, noise.W, _sum(tableau.beta1, gs))
    return Attempt(u1, h * _sum((1.0,) * len(ks), ks), E2, _difference(tableau.equal_stages, ks, starts))


def step_euler(f: Field, g: Field, t: float, u: torch.Tensor, noise: Increment, *, estimate: bool) -> Attempt:
    """Take one Euler-Maruyama step u₁ = u + h f + ΔW g; the estimate costs another evaluation of each.

    E₁ = h/2 (f(u + h f) − f(u)) is what Heun's drift would add, E₂ = (g(u + h f + √h g) − g(u)) (ΔW² − h)/(2√h)
    what Milstein's term would.
    """
    h, dW = noise.length, noise.W
    k1, g1 = f(t, u), g(t, u)
    moved = torch.add(u, k1, alpha=h)
    u1 = torch.addcmul(moved, dW, g1)
    if not estimate:
        return Attempt(u1, None, None)
    root = math.sqrt(h)
    E1 = (f(t + h, moved) - k1) * (h / 2)
    E2 = (g(t, torch.add(moved, g1, alpha=root)) - g1) * (dW * dW).sub_(h).div_(2 * root)
    return Attempt(u1, E1, E2)


def scaled_error(attempt: Attempt, u: torch.Tensor, *, atol: float, rtol: float) -> torch.Tensor:
    """Return E as a scalar tensor; a step is accepted where E ≤ 1."""
    assert attempt.E1 is not None
    assert attempt.E2 is not None
    scale = torch.maximum(u.abs(), attempt.u.abs()) * rtol + atol
    ratio = (attempt.E1.abs() + attempt.E2.abs()) / scale
    error: torch.Tensor = torch.linalg.vector_norm(ratio) / math.sqrt(ratio.numel())
    return error


def stiffness(attempt: Attempt) -> torch.Tensor:
    """Return S [1/time] as a scalar tensor; zero where both stages started from the same state."""
    assert attempt.difference is not None
    dk, dH = attempt.difference
    S: torch.Tensor = torch.linalg.vector_norm(dk) / (torch.linalg.vector_norm(dH) + TINY)
    return S


def _along(
    u: torch.Tensor, scale: float, weights: Sequence[float], terms: Sequence[torch.Tensor]
) -> torch.Tensor:
    for weight, term in zip(weights, terms, strict=True):
        if weight:
            u = torch.add(u, term, alpha=scale * weight)
    return u


def _sum(weights: Sequence[float], terms: Sequence[torch.Tensor]) -> torch.Tensor:
    return _along(weights[0] * terms[0], 1.0, weights[1:], terms[1:])


def _difference(
    pair: tuple[int, int] | None, ks: Sequence[torch.Tensor], starts: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    if pair is None:
        return None
    i, j = pair
    return ks[j] - ks[i], starts[j] - starts[i]
