"""What the grid solvers solve: diffusion through the faces of a grid, and a reaction in every cell.

    ∂u/∂t = ∇·(D∇u) + f(u, x)

The diffusion is the one of ``operators``: face coefficients D/h², zero flux at the border, at the tissue mask and
where storage wraps. A reaction gives its rate f for explicit steps and its flow (the exact growth over some days
without diffusion) for splittings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch

from gliodil.pde import fused
from gliodil.pde.grid import Grid
from gliodil.pde.models.fisher_kolmogorov import reaction as logistic_rate
from gliodil.pde.operators import Faces, add_diffusion_, spectral_bound

LARGEST_SHIFT = 60.0
"""Log-odds beyond which a density is 0 or 1 in every precision."""


class Reaction(Protocol):
    """Growth in a cell, without diffusion."""

    def rate(self, u: torch.Tensor) -> torch.Tensor:
        """Return f(u) [1/day], shape (N,)."""

    def flow(self, u: torch.Tensor, days: float) -> torch.Tensor:
        """Return v(days) where dv/dt = f(v), v(0) = u; in [0, 1] where u is."""

    def stiffness(self) -> float:
        """Return a bound of |∂f/∂u| on [0, 1] [1/day]."""


@dataclass(frozen=True)
class Logistic:
    """f = ρ|u|(1 − u), whose flow is known: u e^{ρt} / (1 + u (e^{ρt} − 1)).

    Attributes
    ----------
    rho
        ρ [1/day], a number or a tensor that is differentiated.
    """

    rho: float | torch.Tensor

    def rate(self, u: torch.Tensor) -> torch.Tensor:
        """Return f(u) [1/day]."""
        return logistic_rate(u, self.rho)

    def flow(self, u: torch.Tensor, days: float) -> torch.Tensor:
        """Return the density after some days of growth alone."""
        return shift_log_odds(u, self.rho * days)

    def stiffness(self) -> float:
        """Return |ρ| [1/day]."""
        return abs(float(self.rho.detach() if isinstance(self.rho, torch.Tensor) else self.rho))


def shift_log_odds(u: torch.Tensor, shift: float | torch.Tensor) -> torch.Tensor:
    """Return the density whose log-odds ln u/(1−u) are larger by ``shift``; keeps 0, 1 and what lies between."""
    if isinstance(shift, torch.Tensor):
        factor = torch.expm1(shift.clamp(-LARGEST_SHIFT, LARGEST_SHIFT))
        return (1 + factor) * u / (1 + factor * u)
    grown = math.expm1(min(max(shift, -LARGEST_SHIFT), LARGEST_SHIFT))
    return u.mul(1 + grown).div(u.mul(grown).add_(1))


@dataclass(frozen=True)
class ReactionDiffusion:
    """The equation on a grid.

    Attributes
    ----------
    grid
        Where it is solved; fields are flat, shape (N,).
    coefficients
        D/h² at the faces [1/day], for instance from ``FisherKolmogorov.coefficients``.
    reaction
        Growth in a cell.
    """

    grid: Grid
    coefficients: Faces
    reaction: Reaction

    def rate(self, u: torch.Tensor) -> torch.Tensor:
        """Return ∇·(D∇u) + f(u) [1/day], differentiable in u, the coefficients and the reaction."""
        if isinstance(self.reaction, Logistic) and fused.applies(u) and not taped(u, self.coefficients):
            rho = self.reaction.rho
            if not (isinstance(rho, torch.Tensor) and rho.requires_grad and torch.is_grad_enabled()):
                out = torch.empty_like(u)
                fused.rate_(out, u.detach(), self.coefficients, float(rho))
                return out
        return self.diffusion(u).add(self.reaction.rate(u))

    def diffusion(self, u: torch.Tensor) -> torch.Tensor:
        """Return ∇·(D∇u) [1/day], differentiable in u and the coefficients."""
        if not taped(u, self.coefficients):
            return _diffuse(u.detach(), self.coefficients)
        out: torch.Tensor = _Diffusion.apply(u, self.coefficients.strides, *self.coefficients.values)  # type: ignore[no-untyped-call]
        return out

    @cached_property
    def bound(self) -> float:
        """Bound of the spectrum of −∇·(D∇) [1/day] (Gershgorin)."""
        return float(spectral_bound(self.coefficients, self.grid.cells))


def taped(u: torch.Tensor, coefficients: Faces) -> bool:
    """Whether a gradient through the diffusion of u is asked for."""
    asked = u.requires_grad or any(c.requires_grad for c in coefficients.values)
    return asked and torch.is_grad_enabled()


def _diffuse(u: torch.Tensor, coefficients: Faces) -> torch.Tensor:
    if fused.applies(u):
        out = torch.empty_like(u)
        fused.rate_(out, u.contiguous(), coefficients, 0.0)
        return out
    out = torch.zeros_like(u)
    add_diffusion_(out, u, Faces(_detached(coefficients), coefficients.strides), torch.empty_like(u))
    return out


def _detached(coefficients: Faces) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y, z = (c.detach() for c in coefficients.values)
    return x, y, z


class _Diffusion(torch.autograd.Function):
    """∇·(D∇u) keeping only u: the operator is its own adjoint, and ∂L/∂c = −(Δμ)(Δu) at every face."""

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor, strides: tuple[int, int, int], *c: torch.Tensor) -> torch.Tensor:
        ctx.strides = strides
        ctx.save_for_backward(u, *c)
        return _diffuse(u, Faces((c[0], c[1], c[2]), strides))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (mu,) = gradients
        u, *c = ctx.saved_tensors
        of_u = _diffuse(mu, Faces((c[0], c[1], c[2]), ctx.strides)) if ctx.needs_input_grad[0] else None
        return (of_u, None, *face_gradient(mu, u, ctx.strides, ctx.needs_input_grad[2:]))


def face_gradient(
    mu: torch.Tensor, u: torch.Tensor, strides: tuple[int, int, int], wanted: tuple[bool, ...]
) -> list[torch.Tensor | None]:
    """Return ∂/∂c of Σ μ ∇·(c∇u) at the faces of each axis, −(Δμ)(Δu); None where not wanted."""
    found: list[torch.Tensor | None] = []
    for s, want in zip(strides, wanted, strict=True):
        n = max(u.shape[0] - s, 0)
        found.append((mu[s:] - mu[:n]) * (u[:n] - u[s:]) if want else None)
    return found
