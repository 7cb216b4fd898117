"""`solve_sde`: adaptive or fixed steps through du = f(u, t) dt + g(u, t) ⊙ dW, Itô, one step size for the whole state.

Step lengths, accept-reject decisions and noise are constants: the gradient of anything returned is that of the
fixed-grid method on the grid that was chosen.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import torch

from gliodil.errors import InputError
from gliodil.pde.sde import steps
from gliodil.pde.sde.brownian import BrownianPath, Increment, merge
from gliodil.pde.sde.control import Controller, first_step
from gliodil.pde.sde.solution import FrozenPath, Solution, Status
from gliodil.pde.sde.steps import Attempt, Field
from gliodil.pde.sde.tableaus import SOSRA2, SOSRI, SOSRI2, SRA1, AdditiveTableau, DiagonalTableau

TABLEAUS: dict[str, DiagonalTableau | AdditiveTableau] = {t.name: t for t in (SOSRI, SOSRI2, SRA1, SOSRA2)}
EULER = "euler_maruyama"
METHODS = (*TABLEAUS, EULER)
RECORDS = ("error", "stiffness", "noise")
SHORTEST = 1e-12
"""Part of the whole interval below which a step is not taken."""
SLIVER = 1e-9
"""Part of a step that is not left over before an output time: it would be a step of its own."""


def solve_sde(
    drift: Field,
    diffusion: Field,
    u0: torch.Tensor,
    times: Sequence[float],
    *,
    method: str = "sosri",
    rtol: float = 1e-2,
    atol: float = 1e-2,
    generator: torch.Generator | None = None,
    record: str | Sequence[str] = (),
    step: float | None = None,
    frozen: FrozenPath | None = None,
    max_steps: int = 100_000,
) -> Solution:
    """Solve an Itô equation with diagonal noise.

    Parameters
    ----------
    drift, diffusion
        f(t, u) and g(t, u), each of the state's shape. With ``sra1`` and ``sosra2`` g must not depend on u.
    u0
        State at ``times[0]``, any shape; every element has its own Brownian motion, one step size serves all.
    times
        Increasing output times, at least two; steps end on each of them exactly.
    method
        ``sosri`` or ``sosri2`` (strong order 1.5), ``sra1`` or ``sosra2`` (additive noise), or ``euler_maruyama``
        (strong order ½). ``sosri2`` and ``sosra2`` know their stiffness.
    rtol, atol
        Tolerances of the embedded error. It contains how far the drift moves the state in a step, so a tolerance far
        below 1e-3 buys very many steps.
    generator
        Source of all randomness; required unless ``frozen`` is given.
    record
        Any of ``error``, ``stiffness`` (differentiable, per accepted step) and ``noise`` (for ``frozen``).
    step
        A fixed step length instead of error control.
    frozen
        Steps and noise to repeat, from a solution's ``path``; tolerances then decide nothing.
    max_steps
        Steps, rejected ones included, after which the status is ``step_limit``.

    Raises
    ------
    InputError
        Unknown method or record, times out of order, a method without the heuristic asked for, no generator.
    """
    record = (record,) if isinstance(record, str) else tuple(record)
    _check(u0, times, method, record, generator, step, frozen)
    f, g = _Counted(drift), _Counted(diffusion)
    tableau = TABLEAUS.get(method)
    adaptive = step is None and frozen is None
    estimate = adaptive or "error" in record
    start, end = float(times[0]), float(times[-1])

    def attempt(t: float, u: torch.Tensor, noise: Increment) -> Attempt:
        if isinstance(tableau, DiagonalTableau):
            return steps.step_diagonal(tableau, f, g, t, u, noise)
        if isinstance(tableau, AdditiveTableau):
            return steps.step_additive(tableau, f, g, t, u, noise)
        return steps.step_euler(f, g, t, u, noise, estimate=estimate)

    def scaled_error(tried: Attempt, u: torch.Tensor) -> torch.Tensor:
        # On the tape only where it is asked for: otherwise it decides, and nothing else.
        with torch.set_grad_enabled(torch.is_grad_enabled() and "error" in record):
            return steps.scaled_error(tried, u, atol=atol, rtol=rtol)

    controller = Controller() if tableau is not None else Controller(beta1=7 / 10, beta2=4 / 10)
    proposal = math.inf if step is None else step
    order = 1.5 if tableau is not None else 0.5
    if adaptive:
        proposal = first_step(f, g, start, u0, end - start, atol=atol, rtol=rtol, order=order)
    noise_source = _Noise(u0, generator, frozen)

    t, u = start, u0
    outputs = [u0]
    lengths: list[float] = []
    errors: list[torch.Tensor] = []
    stiff: list[torch.Tensor] = []
    walked: list[Increment] = []
    rejected = 0
    status: Status = "done"
    for target in map(float, times[1:]):
        while t < target and status == "done":
            if len(lengths) + rejected >= max_steps:
                status = "step_limit"
                break
            remaining = target - t
            h = remaining if proposal >= remaining * (1 - SLIVER) else proposal
            noise = noise_source.take(h)
            if noise.length > remaining * (1 + SLIVER):
                raise InputError(
                    "A frozen step goes past an output time.",
                    expected="the output times of the solution it comes from, or some of its step ends",
                    found=f"a step of {noise.length:g} at {t:g}, output at {target:g}",
                )
            ends_here = noise.length >= remaining * (1 - SLIVER)
            tried = attempt(t, u, noise)
            error = scaled_error(tried, u) if estimate else None
            if adaptive and error is not None:
                E = float(error.detach())
                if not E <= 1:
                    rejected += 1
                    noise_source.put_back()
                    proposal = controller.after_rejected(h, E)
                    if t + proposal <= t or proposal < SHORTEST * (end - start):
                        status = "stiff" if math.isfinite(E) else "diverged"
                    continue
                following = controller.after_accepted(h, E)
                # A step cut short by an output time says nothing against the length proposed before.
                proposal = max(following, proposal) if ends_here else following
            elif not bool(torch.isfinite(tried.u).all()):
                status = "diverged"
                break
            if "error" in record and error is not None:
                errors.append(error)
            if "stiffness" in record:
                stiff.append(steps.stiffness(tried))
            if "noise" in record:
                walked.append(noise)
            lengths.append(noise.length)
            u = tried.u
            t = target if ends_here else t + noise.length
        if status != "done":
            break
        outputs.append(u)

    reached = len(outputs)
    outputs += [torch.full_like(u0, math.nan)] * (len(times) - reached)
    empty = u0.new_zeros(0)
    return Solution(
        times=tuple(map(float, times)),
        states=torch.stack(outputs),
        reached=reached,
        status=status,
        message=_message(status, t),
        steps=tuple(lengths),
        accepted=len(lengths),
        rejected=rejected,
        drift_evaluations=f.calls,
        diffusion_evaluations=g.calls,
        method=method,
        order=order,
        stability=math.nan if tableau is None or tableau.stability is None else tableau.stability,
        recorded_errors=(torch.stack(errors) if errors else empty) if "error" in record else None,
        recorded_stiffness=(torch.stack(stiff) if stiff else empty) if "stiffness" in record else None,
        recorded_noise=FrozenPath(tuple(walked)) if "noise" in record else None,
    )


class _Counted:
    def __init__(self, field: Field) -> None:
        self.field = field
        self.calls = 0

    def __call__(self, t: float, u: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.field(t, u)


class _Noise:
    """Increments from a path that can take rejected ones back, or those of a frozen path in their order."""

    def __init__(
        self, like: torch.Tensor, generator: torch.Generator | None, frozen: FrozenPath | None
    ) -> None:
        self._frozen = None if frozen is None else iter(frozen.increments)
        self._path = None if generator is None or frozen is not None else BrownianPath(like, generator)
        self._pieces: list[Increment] = []

    def take(self, length: float) -> Increment:
        if self._frozen is not None:
            return next(self._frozen)
        assert self._path is not None
        self._pieces = self._path.take(length)
        return functools.reduce(merge, self._pieces)

    def put_back(self) -> None:
        assert self._path is not None
        self._path.put_back(self._pieces)


def _message(status: Status, t: float) -> str:
    return {
        "done": "",
        "step_limit": f"The step limit was reached at t = {t:.6g}; allow more with max_steps, or loosen the tolerances.",
        "stiff": f"At t = {t:.6g} no step was short enough for the tolerances; loosen them, or rescale the problem.",
        "diverged": f"At t = {t:.6g} the state or a right-hand side was not finite; check the equation there.",
    }[status]


def _check(
    u0: torch.Tensor,
    times: Sequence[float],
    method: str,
    record: Sequence[str],
    generator: torch.Generator | None,
    step: float | None,
    frozen: FrozenPath | None,
) -> None:
    if method not in METHODS:
        raise InputError("There is no such method.", expected=", ".join(METHODS), found=method)
    if unknown := sorted(set(record) - set(RECORDS)):
        raise InputError(
            "There is no such record of a solve.", expected=", ".join(RECORDS), found=", ".join(unknown)
        )
    if not u0.is_floating_point() or u0.numel() == 0:
        raise InputError(
            "The initial state is not a floating-point tensor with entries.",
            found=f"{tuple(u0.shape)}, {u0.dtype}",
        )
    if len(times) < 2 or not all(b > a for a, b in itertools.pairwise(times)):
        raise InputError(
            "Output times must increase, and there must be two or more.", found=str(list(times)[:8])
        )
    if "stiffness" in record and (method == EULER or TABLEAUS[method].equal_stages is None):
        raise InputError(
            f"{method} has no two drift stages at one time, which the stiffness estimate compares.",
            remedy="use sosri2, or sosra2 for additive noise",
        )
    if generator is None and frozen is None:
        raise InputError("A generator is needed.", remedy="pass generator=torch.Generator().manual_seed(...)")
    if step is not None and not step > 0:
        raise InputError("The step must be positive.", found=str(step))
    if frozen is not None:
        length = math.fsum(piece.length for piece in frozen.increments)
        if not math.isclose(length, float(times[-1]) - float(times[0]), rel_tol=1e-9):
            raise InputError(
                "The frozen path is not as long as the time to solve for.",
                expected=f"{float(times[-1]) - float(times[0]):g}",
                found=f"{length:g}",
            )
