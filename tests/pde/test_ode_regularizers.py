"""Each regularizer against its formula written out."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from gliodil.errors import InputError
from gliodil.pde import ode, penalties, regularizers

TIMES = (0.0, 0.4, 1.0)


class Field(nn.Module):
    """A field in which time enters by arithmetic."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w1 = nn.Parameter(torch.randn(4, 8, generator=generator, dtype=dtype))
        self.w2 = nn.Parameter(torch.randn(8, 4, generator=generator, dtype=dtype))

    def forward(self, t: Any, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z @ self.w1 + t) @ self.w2


def start(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.fixture(scope="module")
def solution() -> ode.Solution:
    return ode.solve(Field(), start(), TIMES, rtol=1e-4, atol=1e-4, record=("error", "stiffness", "path"))


def test_reducers_are_their_formulas(solution: ode.Solution) -> None:
    E, S, h = solution.errors.tolist(), solution.stiffness.tolist(), solution.steps
    n, r = len(h), 3.5068
    literal = {
        "error code": sum(E[j] * h[j] for j in range(n)) / n,
        "error paper": sum(E[j] * h[j] for j in range(n)),
        "squared_error": sum(e * e for e in E),
        "stiffness code": max(s / r for s in S),
        "stiffness code-mean": sum(s / r for s in S) / n,
        "stiffness paper": sum(S[j] * h[j] for j in range(n)),
        "error_and_stiffness code": sum(E[j] * h[j] + 0.1 * S[j] / r for j in range(n)) / n,
        "error_and_stiffness paper": sum((E[j] + S[j]) * h[j] for j in range(n)),
        "log_error": sum(math.log(e + 1e-8) for e in E) / n / 5,
    }
    for names, expected in literal.items():
        name, *aggregation = names.split()
        settings = {"aggregation": aggregation[0]} if aggregation else {}
        value = getattr(regularizers, name)(solution, **settings)
        assert value.ndim == 0
        assert math.isclose(value.item(), expected, rel_tol=1e-12), names
        assert value.requires_grad
    with pytest.raises(InputError, match="aggregation"):
        regularizers.error(solution, aggregation="sum")  # type: ignore[arg-type]


def test_steps_without_a_stiffness_do_not_count() -> None:
    S = torch.tensor([0.0, 2.0, math.nan, 4.0], dtype=torch.float64, requires_grad=True)
    E = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    solution = SimpleNamespace(errors=E, stiffness=S, steps=(1.0, 0.5, 0.25, 2.0), order=5, stability=2.0)
    assert regularizers.stiffness(solution, aggregation="code-mean").item() == 1.5
    assert regularizers.stiffness(solution, aggregation="paper").item() == 9.0
    regularizers.stiffness(solution).backward()
    assert S.grad is not None
    assert S.grad.tolist() == [0, 0, 0, 0.5]


def test_log_error_has_the_relative_change_of_steps_as_gradient() -> None:
    """Scaling all errors by c at frozen steps changes p·R_log by log c: the steps by c^(1/p)."""
    one = SimpleNamespace(errors=torch.full((4,), 0.2), order=5)
    two = SimpleNamespace(errors=torch.full((4,), 0.2 * 32), order=5)
    change = regularizers.log_error(two, floor=0) - regularizers.log_error(one, floor=0)  # type: ignore[arg-type]
    assert math.isclose(change.item(), math.log(2), rel_tol=1e-6)


def literal_local(f: Field, t: float, z: torch.Tensor, h: float, tol: float) -> torch.Tensor:
    tableau = ode.get_tableau("tsit5")
    k, g = [f(t, z)], z
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        g = z + h * sum(a * x for a, x in zip(row, k, strict=True))
        k.append(f(t + c * h, g))
    e = h * sum(w * x for w, x in zip(tableau.e, k, strict=True))
    return (e / (tol + tol * torch.maximum(z.abs(), g.abs()))).square().mean().sqrt() * h


def first_step(f: Field, t: float, z: torch.Tensor, tol: float, left: float) -> float:
    """Hairer's heuristic, from its text."""
    sc = tol + tol * z.abs()
    rms = lambda x: (x / sc).detach().square().mean().sqrt().item()  # noqa: E731
    k = f(t, z)
    d0, d1 = rms(z), rms(k)
    h0 = 0.01 * d0 / d1
    d2 = rms(f(t + h0, z + h0 * k) - k) / h0
    return min(100 * h0, (0.01 / max(d1, d2)) ** (1 / 5), left)


def test_local_regularizers_are_one_more_step(solution: ode.Solution) -> None:
    f = Field()
    drawn = int(torch.randint(solution.accepted, (), generator=torch.Generator().manual_seed(3)))
    t = regularizers.step_starts(solution)[drawn]
    z = solution.path[drawn].detach()
    expected = literal_local(f, t, z, first_step(f, t, z, 1e-4, 1 - t), 1e-4)
    found = regularizers.local_biased(
        f, solution, generator=torch.Generator().manual_seed(3), rtol=1e-4, atol=1e-4
    )
    assert math.isclose(found.item(), expected.item(), rel_tol=1e-9)

    t = float(torch.rand((), generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    z = ode.solve(f, start(), (0.0, t), rtol=1e-12, atol=1e-12).states[-1].detach()
    expected = literal_local(f, t, z, first_step(f, t, z, 1e-4, 1 - t), 1e-4)
    found = regularizers.local_unbiased(
        f, solution, generator=torch.Generator().manual_seed(4), rtol=1e-4, atol=1e-4
    )
    assert math.isclose(found.item(), expected.item(), rel_tol=1e-2)


def test_the_local_step_is_double_where_the_solve_is_single() -> None:
    """At a step whose error is below float32's round-off the float64 gradient is still the true one."""
    z, tol = start(), 1.4e-8
    double, single = Field(), Field().float()
    truth = regularizers.local_error(double, 0.2, z, end=1.0, rtol=tol, atol=tol)
    found = regularizers.local_error(single, 0.2, z.float(), end=1.0, rtol=tol, atol=tol)
    noisy = regularizers.local_error(single, 0.2, z.float(), end=1.0, rtol=tol, atol=tol, dtype=torch.float32)
    gradients = []
    for f, value in ((double, truth), (single, found), (single, noisy)):
        gradients.append(
            torch.cat([g.double().flatten() for g in torch.autograd.grad(value, list(f.parameters()))])
        )

    def distance(g: torch.Tensor) -> float:
        return float((g - gradients[0]).norm() / gradients[0].norm())

    assert found.dtype == torch.float64
    assert distance(gradients[1]) < 1e-4
    assert distance(gradients[2]) > 10 * distance(gradients[1])


def test_a_time_among_others() -> None:
    assert regularizers.with_time((0.0, 1.0), 0.3) == ((0.0, 0.3, 1.0), 1)
    assert regularizers.with_time((1.0, 0.5, 0.0), 0.7) == ((1.0, 0.7, 0.5, 0.0), 1)
    assert regularizers.with_time((0.0, 1.0), 1.0) == ((0.0, 1.0), 1)
    with pytest.raises(InputError, match="outside"):
        regularizers.with_time((0.0, 1.0), 1.5)


@pytest.mark.parametrize("adjoint", ["tape", "checkpointed"])
def test_rnode_integrates_its_norms(adjoint: ode.Adjoint) -> None:
    f, z0 = Field(), start()
    probe = torch.randn(3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    both = penalties.RNode(f, probe)
    settings = {"rtol": 1e-9, "atol": 1e-9}
    out = ode.solve(both, both.start(z0), (0.0, 1.0), adjoint=adjoint, **settings)
    z, integrals = both.split(out.states[-1])

    times = [n / 40 for n in range(41)]
    path = ode.solve(f, z0, times, rtol=1e-11, atol=1e-11).states.detach()
    kinetic, jacobian = [], []
    for t, state in zip(times, path, strict=True):
        J = torch.stack([torch.func.jacrev(lambda x, t=t: f(t, x[None])[0])(row) for row in state])
        kinetic.append(f(t, state).square().sum(1))
        jacobian.append(torch.einsum("bi,bij->bj", probe, J).square().sum(1))
    weights = torch.tensor([1, *[4, 2] * 19, 4, 1], dtype=torch.float64) / 120
    for column, values in enumerate((kinetic, jacobian)):
        simpson = torch.einsum("t,tb->b", weights, torch.stack(values))
        assert torch.allclose(integrals[:, column], simpson, rtol=1e-4)
    assert torch.allclose(z, path[-1], atol=1e-7)
    (gradient,) = torch.autograd.grad(integrals.sum(), f.w1)
    assert gradient.norm() > 0


@pytest.mark.parametrize("adjoint", ["tape", "checkpointed"])
def test_taynode_integrates_the_second_derivative(adjoint: ode.Adjoint) -> None:
    """z' = a z + t: z'' = a² z + a t + 1, with the gradient with respect to a by differences."""

    class Linear(nn.Module):
        def __init__(self, a: float) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

        def forward(self, t: Any, z: torch.Tensor) -> torch.Tensor:
            return self.a * z + t

    def value(a: float) -> tuple[torch.Tensor, Linear]:
        f = Linear(a)
        curved = penalties.TayNode(f)
        out = ode.solve(curved, curved.start(start()), (0.0, 1.0), adjoint=adjoint, rtol=1e-10, atol=1e-10)
        return curved.split(out.states[-1])[1].sum(), f

    a = 0.7
    found, f = value(a)
    # z = (z0 + 1/a²) e^{at} − t/a − 1/a²  ⇒  z'' = (a² z0 + 1) e^{at}
    c = a * a * start() + 1
    expected = (c.square() * (math.exp(2 * a) - 1) / (2 * a)).sum()
    assert math.isclose(found.item(), expected.item(), rel_tol=1e-8)
    (gradient,) = torch.autograd.grad(found, f.a)
    slope = (value(a + 1e-5)[0] - value(a - 1e-5)[0]).item() / 2e-5
    assert math.isclose(gradient.item(), slope, rel_tol=1e-6)


def test_steer_draws_within_its_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = [penalties.steer_end(1.0, 0.5, generator=generator) for _ in range(500)]
    assert 0.5 <= min(ends) < 0.55
    assert 1.45 < max(ends) <= 1.5
    for _ in range(50):
        times = penalties.steer_times((0.0, 0.1, 0.4, 1.0), generator=generator)
        assert times[0] == 0.0
        assert list(times) == sorted(set(times))
        assert 0.05 <= times[1] <= 0.15


def test_schedules() -> None:
    assert regularizers.Constant(3.0)(17) == 3.0
    schedule = regularizers.Exponential(100.0, 10.0, 75)
    assert schedule(0) == 100.0
    assert math.isclose(schedule(75), 10.0)
    assert math.isclose(schedule(37.5), math.sqrt(1000.0))
    free = regularizers.AnnealedToZero(regularizers.Constant(2.0), begin=10, zero=20)
    assert [free(epoch) for epoch in (0, 10, 15, 20, 30)] == [2.0, 2.0, 1.0, 0.0, 0.0]
