"""Solves as the experiments need them: ours with a penalty beside the states, and the peers' on the same dynamics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gliodil.errors import InputError
from gliodil.pde import ode, penalties, regularizers

RECORDED = {
    "er": ("error",),
    "er2": ("error",),
    "r_log": ("error",),
    "sr": ("stiffness",),
    "er+sr": ("error", "stiffness"),
    "local": ("path",),
    "local_biased": ("path",),
}
DYNAMICS = ("rnode", "taynode")
PENALTIES = (*RECORDED, *DYNAMICS)


@dataclass(frozen=True)
class Solved:
    """States (times, n, d), the penalty R (None without one), and the solve they come from."""

    states: torch.Tensor
    penalty: torch.Tensor | None
    solution: ode.Solution


def solve(
    f: torch.nn.Module,
    z0: torch.Tensor,
    times: Sequence[float],
    *,
    tolerance: float,
    penalty: str | None = None,
    generator: torch.Generator | None = None,
) -> Solved:
    """Solve with Tsit5 and the tape; ``penalty`` is one of `PENALTIES`, aggregated as in the published code."""
    if penalty is None:
        solution = ode.solve(f, z0, times, rtol=tolerance, atol=tolerance).raise_for_status()
        return Solved(solution.states, None, solution)
    if penalty in DYNAMICS:
        return _augmented(f, z0, times, tolerance, penalty, generator)
    if penalty not in RECORDED:
        raise InputError("There is no such penalty.", expected=", ".join(PENALTIES), found=penalty)
    record = RECORDED[penalty]
    solution = ode.solve(f, z0, times, rtol=tolerance, atol=tolerance, record=record).raise_for_status()
    return Solved(solution.states, _reduce(f, solution, tolerance, penalty, generator), solution)


def _reduce(
    f: torch.nn.Module,
    solution: ode.Solution,
    tolerance: float,
    penalty: str,
    generator: torch.Generator | None,
) -> torch.Tensor:
    if penalty.startswith("local"):
        assert generator is not None
        local = regularizers.local_biased if penalty == "local_biased" else regularizers.local_unbiased
        return local(f, solution, generator=generator, rtol=tolerance, atol=tolerance)
    reducers: dict[str, Callable[[ode.Solution], torch.Tensor]] = {
        "er": regularizers.error,
        "er2": regularizers.squared_error,
        "r_log": regularizers.log_error,
        "sr": regularizers.stiffness,
        "er+sr": regularizers.error_and_stiffness,
    }
    return reducers[penalty](solution)


def _augmented(
    f: torch.nn.Module,
    z0: torch.Tensor,
    times: Sequence[float],
    tolerance: float,
    penalty: str,
    generator: torch.Generator | None,
) -> Solved:
    field: penalties.RNode | penalties.TayNode
    if penalty == "rnode":
        probe = torch.randn(z0.shape, generator=generator, dtype=z0.dtype)
        field = penalties.RNode(f, probe)
    else:
        field = penalties.TayNode(f)
    solution = ode.solve(field, field.start(z0), times, rtol=tolerance, atol=tolerance).raise_for_status()
    states, integrals = field.split(solution.states)
    # Per sample and component, so that coefficients do not depend on sizes.
    return Solved(states, integrals[-1].sum(-1).mean() / z0.shape[-1], solution)


def peer_solve(
    peer: str, f: torch.nn.Module, z0: torch.Tensor, times: Sequence[float], *, tolerance: float
) -> tuple[torch.Tensor, int]:
    """Solve with another library's dopri5; return states (times, n, d) and the evaluations of f."""
    counted = _Counted(f)
    moments = torch.tensor(times, dtype=z0.dtype)
    if peer == "torchdiffeq":
        import torchdiffeq

        states = torchdiffeq.odeint(counted, z0, moments, rtol=tolerance, atol=tolerance, method="dopri5")
        return states, counted.calls
    if peer == "torchode":
        import torchode

        term = torchode.ODETerm(counted)
        stepper = torchode.Dopri5(term=term)
        control = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
        adjoint = torchode.AutoDiffAdjoint(stepper, control, backprop_through_step_size_control=False)
        problem = torchode.InitialValueProblem(y0=z0, t_eval=moments.expand(len(z0), -1))
        return adjoint.solve(problem).ys.transpose(0, 1), counted.calls
    raise InputError("There is no such peer.", expected="torchdiffeq, torchode", found=peer)


class _Counted(torch.nn.Module):
    def __init__(self, f: torch.nn.Module) -> None:
        super().__init__()
        self.f = f
        self.calls = 0

    def forward(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.f(t, z)
