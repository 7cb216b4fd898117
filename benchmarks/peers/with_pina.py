"""PINA on a problem: its usual float32 and uniform points drawn once, Adam for half the time, then L-BFGS.

Its R3 points are no choice: in 0.3.2 they are computed, but the batches that it trains on stay what they were. PINA
trains by Lightning, an epoch being one step of Adam or 20 of L-BFGS here; what only reports is switched off.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import pina.problem
import torch
from pina import Condition, LabelTensor, Trainer
from pina.callback import SwitchOptimizer
from pina.domain import CartesianDomain
from pina.equation import Equation
from pina.model import FeedForward
from pina.optim import TorchOptimizer
from pina.solver import PhysicsInformedSingleModelSolver
from pina.weighting import ScalarWeighting

from gliodil.sampling.derivatives import Jet
from gliodil.sampling.problems.problem import Problem
from peers import Task
from peers.statement import boundary, harden, interior, jet_of
from peers.watch import Watch

NEVER = sys.maxsize


class Hard(torch.nn.Module):
    """PINA's network with the hard conditions around it."""

    def __init__(self, problem: Problem, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.problem = problem
        self.inner = FeedForward(problem.box.dimension, 1, layers=list(hidden), func=torch.nn.Tanh)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain = x.as_subclass(torch.Tensor)
        return harden(self.problem, plain, self.inner(plain))


class Clock(SwitchOptimizer):  # type: ignore[misc]
    """Changes to L-BFGS after half the time and ends training after all of it."""

    def __init__(self, watch: Watch, budget_s: float) -> None:
        super().__init__(TorchOptimizer(torch.optim.LBFGS, line_search_fn="strong_wolfe"), NEVER)
        self.watch, self.budget_s = watch, budget_s

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if self._epoch_switch == NEVER and self.watch.spent() >= self.budget_s / 2:
            self._epoch_switch = trainer.current_epoch
        super().on_train_epoch_start(trainer, module)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if self.watch.tick(self.budget_s):
            trainer.should_stop = True


def state(task: Task) -> Any:
    """Return the problem in PINA's terms; time is one more coordinate."""
    problem, box = task.problem, task.problem.box
    names = [f"x{axis}" for axis in range(box.dimension)]
    generator = torch.Generator().manual_seed(task.seed)

    def equation(residual: Callable[[torch.Tensor, Jet], torch.Tensor]) -> Equation:
        def evaluate(x: Any, u: Any) -> torch.Tensor:
            # Derivatives by the labelled x, which u comes from; all else is plain tensors.
            return residual(x.as_subclass(torch.Tensor), jet_of(problem, x, u.as_subclass(torch.Tensor)))

        return Equation(evaluate)

    domain = CartesianDomain({n: [a, b] for n, a, b in zip(names, box.lower, box.upper, strict=True)})
    stated = {"inside": Condition(domain="inside", equation=equation(partial(interior, problem)))}
    for index, condition in enumerate(problem.conditions):
        x = LabelTensor(condition.points(200, generator=generator, dtype=torch.float32), names)
        stated[f"condition {index}"] = Condition(input=x, equation=equation(partial(boundary, condition)))

    class Stated(pina.problem.SpatialProblem):  # type: ignore[misc]
        output_variables = ["u"]  # noqa: RUF012
        spatial_domain = domain
        domains = {"inside": domain}  # noqa: RUF012
        conditions = stated

    made = Stated()
    made.discretise_domain(task.points, mode="random", domains="inside")
    return made


def solve(task: Task, _: str) -> dict[str, Any]:
    """Train until the budget is spent; there is one way to."""
    torch.set_default_dtype(torch.float32)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    problem = state(task)
    network = Hard(task.problem, task.hidden)
    weights = {f"condition {i}": condition.weight for i, condition in enumerate(task.problem.conditions)}

    def predict(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return network(x.float())[:, 0]

    watch = Watch(task, predict)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(
            PhysicsInformedSingleModelSolver(problem, network, weighting=ScalarWeighting(weights)),
            accelerator="cpu",
            max_epochs=-1,
            callbacks=[Clock(watch, task.budget_s)],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=False,
        ).train()
    return watch.result(version("pina-mathlab"), sum(p.numel() for p in network.parameters()))
