"""What training returns: a function, how it came about, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from gliodil.sampling.network import Network
from gliodil.sampling.objective import predict, squared_residual
from gliodil.sampling.problems.problem import Problem


@dataclass(frozen=True)
class Record:
    """The state after one draw.

    Attributes
    ----------
    step
        Optimizer steps so far.
    cpu_s, wall_s
        Seconds so far, evaluation of the known solution excluded.
    loss
        Training loss (half a weighted mean square).
    validation
        Root mean square residual, weighted as in training, on points not trained on, conditions included. With
        κ = 1 it estimates the root mean square over Ω.
    error, mse
        Relative L2 and mean square error under the evaluation law, if the solution is known.
    scalars
        Unknown scalars.
    """

    step: int
    cpu_s: float
    wall_s: float
    loss: float
    validation: float
    error: float | None = None
    mse: float | None = None
    scalars: tuple[float, ...] = ()


@dataclass(frozen=True)
class Solution:
    """What `solve` returns: the θ of the smallest validation residual, callable as u(x).

    Attributes
    ----------
    status
        ``converged``, ``stalled``, ``diverged`` or ``budget``.
    message
        One sentence on why it stopped.
    seed
        What reproduces it.
    history
        One record per draw of points.
    """

    problem: Problem
    network: Network
    theta: torch.Tensor
    status: str
    message: str
    seed: int
    history: tuple[Record, ...] = field(repr=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return u at x (N, d): (N,)."""
        with torch.no_grad():
            return predict(self.problem, self.network, self.theta, x.to(self.theta))

    def squared_residual(self, x: torch.Tensor) -> torch.Tensor:
        """Return r² at x (N, d): (N,)."""
        with torch.no_grad():
            return squared_residual(self.problem, self.network, self.theta)(x)

    @property
    def scalars(self) -> tuple[float, ...]:
        """The inferred scalars."""
        return tuple(float(s) for s in self.theta[self.network.size :])

    @property
    def best(self) -> Record:
        """The record of `theta`."""
        finite = [record for record in self.history if math.isfinite(record.validation)]
        return min(finite or self.history, key=lambda record: record.validation)


def relative_error(
    problem: Problem, count: int, seed: int, like: torch.Tensor
) -> Callable[[Network, torch.Tensor], tuple[float | None, float | None]]:
    """Return the function (network, θ) ↦ relative L2 and mean square error under the evaluation law.

    Its points are seeded apart: training neither sees them nor depends on how many there are.
    """
    if problem.exact is None:
        return lambda network, theta: (None, None)
    law = torch.Generator(device=like.device).manual_seed(seed + 1_000_003)
    test = problem.draw_test(count, generator=law, dtype=like.dtype)
    truth = problem.exact(test)

    def errors(network: Network, theta: torch.Tensor) -> tuple[float | None, float | None]:
        chunk = max(100, 4_000_000 // network.size)
        parts = [predict(problem, network, theta, x) for x in torch.split(test, chunk)]
        wrong = (torch.cat(parts) - truth).square().mean()
        return float((wrong / truth.square().mean()).sqrt()), float(wrong)

    return errors
