"""The time loops behind ``trajectory`` in plain torch: the definition, the path of CUDA, and the tests' oracle.

With P_n = I − ½Δt A′(uⁿ) and p_n the polynomial that stands for P_n⁻¹ (``steps``):

    forward    uⁿ⁺¹ = bⁿ⁺¹ + ½Δt A(uⁿ⁺¹),   bⁿ⁺¹ = uⁿ + ½Δt Aⁿ + Δt vⁿ/σ = 2uⁿ − bⁿ + Δt vⁿ/σ
    tangent    δuⁿ = p_n (δbⁿ + eⁿ),   δbⁿ⁺¹ = 2δuⁿ − δbⁿ + Δt δvⁿ/σ,   eⁿ = ½Δt [∇·(δc ∇uⁿ) + δρ |uⁿ|(1 − uⁿ)]
    adjoint    zⁿ = p_n (2μⁿ⁺¹ + ∂L/∂uⁿ),   μⁿ = zⁿ − μⁿ⁺¹,   dL/dvⁿ⁻¹ = Δt μⁿ/σ,   ½Δt zⁿ sees ∂A/∂(c, ρ) at uⁿ

μⁿ is the sensitivity of the loss to the right-hand side bⁿ; u⁰ is given, and z⁰ = μ¹. No term needs A twice. The
nonlinear forward step is the same iteration, started where the last step leads, the model error apart. Every step is a
fixed sequence of operations; on CUDA nothing in the loops waits for the host. On the CPU the same loops run compiled
(``compiled``).
"""

from __future__ import annotations

import torch

from gliodil.pde import fused
from gliodil.pde.integrate import rate_
from gliodil.pde.models.fisher_kolmogorov import reaction_slope
from gliodil.pde.odil import compiled
from gliodil.pde.odil.steps import Steps
from gliodil.pde.operators import Faces, add_diffusion_


