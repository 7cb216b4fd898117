"""The discrete adjoint with two states per step: (z_n, k_1) are kept, the stages are computed again.

The whole solve is one autograd function. Backward, every accepted step is repeated on a tape of its own with the same
numbers, and pulled back:

    (z̄_n, k̄_1, θ̄) += (∂(z_{n+1}, k_s, E_n, S_n, outputs inside the step) / ∂(z_n, k_1, θ))ᵀ cotangents

k̄_1 is the cotangent of the last stage of the step before (first same as last). It is the tape's gradient, E and S
included, with the memory of one step at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from gliodil.pde.ode.march import Outputs, Path, Rules, march, stacked
from gliodil.pde.ode.parameters import Parameters, checked_first_rate
from gliodil.pde.ode.step import Field, Step, take_step


class Kept(NamedTuple):
    """What is kept of a step: where it starts, and the times that fell into it."""

    t: float
    h: float
    z: torch.Tensor
    k1: torch.Tensor
    times: range


@dataclass
class Job:
    """One solve: what goes in as plain objects, and the path that comes out."""

    f: Field
    times: tuple[float, ...]
    rules: Rules
    k1: torch.Tensor
    path: Path = field(default_factory=lambda: Path([]))
    kept: list[Kept] = field(default_factory=list)


def solve_checkpointed(
    f: Field, z0: torch.Tensor, times: tuple[float, ...], rules: Rules, parameters: Parameters
) -> tuple[Path, Outputs]:
    """Return the path and what is differentiable."""
    job = Job(f, times, rules, checked_first_rate(f, times[0], z0, parameters))
    # The job must never hold these: it is held by their node of the tape, and such a ring is not collected.
    outputs = _Solve.apply(job, z0, *parameters)  # type: ignore[no-untyped-call]
    return job.path, Outputs(*outputs)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, job: Job, z0: torch.Tensor, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        needed = any(ctx.needs_input_grad)

        def keep(step: Step, inside: range) -> None:
            if needed:
                job.kept.append(Kept(step.t, step.h, step.z, step.stages[0], inside))

        path = march(job.f, z0.detach(), job.times, job.rules, k1=job.k1, on_step=keep)
        job.path = path
        ctx.job = job
        ctx.save_for_backward(z0, *parameters)  # raises in the backward where one was changed in place
        ctx.set_materialize_grads(False)
        return stacked(path)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        states_bar: torch.Tensor | None,
        errors_bar: torch.Tensor | None,
        stiffness_bar: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, ...]:
        z0, *parameters = ctx.saved_tensors
        job: Job = ctx.job
        z_bar = torch.zeros_like(z0)
        k_bar: torch.Tensor | None = None
        sums: list[torch.Tensor | None] = [None] * len(parameters)
        for n in range(len(job.kept) - 1, -1, -1):
            kept = job.kept[n]
            with torch.enable_grad():
                z, k1 = kept.z.detach().requires_grad_(), kept.k1.detach().requires_grad_()
                with_error = errors_bar is not None and job.rules.errors
                step = take_step(job.f, kept.t, kept.h, z, k1, job.rules.tableau, error=with_error)
                outputs, bars = [step.z_new], [z_bar]
                if k_bar is not None:
                    outputs.append(step.stages[-1])
                    bars.append(k_bar)
                if states_bar is not None:
                    for index in kept.times:
                        outputs.append(output(step, job, index))
                        bars.append(states_bar[index])
                if errors_bar is not None and with_error:
                    outputs.append(step.error(job.rules.tableau, job.rules.rtol, job.rules.atol))
                    bars.append(errors_bar[n])
                if stiffness_bar is not None and job.rules.stiffness:
                    outputs.append(step.stiffness())
                    bars.append(stiffness_bar[n])
            z_bar, k_bar = pull_back(outputs, bars, z, k1, parameters, sums)
        if states_bar is not None:
            z_bar = z_bar + states_bar[0]
        if k_bar is not None:
            with torch.enable_grad():
                z = z0.detach().requires_grad_()
                rate = job.f(job.times[0], z)
            more, _ = pull_back([rate], [k_bar], z, None, parameters, sums)
            z_bar = z_bar + more
        return (None, z_bar, *sums)


def output(step: Step, job: Job, index: int) -> torch.Tensor:
    """Return what the solve put out at a time in this step: its end, or dense output."""
    t = job.times[index]
    at_end = index == len(job.times) - 1 or t == step.t + step.h
    return step.z_new if at_end else step.at(t, job.rules.tableau)


def pull_back(
    outputs: Sequence[torch.Tensor],
    bars: Sequence[torch.Tensor],
    z: torch.Tensor,
    k1: torch.Tensor | None,
    parameters: Sequence[torch.Tensor],
    sums: list[torch.Tensor | None],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the cotangents of z and k₁, and add those of the parameters to the sums."""
    inputs = [z, *([] if k1 is None else [k1]), *parameters]
    live = [(out, bar) for out, bar in zip(outputs, bars, strict=True) if out.requires_grad]
    if not live:
        return torch.zeros_like(z), None
    outputs, bars = zip(*live, strict=True)
    found = list(torch.autograd.grad(outputs, inputs, bars, allow_unused=True))
    z_bar = found.pop(0)
    k_bar = None if k1 is None else found.pop(0)
    for i, bar in enumerate(found):
        if bar is not None:
            total = sums[i]
            sums[i] = bar.clone() if total is None else total.add_(bar)
    return torch.zeros_like(z) if z_bar is None else z_bar, k_bar
