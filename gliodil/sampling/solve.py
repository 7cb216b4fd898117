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

import torch

from gliodil.errors import InputError
from gliodil.pde.resume import Keeper, Resumable, State, resumable
from gliodil.sampling.network import Network
from gliodil.sampling.objective import Objective, squared_residual
from gliodil.sampling.optimizers.levenberg_marquardt import LevenbergMarquardt
from gliodil.sampling.optimizers.optimizer import Optimizer
from gliodil.sampling.points import Points, Sampler
from gliodil.sampling.problems.problem import Problem
from gliodil.sampling.schedule import Schedule
from gliodil.sampling.solution import Record, Solution, relative_error

# A validation residual this many times the best one sends θ back; so many times without gain between, it has diverged.
HARM = 1e3
RETREATS = 10


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


@dataclass
class _Progress:
    """What draws change, next to the generator, the optimizer and the sampler."""

    theta: torch.Tensor
    best_theta: torch.Tensor
    best: float = math.inf
    step: int = 0
    since: int = 0
    """Draws since the best one."""
    idle: int = 0
    """Draws in which no step moved θ, in a row."""
    retreats: int = 0
    status: str = ""
    message: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    history: list[Record] = field(default_factory=list)

    def kept(self) -> State:
        return vars(self) | {"history": [asdict(record) for record in self.history]}

    @classmethod
    def restored(cls, kept: State) -> _Progress:
        history = [Record(**{**entry, "scalars": tuple(entry["scalars"])}) for entry in kept["history"]]
        return cls(**{**kept, "history": history})


class _Loop:
    """One call of `solve`."""

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
        self.cpu, self.wall = time.process_time(), time.monotonic()

    def run(
        self, start: torch.Tensor | None, progress: Callable[[Record], None] | None, keeper: Keeper | None
    ) -> Solution:
        plan = self.plan
        parts: tuple[Resumable, ...] = ()
        kept = None
        if keeper is not None:
            parts = tuple(resumable(part) for part in (self.optimizer, self.sampler) if part is not None)
            kept = keeper.begin("network")
        at = self._begin(start) if kept is None else self._continue(kept, parts)

        def state() -> State:
            return {
                "progress": at.kept() | {"cpu_s": self._spent(), "wall_s": time.monotonic() - self.wall},
                "generator": self.generator.get_state(),
                "parts": [part.state() for part in parts],
            }

        ended = bool(at.status)
        while self._goes_on(at):
            loss, moved = self._steps(at)
            self._look(at, loss)
            if progress is not None:
                progress(at.history[-1])
            good = self._judge(at, moved)
            if at.status:
                break
            if good and plan.adapt and len(at.history) % plan.adapt == 0:
                self._adapt(at.theta)
            if keeper is not None:
                keeper.keep(state)
        if not at.status:
            limit = f"{plan.steps} steps" if at.step >= plan.steps else f"{plan.budget_s:g} CPU seconds"
            at.status, at.message = "budget", f"Training stopped at its budget of {limit}."
        if keeper is not None and not ended:
            keeper.end(state())
        return Solution(
            self.problem, self.network, at.best_theta, at.status, at.message, self.seed, tuple(at.history)
        )

    def _begin(self, start: torch.Tensor | None) -> _Progress:
        """Return the first θ, with the sampler prepared on it."""
        theta = self._start(start)
        if self.sampler is not None and start is None and self.plan.prepare:
            for _ in range(self.plan.prepare):
                self._adapt(theta)
            theta = self._start(None, through=self.draw(1000).x)
        return _Progress(theta, theta)

    def _continue(self, kept: State, parts: tuple[Resumable, ...]) -> _Progress:
        """Go back to a state that was kept."""
        at = _Progress.restored(kept["progress"])
        self.cpu, self.wall = self.cpu - at.cpu_s, self.wall - at.wall_s
        self.generator.set_state(kept["generator"].cpu())
        for part, of_part in zip(parts, kept["parts"], strict=True):
            part.restore(of_part)
        return at

    def _goes_on(self, at: _Progress) -> bool:
        # One draw at least: a sampler that spent the budget on preparing leaves something to report.
        in_time = self._spent() < self.plan.budget_s or not at.history
        return not at.status and at.step < self.plan.steps and in_time

    def _spent(self) -> float:
        return time.process_time() - self.cpu

    def _steps(self, at: _Progress) -> tuple[float, bool]:
        """Take the steps of one draw; return the last loss and whether θ moved."""
        objective = self._objective(self.count)
        self.optimizer.reset()
        moved_at_all, loss = False, math.nan
        for _ in range(min(self.plan.resample, self.plan.steps - at.step)):
            at.theta, loss, moved = self.optimizer.step(objective, at.theta)
            at.step += 1
            moved_at_all |= moved
            if not moved or not math.isfinite(loss) or self._spent() > self.plan.budget_s:
                break
        return loss, moved_at_all

    def _look(self, at: _Progress, loss: float) -> None:
        """Add a record; what the known solution costs is not counted."""
        validation = math.sqrt(2 * self._objective(self.plan.validation).loss(at.theta))
        before = time.process_time()
        error, mse = self.errors(self.network, at.theta)
        self.cpu += time.process_time() - before
        scalars = tuple(float(s) for s in at.theta[self.network.size :])
        now = time.monotonic() - self.wall
        at.history.append(Record(at.step, self._spent(), now, loss, validation, error, mse, scalars))

    def _judge(self, at: _Progress, moved: bool) -> bool:
        """Take note of the last record, end or take back the steps; return whether they did no harm."""
        plan, loss, validation = self.plan, at.history[-1].loss, at.history[-1].validation
        finite = math.isfinite(loss) and math.isfinite(validation)
        if not finite or validation > HARM * at.best:
            at.retreats += 1
            if math.isinf(at.best) or at.retreats > RETREATS:
                how = f"grew to {validation:.1e}" if finite else "stopped being finite"
                at.status, at.message = "diverged", f"The validation residual {how} at step {at.step}."
            at.theta = at.best_theta.clone()
            self.optimizer.retreat()
            return False
        if validation < at.best:
            at.best, at.best_theta, at.since, at.retreats = validation, at.theta.clone(), 0, 0
        else:
            at.since += 1
        at.idle = 0 if moved else at.idle + 1
        if at.best <= plan.tolerance:
            at.status, at.message = "converged", f"The validation residual is {at.best:.1e}."
        elif at.since >= plan.patience or at.idle >= 5:
            at.status = "stalled"
            at.message = f"No better validation residual than {at.best:.1e} for {at.since} draws."
        return True

    def _objective(self, count: int) -> Objective:
        """Return the objective on fresh points."""
        plan = self.plan
        return Objective(
            self.problem,
            self.network,
            self.draw(count),
            kappa=plan.kappa,
            conditions=self.draw_conditions(),
            decay=plan.decay,
        )

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
