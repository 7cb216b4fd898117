"""Self-scaled Broyden: a dense quasi-Newton method with a strong Wolfe search.

With s = θ₊ - θ, y = g₊ - g and the inverse Hessian H,

    H₊ = [H - H y yᵀH/(yᵀH y) + φ v vᵀ]/τ + s sᵀ/(yᵀs),     v = √(yᵀH y) [s/(yᵀs) - H y/(yᵀH y)]
    b = sᵀH⁻¹s/(yᵀs),  h = yᵀH y/(yᵀs),  a = h b - 1,  c = √(a/(1+a))
    ρ⁻ = min(1, h (1 - c)),  θ⁻ = (ρ⁻ - 1)/a,  θ⁺ = 1/ρ⁻,  ϑ = max(θ⁻, min(θ⁺, (1 - b)/b))
    σ = 1 + a ϑ,  φ = (1 - ϑ)/σ,  ρ⁺ = min(1, 1/b)
    τ = ρ⁺ min(σ^(-1/(P-1)), 1/ϑ) if ϑ > 0,  min(ρ⁺ σ^(-1/(P-1)), σ) otherwise

(Al-Baali, Spedicato and Maggioni; used for networks by Urbán, Stefanou and Pons). φ = 1 and τ = 1 is BFGS.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gliodil.sampling.objective import Objective


@dataclass
class SSBroyden:
    """The optimizer; one call of `step` is up to `inner` iterations.

    Attributes
    ----------
    inner
        Iterations per call.
    scaled
        False gives plain BFGS.
    """

    inner: int = 20
    scaled: bool = True
    _inverse: torch.Tensor | None = field(default=None, repr=False)

    def reset(self) -> None:
        """Keep H: the curvature of the same objective on other points is a good start."""

    def retreat(self) -> None:
        """Forget H."""
        self._inverse = None

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        """Return the next θ, its loss and whether θ moved."""
        loss, gradient = objective.gradient(theta)
        moved = False
        for _ in range(self.inner):
            fresh = self._inverse is None
            if self._inverse is None:
                size = float(gradient.norm())
                self._inverse = torch.eye(len(theta), dtype=theta.dtype, device=theta.device) / max(size, 1.0)
            direction = -(self._inverse @ gradient)
            if float(direction @ gradient) >= 0 or not bool(direction.isfinite().all()):
                self._inverse = None
                continue
            found = _search(objective, theta, direction, loss, gradient)
            if found is None:
                self._inverse = None
                if fresh:
                    break
                continue
            trial, trial_loss, trial_gradient, length = found
            self._update(trial - theta, trial_gradient - gradient, gradient, length)
            theta, loss, gradient, moved = trial, trial_loss, trial_gradient, True
        return theta, loss, moved

    def _update(self, s: torch.Tensor, y: torch.Tensor, gradient: torch.Tensor, length: float) -> None:
        h_matrix = self._inverse
        ys = float(y @ s)
        if h_matrix is None or ys <= 0:
            return
        hy = h_matrix @ y
        yhy = float(y @ hy)
        phi, tau = 1.0, 1.0
        if self.scaled:
            # s = -length H g, hence sᵀ H⁻¹ s = -length sᵀ g.
            b = -length * float(s @ gradient) / ys
            h = yhy / ys
            a = max(h * b - 1, 1e-14)
            c = math.sqrt(a / (1 + a))
            low = min(1.0, h * (1 - c))
            theta = max((low - 1) / a, min(1 / low, (1 - b) / b))
            sigma = 1 + a * theta
            phi = (1 - theta) / sigma
            high = min(1.0, 1 / b)
            root = abs(sigma) ** (-1 / max(1, len(s) - 1))
            tau = high * min(root, 1 / theta) if theta > 0 else min(high * root, sigma)
            if not (math.isfinite(tau) and tau > 0 and math.isfinite(phi)):
                phi, tau = 1.0, 1.0
        v = math.sqrt(yhy) * (s / ys - hy / yhy)
        h_matrix.addr_(hy, hy, alpha=-1 / yhy).addr_(v, v, alpha=phi).div_(tau).addr_(s, s, alpha=1 / ys)


def _search(
    objective: Objective, theta: torch.Tensor, direction: torch.Tensor, loss: float, gradient: torch.Tensor
) -> tuple[torch.Tensor, float, torch.Tensor, float] | None:
    """SciPy's strong Wolfe search along one line, derivatives kept from its own evaluations."""
    from scipy.optimize import line_search

    seen: dict[float, tuple[float, torch.Tensor]] = {0.0: (loss, gradient)}

    def at(length: Any) -> tuple[float, torch.Tensor]:
        where = float(length[0])
        if where not in seen:
            seen[where] = objective.gradient(theta + where * direction)
        return seen[where]

    slope = float(gradient @ direction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failure is returned as None and dealt with
        length = line_search(
            lambda t: at(t)[0],
            lambda t: (at(t)[1] @ direction).reshape(1).cpu().numpy(),
            np.zeros(1),
            np.ones(1),
            gfk=np.array([slope]),
            old_fval=loss,
            c2=0.9,
            maxiter=20,
        )[0]
    if length is None:
        better = [t for t, (value, _) in seen.items() if t > 0 and value < loss]
        if not better:
            return None
        length = min(better, key=lambda t: seen[t][0])
    value, slope_there = seen.get(float(length)) or objective.gradient(theta + float(length) * direction)
    if not value < loss:
        return None
    return theta + float(length) * direction, value, slope_there, float(length)
