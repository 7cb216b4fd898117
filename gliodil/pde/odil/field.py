r"""What a discrete loss sees of every level of a space-time field, with a hand-written gradient.

    S = Σ_{n ≥ 1} ‖rⁿ‖²,     rⁿ = (uⁿ − uⁿ⁻¹)/Δt − ½ [A(uⁿ) + A(uⁿ⁻¹)]        [1/day]   (``residual``)
    B = Σ_n ‖uⁿ − clamp(uⁿ, 0, 1)‖²,     O = Σ_n Σ_{impassable} (uⁿ)²

With r⁰ = r^{Nt} = 0 and wⁿ = −(rⁿ + rⁿ⁺¹),

    ∂S/∂uⁿ = 2 (rⁿ − rⁿ⁺¹)/Δt + A′(uⁿ)ᵀ wⁿ,      ∂S/∂(c, ρ) = Σ_n (∂A/∂(c, ρ) at uⁿ)ᵀ wⁿ

and A′ is its own transpose: diffusion is symmetric (``operators``), the reaction acts cell by cell.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from gliodil.pde.fused import SPREAD, arrays, scalars, threads
from gliodil.pde.memory import empty
from gliodil.pde.odil import field_sweeps
from gliodil.pde.operators import Faces


class FieldSquares(NamedTuple):
    """Sums over all entries, and the two levels that a loss sees otherwise.

    Attributes
    ----------
    physics, bounds, outside
        S [1/day²], B and O, 0-dimensional, float64.
    first, last
        u⁰ and the last level, shape (N,).
    """

    physics: torch.Tensor
    bounds: torch.Tensor
    outside: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor


def field_squares(
    u: torch.Tensor, coefficients: Faces, rho: torch.Tensor, impassable: torch.Tensor, *, dt: float
) -> FieldSquares:
    """Return what is seen of u; gradients flow to u, the face coefficients and ρ. For CPUs (``fused.applies``).

    Parameters
    ----------
    u
        Density at every level, shape (Nt, N), Nt ≥ 2.
    coefficients
        D/h² at the faces [1/day], in the precision of u.
    rho
        Proliferation rate [1/day], 0-dimensional.
    impassable
        1 in cells tumour cells cannot enter, 0 elsewhere; shape (N,), in the precision of u.
    dt
        Distance of the levels [day].
    """
    outputs = _FieldSquares.apply(  # type: ignore[no-untyped-call]
        u.contiguous(), *coefficients.values, rho, impassable, coefficients.strides, dt
    )
    return FieldSquares(*outputs)


class _FieldSquares(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u: torch.Tensor,
        cx: torch.Tensor,
        cy: torch.Tensor,
        cz: torch.Tensor,
        rho: torch.Tensor,
        impassable: torch.Tensor,
        strides: tuple[int, int, int],
        dt: float,
    ) -> tuple[torch.Tensor, ...]:
        r = empty(u.shape[0] - 1, u.shape[1], like=u)
        with threads(u.shape[1]) as parts:
            sums = np.zeros((parts, SPREAD))
            field_sweeps.squares(
                u.numpy(),
                r.numpy(),
                arrays(Faces((cx, cy, cz), strides)),
                impassable.numpy(),
                strides,
                scalars(u, float(rho), 1 / dt, 0.5),
                sums,
                empty(2 * parts, u.shape[1], like=u).numpy(),
            )
        ctx.save_for_backward(u, r, cx, cy, cz, rho, impassable)
        ctx.strides, ctx.dt = strides, dt
        physics, bounds, outside = torch.from_numpy(sums[:, :3].sum(axis=0))
        return physics, bounds, outside, u[0].clone(), u[-1].clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        physics, bounds, outside = (float(g) for g in grads[:3])
        u, r, cx, cy, cz, rho, impassable = ctx.saved_tensors
        d_u = empty(*u.shape, like=u)
        x, y, z = (torch.zeros_like(c) for c in (cx, cy, cz))
        with threads(u.shape[1]) as parts:
            sums = np.zeros((parts, SPREAD))
            field_sweeps.gradient(
                d_u.numpy(),
                arrays(Faces((x, y, z), ctx.strides)),
                u.numpy(),
                r.numpy(),
                arrays(Faces((cx, cy, cz), ctx.strides)),
                impassable.numpy(),
                ctx.strides,
                scalars(u, float(rho), -physics, 2 * physics / ctx.dt, 2 * bounds, 2 * outside),
                sums,
                empty(parts, u.shape[1], like=u).numpy(),
            )
        d_u[0] += grads[3]
        d_u[-1] += grads[4]
        return d_u, x, y, z, rho.new_tensor(sums[:, 0].sum()), None, None, None
