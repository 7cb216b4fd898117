"""Events are found where they are, and their times have gradients."""

from __future__ import annotations

import math

import pytest
import torch

from gliodil.errors import InputError
from gliodil.pde import ode


def circle(t: float, z: torch.Tensor) -> torch.Tensor:
    """Return the rates of z = (sin t, cos t)."""
    return torch.stack((z[1], -z[0]))


START = torch.tensor([0.0, 1.0], dtype=torch.float64)
TIGHT = {"rtol": 1e-11, "atol": 1e-11}


def level(t: float, z: torch.Tensor) -> torch.Tensor:
    return z[0] - 0.5


def test_all_crossings_are_found_to_tolerance_and_in_order() -> None:
    events = (ode.Event(level), ode.Event(lambda t, z: z[1]), ode.Event(lambda t, z: torch.tensor(t - 4.0)))
    out = ode.solve(circle, START, (0.0, 7.0), events=events, **TIGHT)
    expected = [
        (math.pi / 6, 0),
        (math.pi / 2, 1),
        (5 * math.pi / 6, 0),
        (4.0, 2),
        (3 * math.pi / 2, 1),
        (13 * math.pi / 6, 0),
    ]
    assert out.status == "done"
    assert [hit.index for hit in out.events] == [index for _, index in expected]
    for hit, (t, _) in zip(out.events, expected, strict=True):
        assert abs(float(hit.time) - t) < 2e-9
        assert torch.allclose(hit.state, torch.stack((hit.time.sin(), hit.time.cos())), atol=2e-9)


@pytest.mark.parametrize(("direction", "count"), [(1, 2), (-1, 1), (0, 3)])
def test_direction(direction: int, count: int) -> None:
    out = ode.solve(circle, START, (0.0, 7.0), events=[ode.Event(level, direction=direction)])
    assert len(out.events) == count


def test_a_terminal_event_stops_and_later_times_are_not_reached() -> None:
    out = ode.solve(circle, START, (0.0, 0.4, 1.0, 5.0), events=[ode.Event(level, terminal=True)], **TIGHT)
    assert out.status == "event"
    assert out.raise_for_status() is out
    assert out.reached == 2
    assert math.isclose(float(out.states[1, 0]), math.sin(0.4), rel_tol=1e-9)
    assert out.states[2:].isnan().all()
    assert len(out.events) == 1


def test_backward_in_time() -> None:
    out = ode.solve(circle, START, (0.0, -5.0), events=[ode.Event(lambda t, z: z[1])], **TIGHT)
    assert [round(float(hit.time), 8) for hit in out.events] == [
        round(-math.pi / 2, 8),
        round(-3 * math.pi / 2, 8),
    ]


def test_time_and_state_of_an_event_are_differentiable() -> None:
    """Free fall from height y with speed v: T = (v + √(v² + 2 g y))/g, landing speed √(v² + 2 g y)."""
    gravity = torch.tensor(9.81, dtype=torch.float64, requires_grad=True)
    z0 = torch.tensor([3.0, 2.0], dtype=torch.float64, requires_grad=True)

    def fall(t: float, z: torch.Tensor) -> torch.Tensor:
        return torch.stack((z[1], -gravity + 0 * z[1]))

    ground = ode.Event(lambda t, z: z[0], terminal=True)
    (hit,) = ode.solve(fall, z0, (0.0, 5.0), events=[ground], **TIGHT).events
    height, speed = z0
    landing = torch.sqrt(speed**2 + 2 * gravity * height)
    exact = (speed + landing) / gravity
    assert torch.allclose(hit.time, exact, rtol=1e-10)
    assert torch.allclose(hit.state[1], -landing, rtol=1e-9)
    for found, expected in ((hit.time, exact), (hit.state[1], -landing)):
        a = torch.autograd.grad(found, [z0, gravity], retain_graph=True)
        b = torch.autograd.grad(expected, [z0, gravity], retain_graph=True)
        for x, y in zip(a, b, strict=True):
            assert torch.allclose(x, y, rtol=1e-7)


def test_what_is_not_an_event_is_named() -> None:
    with pytest.raises(InputError, match="not an event"):
        ode.solve(circle, START, (0.0, 1.0), events=[level])  # type: ignore[list-item]
    with pytest.raises(InputError, match="need the tape"):
        ode.solve(circle, START, (0.0, 1.0), events=[ode.Event(level)], adjoint="checkpointed")
