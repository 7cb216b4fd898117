"""The training loop: draw points, take steps, look at points the steps have not seen, adapt the law.

    repeat   q ← a/|Ω| + (1 - a) p          the defensive mixture; p is the sampler's law
             N interior points from q, fresh points of each soft condition
             `resample` steps on F(θ)        (`objective`)
             validate: the same weighted mean on other points, plus the conditions;
             a thousand times the best: back to the best θ, with shorter steps
             p adapts to r²

The loss on the training points is no error indicator: networks learn to be small between them. What is reported,
compared and returned is judged by the validation residual, and where the solution is known by the relative L2 error,
which is never used to choose anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Protocol

import torch

from gliodil.errors import InputError
from gliodil.pde.resume import Keeper, Resumable, State, resumable
from gliodil.sampling.networks import Network
from gliodil.sampling.objective import Objective, predict, squared_residual
from gliodil.sampling.optimizers.levenberg_marquardt import LevenbergMarquardt
from gliodil.sampling.points import Points, Sampler
from gliodil.sampling.problems.problem import Problem

STATUSES = ("converged", "stalled", "diverged", "budget")
# A validation residual this many times the best one sends θ back; so many times without gain between, it has diverged.
HARM = 1e3
RETREATS = 10


class Optimizer(Protocol):
    """What the loop needs of an optimizer."""

    def reset(self) -> None:
        """Take note that the points have changed."""
        ...

    def retreat(self) -> None:
        """Take note that θ went back to an earlier one: the last steps did harm, the next ones are to be shorter."""
        ...

    def step(self, objective: Objective, theta: torch.Tensor) -> tuple[torch.Tensor, float, bool]:
        """Return the next θ, a loss and whether θ moved."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and on what the loop trains.

    Attributes
    ----------
    budget_s
        CPU seconds of this process, evaluation of known solutions not counted.
    steps
        Most optimizer steps.
    points
        Interior points N; three times the number of parameters if not given.
    condition_points
        Points of each soft condition.
    resample
        Steps between fresh points.
    kappa
        Exponent of the importance weights p^-κ: 1 is the uniform L2 norm, 0 the adversarial objective.
    defensive
        Share a of uniform points in the mixture.
    validation
        Points of the validation residual.
    tolerance
        Stop as ``converged`` once the root mean square validation residual is below this.
    patience
        Stop as ``stalled`` after this many draws without a better validation residual.
    adapt
        Draws between two updates of the sampler; 0 leaves it as `prepare` made it.
    prepare
        Updates of the sampler before the first step, on the residual of u = G (the last layer is zero then): in
        many dimensions a random network would hide a localized source. The network's first layer is then drawn
        through points of that law.
    """

    budget_s: float = 60.0
    steps: int = 100_000
    points: int | None = None
    condition_points: int = 200
    resample: int = 10
    kappa: float = 1.0
    defensive: float = 0.3
    validation: int = 2000
    tolerance: float = 0.0
    patience: int = 60
    adapt: int = 1
    prepare: int = 5

    def __post_init__(self) -> None:
        if not 0 <= self.kappa <= 1 or not 0 <= self.defensive <= 1:
            raise InputError(
                "kappa and defensive must lie in [0, 1].", found=f"{self.kappa} and {self.defensive}"
            )
        if min(self.steps, self.condition_points, self.resample, self.validation) < 1:
            raise InputError("Counts of steps and points must be at least 1.")
        if self.adapt < 0 or self.prepare < 0:
            raise InputError("Counts of updates must not be negative.", found=f"{self.adapt}, {self.prepare}")


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


def solve(
    problem: Problem,
    *,
    network: Network,
    sampler: Sampler | None = None,
    optimizer: Optimizer | None = None,
    schedule: Schedule | None = None,
    seed: int = 0,
    start: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    test_points: int = 20_000,
    progress: Callable[[Record], None] | None = None,
    keeper: Keeper | None = None,
) -> Solution:
    """Train `network` until the validation residual is small enough or the budget is spent.

    Parameters
    ----------
    problem, network
        What is solved and with what.
    sampler
        Adaptive law of the interior points; uniform if not given.
    optimizer
        Levenberg-Marquardt with variable projection if not given.
    schedule
        Budget, points, weights.
    seed
        Seed of everything random here. Runs are reproducible from it up to where the time budget cuts them.
    start
        Starting θ; drawn by the network if not given.
    test_points
        Points of the evaluation law for problems whose solution is known.
    progress
        Called with every record.
    keeper
        Keeps the state after a draw, and gives it back after an interruption. Sampler and optimizer have to be
        ``pde.resume.Resumable``: Levenberg-Marquardt, uniform points and flows are.

    Raises
    ------
    InputError
        If ``start`` does not fit the network, or with a ``keeper`` where sampler or optimizer is not resumable.
    """
    plan = schedule or Schedule()
    with torch.no_grad():
        loop = _Loop(
            problem, network, sampler, optimizer, plan, seed, dtype, torch.device(device), test_points
        )
        return loop.run(start, progress, keeper)


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


class _Loop:
    """The state of one call of `solve`."""

    def __init__(
        self,
        problem: Problem,
        network: Network,
        sampler: Sampler | None,
        optimizer: Optimizer | None,
        plan: Schedule,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
        test_points: int,
    ) -> None:
        self.problem, self.network, self.sampler, self.plan = problem, network, sampler, plan
        self.optimizer = optimizer or LevenbergMarquardt(projection=True)
        self.seed, self.dtype, self.device = seed, dtype, device
        self.generator = torch.Generator(device=device).manual_seed(seed)
        size = network.size + len(problem.scalars)
        self.count = plan.points or 3 * size
        like = torch.zeros(1, dtype=dtype, device=device)
        self.errors = relative_error(problem, test_points, seed, like)

    def run(
        self, start: torch.Tensor | None, progress: Callable[[Record], None] | None, keeper: Keeper | None
    ) -> Solution:
        plan = self.plan
        parts: tuple[Resumable, ...] = ()
        if keeper is not None:
            parts = tuple(resumable(part) for part in (self.optimizer, self.sampler) if part is not None)
        kept = None if keeper is None else keeper.begin("network")
        looked = 0.0
        cpu, wall = time.process_time(), time.monotonic()

        def spent() -> float:
            return time.process_time() - cpu - looked

        if kept is None:
            theta = self._start(start)
            if self.sampler is not None and start is None and plan.prepare:
                for _ in range(plan.prepare):
                    self._adapt(theta)
                theta = self._start(None, through=self.draw(1000).x)
            best_theta, best, since, step, idle, retreats = theta, math.inf, 0, 0, 0, 0
            history: list[Record] = []
            status, message = "", ""
        else:
            theta, best_theta, best, since, step, idle, retreats, status, message = (
                kept[name]
                for name in (
                    "theta",
                    "best_theta",
                    "best",
                    "since",
                    "step",
                    "idle",
                    "retreats",
                    "status",
                    "message",
                )
            )
            history = [Record(**{**entry, "scalars": tuple(entry["scalars"])}) for entry in kept["history"]]
            cpu, wall = cpu - kept["cpu_s"], wall - kept["wall_s"]
            self.generator.set_state(kept["generator"].cpu())
            for part, of_part in zip(parts, kept["parts"], strict=True):
                part.restore(of_part)

        def state() -> State:
            return {
                "theta": theta, "best_theta": best_theta, "best": best, "since": since, "step": step,
                "idle": idle, "retreats": retreats, "status": status, "message": message,
                "history": [asdict(r) for r in history], "cpu_s": spent(), "wall_s": time.monotonic() - wall,
                "generator": self.generator.get_state(),
                "parts": [part.state() for part in parts],
            }  # fmt: skip

        # One draw at least: a sampler that spent the budget on preparing leaves something to report.
        while not status and step < plan.steps and (spent() < plan.budget_s or not history):
            objective = Objective(
                self.problem,
                self.network,
                self.draw(self.count),
                kappa=plan.kappa,
                conditions=self.draw_conditions(),
            )
            self.optimizer.reset()
            moved_at_all, loss = False, math.nan
            for _ in range(min(plan.resample, plan.steps - step)):
                theta, loss, moved = self.optimizer.step(objective, theta)
                step += 1
                moved_at_all |= moved
                if not moved or not math.isfinite(loss) or spent() > plan.budget_s:
                    break
            validation = self.validate(theta)
            before = time.process_time()
            error, mse = self.errors(self.network, theta)
            looked += time.process_time() - before
            scalars = tuple(float(s) for s in theta[self.network.size :])
            now = time.monotonic() - wall
            history.append(Record(step, spent(), now, loss, validation, error, mse, scalars))
            if progress is not None:
                progress(history[-1])
            finite = math.isfinite(loss) and math.isfinite(validation)
            if not finite or validation > HARM * best:
                retreats += 1
                if math.isinf(best) or retreats > RETREATS:
                    how = f"grew to {validation:.1e}" if finite else "stopped being finite"
                    status, message = "diverged", f"The validation residual {how} at step {step}."
                    break
                theta = best_theta.clone()
                self.optimizer.retreat()
                continue
            if validation < best:
                best, best_theta, since, retreats = validation, theta.clone(), 0, 0
            else:
                since += 1
            if best <= plan.tolerance:
                status, message = "converged", f"The validation residual is {best:.1e}."
                break
            idle = 0 if moved_at_all else idle + 1
            if since >= plan.patience or idle >= 5:
                status, message = (
                    "stalled",
                    f"No better validation residual than {best:.1e} for {since} draws.",
                )
                break
            if plan.adapt and len(history) % plan.adapt == 0:
                self._adapt(theta)
            if keeper is not None:
                keeper.keep(state)
        if not status:
            limit = f"{plan.steps} steps" if step >= plan.steps else f"{plan.budget_s:g} CPU seconds"
            status, message = "budget", f"Training stopped at its budget of {limit}."
        if keeper is not None and not (kept and kept["status"]):
            keeper.end(state())
        return Solution(self.problem, self.network, best_theta, status, message, self.seed, tuple(history))

    def _adapt(self, theta: torch.Tensor) -> None:
        if self.sampler is not None:
            law = squared_residual(self.problem, self.network, theta)
            with torch.enable_grad():  # a flow is trained
                self.sampler.update(law, generator=self.generator)

    def draw(self, count: int) -> Points:
        """Draw from the defensive mixture; the density is the mixture's."""
        box = self.problem.box
        own = 0 if self.sampler is None else count - round(self.plan.defensive * count)
        unit = torch.rand(
            count - own, box.dimension, generator=self.generator, dtype=self.dtype, device=self.device
        )
        x = box.from_unit(unit)
        if self.sampler is None or own == 0:
            return Points(x, x.new_full((count,), 1 / box.volume))
        x = torch.cat([x, self.sampler.draw(own, generator=self.generator).x.to(x)])
        share = own / count
        return Points(x, (1 - share) / box.volume + share * self.sampler.density(x).to(x))

    def draw_conditions(self) -> tuple[torch.Tensor, ...]:
        """Draw fresh points of every soft condition."""
        return tuple(
            condition.points(self.plan.condition_points, generator=self.generator, dtype=self.dtype)
            for condition in self.problem.conditions
        )

    def validate(self, theta: torch.Tensor) -> float:
        """Return the root of the mean of w r² (and γ b²) on fresh points: over Ω if κ = 1."""
        points = self.draw(self.plan.validation)
        objective = Objective(
            self.problem, self.network, points, kappa=self.plan.kappa, conditions=self.draw_conditions()
        )
        return math.sqrt(2 * objective.loss(theta))

    def _start(self, start: torch.Tensor | None, *, through: torch.Tensor | None = None) -> torch.Tensor:
        size = self.network.size + len(self.problem.scalars)
        if start is None:
            own = self.network.initial(generator=self.generator, dtype=self.dtype, through=through)
            own[self.network.linear] = 0.0
            return torch.cat([own, own.new_tensor(self.problem.scalars)])
        if start.shape != (size,):
            raise InputError(
                "The starting parameters do not fit the network.",
                expected=f"{size} values",
                found=f"{tuple(start.shape)}",
            )
        return start.detach().to(self.device, self.dtype).clone()


__all__ = ["STATUSES", "Optimizer", "Record", "Schedule", "Solution", "solve"]