def forward(
    u: torch.Tensor,
    v: torch.Tensor | None,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill u[1:] from u[0] in place; return the sums of squares of u beyond [0, 1] and in impassable cells.

    v = None stands for no model error.
    """
    if fused.applies(u):
        return compiled.forward(u, v, faces, impassable, growth, steps)
    half = 0.5 * steps.dt
    squares = u.new_zeros(2, u.shape[0])
    a, b, d, drift, scratch = (torch.zeros_like(u[0]) for _ in range(5))
    rate_(a, u[0], faces, growth, scratch)
    torch.sub(u[0], a, alpha=half, out=b)
    _penalties_(squares, 0, u[0], impassable, scratch)
    for n in range(u.shape[0] - 1):
        x = u[n + 1]
        x.copy_(u[n])
        torch.sub(2 * x, b, out=b)
        if v is not None:
            for t in (b, x):
                t.add_(v[n], alpha=steps.dt / steps.sigma)
        drift, before = x.add_(drift).clone(), drift
        drift.sub_(before)
        for beta, alpha in steps.weights[:-1]:
            rate_(a, x, faces, growth, scratch)
            a.mul_(half).add_(b).sub_(x)
            x.add_(d.mul_(beta).add_(a, alpha=alpha))
        torch.sub(x, drift, out=drift)
        _penalties_(squares, n + 1, x, impassable, scratch)
    beyond, outside = squares.double().sum(dim=1)
    return beyond, outside


def backward(
    adjoint: torch.Tensor,
    d_v: torch.Tensor | None,
    u: torch.Tensor,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
    scales: tuple[float, float] | None,
) -> tuple[Faces, torch.Tensor]:
    """Turn ``adjoint`` from dL/du at the last level into dL/du⁰, fill d_v; return dL/dc and dL/dρ.

    ``scales`` are twice the weights of the two sums that ``forward`` returns; None if the loss does not see them.
    """
    if fused.applies(u) and u.shape[0] > 1:  # without a step, the last level is the first
        return compiled.backward(adjoint, d_v, u, faces, impassable, growth, steps, scales)
    half, last = 0.5 * steps.dt, u.shape[0] - 1
    linear = _Linear(faces, growth, steps, u[0])
    gradient = _CoefficientGradient(faces, u)
    mu, scratch = torch.zeros_like(u[0]), torch.empty_like(u[0])
    for n in range(last, -1, -1):
        b = torch.mul(mu, 2, out=scratch)
        if n == last:
            b.add_(adjoint)
        if scales is not None:
            b.add_(u[n] - u[n].clamp(0, 1), alpha=scales[0]).addcmul_(u[n], impassable, value=scales[1])
        if n == 0:  # u⁰ is given: b⁰ has no part in it
            gradient.add_(u[0], mu, half)
            adjoint.copy_(b.sub_(mu)).add_(linear.rate(mu, u[0]), alpha=half)
            break
        z = linear.solve(b, u[n])
        gradient.add_(u[n], z, half)
        torch.sub(z, mu, out=mu)
        if d_v is not None:
            torch.mul(mu, steps.dt / steps.sigma, out=d_v[n - 1])
    return gradient.faces, gradient.rho()


def tangent(
    d_u: torch.Tensor,
    d_v: torch.Tensor | None,
    u: torch.Tensor,
    faces: Faces,
    growth: float,
    d_faces: Faces,
    d_growth: float,
    steps: Steps,
) -> None:
    """Turn ``d_u`` from the change of u⁰ into that of the last level, v, c and ρ changing too."""
    if fused.applies(u):
        compiled.tangent(d_u, d_v, u, faces, growth, d_faces, d_growth, steps)
        return
    half = 0.5 * steps.dt
    linear = _Linear(faces, growth, steps, u[0])
    scratch = torch.empty_like(d_u)

    def forcing(n: int) -> torch.Tensor:
        """eⁿ."""
        e = u[n].abs() * (1 - u[n]) * d_growth
        add_diffusion_(e, u[n], d_faces, scratch)
        return e.mul_(half)

    b = d_u - half * linear.rate(d_u, u[0]) - forcing(0)
    for n in range(1, u.shape[0]):
        torch.sub(2 * d_u, b, out=b)
        if d_v is not None:
            b.add_(d_v[n - 1], alpha=steps.dt / steps.sigma)
        d_u.copy_(linear.solve(b + forcing(n), u[n]))


def _penalties_(
    squares: torch.Tensor, n: int, u: torch.Tensor, impassable: torch.Tensor, scratch: torch.Tensor
) -> None:
    torch.clamp(u, 0, 1, out=scratch)
    torch.sub(u, scratch, out=scratch)
    squares[0, n] = torch.dot(scratch, scratch)
    torch.mul(u, impassable, out=scratch)
    squares[1, n] = torch.dot(scratch, u)


class _Linear:
    """A′(u) and the polynomial that stands for (I − ½Δt A′(u))⁻¹."""

    def __init__(self, faces: Faces, growth: float, steps: Steps, like: torch.Tensor) -> None:
        self.faces, self.growth, self.steps = faces, growth, steps
        self.x, self.d, self.a, self.scratch = (torch.empty_like(like) for _ in range(4))

    def rate(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Return A′(u) x; the result is overwritten by the next call."""
        torch.mul(reaction_slope(u), x, out=self.a).mul_(self.growth)
        add_diffusion_(self.a, x, self.faces, self.scratch)
        return self.a

    def solve(self, b: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Return p b; the result is overwritten by the next call."""
        half = 0.5 * self.steps.dt
        torch.mul(b, self.steps.weights[0][1], out=self.x)
        self.d.copy_(self.x)
        for beta, alpha in self.steps.weights[1:]:
            residual = self.rate(self.x, u).mul_(half).add_(b).sub_(self.x)
            self.x.add_(self.d.mul_(beta).add_(residual, alpha=alpha))
        return self.x


class _CoefficientGradient:
    """Collects the gradient with respect to face coefficients and ρ."""

    def __init__(self, faces: Faces, u: torch.Tensor) -> None:
        x, y, z = (torch.zeros_like(c) for c in faces.values)
        self.faces = Faces((x, y, z), faces.strides)
        self._rho = u.new_zeros((), dtype=torch.float64)

    def add_(self, u: torch.Tensor, mu: torch.Tensor, factor: float) -> None:
        """Add factor · (∂A/∂(c, ρ))ᵀ μ at u."""
        self._rho += factor * torch.dot(u.abs() * (1 - u), mu).double()
        for c, s in self.faces:
            if c.numel():
                c.addcmul_(mu[s:] - mu[:-s], u[s:] - u[:-s], value=-factor)

    def rho(self) -> torch.Tensor:
        return self._rho
