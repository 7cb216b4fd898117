"""Activations σ, and Taylor streams (see `derivatives`) through them, forward and back.

With a = σ(z),

    a₀ = σ(z₀)     aᵢ = σ′ zᵢ     a_L = σ′ z_L + σ″ q,   q = Σᵢ cᵢ zᵢ²,

and an adjoint ā of those streams, one per sample, becomes

    z̄ᵢ = σ′ āᵢ + 2 σ″ cᵢ zᵢ ā_L      z̄_L = σ′ ā_L
    z̄₀ = σ′ ā₀ + σ″ (Σᵢ zᵢ āᵢ + z_L ā_L) + σ‴ q ā_L.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

# σ and its first three derivatives at z₀.
Sigma = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _tanh(z: torch.Tensor) -> Sigma:
    t = z.tanh()
    first = 1 - t * t
    return t, first, -2 * t * first, first * (6 * t * t - 2)


def _softplus(z: torch.Tensor) -> Sigma:
    s, without = z.sigmoid(), (-z).sigmoid()
    second = s * without
    return torch.logaddexp(z, torch.zeros_like(z)), s, second, second * (without - s)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], Sigma]] = {"tanh": _tanh, "softplus": _softplus}


def activate(
    z: torch.Tensor,
    coefficients: torch.Tensor,
    value: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    _third: torch.Tensor,
) -> torch.Tensor:
    """Carry streams (S, N, w) through σ, given σ and its derivatives at z₀."""
    d = coefficients.shape[1]
    a = torch.empty_like(z)
    a[0] = value
    a[1:] = first * z[1:]
    for row, c in enumerate(coefficients):
        a[1 + d + row] += second * _square(z[1 : 1 + d], c)
    return a


def activate_adjoint(
    bar: torch.Tensor,
    z: torch.Tensor,
    coefficients: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    third: torch.Tensor,
) -> torch.Tensor:
    """Carry an adjoint of σ's streams back to z."""
    d = coefficients.shape[1]
    out = first * bar
    out[0] += second * (z[1:] * bar[1:]).sum(0)
    for row, c in enumerate(coefficients):
        top = bar[1 + d + row]
        out[0] += third * _square(z[1 : 1 + d], c) * top
        twice = 2 * second * top
        for axis in range(d):
            if c[axis] != 0:
                out[1 + axis] += c[axis] * z[1 + axis] * twice
    return out


def _square(gradient: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Σᵢ cᵢ zᵢ² of a gradient (d, N, w)."""
    return torch.einsum("d,dnw,dnw->nw", c, gradient, gradient)
