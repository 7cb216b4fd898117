"""How a long loop outlives a crash: it hands out its state now and then, and goes on from one it is given.

Loops run one after another. Each begins by asking what is known of it: nothing; the state it was last kept in; or, once
it has ended, how it ended. What lies between two loops is short and is computed again. A loop that is continued takes
the steps it would have taken, bit for bit, as far as the same machine repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from gliodil.errors import InputError

State = dict[str, Any]
"""Tensors, numbers, strings, None, and lists and dictionaries (with strings as keys) of them."""


class Keeper(Protocol):
    """Keeps the states of loops."""

    def begin(self, loop: str) -> State | None:
        """Return what is known of the loop that begins now, named for a check; None: nothing."""

    def keep(self, state: Callable[[], State]) -> None:
        """Take note of the loop's state if it is time to; otherwise ``state`` is not called."""

    def end(self, state: State) -> None:
        """Take note of how the loop ended."""


@runtime_checkable
class Resumable(Protocol):
    """Something with a state of its own that a loop works with."""

    def state(self) -> State:
        """Return all that changes."""

    def restore(self, state: State) -> None:
        """Go back to a state."""


def resumable(thing: object) -> Resumable:
    """Return the thing.

    Raises
    ------
    InputError
        If it has no state to be kept.
    """
    if not isinstance(thing, Resumable):
        raise InputError(
            f"A loop with a {type(thing).__name__} cannot be continued after an interruption.",
            remedy="leave out the checkpoint",
        )
    return thing


def adam_state(optimizer: torch.optim.Adam) -> State:
    """Return the moments that Adam has gathered, by the number of the parameter."""
    return {str(number): dict(of) for number, of in optimizer.state_dict()["state"].items()}


def restore_adam(optimizer: torch.optim.Adam, state: State) -> None:
    """Give Adam the moments of ``adam_state`` back."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {int(number): of for number, of in state.items()}, "param_groups": groups}
    )
