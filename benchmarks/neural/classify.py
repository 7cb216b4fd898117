"""Images to digits through a neural ODE: MNIST and scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from gliodil.errors import NumericsError
from gliodil.pde import penalties
from neural.data import Labelled
from neural.models import Classifier
from neural.records import Row
from neural.solving import peer_solve, solve
from neural.training import Clock, Variant, batches, ending, inverse_decay


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Sizes and settings; tolerance is both rtol and atol."""

    pool: int = 1
    hidden: int = 100
    train: int | None = None
    test: int | None = None
    batch: int = 512
    epochs: int = 75
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    decay: float = 1e-5
    tolerance: float = 1.4e-8
    dtype: torch.dtype = torch.float64


def run(
    config: ClassifierConfig,
    variant: Variant,
    seed: int,
    train: Labelled,
    test: Labelled,
    peers: tuple[str, ...],
) -> Row:
    """Train one classifier and measure it on the test images."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    train = _prepared(train, config.train, config.dtype)
    test = _prepared(test, config.test, config.dtype)
    model = Classifier(train.x.shape[1], config.hidden).to(config.dtype)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=config.learning_rate, momentum=config.momentum)
    decay = inverse_decay(optimizer, config.decay)
    clock, losses, course = Clock(), [], []
    try:
        for epoch in range(config.epochs):
            with clock:
                parts = batches(len(train.x), config.batch, source)
                total = 0.0
                for i, part in enumerate(parts):
                    coefficient = variant.coefficient(epoch + i / len(parts), config.epochs)
                    loss = _loss(
                        model, variant, coefficient, train.x[part], train.y[part], config.tolerance, source
                    )
                    optimizer.zero_grad()
                    loss[1].backward()
                    optimizer.step()
                    decay.step()
                    total += float(loss[0].detach())
            losses.append(total / len(parts))
            course.append(_nfe(model, test.x[: config.batch], config.tolerance))
        status = ending(losses)
    except NumericsError as error:
        status = f"diverged ({error.found})"
    if status.startswith("diverged"):
        return {"value": None, "nfe": None, "status": status, "train_cpu_s": clock.cpu_s, "peers": {}}
    measured = _predict(model, test, config)
    return {
        **measured,
        "status": status,
        "train_loss": losses[-1],
        "train_cpu_s": clock.cpu_s,
        "train_wall_s": clock.wall_s,
        "nfe_by_epoch": course,
        "peers": {peer: _predict(model, test, config, peer) for peer in peers},
    }


def _loss(
    model: Classifier,
    variant: Variant,
    coefficient: float,
    x: torch.Tensor,
    y: torch.Tensor,
    tolerance: float,
    source: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the task's loss and what is minimized."""
    end = penalties.steer_end(1.0, variant.steer, generator=source) if variant.steer else 1.0
    if variant.trainer != "gliodil":
        states, _ = peer_solve(variant.trainer, model.dynamics, x, (0.0, end), tolerance=tolerance)
        task = cross_entropy(model.head(states[-1]), y)
        return task, task
    name = variant.penalty if coefficient else None
    solved = solve(model.dynamics, x, (0.0, end), tolerance=tolerance, penalty=name, generator=source)
    task = cross_entropy(model.head(solved.states[-1]), y)
    return task, task if solved.penalty is None else task + coefficient * solved.penalty


def _predict(model: Classifier, test: Labelled, config: ClassifierConfig, peer: str | None = None) -> Row:
    """Return accuracy in %, NFE per batch and CPU seconds of predicting one batch."""
    right, clock = 0, Clock()
    counts: list[tuple[int, int, int]] = []
    with torch.no_grad(), clock:
        for x, y in zip(test.x.split(config.batch), test.y.split(config.batch), strict=True):
            if peer is None:
                solution = solve(model.dynamics, x, (0.0, 1.0), tolerance=config.tolerance).solution
                state = solution.states[-1]
                counts.append((solution.evaluations, solution.accepted, solution.rejected))
            else:
                states, calls = peer_solve(peer, model.dynamics, x, (0.0, 1.0), tolerance=config.tolerance)
                state = states[-1]
                counts.append((calls, 0, 0))
            right += int((model.head(state).argmax(1) == y).sum())
    mean = torch.tensor(counts, dtype=torch.float64).mean(0).tolist()
    row: Row = {
        "value": 100 * right / len(test.y),
        "nfe": mean[0],
        "predict_cpu_s": clock.cpu_s / len(counts),
    }
    return row | {"accepted": mean[1], "rejected": mean[2]} if peer is None else row


def _nfe(model: Classifier, x: torch.Tensor, tolerance: float) -> int:
    with torch.no_grad():
        return solve(model.dynamics, x, (0.0, 1.0), tolerance=tolerance).solution.evaluations


def _prepared(data: Labelled, count: int | None, dtype: torch.dtype) -> Labelled:
    data = data if count is None else data.take(count)
    return Labelled(data.x.to(dtype), data.y)
