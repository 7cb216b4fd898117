"""The change of variables that makes ODIL's minimum cheap to reach, with a hand-written adjoint.

Instead of the density at every space-time entry, take its initial value and the *model error* of every step:

    u^{n+1} = u^n + Δt (F^n + v^n/σ),      F^n = increment of a stable one-step or two-step scheme

(u⁰, v) ↔ u is one to one, so a discrete loss evaluated on u keeps exactly the same minimum, but its physics
term is now almost the plain sum of squares of v:

    r^{n+1} = (u^{n+1} − u^n)/Δt − ½ [A(u^{n+1}) + A(u^n)]  =  v^n/σ + F^n − ½ [A(u^{n+1}) + A(u^n)]

with F second-order accurate, the bracket is a second difference in time. Two increments are used:

    Adams-Bashforth    F^n = (3 A^n − A^{n−1})/2, F⁰ = A⁰      λΔt ≤ 0.9: one evaluation a step
    RKL2, s stages     Runge-Kutta-Legendre (Meyer, Balsara & Aslam, J. Comput. Phys. 2014), λΔt ≤ (s² + s − 2)/2

where λ bounds the diffusion operator's spectrum. One loss and gradient = one sweep forward and one adjoint sweep
backward; both cost about one application of A per step. Sums over a level are taken in the field's precision,
sums over levels in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from gliodil.errors import NumericsError
from gliodil.pde.integrate import rate_
from gliodil.pde.models.fisher_kolmogorov import reaction_slope
from gliodil.pde.operators import Faces

ADAMS_LIMIT = 0.9
"""Largest λΔt for the two-step increment (its stability interval ends at 1)."""
RKL_SAFETY = 0.9
"""Fraction of the RKL2 stability interval that is used."""


def stages_needed(stiffness: float) -> int:
    """Return 1 (Adams-Bashforth) or the odd number of RKL2 stages that is stable for λΔt = ``stiffness``."""
    if not math.isfinite(stiffness):
        raise NumericsError("The diffusion coefficients are not finite.", found=f"stiffness {stiffness}")
    if stiffness <= ADAMS_LIMIT:
        return 1
    stages = 3
    while stiffness > stiffness_limit(stages):
        stages += 2
    return stages


def stiffness_limit(stages: int) -> float:
    """Return the largest λΔt that ``stages`` can take."""
    return ADAMS_LIMIT if stages == 1 else RKL_SAFETY * (stages**2 + stages - 2) / 2


@dataclass(frozen=True)
class Steps:
    """How the sweep advances.

    Attributes
    ----------
    dt
        Distance of the time levels [day].
    sigma
        Scale σ of the model error: v = σ × (error of ∂u/∂t in 1/day).
    stages
        1 for Adams-Bashforth, otherwise the odd number of RKL2 stages (see ``stages_needed``).
    """

    dt: float
    sigma: float
    stages: int = 1


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
    outputs = _Sweep.apply(u0, v, *coefficients.values, rho, impassable, steps, coefficients.strides)
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
        if steps.stages == 1:
            increment = a if n == 0 else 1.5 * a - 0.5 * before
        else:
            increment = _rkl_increment(u, a, rate, steps)
        levels.append(u + steps.dt * (increment + v[n] / steps.sigma))
        before, a = a, rate(levels[-1])
    return torch.stack(levels)


def _rkl_increment(
    u: torch.Tensor, a0: torch.Tensor, rate: Callable[[torch.Tensor], torch.Tensor], steps: Steps
) -> torch.Tensor:
    mu_1, weights = rkl2_weights(steps.stages)
    earlier, y = u, u + mu_1 * steps.dt * a0
    for mu, nu, mu_t, gamma_t in weights:
        advanced = mu_t * steps.dt * rate(y) + gamma_t * steps.dt * a0
        earlier, y = y, mu * y + nu * earlier + (1 - mu - nu) * u + advanced
    return (y - u) / steps.dt


def rkl2_weights(stages: int) -> tuple[float, list[tuple[float, float, float, float]]]:
    """Return μ̃₁ and (μ_j, ν_j, μ̃_j, γ̃_j) for j = 2 … s."""
    s = stages
    b = [1 / 3, 1 / 3, *((j * j + j - 2) / (2 * j * (j + 1)) for j in range(2, s + 1))]
    w = 4 / (s * s + s - 2)
    weights = []
    for j in range(2, s + 1):
        mu = (2 * j - 1) / j * b[j] / b[j - 1]
        weights.append((mu, -(j - 1) / j * b[j] / b[j - 2], mu * w, -(1 - b[j - 1]) * mu * w))
    return b[1] * w, weights


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
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
        n_steps, dt = v.shape[0], steps.dt
        u = v.new_empty(n_steps + 1, u0.shape[0])
        r = torch.empty_like(v)
        squares = v.new_zeros(3, n_steps + 1)
        a, a_before, increment, scratch = (torch.empty_like(u0) for _ in range(4))
        stages = _Stages(faces, growth, steps, u0) if steps.stages > 1 else None

        u[0] = u0
        rate_(a, u[0], faces, growth, scratch)
        _penalties_(squares, 0, u[0], impassable, scratch)
        for n in range(n_steps):
            if stages is not None:
                stages.increment_(increment, u[n], a, scratch)
            elif n == 0:
                increment.copy_(a)
            else:
                torch.mul(a, 1.5, out=increment).sub_(a_before, alpha=0.5)
            step = torch.add(increment, v[n], alpha=1 / steps.sigma, out=r[n])
            torch.add(u[n], step, alpha=dt, out=u[n + 1])
            step.sub_(a, alpha=0.5)
            a, a_before = a_before, a
            rate_(a, u[n + 1], faces, growth, scratch)
            step.sub_(a, alpha=0.5)
            squares[0, n] = torch.dot(step, step)
            _penalties_(squares, n + 1, u[n + 1], impassable, scratch)

        ctx.save_for_backward(u, r, cx, cy, cz, impassable)
        ctx.steps, ctx.strides, ctx.growth = steps, strides, growth
        ctx.mark_non_differentiable(u)
        sums = squares.double().sum(dim=1)
        return u[-1].clone(), sums[0] * steps.sigma**2, sums[1], sums[2], u

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        d_last, d_pde, d_bounds, d_outside, _ = grads
        u, r, cx, cy, cz, impassable = ctx.saved_tensors
        steps: Steps = ctx.steps
        faces, growth, dt = Faces((cx, cy, cz), ctx.strides), ctx.growth, steps.dt
        n_steps = r.shape[0]
        # One transfer to the host before the loop; none inside it.
        scale_r = 2 * float(d_pde) * steps.sigma**2
        scale_bounds, scale_outside = 2 * float(d_bounds), 2 * float(d_outside)

        d_v = torch.empty_like(r)
        collect = _CoefficientGradient(faces, growth, n_steps + 1, u)
        stages = _Stages(faces, growth, steps, u[0]) if steps.stages > 1 else None
        adjoint, mu, f_later, scratch = (torch.zeros_like(u[0]) for _ in range(4))
        adjoint.copy_(d_last)
        for n in range(n_steps, -1, -1):  # adjoint holds dL/du^n through u^{n+1} (and d_last) only
            mu.zero_()  # dL/dA^n
            if n > 0:
                mu.sub_(r[n - 1], alpha=0.5 * scale_r)
            if n < n_steps:
                f = d_v[n]  # dL/dF^n: F^n enters u^{n+1} and r^{n+1}
                torch.mul(adjoint, dt, out=f).add_(r[n], alpha=scale_r)
                mu.sub_(r[n], alpha=0.5 * scale_r)
                if stages is not None:
                    stages.adjoint_(adjoint, mu, f, u[n], collect, scratch)
                else:
                    mu.add_(f, alpha=1.5 if n > 0 else 1.0)
                    if n + 1 < n_steps:
                        mu.sub_(d_v[n + 1], alpha=0.5)
            collect.transpose_(adjoint, u[n], mu, n, scratch)
            torch.clamp(u[n], 0, 1, out=scratch)
            adjoint.add_(torch.sub(u[n], scratch, out=scratch), alpha=scale_bounds)
            adjoint.addcmul_(u[n], impassable, value=scale_outside)
        d_v.mul_(1 / steps.sigma)
        d_c = collect.faces.values
        return adjoint, d_v, *d_c, collect.rho().to(cx.dtype), None, None, None


def _penalties_(
    squares: torch.Tensor, n: int, u: torch.Tensor, impassable: torch.Tensor, scratch: torch.Tensor
) -> None:
    torch.clamp(u, 0, 1, out=scratch)
    torch.sub(u, scratch, out=scratch)
    squares[1, n] = torch.dot(scratch, scratch)
    torch.mul(u, impassable, out=scratch)
    squares[2, n] = torch.dot(scratch, u)


class _CoefficientGradient:
    """Applies A′(u)ᵀ and collects the gradients with respect to face coefficients and ρ."""

    def __init__(self, faces: Faces, growth: float, levels: int, like: torch.Tensor) -> None:
        self.coefficients, self.growth = faces, growth
        x, y, z = (torch.zeros_like(c) for c in faces.values)
        self.faces = Faces((x, y, z), faces.strides)
        self._rho = like.new_zeros(levels)
        self._difference = torch.empty_like(like[0])
        self._product = torch.empty_like(like[0])

    def transpose_(
        self, out: torch.Tensor, u: torch.Tensor, mu: torch.Tensor, level: int, scratch: torch.Tensor
    ) -> None:
        """Add A′(u)ᵀ μ to ``out``; add the part of dL/dc and dL/dρ that goes through A(u)."""
        product = torch.abs(u, out=self._product)
        product.mul_(torch.sub(1, u, out=scratch))
        self._rho[level] += torch.dot(product, mu)
        product.copy_(reaction_slope(u)).mul_(mu)
        out.add_(product, alpha=self.growth)
        for (c, s), (d_c, _) in zip(self.coefficients, self.faces, strict=True):
            m = c.numel()
            if m == 0:
                continue
            d_mu = torch.sub(mu[s:], mu[:-s], out=scratch[:m])
            d_u = torch.sub(u[s:], u[:-s], out=self._difference[:m])
            d_c.addcmul_(d_mu, d_u, value=-1)
            d_mu.mul_(c)
            out[:-s].add_(d_mu)
            out[s:].sub_(d_mu)

    def rho(self) -> torch.Tensor:
        return self._rho.double().sum()


class _Stages:
    """RKL2: Y_1 = u + μ̃₁ΔtA⁰, Y_j = μ_jY_{j−1} + ν_jY_{j−2} + (1−μ_j−ν_j)u + μ̃_jΔtA(Y_{j−1}) + γ̃_jΔtA⁰."""

    def __init__(self, faces: Faces, growth: float, steps: Steps, like: torch.Tensor) -> None:
        self.faces, self.growth, self.dt, self.s = faces, growth, steps.dt, steps.stages
        self.mu_1, self.weights = rkl2_weights(self.s)
        self.y = [torch.empty_like(like) for _ in range(steps.stages + 1)]
        self.bar = [torch.empty_like(like) for _ in range(steps.stages + 1)]
        self.a = torch.empty_like(like)

    def _run(self, u: torch.Tensor, a0: torch.Tensor, scratch: torch.Tensor) -> None:
        y, dt = self.y, self.dt
        y[0].copy_(u)
        torch.add(u, a0, alpha=self.mu_1 * dt, out=y[1])
        for j, (mu, nu, mu_t, gamma_t) in enumerate(self.weights, start=2):
            rate_(self.a, y[j - 1], self.faces, self.growth, scratch)
            torch.mul(y[j - 1], mu, out=y[j]).add_(y[j - 2], alpha=nu).add_(u, alpha=1 - mu - nu)
            y[j].add_(self.a, alpha=mu_t * dt).add_(a0, alpha=gamma_t * dt)

    def increment_(self, out: torch.Tensor, u: torch.Tensor, a0: torch.Tensor, scratch: torch.Tensor) -> None:
        """Write F = (Y_s − u)/Δt."""
        self._run(u, a0, scratch)
        torch.sub(self.y[-1], u, out=out).mul_(1 / self.dt)

    def adjoint_(
        self,
        adjoint: torch.Tensor,
        mu_a0: torch.Tensor,
        f: torch.Tensor,
        u: torch.Tensor,
        collect: _CoefficientGradient,
        scratch: torch.Tensor,
    ) -> None:
        """Given f = dL/dF, add dL/du to ``adjoint`` and dL/dA⁰ to ``mu_a0``; stages are recomputed."""
        a0 = torch.empty_like(u)
        rate_(a0, u, self.faces, self.growth, scratch)
        self._run(u, a0, scratch)
        bar, dt = self.bar, self.dt
        for b in bar:
            b.zero_()
        bar[self.s].copy_(f).mul_(1 / dt)
        adjoint.sub_(bar[self.s])
        for j in range(self.s, 1, -1):
            mu, nu, mu_t, gamma_t = self.weights[j - 2]
            through_a = torch.mul(bar[j], mu_t * dt, out=self.a)
            bar[j - 1].add_(bar[j], alpha=mu)
            collect.transpose_(bar[j - 1], self.y[j - 1], through_a, 0, scratch)
            bar[j - 2].add_(bar[j], alpha=nu)
            adjoint.add_(bar[j], alpha=1 - mu - nu)
            mu_a0.add_(bar[j], alpha=gamma_t * dt)
        mu_a0.add_(bar[1], alpha=self.mu_1 * dt)
        adjoint.add_(bar[1]).add_(bar[0])
