"""Levenberg-Marquardt on weighted residuals: the Gauss-Newton model with a damping that follows the gain ratio.

    (JᵀJ + λ S²) δ = -Jᵀr,     S = column norms of J (never below a fraction of the largest ever seen),

and λ is divided or multiplied according to ρ = (actual decrease)/(decrease the linear model promised).

Three ways to the same step:
primal      rows > P:  Cholesky of AᵀA + λ I with A = J S⁻¹, while λ is far above rounding; below
            that A = QR once and [R; √λ I] for every λ tried, so that condition numbers are not squared
dual        rows ≤ P:  δ = -S⁻¹ Aᵀ (A Aᵀ + λ I)⁻¹ r with A = J S⁻¹
iterative   large P:   conjugate gradients on the damped normal equations with a randomized Nyström preconditioner

Parameters in which the residual is linear (the network's last layer) can be re-solved exactly after every step:
variable projection. For a nonlinear problem that is one more Gauss-Newton step in them, kept if it helps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from gliodil.pde.resume import State
from gliodil.sampling.objective import Objective


@dataclass
class LevenbergMarquardt:
    """The optimizer; one call of `step` is one linearization.

    Attributes
    ----------
    damping
        λ, relative to the squared column norms; adapted.
    smallest
        λ never falls below this.
    projection
        Re-solve the last layer after every step.
    method
        ``auto``, ``primal``, ``dual`` or ``iterative`` (which ``auto`` takes above `largest` parameters).
    largest
        See `method`.
    trials
        Dampings tried before a step is given up.
    rank, inner
        Rank of the Nyström preconditioner and most conjugate-gradient iterations.
    """

    damping: float = 1e-2
    smallest: float = 1e-22
    projection: bool = False
    method: str = "auto"
    largest: int = 6000
    trials: int = 8
    rank: int = 200
    inner: int = 200
    growth: float = field(default=2.0, repr=False)

    def reset(self) -> None:
        """Take note that the points have changed (damping is kept)."""

    def state(self) -> State:
        """Return the damping and how fast it grows."""
        return {"damping": self.damping, "growth": self.growth}

    def restore(self, state: State) -> None:
        """Go on with this damping."""
        self.damping, self.growth = state["damping"], state["growth"]

    def retreat(self) -> None:
        """Damp the next step more."""
        self.damping = min(1e12, max(1e2 * self.damping, 1e-6))

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        """Return the next θ, its loss and whether it moved."""
        r, jacobian = objective.linearize(theta)
        loss = 0.5 * float(r.square().sum())
        norms = jacobian.norm(dim=0)
        scale = norms.clamp_min(1e-8 * float(norms.max()) + 1e-300)
        solve = self._factor(jacobian.div_(scale), r)
        for _ in range(self.trials):
            delta, promised = solve(self.damping)
            trial = theta + delta / scale
            found = objective.loss(trial)
            ratio = (loss - found) / promised if promised > 0 else -1.0
            if found < loss and ratio > 1e-4:
                self.damping = max(self.smallest, self.damping * max(1 / 10, 1 - (2 * ratio - 1) ** 3))
                self.growth = 2.0
                if self.projection:
                    trial, found = solve_linear(objective, trial, found)
                return trial, found, True
            self.damping = min(1e12, self.damping * self.growth * 2)
            self.growth = min(2 * self.growth, 64.0)
        return theta, loss, False

    def _factor(self, a: torch.Tensor, r: torch.Tensor) -> Any:
        rows, columns = a.shape
        method = self.method
        if method == "auto":
            method = (
                "iterative" if min(rows, columns) > self.largest else "primal" if columns < rows else "dual"
            )
        if method == "primal":
            return _primal(a, r)
        if method == "dual":
            return _dual(a, r)
        return _iterative(a, r, self.rank, self.inner)


def solve_linear(objective: Objective, theta: torch.Tensor, loss: float) -> tuple[torch.Tensor, float]:
    """Re-solve the linear parameters by least squares; return θ and its loss, the old ones if it does not help."""
    where = objective.network.linear
    r, a = objective.linearize(theta, linear_only=True)
    scale = a.norm(dim=0).clamp_min(1e-300)
    delta = torch.linalg.lstsq(a / scale, -r[:, None], driver="gelsy", rcond=1e-13).solution[:, 0] / scale
    trial = theta.clone()
    trial[where] += delta
    found = objective.loss(trial)
    return (trial, found) if found < loss else (theta, loss)


def _promised(a_delta: torch.Tensor, r: torch.Tensor) -> float:
    """Decrease of ½|r + A δ|² from δ = 0."""
    return float(-(a_delta @ r) - 0.5 * a_delta.square().sum())


# Columns of A have norm 1. Above this damping the normal equations keep five digits of every step.
SAFE_DAMPING = 1e-11


def _primal(a: torch.Tensor, r: torch.Tensor) -> Any:
    normal, right = a.T @ a, a.T @ r
    by_qr: Any = None

    def solve(damping: float) -> tuple[torch.Tensor, float]:
        nonlocal by_qr
        if damping > SAFE_DAMPING and by_qr is None:
            damped = normal.clone()
            damped.diagonal().add_(damping)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if not int(failed):
                delta = -torch.cholesky_solve(right[:, None], factor)[:, 0]
                return delta, float(-(delta @ right) - 0.5 * delta @ (normal @ delta))
        if by_qr is None:
            by_qr = _orthogonal(a, r)
        step: tuple[torch.Tensor, float] = by_qr(damping)
        return step

    return solve


def _orthogonal(a: torch.Tensor, r: torch.Tensor) -> Any:
    # One QR of [A r] serves all dampings; what is left of r is out of the range of A.
    columns = a.shape[1]
    triangle = torch.linalg.qr(torch.cat([a, r[:, None]], 1), mode="r").R
    upper, right = triangle[:columns, :columns], triangle[:columns, columns]

    def solve(damping: float) -> tuple[torch.Tensor, float]:
        eye = torch.eye(columns, dtype=a.dtype, device=a.device) * damping**0.5
        both = torch.cat([upper, eye])
        stacked = torch.cat([both, torch.cat([-right, torch.zeros_like(right)])[:, None]], 1)
        small = torch.linalg.qr(stacked, mode="r").R
        delta = torch.linalg.solve_triangular(
            small[:columns, :columns], small[:columns, columns:], upper=True
        )
        return delta[:, 0], _promised(upper @ delta[:, 0], right)

    return solve


def _dual(a: torch.Tensor, r: torch.Tensor) -> Any:
    values, vectors = torch.linalg.eigh(a @ a.T)
    projected = vectors.T @ r

    def solve(damping: float) -> tuple[torch.Tensor, float]:
        # Below this the Gram matrix knows nothing more.
        floor = max(damping, 1e-15 * float(values[-1]))
        delta = -a.T @ (vectors @ (projected / (values.clamp_min(0) + floor)))
        return delta, _promised(a @ delta, r)

    return solve


def _iterative(a: torch.Tensor, r: torch.Tensor, rank: int, inner: int) -> Any:
    columns = a.shape[1]
    generator = torch.Generator(device=a.device).manual_seed(0)
    probe = torch.randn(columns, min(rank, columns), dtype=a.dtype, device=a.device, generator=generator)
    probe = torch.linalg.qr(probe).Q
    sketch = a.T @ (a @ probe)
    shift = 1e-14 * float(sketch.norm())
    sketch = sketch + shift * probe
    chol = torch.linalg.cholesky((probe.T @ sketch + sketch.T @ probe) / 2)
    basis, singular, _ = torch.linalg.svd(
        torch.linalg.solve_triangular(chol, sketch.T, upper=False).T, full_matrices=False
    )
    values = (singular**2 - shift).clamp_min(0)
    right = -(a.T @ r)

    def solve(damping: float) -> tuple[torch.Tensor, float]:
        def precondition(v: torch.Tensor) -> torch.Tensor:
            inside = basis.T @ v
            lifted: torch.Tensor = basis @ ((values[-1] + damping) / (values + damping) * inside - inside)
            return lifted + v

        delta = torch.zeros_like(right)
        residual = right.clone()
        z = precondition(residual)
        direction, energy = z.clone(), residual @ z
        for _ in range(inner):
            image = a.T @ (a @ direction) + damping * direction
            length = energy / (direction @ image)
            delta = delta + length * direction
            residual = residual - length * image
            if float(residual.norm()) < 1e-8 * float(right.norm()):
                break
            z = precondition(residual)
            fresh = residual @ z
            direction, energy = z + fresh / energy * direction, fresh
        return delta, _promised(a @ delta, r)

    return solve
