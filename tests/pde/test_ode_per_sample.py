"""Steps per sample are the steps of single solves; finished samples cost nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gliodil.errors import InputError
from gliodil.pde import ode

TIMES = (0.0, 0.3, 1.0, 2.0)


class Rates(nn.Module):
    """z' = −λ(z₁) z + sin(t): the first column of a sample decides how fast it is."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 0.5, -0.3], dtype=torch.float64))
        self.rows = 0

    def forward(self, t: torch.Tensor | float, z: torch.Tensor) -> torch.Tensor:
        self.rows += len(z)
        speed = z[:, :1].detach().abs() + 0.5
        drive = torch.sin(t * torch.ones_like(z))
        turned = torch.cat((torch.zeros_like(z[:, :1]), (-speed * z * self.w + drive)[:, 1:]), 1)
        return turned


def start() -> torch.Tensor:
    speeds = torch.tensor([0.1, 30.0, 2.0, 9.0], dtype=torch.float64)
    rest = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat((speeds[:, None], rest), 1).requires_grad_()


@pytest.mark.parametrize(("method", "tolerance"), [("tsit5", 1e-3), ("tsit5", 1e-6), ("heun", 1e-2)])
def test_each_sample_is_its_single_solve(method: str, tolerance: float) -> None:
    f, z0 = Rates(), start()
    settings = {"method": method, "rtol": tolerance, "atol": tolerance, "record": ("error", "stiffness")}
    together = ode.solve(f, z0, TIMES, per_sample=True, **settings)
    assert together.status == "done"
    assert together.samples == 4
    assert together.sample_of_step is not None
    alone = [ode.solve(f, z0[i : i + 1], TIMES, **settings) for i in range(4)]
    for i, single in enumerate(alone):
        mine = [n for n, sample in enumerate(together.sample_of_step) if sample == i]
        assert torch.allclose(together.states[:, i : i + 1], single.states, rtol=1e-10, atol=1e-12)
        assert [together.steps[n] for n in mine] == pytest.approx(list(single.steps), rel=1e-5)
        assert torch.allclose(together.errors[mine], single.errors, rtol=1e-5, atol=1e-8)
        assert torch.allclose(together.stiffness[mine], single.stiffness, rtol=1e-6)
    assert together.accepted == sum(single.accepted for single in alone)
    assert together.rejected == sum(single.rejected for single in alone)

    def loss(states: torch.Tensor, errors: torch.Tensor, stiffness: torch.Tensor) -> torch.Tensor:
        return states.square().sum() + errors.sum() + stiffness.sum()

    one = loss(together.states, together.errors, together.stiffness)
    many = sum(loss(s.states, s.errors, s.stiffness) for s in alone)
    for a, b in zip(torch.autograd.grad(one, [z0, f.w]), torch.autograd.grad(many, [z0, f.w]), strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_finished_samples_are_not_evaluated() -> None:
    f, z0 = Rates(), start()
    out = ode.solve(f, z0, TIMES, per_sample=True)
    assert f.rows == 4 * 2 + 6 * (out.accepted + out.rejected)
    assert f.rows < 0.7 * 4 * out.evaluations


def test_a_sample_that_diverges_leaves_the_others_and_their_gradients_alone() -> None:
    z0 = torch.tensor([[1.0], [0.2], [0.1]], dtype=torch.float64, requires_grad=True)
    out = ode.solve(lambda t, z: torch.exp(40 * z * z - 36), z0, (0.0, 1.0, 2.0), per_sample=True, rtol=1e-4)
    assert out.status == "diverged"
    assert "1 of 3" in out.message
    assert out.states[1:, 0].isnan().all()
    assert not out.states[:, 1:].isnan().any()
    out.states[-1, 1:].sum().backward()
    assert z0.grad is not None
    assert z0.grad[1:].isfinite().all()
    assert z0.grad[1] > 0


def test_a_stiff_sample_ends_with_its_status() -> None:
    speeds = torch.tensor([[1.0], [1e6]], dtype=torch.float64)
    z0 = torch.cat((speeds, torch.zeros_like(speeds)), 1)

    def f(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.zeros_like(z[:, :1]), -z[:, :1] * (z[:, 1:] - torch.cos(t))), 1)

    out = ode.solve(f, z0, (0.0, 10.0), per_sample=True)
    assert out.status == "stiff"
    assert not out.states[-1, 0].isnan().any()
    assert out.states[-1, 1].isnan().all()
    assert math.isclose(
        sum(h for h, s in zip(out.steps, out.sample_of_step or (), strict=True) if s == 0), 10
    )


def test_what_needs_shared_steps_is_refused() -> None:
    with pytest.raises(InputError, match="per sample"):
        ode.solve(Rates(), start(), TIMES, per_sample=True, adjoint="checkpointed")
    with pytest.raises(InputError, match="per sample"):
        ode.solve(Rates(), start(), TIMES, per_sample=True, steps=[1.0, 1.0])
