"""The two time loops behind ``trajectory``: forward, and the adjoint backward.

Every step is a fixed sequence of in-place operations on preallocated fields. On CUDA nothing in the loops waits for the
host; on the CPU the stencil operations are the fused ones (``pde.fused``).
"""

from __future__ import annotations

import torch

from gliodil.pde import fused
from gliodil.pde.integrate import rate_
from gliodil.pde.models.fisher_kolmogorov import reaction_slope
from gliodil.pde.odil.steps import Steps, rkl2_weights
from gliodil.pde.operators import Faces


def forward(
    u: torch.Tensor,
    r: torch.Tensor,
    v: torch.Tensor,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fill u and r in place; return the three sums."""
    squares = v.new_zeros(3, u.shape[0])
    a, a_before, increment, scratch = (torch.empty_like(u[0]) for _ in range(4))
    stages = _Stages(faces, growth, steps, u[0]) if steps.stages > 1 else None
    rate_(a, u[0], faces, growth, scratch)
    _penalties_(squares, 0, u[0], impassable, scratch)
    for n in range(v.shape[0]):
        if stages is not None:
            stages.increment_(increment, u[n], a, scratch)
        elif n == 0:
            increment.copy_(a)
        else:
            torch.mul(a, 1.5, out=increment).sub_(a_before, alpha=0.5)
        step = torch.add(increment, v[n], alpha=1 / steps.sigma, out=r[n])
        torch.add(u[n], step, alpha=steps.dt, out=u[n + 1])
        step.sub_(a, alpha=0.5)
        a, a_before = a_before, a
        rate_(a, u[n + 1], faces, growth, scratch)
        step.sub_(a, alpha=0.5)
        squares[0, n] = torch.dot(step, step)
        _penalties_(squares, n + 1, u[n + 1], impassable, scratch)
    pde, bounds, outside = squares.double().sum(dim=1)
    return pde, bounds, outside


def backward(
    adjoint: torch.Tensor,
    d_v: torch.Tensor,
    u: torch.Tensor,
    r: torch.Tensor,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
    scales: tuple[float, ...],
) -> tuple[Faces, torch.Tensor]:
    """Turn ``adjoint`` from dL/du at the last level into dL/du⁰, fill d_v; return dL/dc and dL/dρ."""
    scale_r, scale_bounds, scale_outside = scales
    n_steps, dt = r.shape[0], steps.dt
    collect = _CoefficientGradient(faces, growth, n_steps + 1, u)
    stages = _Stages(faces, growth, steps, u[0]) if steps.stages > 1 else None
    mu, scratch = torch.zeros_like(u[0]), torch.zeros_like(u[0])
    for n in range(n_steps, -1, -1):  # adjoint holds dL/du^n through u^{n+1} (and the last level) only
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
    return collect.faces, collect.rho()


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
        if fused.applies(u):
            self._rho[level] += fused.transpose_(out, u, mu, self.coefficients, self.growth, self.faces)
            return
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
    """RKL2 in the differences Z_j = Y_j − u, which round-off then cannot shift:

    Z_0 = 0,  Z_1 = μ̃₁ΔtA⁰,  Z_j = μ_jZ_{j−1} + ν_jZ_{j−2} + μ̃_jΔtA(u + Z_{j−1}) + γ̃_jΔtA⁰,  F = Z_s/Δt.
    """

    def __init__(self, faces: Faces, growth: float, steps: Steps, like: torch.Tensor) -> None:
        self.faces, self.growth, self.dt = faces, growth, steps.dt
        self.mu_1, self.weights = rkl2_weights(steps.stages)
        self.z = [torch.zeros_like(like) for _ in range(steps.stages + 1)]
        self.bar = [torch.empty_like(like) for _ in range(steps.stages + 1)]
        self.a, self.y, self.through = (torch.empty_like(like) for _ in range(3))

    def _run(self, u: torch.Tensor, a0: torch.Tensor, scratch: torch.Tensor) -> None:
        z, dt = self.z, self.dt
        torch.mul(a0, self.mu_1 * dt, out=z[1])
        for j, (mu, nu, mu_t, gamma_t) in enumerate(self.weights, start=2):
            rate_(self.a, torch.add(u, z[j - 1], out=self.y), self.faces, self.growth, scratch)
            torch.mul(z[j - 1], mu, out=z[j]).add_(z[j - 2], alpha=nu)
            z[j].add_(self.a, alpha=mu_t * dt).add_(a0, alpha=gamma_t * dt)

    def increment_(self, out: torch.Tensor, u: torch.Tensor, a0: torch.Tensor, scratch: torch.Tensor) -> None:
        """Write F."""
        self._run(u, a0, scratch)
        torch.mul(self.z[-1], 1 / self.dt, out=out)

    def adjoint_(
        self,
        adjoint: torch.Tensor,
        mu_a0: torch.Tensor,
        f: torch.Tensor,
        u: torch.Tensor,
        collect: _CoefficientGradient,
        scratch: torch.Tensor,
    ) -> None:
        """Given f = dL/dF, add dL/du to ``adjoint`` and dL/dA⁰ to ``mu_a0``; the stages are recomputed."""
        a0 = torch.empty_like(u)
        rate_(a0, u, self.faces, self.growth, scratch)
        self._run(u, a0, scratch)
        bar, dt, s = self.bar, self.dt, len(self.z) - 1
        for b in bar:
            b.zero_()
        bar[s].copy_(f).mul_(1 / dt)
        for j in range(s, 1, -1):
            mu, nu, mu_t, gamma_t = self.weights[j - 2]
            torch.add(u, self.z[j - 1], out=self.y)
            through_a = torch.mul(bar[j], mu_t * dt, out=self.a)
            collect.transpose_(self.through.zero_(), self.y, through_a, 0, scratch)
            adjoint.add_(self.through)
            bar[j - 1].add_(self.through).add_(bar[j], alpha=mu)
            bar[j - 2].add_(bar[j], alpha=nu)
            mu_a0.add_(bar[j], alpha=gamma_t * dt)
        mu_a0.add_(bar[1], alpha=self.mu_1 * dt)
