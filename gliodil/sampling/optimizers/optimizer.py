"""What an optimizer of networks is to the training loop."""

from __future__ import annotations

from typing import Protocol

import torch

from gliodil.sampling.objective import Objective


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
