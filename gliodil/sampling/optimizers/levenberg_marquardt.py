"""Levenberg-Marquardt on weighted residuals: the Gauss-Newton model with a damping that follows the gain ratio.

    (JᵀJ + λ S²) δ = -Jᵀr,     S_j = (n_j n̄)^½,     n_j = |J_j| (never below a fraction of the largest)

where n̄ is the root mean square of the n_j: halfway between Levenberg's S = 1 and Marquardt's S = n, which lets
parameters drift that hardly matter. Unknown scalars of the problem have units of their own and keep S = n. λ is divided
or multiplied according to ρ = (actual decrease)/(decrease the linear model promised). The valleys of a network's loss
are curved, so the step follows the curve to second order (geodesic acceleration; Transtrum & Sethna, arXiv 1201.5885):

    θ ← θ + δ + ½ a,     (JᵀJ + λ S²) a = -Jᵀ r″,     r″ = ∂²r(θ + tδ)/∂t² ≈ 2/h [(r(θ + hδ) - r)/h - Jδ]

where that ends lower than θ + δ, and |S a| ≤ 3/2 |S δ|; beyond that the expansion is not trusted.

Parameters in which the residual is linear (the network's last layer) can be re-solved exactly after every step:
variable projection. For a nonlinear problem that is one more Gauss-Newton step in them, kept if it helps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from gliodil.pde.resume import State
from gliodil.sampling.objective import Objective
from gliodil.sampling.optimizers.damped import Dual, Iterative, Model, Primal

# How far along δ the curvature is looked at; the longest bend, in lengths of δ.
PROBE = 0.1
BENT = 0.75


@dataclass
class LevenbergMarquardt:
    """The optimizer; one call of `step` is one linearization.

    Attributes
    ----------
    damping
        λ, relative to S²; adapted.
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
        norms = jacobian.square().sum(0).sqrt()
        norms = norms.clamp_min(1e-8 * float(norms.max()) + 1e-300)
        scale = (norms * norms.square().mean().sqrt()).sqrt()
        unknown = slice(objective.network.size, None)
        scale[unknown] = norms[unknown]
        a = jacobian.div_(scale)
        model = self._model(a, r)
        for _ in range(self.trials):
            delta, promised = model.step(self.damping)
            trial = theta + delta / scale
            found = objective.loss(trial)
            ahead = objective.residual(theta + PROBE * delta / scale)
            bend = 0.5 * model.along((2 / PROBE) * ((ahead - r) / PROBE - a @ delta))
            if float(bend.norm()) <= BENT * float(delta.norm()):
                bent = trial + bend / scale
                lower = objective.loss(bent)
                if lower < found:
                    trial, found = bent, lower
            ratio = (loss - found) / promised if promised > 0 else -1.0
            if found < loss and ratio > 1e-4:
                gain = 1 - (2 * min(ratio, 1.0) - 1) ** 3
                self.damping = max(self.smallest, self.damping * max(1 / 10, gain))
                self.growth = 2.0
                if self.projection:
                    trial, found = solve_linear(objective, trial, found)
                return trial, found, True
            self.damping = min(1e12, self.damping * self.growth * 2)
            self.growth = min(2 * self.growth, 64.0)
        return theta, loss, False

    def _model(self, a: torch.Tensor, r: torch.Tensor) -> Model:
        rows, columns = a.shape
        method = self.method
        if method == "auto":
            method = (
                "iterative" if min(rows, columns) > self.largest else "primal" if columns < rows else "dual"
            )
        if method == "primal":
            return Primal(a, r)
        if method == "dual":
            return Dual(a, r)
        return Iterative(a, r, self.rank, self.inner)


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
