"""The change of variables that makes ODIL's minimum cheap to reach, with a hand-written adjoint.

Instead of the density at every space-time entry, take its initial value and the *model error* of every step: the sweep

    (uⁿ⁺¹ − uⁿ)/Δt = ½ [A(uⁿ⁺¹) + A(uⁿ)] + vⁿ/σ

has the residual of the θ-scheme (θ = ½) as its forcing. (u⁰, v) ↔ u is one to one, so a discrete loss evaluated on u
keeps exactly the same minimum, while its physics term becomes ‖v‖². Each step is implicit and solved to a tolerance
(``steps``), so any diffusivity is stable. One loss and gradient = one sweep forward and one adjoint sweep backward
(``loops``).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from gliodil.pde.memory import Memory
from gliodil.pde.odil import loops
from gliodil.pde.odil.steps import Steps
from gliodil.pde.operators import Faces


class Trajectory(NamedTuple):
    """Result of one sweep.

    Attributes
    ----------
    last
        Density at the last level, shape (N,); differentiable.
    bounds
        Σ of the squared distance of u from [0, 1] over all entries; differentiable.
    outside
        Σ u² over the entries of impassable cells; differentiable.
    levels
        All levels, shape (Nt, N); not differentiable.
    """

    last: torch.Tensor
    bounds: torch.Tensor
    outside: torch.Tensor
    levels: torch.Tensor


def sweep(
    u0: torch.Tensor,
    v: torch.Tensor | None,
    coefficients: Faces,
    rho: torch.Tensor,
    impassable: torch.Tensor,
    steps: Steps,
    *,
    count: int | None = None,
    memory: Memory | None = None,
) -> Trajectory:
    """Run the sweep; gradients flow to u⁰, v, the face coefficients and ρ.

    Parameters
    ----------
    u0
        Initial density, shape (N,).
    v
        Scaled model error, shape (Nt − 1, N); one row per step. None: there is none, and ``count`` steps.
    coefficients
        D/h² at the faces [1/day].
    rho
        Proliferation rate [1/day], 0-dimensional.
    impassable
        1 in cells tumour cells cannot enter, 0 elsewhere; shape (N,), the field's dtype.
    memory
        Where the space-time fields come from; new memory by default.
    """
    outputs = _Sweep.apply(  # type: ignore[no-untyped-call]
        u0, v, *coefficients.values, rho, impassable, steps, coefficients.strides, count, memory or Memory()
    )
    return Trajectory(*outputs)


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u0: torch.Tensor,
        v: torch.Tensor | None,
        cx: torch.Tensor,
        cy: torch.Tensor,
        cz: torch.Tensor,
        rho: torch.Tensor,
        impassable: torch.Tensor,
        steps: Steps,
        strides: tuple[int, int, int],
        count: int | None,
        memory: Memory,
    ) -> tuple[torch.Tensor, ...]:
        faces, growth = Faces((cx, cy, cz), strides), float(rho)
        u = memory.empty((count if v is None else v.shape[0]) + 1, u0.shape[0], like=u0)  # type: ignore[operator]
        u[0] = u0
        bounds, outside = loops.forward(u, v, faces, impassable, growth, steps)
        ctx.save_for_backward(u, cx, cy, cz, impassable)
        ctx.steps, ctx.strides, ctx.growth, ctx.with_error = steps, strides, growth, v is not None
        ctx.memory = memory
        ctx.mark_non_differentiable(u)
        return u[-1].clone(), bounds, outside, u

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_last, d_bounds, d_outside, _ = grads
        u, cx, cy, cz, impassable = ctx.saved_tensors
        faces = Faces((cx, cy, cz), ctx.strides)
        # One transfer to the host before the loop; none inside it.
        scales = 2 * float(d_bounds), 2 * float(d_outside)
        adjoint = d_last.clone()
        d_v = ctx.memory.empty(*u[1:].shape, like=u) if ctx.with_error else None
        d_faces, d_rho = loops.backward(adjoint, d_v, u, faces, impassable, ctx.growth, ctx.steps, scales)
        return adjoint, d_v, *d_faces.values, d_rho.to(cx.dtype), None, None, None, None, None
