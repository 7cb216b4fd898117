"""What every experiment's loop shares: a coefficient that follows a schedule, a clock of CPU seconds, an ending."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes
    ----------
    name
        As in the table.
    penalty
        What is added to the loss: one of `solving.PENALTIES`, or nothing.
    first, last
        Its coefficient at the first and after the last epoch, exponential in between.
    warm_up
        Part of the epochs over which the coefficient rises linearly from 0.
    steer
        Half-width b of the random end time, U(1 − b, 1 + b) times the interval.
    trainer
        Whose solver trains: ours, torchdiffeq or torchode.
    """

    name: str
    penalty: str | None = None
    first: float = 0.0
    last: float = 0.0
    warm_up: float = 0.0
    steer: float = 0.0
    trainer: str = "gliodil"

    def coefficient(self, epoch: float, epochs: int) -> float:
        """Return λ at an epoch counted from 0, fractions allowed."""
        if self.penalty is None or self.first == 0:
            return 0.0
        value = self.first * math.exp(-math.log(self.first / self.last) * epoch / epochs)
        if self.warm_up and epoch < self.warm_up * epochs:
            value *= epoch / (self.warm_up * epochs)
        return value


@dataclass
class Clock:
    """CPU seconds of this process and wall seconds, while running."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    _since: tuple[float, float] = field(default=(0.0, 0.0), repr=False)

    def __enter__(self) -> Clock:
        self._since = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s += time.process_time() - self._since[0]
        self.wall_s += time.perf_counter() - self._since[1]


def batches(count: int, size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Return shuffled indices in batches of ``size``; a last one less than half as long is dropped."""
    parts = list(torch.randperm(count, generator=generator).split(size))
    if len(parts) > 1 and len(parts[-1]) < size / 2:
        parts.pop()
    return parts


def inverse_decay(optimizer: torch.optim.Optimizer, rate: float) -> torch.optim.lr_scheduler.LambdaLR:
    """Divide the learning rate by 1 + ``rate`` · iteration."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1 / (1 + rate * i))


def ending(losses: list[float]) -> str:
    """Say how training ended: ``diverged``, ``stalled`` (the second half did not lower the loss) or ``budget``.

    All runs stop at their number of epochs, so an ordinary one ends on its ``budget``.
    """
    if not losses or not all(map(math.isfinite, losses)):
        return "diverged"
    half = len(losses) // 2
    if half and min(losses[half:]) >= min(losses[:half]):
        return "stalled"
    return "budget"
