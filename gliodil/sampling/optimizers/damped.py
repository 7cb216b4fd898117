"""The damped linear model of a Gauss-Newton step, min over δ of ½|r + A δ|² + ½ λ|δ|², in three ways.

primal      rows > P:  Cholesky of AᵀA + λ I, while λ is far above rounding; below that A = QR once and
            [R; √λ I] for every λ tried, so that condition numbers are not squared
dual        rows ≤ P:  δ = -Aᵀ (A Aᵀ + λ I)⁻¹ r
iterative   large P:   conjugate gradients on the damped normal equations with a randomized Nyström preconditioner
"""

from __future__ import annotations

from typing import Protocol

import torch
from scipy.linalg import get_blas_funcs


def _promised(a_delta: torch.Tensor, r: torch.Tensor) -> float:
    """Decrease of ½|r + A δ|² from δ = 0."""
    return float(-(a_delta @ r) - 0.5 * a_delta.square().sum())


# Columns of A have norms around 1. Above this damping the normal equations keep five digits of every step.
SAFE_DAMPING = 1e-11


def gram(a: torch.Tensor) -> torch.Tensor:
    """Return AᵀA (P, P), of which only the lower triangle counts: BLAS's rank-k update does half the work."""
    # The update follows OpenBLAS's threads, the product torch's: only where torch has one do they stay out of each
    # other's way.
    if a.device.type != "cpu" or torch.get_num_threads() > 1:
        return a.T @ a
    columns = a.contiguous().numpy().T
    (syrk,) = get_blas_funcs(("syrk",), (columns,))
    return torch.from_numpy(syrk(1.0, columns).T)


class Model(Protocol):
    """½|r + A δ|² + ½ λ|δ|²."""

    def step(self, damping: float) -> tuple[torch.Tensor, float]:
        """Return its minimizer δ, and the decrease of ½|r + A δ|² that it promises."""

    def along(self, v: torch.Tensor) -> torch.Tensor:
        """Return the minimizer with v (rows,) in the place of r, at the damping of the last step."""


class Primal:
    """Normal equations, and QR once they are no longer safe."""

    def __init__(self, a: torch.Tensor, r: torch.Tensor) -> None:
        self.a, self.r = a, r
        self.normal, self.right = gram(a), a.T @ r
        self.triangle: torch.Tensor | None = None
        self.lower = self.normal

    def step(self, damping: float) -> tuple[torch.Tensor, float]:
        """Return the minimizer and the decrease it promises."""
        if damping > SAFE_DAMPING and self.triangle is None:
            damped = self.normal.clone()
            damped.diagonal().add_(damping)
            self.lower, failed = torch.linalg.cholesky_ex(damped)
            if not int(failed):
                delta = self._solve(self.right)
                # With (AᵀA + λ) δ = -Aᵀr the promise needs no product with AᵀA.
                return delta, float(0.5 * damping * delta.square().sum() - 0.5 * (delta @ self.right))
        return self._by_qr(damping)

    def along(self, v: torch.Tensor) -> torch.Tensor:
        """Return the minimizer for v, at the damping of the last step."""
        return self._solve(self.a.T @ v)

    def _solve(self, right: torch.Tensor) -> torch.Tensor:
        return -torch.cholesky_solve(right[:, None], self.lower)[:, 0]

    def _by_qr(self, damping: float) -> tuple[torch.Tensor, float]:
        # One QR of [A r] serves all dampings; what is left of r is out of the range of A.
        p = self.a.shape[1]
        if self.triangle is None:
            self.triangle = torch.linalg.qr(torch.cat([self.a, self.r[:, None]], 1), mode="r").R
        upper, right = self.triangle[:p, :p], self.triangle[:p, p]
        both = torch.cat([upper, torch.eye(p, dtype=upper.dtype, device=upper.device) * damping**0.5])
        stacked = torch.cat([both, torch.cat([-right, torch.zeros_like(right)])[:, None]], 1)
        small = torch.linalg.qr(stacked, mode="r").R
        self.lower = small[:p, :p].T
        delta = torch.linalg.solve_triangular(small[:p, :p], small[:p, p:], upper=True)[:, 0]
        return delta, _promised(upper @ delta, right)


class Dual:
    """The Gram matrix of the rows."""

    def __init__(self, a: torch.Tensor, r: torch.Tensor) -> None:
        self.a, self.r = a, r
        self.values, self.vectors = torch.linalg.eigh(a @ a.T)
        self.damped = self.values

    def step(self, damping: float) -> tuple[torch.Tensor, float]:
        """Return the minimizer and the decrease it promises."""
        # Below this the Gram matrix knows nothing more.
        self.damped = self.values.clamp_min(0) + max(damping, 1e-15 * float(self.values[-1]))
        delta = self.along(self.r)
        return delta, _promised(self.a @ delta, self.r)

    def along(self, v: torch.Tensor) -> torch.Tensor:
        """Return the minimizer for v, at the damping of the last step."""
        inside = (self.vectors.T @ v) / self.damped
        delta: torch.Tensor = -self.a.T @ (self.vectors @ inside)
        return delta


class Iterative:
    """Conjugate gradients."""

    def __init__(self, a: torch.Tensor, r: torch.Tensor, rank: int, inner: int) -> None:
        self.a, self.r, self.inner, self.damping = a, r, inner, 0.0
        columns = a.shape[1]
        generator = torch.Generator(device=a.device).manual_seed(0)
        probe = torch.randn(columns, min(rank, columns), dtype=a.dtype, device=a.device, generator=generator)
        probe = torch.linalg.qr(probe).Q
        sketch = a.T @ (a @ probe)
        shift = 1e-14 * float(sketch.norm())
        sketch = sketch + shift * probe
        chol = torch.linalg.cholesky((probe.T @ sketch + sketch.T @ probe) / 2)
        self.basis, singular, _ = torch.linalg.svd(
            torch.linalg.solve_triangular(chol, sketch.T, upper=False).T, full_matrices=False
        )
        self.values = (singular**2 - shift).clamp_min(0)

    def step(self, damping: float) -> tuple[torch.Tensor, float]:
        """Return the minimizer and the decrease it promises."""
        self.damping = damping
        delta = self.along(self.r)
        return delta, _promised(self.a @ delta, self.r)

    def along(self, v: torch.Tensor) -> torch.Tensor:
        """Return the minimizer for v, at the damping of the last step."""
        right = -(self.a.T @ v)
        delta, residual = torch.zeros_like(right), right.clone()
        z = self._precondition(residual)
        direction, energy = z.clone(), residual @ z
        for _ in range(self.inner):
            image = self.a.T @ (self.a @ direction) + self.damping * direction
            length = energy / (direction @ image)
            delta = delta + length * direction
            residual = residual - length * image
            if float(residual.norm()) <= 1e-8 * float(right.norm()):
                break
            z = self._precondition(residual)
            fresh = residual @ z
            direction, energy = z + fresh / energy * direction, fresh
        return delta

    def _precondition(self, v: torch.Tensor) -> torch.Tensor:
        inside = self.basis.T @ v
        by = (self.values[-1] + self.damping) / (self.values + self.damping)
        lifted: torch.Tensor = self.basis @ (by * inside - inside)
        return v + lifted
