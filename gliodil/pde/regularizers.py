"""What makes a learned differential equation cheap to solve: penalties on the solver's own heuristics.

    loss = loss_task + λ(epoch) R,       R from the records of a solve:  E_j error, S_j stiffness, h_j step (constant)

                            aggregation="code"            aggregation="paper"
    error                   mean_j E_j |h_j|              Σ_j E_j |h_j|
    squared_error           –                             Σ_j E_j²
    stiffness               max_j S_j / r                 Σ_j S_j |h_j|            "code-mean": mean_j S_j / r
    error_and_stiffness     mean_j(E_j |h_j| + S_j/10r)   Σ_j (E_j + S_j) |h_j|
    log_error               mean_j log(E_j + ε) / p       (not published)

r is the length of the real stability interval and p the order of the method. Published coefficients belong to the
aggregation of the published code. The controller holds E_j where it wants it, so the value of R says nothing about
cost: watch the evaluations. `log_error` has the relative change of the number of steps as its gradient, whatever the
tolerance. Steps whose stiffness is zero or not finite do not count. Rejected steps do not count.

Local regularizers look at one more step, started anywhere on the solution: E(t) h(t). It is evaluated in float64
whatever the dtype of the solve, because E is a difference of nearly equal numbers (``ode.heuristics``).

Sources: Pal, Ma, Shah and Rackauckas, Opening the Blackbox, ICML 2021; Pal, Edelman and Rackauckas, Locally
Regularized Neural Differential Equations, ICML 2023. Penalties on the dynamics instead: ``penalties``.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from gliodil.errors import InputError
from gliodil.pde.ode import Solution
from gliodil.pde.ode.controller import PIController
from gliodil.pde.ode.march import Path, Rules, choose_first_step
from gliodil.pde.ode.step import Field, take_step
from gliodil.pde.ode.tableaus import get_tableau

Aggregation = Literal["code", "paper"]
StiffnessAggregation = Literal["code", "code-mean", "paper"]
Schedule = Callable[[float], float]
"""λ(epoch), the epoch counted from zero."""


class Recorded(Protocol):
    """What a solve with records offers: of an ordinary or of a stochastic equation."""

    @property
    def errors(self) -> torch.Tensor:
        """E_j of the accepted steps."""

    @property
    def stiffness(self) -> torch.Tensor:
        """S_j of the accepted steps."""

    @property
    def steps(self) -> Sequence[float]:
        """h_j of the accepted steps."""

    @property
    def order(self) -> float:
        """Order p."""

    @property
    def stability(self) -> float:
        """Stability interval r."""


def error(solution: Recorded, *, aggregation: Aggregation = "code") -> torch.Tensor:
    """Return R_E, 0-dimensional (ERNODE)."""
    weighted = solution.errors * _lengths(solution)
    return weighted.mean() if _is_code(aggregation) else weighted.sum()


def squared_error(solution: Recorded) -> torch.Tensor:
    """Return Σ_j E_j², 0-dimensional."""
    return solution.errors.square().sum()


def stiffness(solution: Recorded, *, aggregation: StiffnessAggregation = "code") -> torch.Tensor:
    """Return R_S, 0-dimensional (SRNODE); "code-mean" is what the code does for stochastic equations."""
    S, lengths = solution.stiffness, _lengths(solution)
    known = torch.isfinite(S) & (S > 0)
    S, lengths = S[known], lengths[known]
    if aggregation != "code-mean" and not _is_code(aggregation):
        return (S * lengths).sum()
    if S.numel() == 0:
        return S.sum()
    return (S.mean() if aggregation == "code-mean" else S.max()) / solution.stability


def error_and_stiffness(solution: Recorded, *, aggregation: Aggregation = "code") -> torch.Tensor:
    """Return both in one, 0-dimensional (ERNODE + SRNODE, with one coefficient)."""
    S = solution.stiffness
    S = torch.where(torch.isfinite(S), S, torch.zeros_like(S))
    E_h = solution.errors * _lengths(solution)
    if _is_code(aggregation):
        return (E_h + 0.1 * S / solution.stability).mean()
    return (E_h + S * _lengths(solution)).sum()


def log_error(solution: Recorded, *, floor: float = 1e-8) -> torch.Tensor:
    """Return R_log, 0-dimensional: its gradient is the relative change of the number of steps.

    ``floor`` is ε. Not published; a coefficient means the same at every tolerance and order.
    """
    return torch.log(solution.errors + floor).mean() / solution.order


def local_error(
    f: Field,
    t: float,
    z: torch.Tensor,
    *,
    end: float,
    method: str = "tsit5",
    rtol: float = 1e-6,
    atol: float = 1e-6,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Return E(t) |h(t)| of one fresh step from z(t) towards ``end``, 0-dimensional and differentiable.

    h is what the first-step heuristic chooses, a constant. A module is evaluated with its parameters in ``dtype``;
    another callable must take a state of that dtype.
    """
    tableau = get_tableau(method)
    rules = Rules(tableau, PIController.of(tableau), rtol, atol)
    field, state = in_dtype(f, dtype), z.to(dtype)
    k1 = field(t, state)
    h = choose_first_step(field, t, state, k1, end, rules, Path([]))
    step = take_step(field, t, h, state, k1, tableau, error=True)
    return step.error(tableau, rtol, atol) * abs(h)


