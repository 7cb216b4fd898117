"""A problem of `gliodil.sampling` for libraries that differentiate their own networks.

    u = G + D N,     ∂ᵢu and Σᵢ c_ki ∂ᵢᵢu by autograd (`jet_of`) or at one point by torch.func (`jet_at`)

Both become the jet that residuals are written in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from gliodil.sampling.derivatives import Jet
from gliodil.sampling.problems.problem import Condition, Problem, Residual, values


def harden(problem: Problem, x: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Return u = G + D N at x (N, d) from the network's N (N, 1): (N, 1)."""
    u = raw if problem.distance is None else values(problem.distance, x)[:, None] * raw
    return u if problem.lift is None else values(problem.lift, x)[:, None] + u


def interior(problem: Problem, x: torch.Tensor, u: Jet) -> torch.Tensor:
    """Return r, zero outside a domain that is no box: (N, 1)."""
    r = _evaluate(problem.residual, x, u)
    return r if problem.inside is None else r * problem.inside(x)[:, None]


def boundary(condition: Condition, x: torch.Tensor, u: Jet) -> torch.Tensor:
    """Return b of a soft condition: (N, 1)."""
    return _evaluate(condition.residual, x, u)


def jet_of(problem: Problem, x: torch.Tensor, u: torch.Tensor) -> Jet:
    """Return the jet of u (N, 1), which was computed from x (N, d) by autograd."""
    c = _coefficients(problem, u)

    def slope(of: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(of.sum(), x, create_graph=True)[0]

    first = slope(u)
    second = [
        slope(first[:, axis])[:, axis] if bool(c[:, axis].any()) else torch.zeros_like(u[:, 0])
        for axis in range(c.shape[1])
    ]
    return Jet(torch.cat([u.T, first.T, c @ torch.stack(second)]), c)


def jet_at(problem: Problem, x: torch.Tensor, u: Callable[[torch.Tensor], torch.Tensor]) -> Jet:
    """Return the jet of the function u: (d,) ↦ () at the one point x (d,)."""
    c = _coefficients(problem, x)

    def slope(y: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        first, value = torch.func.jacrev(lambda z: (u(z), u(z)), has_aux=True)(y)
        return first, (first, value)

    hessian, (first, value) = torch.func.jacrev(slope, has_aux=True)(x)
    return Jet(torch.cat([value[None], first, c @ hessian.diagonal()])[:, None], c)


def _coefficients(problem: Problem, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(problem.second_order, dtype=like.dtype).reshape(-1, problem.box.dimension)


def _evaluate(residual: Residual, x: torch.Tensor, u: Jet) -> torch.Tensor:
    return residual(x, u, x.new_empty(x.shape[0], 0))[:, None]
