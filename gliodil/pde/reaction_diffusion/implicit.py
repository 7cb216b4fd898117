"""The implicit step of diffusion, (I − τ∇·(D∇)) x = b, by conjugate gradients; differentiable.

The matrix is symmetric and positive definite with its spectrum in [1, 1 + τΛ]. The preconditioner is the same matrix
with the mean coefficient along each axis, inverted by cosine transform (``cosine``): with it the number of iterations
depends on how much D varies, not on τ or the grid. Where τΛ is small the plain iteration is cheaper, and is taken.

The adjoint is one more solve with the same matrix: for L(x), λ = (I − τA)⁻¹ ∂L/∂x is ∂L/∂b, and
∂L/∂c = τ λᵀ (∂A/∂c) x at every face.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from gliodil.errors import NumericsError
from gliodil.pde.reaction_diffusion.cosine import CosineDiffusion
from gliodil.pde.reaction_diffusion.problem import ReactionDiffusion, _diffuse, face_gradient, taped

MOST_ITERATIONS = 500
TOLERANCE = 1e-8
"""Relative residual at which the iteration stops, where the precision allows."""
STIFF = 100.0
"""τΛ from which the preconditioner pays: it costs as much as several applications of the operator."""


class ImplicitDiffusion:
    """Solves (I − τ∇·(D∇)) x = b.

    Parameters
    ----------
    problem
        Whose diffusion it is.
    tolerance
        Relative residual at which the iteration stops.
    """

    def __init__(self, problem: ReactionDiffusion, tolerance: float | None = None) -> None:
        self.problem, self.applications = problem, 0
        self._tolerance = (
            max(TOLERANCE, 20 * torch.finfo(problem.grid.dtype).eps) if tolerance is None else tolerance
        )
        self._bound = problem.bound
        means = [c.detach().sum() / max(1, int((c > 0).sum())) for c in problem.coefficients.values]
        self._mean = CosineDiffusion(problem.grid, (means[0], means[1], means[2]))

    def solve(self, b: torch.Tensor, tau: float, *, guess: torch.Tensor | None = None) -> torch.Tensor:
        """Return x, differentiable in b and the coefficients.

        Raises
        ------
        NumericsError
            If the iteration does not converge.
        """
        c = self.problem.coefficients
        if not (torch.is_grad_enabled() and b.requires_grad) and not taped(b, c):
            return self.iterate(b, tau, guess)
        start = None if guess is None else guess.detach()
        x: torch.Tensor = _Solve.apply(b, tau, self, start, *c.values)  # type: ignore[no-untyped-call]
        return x

    def iterate(self, b: torch.Tensor, tau: float, guess: torch.Tensor | None = None) -> torch.Tensor:
        """Return x without gradient."""
        c = self.problem.coefficients
        x = torch.zeros_like(b) if guess is None else guess.detach().clone()
        target = self._tolerance * float(b.norm())
        r = b - x.add(_diffuse(x, c), alpha=-tau)
        p = torch.zeros_like(b)
        before = 1.0
        for count in range(MOST_ITERATIONS):
            left = float(r.norm())
            if left <= target:
                self.applications += count + 1
                return x
            if not math.isfinite(left):
                break
            z = self._mean.solve(r, tau) if tau * self._bound > STIFF else r
            now = float(r @ z)
            p = z.add(p, alpha=now / before if count else 0.0)
            q = p.add(_diffuse(p, c), alpha=-tau)
            step = now / float(p @ q)
            x.add_(p, alpha=step)
            r.sub_(q, alpha=step)
            before = now
        raise NumericsError(
            "The implicit diffusion step does not converge.",
            expected=f"a relative residual of {self._tolerance:.1e} within {MOST_ITERATIONS} iterations",
            found=f"{float(r.norm() / b.norm()):.1e}",
        )


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        b: torch.Tensor,
        tau: float,
        solver: ImplicitDiffusion,
        guess: torch.Tensor | None,
        *c: torch.Tensor,
    ) -> torch.Tensor:
        x = solver.iterate(b, tau, guess)
        ctx.tau, ctx.solver = tau, solver
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        solver: ImplicitDiffusion = ctx.solver
        multiplier = solver.iterate(gradients[0].contiguous(), ctx.tau)
        strides = solver.problem.coefficients.strides
        of_c = face_gradient(multiplier, x, strides, ctx.needs_input_grad[4:])
        return (multiplier, None, None, None, *(None if g is None else ctx.tau * g for g in of_c))
