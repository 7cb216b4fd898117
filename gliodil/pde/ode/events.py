"""Zeros of g(t, z(t)) found inside the steps, to the precision of the dense output.

A step over which g changes sign holds a zero; it is bracketed and found on the dense output (Brent's method), so a
pair of zeros inside one step is not seen. Its time is differentiable: along the flow g(t*, z(t*)) = 0 gives

    dt* = − ∂g/∂z · dz / (dg/dt),        z* = z(t) + f dt*
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import brentq

from gliodil.errors import InputError
from gliodil.pde.ode.solution import EventHit
from gliodil.pde.ode.step import Step
from gliodil.pde.ode.tableaus import Tableau


@dataclass(frozen=True)
class Event:
    """A function whose zeros are looked for.

    Attributes
    ----------
    function
        ``g(t: float, z) -> 0-dimensional tensor``.
    terminal
        Whether the first zero ends the solve.
    direction
        +1: only where g rises with the solve, −1: only where it falls, 0: both.
    tolerance
        To which the time is found.
    """

    function: Callable[[float, torch.Tensor], torch.Tensor]
    terminal: bool = False
    direction: int = 0
    tolerance: float = 1e-10


class Watcher:
    """Looks for zeros in every accepted step; see `march.Watch`."""

    def __init__(self, events: Sequence[Event], t0: float, z0: torch.Tensor, tableau: Tableau) -> None:
        self.events, self.tableau = events, tableau
        self.values = [_value(event, t0, z0) for event in events]

    def __call__(self, step: Step, t_new: float, hits: list[EventHit]) -> float | None:
        """Append what is found, in order; return the time of the first terminal zero, if any."""
        found: list[tuple[float, int]] = []
        for index, event in enumerate(self.events):
            before, after = self.values[index], _value(event, t_new, step.z_new)
            self.values[index] = after
            crossed = before * after < 0 or (after == 0 and before != 0)
            if crossed and event.direction * (after - before) >= 0:
                found.append((self._locate(event, step, t_new), index))
        for t, index in sorted(found, key=lambda pair: abs(pair[0] - step.t)):
            hits.append(self._hit(index, t, step))
            if self.events[index].terminal:
                return t
        return None

    def _locate(self, event: Event, step: Step, t_new: float) -> float:
        def g(t: float) -> float:
            with torch.no_grad():
                return _value(event, t, step.z_new if t == t_new else step.at(t, self.tableau))

        if g(t_new) == 0:
            return t_new
        return float(brentq(g, step.t, t_new, xtol=event.tolerance, rtol=8.9e-16))

    def _hit(self, index: int, t: float, step: Step) -> EventHit:
        g = self.events[index].function
        state = step.at(t, self.tableau)
        moment = state.new_tensor(t)
        if not (torch.is_grad_enabled() and state.requires_grad):
            return EventHit(index, moment, state)
        with torch.no_grad():
            nudge = float(torch.finfo(state.dtype).eps) ** (1 / 3) * step.h
            ahead, behind = (step.at(t + side * nudge, self.tableau) for side in (1, -1))
            slope = (
                _value(self.events[index], t + nudge, ahead) - _value(self.events[index], t - nudge, behind)
            ) / (2 * nudge)
            flow = (ahead - behind) / (2 * nudge)
        if slope == 0:
            return EventHit(index, moment, state)
        value = g(t, state)
        shift = (value.detach() - value) / slope  # zero, with the gradient of the event's time
        return EventHit(index, moment + shift, state + flow * shift)


def check_events(events: Sequence[Event]) -> tuple[Event, ...]:
    """Return the events, or say what is wrong with them."""
    for event in events:
        if not isinstance(event, Event) or event.direction not in (-1, 0, 1) or not event.tolerance > 0:
            raise InputError(
                "That is not an event.",
                expected="ode.Event(function, terminal=..., direction=-1 | 0 | 1, tolerance > 0)",
                found=repr(event),
            )
    return tuple(events)


def _value(event: Event, t: float, z: torch.Tensor) -> float:
    with torch.no_grad():
        return float(event.function(t, z))
