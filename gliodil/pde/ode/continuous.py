"""The continuous adjoint, for comparison: gradients of the equation, not of the method.

    dz/dt = f,   da/dt = −(∂f/∂z)ᵀ a,   dθ̄/dt = −(∂f/∂θ)ᵀ a,   backwards;   a jumps by the cotangent of each output

Backwards between two outputs z starts from the state that was put out. θ̄ does not feed back, so it is summed with the
weights of the pair and left out of the error norm (Kidger, Chen and Lyons, ICML 2021). The error and stiffness of the
forward steps do not exist in this adjoint: it cannot differentiate them. Chen, Rubanova, Bettencourt and Duvenaud,
Neural ordinary differential equations, 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from gliodil.errors import NumericsError
from gliodil.pde.ode.march import Outputs, Path, Rules, march
from gliodil.pde.ode.parameters import Parameters, checked_first_rate
from gliodil.pde.ode.step import Field, Step


@dataclass
class Job:
    """One solve: what goes in as plain objects, and the path that comes out."""

    f: Field
    times: tuple[float, ...]
    rules: Rules
    k1: torch.Tensor
    path: Path = field(default_factory=lambda: Path([]))


def solve_continuous(
    f: Field, z0: torch.Tensor, times: tuple[float, ...], rules: Rules, parameters: Parameters
) -> tuple[Path, Outputs]:
    """Return the path and what is differentiable: the states."""
    job = Job(f, times, rules, checked_first_rate(f, times[0], z0, parameters))
    states: torch.Tensor = _Solve.apply(job, z0, *parameters)  # type: ignore[no-untyped-call]
    return job.path, Outputs(states, states.new_zeros(0), states.new_zeros(0))


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: Job, z0: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        job.path = march(job.f, z0.detach(), job.times, job.rules, k1=job.k1)
        states = torch.stack(job.path.states)
        ctx.job = job
        ctx.save_for_backward(states, *parameters)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, bars: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        states, *parameters = ctx.saved_tensors
        job: Job = ctx.job
        a = bars[-1]
        sums = [torch.zeros_like(p) for p in parameters]
        rules = replace(job.rules, first=None, frozen=None)
        for n in range(len(states) - 1, 0, -1):
            augmented = Augmented(job.f, parameters, sums, rules)
            start = torch.stack((states[n], a))
            path = march(
                augmented, start, (job.times[n], job.times[n - 1]), rules, on_step=augmented.accepted
            )
            if path.status != "done":
                raise NumericsError(
                    "The continuous adjoint did not reach the start.",
                    found=path.status,
                    remedy=f'{path.message} adjoint="checkpointed" cannot fail this way.',
                )
            a = path.states[-1][1] + bars[n - 1]
        return (None, a, *sums)


class Augmented:
    """f and −(∂f/∂z)ᵀ a on the stacked state (z, a); keeps (∂f/∂θ)ᵀ a of every stage for the sum over θ̄."""

    def __init__(
        self, f: Field, parameters: Sequence[torch.Tensor], sums: list[torch.Tensor], rules: Rules
    ) -> None:
        self.f, self.parameters, self.sums = f, list(parameters), sums
        self.weights = rules.tableau.b
        self.stages: list[list[torch.Tensor | None]] = []

    def __call__(self, t: float, y: torch.Tensor) -> torch.Tensor:
        """Return the rates of (z, a)."""
        with torch.enable_grad():
            z = y[0].detach().requires_grad_()
            rate = self.f(t, z)
            pulled: list[torch.Tensor | None] = [None] * (1 + len(self.parameters))
            if rate.requires_grad:
                pulled = list(torch.autograd.grad(rate, [z, *self.parameters], y[1], allow_unused=True))
        self.stages.append(pulled[1:])
        back = torch.zeros_like(rate) if pulled[0] is None else pulled[0].neg()
        return torch.stack((rate.detach(), back))

    def accepted(self, step: Step, inside: range) -> None:
        """Add h Σ b_i (∂f/∂θ)ᵀ a of an accepted step; its last stages are the last calls."""
        count = len(self.weights)
        stages = [self.stages[0], *self.stages[1 - count :]]
        for weight, pulled in zip(self.weights, stages, strict=True):
            for total, bar in zip(self.sums, pulled, strict=True):
                if weight and bar is not None:
                    total.add_(bar, alpha=-step.h * weight)
        self.stages = [stages[-1]]