def local_unbiased(
    f: Field,
    solution: Solution,
    *,
    generator: torch.Generator,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Return E(t) h(t) at a time drawn uniformly from the interval of the solve, which recorded its path.

    z(t) is reached by a part of the step the solve took there. Without the tape: draw a time, put it among the times
    of the solve (`with_time`), and hand the state to `local_error`.
    """
    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    begin, end = solution.times[0], solution.times[-1]
    t = begin + share * (end - begin)
    starts = step_starts(solution)
    forward = 1.0 if end > begin else -1.0
    n = max(0, bisect.bisect_right([forward * start for start in starts], forward * t) - 1)
    z = solution.path[n]
    tableau = get_tableau(solution.method)
    if t != starts[n]:
        z = take_step(f, starts[n], t - starts[n], z, f(starts[n], z), tableau).z_new
    return local_error(f, t, z, end=end, method=solution.method, rtol=rtol, atol=atol, dtype=dtype)


def local_biased(
    f: Field,
    solution: Solution,
    *,
    generator: torch.Generator,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Return E(t) h(t) at the start of one of the accepted steps, each as likely: where the solver works most."""
    n = int(torch.randint(solution.accepted, (), generator=generator))
    t, end = step_starts(solution)[n], solution.times[-1]
    return local_error(
        f, t, solution.path[n], end=end, method=solution.method, rtol=rtol, atol=atol, dtype=dtype
    )


def step_starts(solution: Solution) -> list[float]:
    """Return the times at which the accepted steps start."""
    starts = [solution.times[0]]
    for h in solution.steps[:-1]:
        starts.append(starts[-1] + h)
    return starts


def with_time(times: Sequence[float], t: float) -> tuple[tuple[float, ...], int]:
    """Return the times with t among them, and its index."""
    if not min(times[0], times[-1]) <= t <= max(times[0], times[-1]):
        raise InputError(
            "That time is outside the solve.", expected=f"{times[0]:g} to {times[-1]:g}", found=f"{t:g}"
        )
    together = tuple(sorted({*times, t}, reverse=times[0] > times[-1]))
    return together, together.index(t)


def in_dtype(f: Field, dtype: torch.dtype) -> Field:
    """Return f with its parameters and buffers in another precision; gradients still go to the originals."""
    if not isinstance(f, torch.nn.Module):
        return f
    tensors = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in (*f.named_parameters(), *f.named_buffers())
    }

    def converted(t: float, z: torch.Tensor) -> torch.Tensor:
        rate: torch.Tensor = torch.func.functional_call(f, tensors, (t, z))
        return rate

    return converted


@dataclass(frozen=True)
class Constant:
    """λ(epoch) = value."""

    value: float

    def __call__(self, epoch: float) -> float:
        """Return the coefficient."""
        return self.value


@dataclass(frozen=True)
class Exponential:
    """λ(epoch) = first · (last/first)^(epoch/epochs), from ``first`` > 0 to ``last`` > 0."""

    first: float
    last: float
    epochs: float

    def __call__(self, epoch: float) -> float:
        """Return the coefficient."""
        return self.first * math.exp(-math.log(self.first / self.last) * epoch / self.epochs)


@dataclass(frozen=True)
class AnnealedToZero:
    """Another schedule, taken linearly to zero between two epochs and zero afterwards.

    For laws that are to be identified: what is learned last is learned without a penalty.
    """

    schedule: Schedule
    begin: float
    zero: float

    def __call__(self, epoch: float) -> float:
        """Return the coefficient."""
        share = (
            (self.zero - epoch) / (self.zero - self.begin) if self.zero > self.begin else epoch < self.zero
        )
        return self.schedule(epoch) * min(1.0, max(0.0, share))


def _lengths(solution: Recorded) -> torch.Tensor:
    lengths = [abs(h) for h in solution.steps]
    try:
        like = solution.errors
    except InputError:
        like = solution.stiffness
    return torch.tensor(lengths, dtype=like.dtype, device=like.device)


def _is_code(aggregation: str) -> bool:
    if aggregation not in ("code", "paper"):
        raise InputError("There is no such aggregation.", expected="code, paper", found=aggregation)
    return aggregation == "code"
