"""DeepXDE on a problem: its usual float32, uniform points drawn anew every 100 steps of Adam, Adam or Adam then L-BFGS.

L-BFGS takes over after half the time; its points stay.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DDE_BACKEND", "pytorch")

import deepxde as dde
import torch

from peers import Task
from peers.statement import boundary, harden, interior, jet_of
from peers.watch import Watch


class Clock(dde.callbacks.Callback):  # type: ignore[misc]
    """Ends training when its share of the time is over."""

    def __init__(self, watch: Watch, until: float) -> None:
        super().__init__()
        self.watch, self.until = watch, until

    def on_epoch_end(self) -> None:
        if self.watch.tick(self.until):
            self.model.stop_training = True


def solve(task: Task, optimizer: str) -> dict[str, Any]:
    """Train until the budget is spent."""
    problem = task.problem
    dde.config.set_default_float("float32")
    dde.config.set_random_seed(task.seed)
    generator = torch.Generator().manual_seed(task.seed)

    def equation(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        return interior(problem, x, jet_of(problem, x, u))

    conditions, weights = [], [1.0]
    for condition in problem.conditions:
        x = condition.points(200, generator=generator, dtype=torch.float32).numpy()

        def operator(x: torch.Tensor, u: torch.Tensor, _: Any, stated: Any = condition) -> torch.Tensor:
            return boundary(stated, x, jet_of(problem, x, u))

        conditions.append(dde.icbc.PointSetOperatorBC(x, 0 * x[:, :1], operator))
        weights.append(condition.weight)
    data = dde.data.PDE(
        dde.geometry.Hypercube(list(problem.box.lower), list(problem.box.upper)),
        equation,
        conditions,
        num_domain=task.points,
        train_distribution="pseudo",
    )
    network = dde.nn.FNN([problem.box.dimension, *task.hidden, 1], "tanh", "Glorot normal")
    network.apply_output_transform(lambda x, raw: harden(problem, x, raw))
    model = dde.Model(data, network)
    watch = Watch(task, lambda x: torch.as_tensor(model.predict(x.float().numpy()))[:, 0])
    share = 0.5 if optimizer == "lbfgs" else 1.0
    model.compile("adam", lr=1e-3, loss_weights=weights, verbose=0)
    callbacks = [Clock(watch, share * task.budget_s), dde.callbacks.PDEPointResampler(period=100)]
    model.train(iterations=10_000_000, callbacks=callbacks, display_every=10_000_000, verbose=0)
    if optimizer == "lbfgs":
        limits = dde.optimizers.config
        limits.set_LBFGS_options(maxiter=10_000_000, ftol=0, gtol=0)
        # Its callbacks, and with them the clock, come round between calls of torch's optimizer only.
        limits.LBFGS_options["iter_per_step"], limits.LBFGS_options["fun_per_step"] = 20, 25
        model.compile("L-BFGS", loss_weights=weights, verbose=0)
        model.train(callbacks=[Clock(watch, task.budget_s)], display_every=10_000_000, verbose=0)
    return watch.result(dde.__version__, network.num_trainable_parameters())
