"""Adam, L-BFGS (torch.optim) and SOAP on a least-squares objective.

SOAP is Adam in the eigenbasis of Shampoo's preconditioner: for a weight matrix with gradient G it keeps running means
of G Gᵀ and Gᵀ G, rotates G into their eigenvectors, does Adam's step there and rotates back
(Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from gliodil.sampling.objective import Objective


@dataclass
class Adam:
    """Adam with a learning rate that decays by 1/√(1 + step/decay); one call of `step` takes `inner` of its steps."""

    learning_rate: float = 2e-3
    decay: float = 5000.0
    inner: int = 10
    _optimizer: Any = field(default=None, repr=False)
    _theta: Any = field(default=None, repr=False)
    _steps: int = field(default=0, repr=False)

    def reset(self) -> None:
        """Moments outlive new points."""

    def retreat(self) -> None:
        """Forget the moments and halve the learning rate."""
        self._optimizer = None
        self.learning_rate /= 2

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        """Return the next θ, the loss before the last inner step and whether θ moved."""
        if self._optimizer is None:
            self._theta = theta.detach().clone()
            self._optimizer = torch.optim.Adam([self._theta], lr=self.learning_rate)
        self._theta.copy_(theta)
        loss = math.nan
        for _ in range(self.inner):
            loss, self._theta.grad = objective.gradient(self._theta)
            if not math.isfinite(loss):
                break
            self._optimizer.param_groups[0]["lr"] = self.learning_rate / math.sqrt(
                1 + self._steps / self.decay
            )
            self._optimizer.step()
            self._steps += 1
        return self._theta.clone(), loss, True


@dataclass
class LBFGS:
    """torch.optim.LBFGS with a strong Wolfe search; one call of `step` is up to `inner` iterations."""

    inner: int = 20
    history: int = 50
    _optimizer: Any = field(default=None, repr=False)
    _theta: Any = field(default=None, repr=False)

    def reset(self) -> None:
        """Forget curvature pairs: they belong to other points."""
        self._optimizer = None

    def retreat(self) -> None:
        """Forget curvature pairs: the first step is then along the gradient."""
        self._optimizer = None

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        """Return the next θ, its loss and whether θ moved."""
        if self._optimizer is None:
            self._theta = theta.detach().clone()
            self._optimizer = torch.optim.LBFGS(
                [self._theta],
                max_iter=self.inner,
                history_size=self.history,
                line_search_fn="strong_wolfe",
                tolerance_grad=0.0,
                tolerance_change=0.0,
            )
        before = self._theta.clone()

        def closure() -> float:
            loss, self._theta.grad = objective.gradient(self._theta)
            return loss

        self._optimizer.step(closure)
        return self._theta.clone(), objective.loss(self._theta), bool((self._theta != before).any())


@dataclass
class SOAP:
    """SOAP; one call of `step` takes `inner` of its steps.

    Attributes
    ----------
    learning_rate, decay, inner
        As for Adam.
    betas
        Decay of first and second moments.
    memory
        Decay of the preconditioners.
    refresh
        Steps between eigendecompositions.
    """

    learning_rate: float = 3e-3
    decay: float = 5000.0
    inner: int = 10
    betas: tuple[float, float] = (0.95, 0.95)
    memory: float = 0.95
    refresh: int = 10
    _states: list[dict[str, Any]] = field(default_factory=list, repr=False)
    _steps: int = field(default=0, repr=False)

    def reset(self) -> None:
        """Moments and preconditioners outlive new points."""

    def retreat(self) -> None:
        """Forget moments and preconditioners and halve the learning rate."""
        self._states, self._steps = [], 0
        self.learning_rate /= 2

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        """Return the next θ, the loss before the last inner step and whether θ moved."""
        shapes = list(objective.network.shapes())
        if len(theta) > objective.network.size:
            shapes.append((len(theta) - objective.network.size,))
        self._states = self._states or [{} for _ in shapes]
        loss = math.nan
        for _ in range(self.inner):
            loss, gradient = objective.gradient(theta)
            if not math.isfinite(loss):
                break
            self._steps += 1
            rate = self.learning_rate / math.sqrt(1 + self._steps / self.decay)
            pieces = torch.split(gradient, [math.prod(shape) for shape in shapes])
            moves = [
                self._move(piece.reshape(shape), state).reshape(-1)
                for piece, shape, state in zip(pieces, shapes, self._states, strict=True)
            ]
            theta = theta - rate * torch.cat(moves)
        return theta, loss, True

    def _move(self, g: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
        matrix = g.ndim == 2
        if matrix:
            for side, product in (("left", g @ g.T), ("right", g.T @ g)):
                old = state.get(side)
                state[side] = product if old is None else self.memory * old + (1 - self.memory) * product
            if (self._steps - 1) % self.refresh == 0:
                # The second moments belong to the old basis; they adapt within 1/(1 - β) steps.
                state["bases"] = [torch.linalg.eigh(state[side]).eigenvectors for side in ("left", "right")]
        mean = state.get("mean", torch.zeros_like(g))
        state["mean"] = mean = self.betas[0] * mean + (1 - self.betas[0]) * g
        rotated, m = g, mean
        if matrix:
            left, right = state["bases"]
            rotated, m = left.T @ g @ right, left.T @ mean @ right
        variance = state.get("variance", torch.zeros_like(g))
        state["variance"] = variance = self.betas[1] * variance + (1 - self.betas[1]) * rotated**2
        first = m / (1 - self.betas[0] ** self._steps)
        move = first / ((variance / (1 - self.betas[1] ** self._steps)).sqrt() + 1e-12)
        back: torch.Tensor = left @ move @ right.T if matrix else move
        return back
