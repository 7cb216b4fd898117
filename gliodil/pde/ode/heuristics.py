"""What an adaptive solver knows about its own work, differentiably: error E and stiffness S of a step.

    E = rms( e / (atol + rtol max(|z|, |z⁺|)) ),   e = h Σ e_i k_i         accepted where E ≤ 1
    S = ‖k_s − k_{s−1}‖ / ‖g_s − g_{s−1}‖,         two stages at one time  (Shampine 1977)

Both are one autograd function each, with the backward written out: on the tape they would be some twenty small
operations per step. Step h, tolerances and the embedded weights are constants. A float32 state is summed in float64,
which costs little and keeps the sum itself from adding to the round-off of its terms.

E is a difference of nearly equal numbers. Its round-off, relative to tolerances, is about

    E_noise ≈ |h| Σ|e_i| ε rms( f / (atol + rtol |z|) )

with ε the precision of the state's dtype. Where E_noise is not small against one, steps are chosen by noise, and the
gradient of E is noise.

Source: Pal, Ma, Shah and Rackauckas, Opening the Blackbox, ICML 2021.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from gliodil.pde.ode.tableaus import Tableau

NOISE_LIMIT = 0.1
"""E_noise above which a solve warns."""


class PrecisionWarning(UserWarning):
    """Tolerances are so near round-off that error estimates, and their gradients, are noise."""


def error_norm(
    z: torch.Tensor,
    z_new: torch.Tensor,
    most: torch.Tensor,
    k_last: torch.Tensor,
    weight: float,
    rtol: float,
    atol: float,
) -> torch.Tensor:
    """Return E of one step, 0-dimensional; gradients flow to all tensors.

    Parameters
    ----------
    z, z_new
        State before and after the step, any shape; the mean runs over all entries.
    most, k_last, weight
        h Σ_{i<s} e_i k_i (`most_of_error`), the last stage and h e_s: together e.
    """
    return _ErrorNorm.apply(rtol, atol, weight, z, z_new, most, k_last)  # type: ignore[no-any-return, no-untyped-call]


def most_of_error(stages: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return Σ w_i k_i over the stages but the last, off the tape and at least in float64."""
    total: torch.Tensor | None = None
    for weight, k in zip(weights, stages, strict=False):
        if weight == 0:
            continue
        if total is None:
            total = (k.double() if k.dtype == torch.float32 else k) * weight
        else:
            total.add_(k, alpha=weight)
    assert total is not None
    return total


def stiffness_estimate(
    k_last: torch.Tensor, k_before: torch.Tensor, g_last: torch.Tensor, g_before: torch.Tensor
) -> torch.Tensor:
    """Return S of one step, 0-dimensional: an estimate of the largest |λ| of ∂f/∂z.

    Zero, with zero gradient, where the two stages coincide and there is nothing to tell.
    """
    return _Stiffness.apply(k_last, k_before, g_last, g_before)  # type: ignore[no-any-return, no-untyped-call]


def noise_floor(h: float, rate: float, tableau: Tableau, dtype: torch.dtype) -> float:
    """Return E_noise of a step of length h; ``rate`` is rms(f / (atol + rtol |z|))."""
    return abs(h) * tableau.round_off * float(torch.finfo(dtype).eps) * rate


def warn_of_noise(noise: float, rtol: float, atol: float, dtype: torch.dtype) -> None:
    """Warn that a solve worked at the level of round-off."""
    message = (
        f"Round-off is {noise:.2g} of what the tolerances rtol = {rtol:g}, atol = {atol:g} allow in {dtype}: steps "
        "follow noise, and gradients of the error estimate are noise. Use float64, looser tolerances, method='dp5', "
        "or a local regularizer in float64."
    )
    warnings.warn(message, PrecisionWarning, stacklevel=4)


def scaled_rms(x: torch.Tensor, z: torch.Tensor, rtol: float, atol: float) -> float:
    """Return rms( x / (atol + rtol |z|) ) as a float."""
    scaled = x.detach().div(z.detach().abs().mul_(rtol).add_(atol))
    return float(torch.linalg.vector_norm(scaled)) / math.sqrt(max(1, x.numel()))


class _ErrorNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rtol: float,
        atol: float,
        weight: float,
        z: torch.Tensor,
        z_new: torch.Tensor,
        most: torch.Tensor,
        k_last: torch.Tensor,
    ) -> torch.Tensor:
        scale = torch.maximum(z.abs(), z_new.abs()).mul_(rtol).add_(atol)
        ratio = torch.add(most, k_last, alpha=weight).div_(scale)
        error: torch.Tensor = torch.linalg.vector_norm(ratio).div_(math.sqrt(max(1, ratio.numel())))
        ctx.save_for_backward(z, z_new, ratio, scale, error)
        ctx.rtol, ctx.weight = rtol, weight
        return error

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        z, z_new, ratio, scale, error = ctx.saved_tensors
        outer = grad / (error.clamp_min(torch.finfo(error.dtype).tiny) * ratio.numel())
        e_bar = (ratio * outer).div_(scale)
        z_bar, new_bar = None, None
        if ctx.rtol:
            scale_bar = (e_bar * ratio).mul_(-ctx.rtol).to(z.dtype)
            before = z.abs() >= z_new.abs()
            both = torch.where(before, z, z_new).sign_().mul_(scale_bar)
            z_bar = torch.where(before, both, 0.0)
            new_bar = both.sub_(z_bar)
        k_bar = (e_bar * ctx.weight).to(z.dtype) if ctx.weight else None
        return (None, None, None, z_bar, new_bar, e_bar, k_bar)


class _Stiffness(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        k_last: torch.Tensor,
        k_before: torch.Tensor,
        g_last: torch.Tensor,
        g_before: torch.Tensor,
    ) -> torch.Tensor:
        rates, states = k_last - k_before, g_last - g_before
        above = torch.linalg.vector_norm(rates)
        below = torch.linalg.vector_norm(states)
        value = torch.where(below > 0, above / below, torch.zeros_like(above))
        ctx.save_for_backward(rates, states, above, below, value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rates, states, above, below, value = ctx.saved_tensors
        known = (above > 0) & (below > 0)
        none = torch.zeros_like(grad)
        k_bar = rates * torch.where(known, grad / (above * below), none)
        g_bar = states * torch.where(known, -grad * value / below.square(), none)
        return k_bar, -k_bar, g_bar, -g_bar
