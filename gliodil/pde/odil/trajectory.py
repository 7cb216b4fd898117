"""The change of variables that makes ODIL's minimum cheap to reach, with a hand-written adjoint.

Instead of the density at every space-time entry, take its initial value and the *model error* of every step:

    u^{n+1} = u^n + Δt (F^n + v^n/σ),      F^n = increment of a stable one-step or two-step scheme

(u⁰, v) ↔ u is one to one, so a discrete loss evaluated on u keeps exactly the same minimum, but its physics
term is now almost the plain sum of squares of v:

    r^{n+1} = (u^{n+1} − u^n)/Δt − ½ [A(u^{n+1}) + A(u^n)]  =  v^n/σ + F^n − ½ [A(u^{n+1}) + A(u^n)]

with F second-order accurate (``steps``) the bracket is a second difference in time. One loss and gradient = one sweep
forward and one adjoint sweep backward; both cost about one application of A per step. Sums over a level are taken in
the field's precision, sums over levels in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from gliodil.pde.odil import loops
from gliodil.pde.odil.steps import Steps, rkl2_weights
from gliodil.pde.operators import Faces


class Trajectory(NamedTuple):
    """Result of one sweep.

    Attributes
    ----------
    last
        Density at the last level, shape (N,); differentiable.
    pde
        Σ (σ r)² over all steps and cells; differentiable.
    bounds
        Σ of the squared distance of u from [0, 1] over all entries; differentiable.
    outside
        Σ u² over the entries of impassable cells; differentiable.
    levels
        All levels, shape (Nt, N); not differentiable.
    """

    last: torch.Tensor
    pde: torch.Tensor
    bounds: torch.Tensor
    outside: torch.Tensor
    levels: torch.Tensor


def sweep(
    u0: torch.Tensor,
    v: torch.Tensor,
    coefficients: Faces,
    rho: torch.Tensor,
    impassable: torch.Tensor,
    steps: Steps,
) -> Trajectory:
    """Run the sweep; gradients flow to u⁰, v, the face coefficients and ρ.

    Parameters
    ----------
    u0
        Initial density, shape (N,).
    v
        Scaled model error, shape (Nt − 1, N); one row per step.
    coefficients
        D/h² at the faces [1/day].
    rho
        Proliferation rate [1/day], 0-dimensional.
    impassable
        1 in cells tumour cells cannot enter, 0 elsewhere; shape (N,), the field's dtype.
    """
    outputs = _Sweep.apply(  # type: ignore[no-untyped-call]
        u0, v, *coefficients.values, rho, impassable, steps, coefficients.strides
    )
    return Trajectory(*outputs)


def unroll(
    u0: torch.Tensor, v: torch.Tensor, rate: Callable[[torch.Tensor], torch.Tensor], steps: Steps
) -> torch.Tensor:
    """Return all levels, shape (Nt, N), by plain torch operations: the definition that ``sweep`` is tested against.

    Differentiable to any order and in forward mode, at the memory of a full tape.
    """
    levels, a = [u0], rate(u0)
    before = a
    for n in range(v.shape[0]):
        u = levels[-1]
        increment = _increment(n, u, a, before, rate, steps)
        levels.append(u + steps.dt * (increment + v[n] / steps.sigma))
        before, a = a, rate(levels[-1])
    return torch.stack(levels)


def model_error(
    levels: torch.Tensor, rate: Callable[[torch.Tensor], torch.Tensor], steps: Steps
) -> torch.Tensor:
    """Return the v that leads through given levels: the inverse of ``unroll``, shape (Nt − 1, N)."""
    v = torch.empty_like(levels[1:])
    before = levels[0]
    for n in range(v.shape[0]):
        a = rate(levels[n])
        slope = (levels[n + 1] - levels[n]) / steps.dt
        v[n] = (slope - _increment(n, levels[n], a, before, rate, steps)) * steps.sigma
        before = a
    return v


def _increment(
    n: int,
    u: torch.Tensor,
    a: torch.Tensor,
    before: torch.Tensor,
    rate: Callable[[torch.Tensor], torch.Tensor],
    steps: Steps,
) -> torch.Tensor:
    if steps.stages > 1:
        return _rkl_increment(u, a, rate, steps)
    return a if n == 0 else 1.5 * a - 0.5 * before


def _rkl_increment(
    u: torch.Tensor, a0: torch.Tensor, rate: Callable[[torch.Tensor], torch.Tensor], steps: Steps
) -> torch.Tensor:
    mu_1, weights = rkl2_weights(steps.stages)
    earlier, z = torch.zeros_like(u), mu_1 * steps.dt * a0
    for mu, nu, mu_t, gamma_t in weights:
        advanced = mu_t * steps.dt * rate(u + z) + gamma_t * steps.dt * a0
        earlier, z = z, mu * z + nu * earlier + advanced
    return z / steps.dt


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        u0: torch.Tensor,
        v: torch.Tensor,
        cx: torch.Tensor,
        cy: torch.Tensor,
        cz: torch.Tensor,
        rho: torch.Tensor,
        impassable: torch.Tensor,
        steps: Steps,
        strides: tuple[int, int, int],
    ) -> tuple[torch.Tensor, ...]:
        faces, growth = Faces((cx, cy, cz), strides), float(rho)
        u, r = v.new_empty(v.shape[0] + 1, u0.shape[0]), torch.empty_like(v)
        u[0] = u0
        pde, bounds, outside = loops.forward(u, r, v, faces, impassable, growth, steps)
        ctx.save_for_backward(u, r, cx, cy, cz, impassable)
        ctx.steps, ctx.strides, ctx.growth = steps, strides, growth
        ctx.mark_non_differentiable(u)
        return u[-1].clone(), pde * steps.sigma**2, bounds, outside, u

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_last, d_pde, d_bounds, d_outside, _ = grads
        u, r, cx, cy, cz, impassable = ctx.saved_tensors
        steps: Steps = ctx.steps
        faces = Faces((cx, cy, cz), ctx.strides)
        # One transfer to the host before the loop; none inside it.
        scales = tuple(
            2 * float(d) * f for d, f in ((d_pde, steps.sigma**2), (d_bounds, 1.0), (d_outside, 1.0))
        )
        adjoint, d_v = d_last.clone(), torch.empty_like(r)
        d_faces, d_rho = loops.backward(adjoint, d_v, u, r, faces, impassable, ctx.growth, steps, scales)
        return adjoint, d_v, *d_faces.values, d_rho.to(cx.dtype), None, None, None
