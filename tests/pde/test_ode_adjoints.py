"""The checkpointed adjoint is the tape's gradient; the continuous one approaches it with the tolerance."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from gliodil.errors import InputError
from gliodil.pde import ode
from gliodil.pde.ode.checkpointed import Kept

TIMES = (0.0, 0.35, 0.4, 1.0)


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return Field().to(dtype)


class Field(nn.Module):
    """A small field with time and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, t: float, z: torch.Tensor) -> torch.Tensor:
        return 3 * self.layers(torch.cat((z, torch.full_like(z[:, :1], t)), 1))


def start(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_()


def gradients(f: nn.Module, z0: torch.Tensor, **settings: Any) -> tuple[ode.Solution, list[torch.Tensor]]:
    out = ode.solve(f, z0, TIMES, **settings)
    weights = torch.linspace(-1, 1, out.states.numel(), dtype=z0.dtype).view_as(out.states)
    loss = (out.states.square() * weights).sum()
    if out.recorded_errors is not None:
        loss = loss + (out.errors * torch.tensor(out.steps)).sum() + out.errors.square().sum()
    if out.recorded_stiffness is not None:
        loss = loss + out.stiffness.max()
    return out, list(torch.autograd.grad(loss, [z0, *f.parameters()]))


@pytest.mark.parametrize("method", tuple(ode.TABLEAUS))
@pytest.mark.parametrize("records", [True, False])
def test_checkpointed_is_the_tape(method: str, records: bool) -> None:
    record = ("error", "stiffness") if ode.get_tableau(method).same_abscissa else ("error",)
    settings = {"method": method, "rtol": 1e-4, "atol": 1e-4, "record": record if records else ()}
    tape, expected = gradients(net(), start(), **settings)
    checked, found = gradients(net(), start(), adjoint="checkpointed", **settings)
    assert checked.steps == tape.steps
    assert checked.evaluations == tape.evaluations
    assert torch.equal(checked.states, tape.states)
    for a, b in zip(expected, found, strict=True):
        assert float((a - b).norm() / a.norm()) < 1e-12


def test_checkpointed_is_the_tape_in_single_precision() -> None:
    settings = {"rtol": 1e-4, "atol": 1e-4, "record": ("error",)}
    _, expected = gradients(net(torch.float32), start(torch.float32), **settings)
    _, found = gradients(net(torch.float32), start(torch.float32), adjoint="checkpointed", **settings)
    a, b = (torch.cat([x.flatten() for x in bars]) for bars in (expected, found))
    assert float((a - b).norm() / a.norm()) < 1e-6


def test_parameters_may_be_any_tensors_of_the_graph() -> None:
    z0, leaf = start(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    found = []
    for adjoint in ("tape", "checkpointed", "continuous"):
        rate = leaf.square()
        more = {} if adjoint == "tape" else {"parameters": (rate,)}

        def f(t: float, z: torch.Tensor, rate: torch.Tensor = rate) -> torch.Tensor:
            return rate * z * (1 - z)

        out = ode.solve(f, z0, TIMES, adjoint=adjoint, rtol=1e-10, atol=1e-10, **more)
        found.append(torch.autograd.grad(out.states.sum(), leaf)[0])
    assert torch.allclose(found[1], found[0], rtol=1e-12)
    assert torch.allclose(found[2], found[0], rtol=1e-7)


@pytest.mark.parametrize("adjoint", ["checkpointed", "continuous"])
def test_a_forgotten_parameter_is_an_error(adjoint: ode.Adjoint) -> None:
    f = net()
    with pytest.raises(InputError, match="would be lost"):
        ode.solve(lambda t, z: f(t, z), start(), TIMES, adjoint=adjoint)
    with torch.no_grad():
        ode.solve(lambda t, z: f(t, z), start(), TIMES, adjoint=adjoint)


def test_parameters_changed_before_the_backward_are_noticed() -> None:
    f = net()
    out = ode.solve(f, start(), TIMES, adjoint="checkpointed")
    with torch.no_grad():
        next(f.parameters()).add_(1.0)
    with pytest.raises(RuntimeError, match="inplace"):
        out.states.sum().backward()


def test_continuous_adjoint_approaches_the_tape() -> None:
    distances = []
    for tolerance in (1e-4, 1e-9):
        settings = {"rtol": tolerance, "atol": tolerance}
        _, expected = gradients(net(), start(), **settings)
        _, found = gradients(net(), start(), adjoint="continuous", **settings)
        distances.append(max(float((a - b).norm() / a.norm()) for a, b in zip(expected, found, strict=True)))
    assert distances[0] > distances[1]
    assert distances[1] < 1e-7


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"adjoint": "continuous", "record": ("error",)}, "no gradient of: error"),
        ({"adjoint": "checkpointed", "record": ("path",)}, "no gradient of: path"),
        ({"adjoint": "symplectic"}, "no such adjoint"),
        ({"parameters": ()}, "by itself"),
    ],
)
def test_what_an_adjoint_cannot_do_is_said(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ode.solve(net(), start(), TIMES, **settings)


@pytest.mark.parametrize("adjoint", ["tape", "checkpointed", "continuous"])
def test_a_field_without_state_or_parameters_has_its_gradient(adjoint: ode.Adjoint) -> None:
    z0 = start()
    out = ode.solve(lambda t, z: torch.full_like(z, 2 * t), z0, TIMES, adjoint=adjoint)
    (gradient,) = torch.autograd.grad(out.states[-1].sum(), z0)
    assert torch.allclose(gradient, torch.ones_like(z0))


class Packed:
    """A tensor kept for the backward pass, alive as long as the tape needs it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def kept_by_functions() -> list[Kept]:
    return [x for x in gc.get_objects() if type(x) is Kept]


def entries_kept(adjoint: ode.Adjoint) -> tuple[int, int]:
    """Return how many states the tape and the function keep, and the number of steps."""
    alive: weakref.WeakSet[Packed] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Packed:
        alive.add(packed := Packed(tensor))
        return packed

    f, z0 = net(), start()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        out = ode.solve(f, z0, TIMES, adjoint=adjoint, record=("error",), rtol=1e-8, atol=1e-8)
    found = {p.tensor.data_ptr(): p.tensor.numel() for p in alive}
    for kept in kept_by_functions():
        found |= {x.data_ptr(): x.numel() for x in (kept.z, kept.k1)}
    parameters = sum(p.numel() for p in f.parameters())
    return (sum(found.values()) - parameters) // z0.numel(), out.accepted


@pytest.mark.parametrize("adjoint", ["tape", "checkpointed", "continuous"])
def test_nothing_is_kept_once_the_solution_is_gone(adjoint: ode.Adjoint) -> None:
    gc.collect()
    f, z0 = net(), start()
    watched = weakref.ref(f)
    record = () if adjoint == "continuous" else ("error",)
    out = ode.solve(f, z0, TIMES, adjoint=adjoint, record=record)
    out.states.sum().backward()
    del out, f
    gc.collect()
    assert watched() is None
    assert not kept_by_functions()


def test_the_checkpointed_adjoint_keeps_two_states_per_step() -> None:
    states, steps = entries_kept("checkpointed")
    assert 2 * steps <= states < 3 * steps
    states, steps = entries_kept("tape")
    assert states > 14 * steps, "the count sees what a tape keeps"
