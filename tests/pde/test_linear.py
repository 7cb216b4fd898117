"""The derivative of torch operations as linear maps: dense Jacobians, and what does not depend on what."""

from __future__ import annotations

import pytest
import torch

from gliodil.pde.odil.linear import LinearMap, Tensors

SHAPES = [(3,), (), (2, 2), (4,)]


def function(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, unused: torch.Tensor) -> list[torch.Tensor]:
    """Nonlinear, linear and kinked outputs, of several shapes; none sees all inputs, one input is seen by none."""
    return [
        torch.sin(a) * b.exp(),
        (a @ a) * c.square(),
        3 * a.flip(0) + 1,
        (c - c.mean()).clamp(min=0).reshape(-1),
        b * c.sum(),
    ]


def normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def leaves() -> list[torch.Tensor]:
    return [normal(shape, k).requires_grad_() for k, shape in enumerate(SHAPES)]


def dense(x: Tensors) -> list[list[torch.Tensor]]:
    """∂output/∂input, a matrix for every pair."""
    blocks = torch.autograd.functional.jacobian(lambda *y: tuple(function(*y)), tuple(t.detach() for t in x))
    return [[block.reshape(-1, t.numel()) for block, t in zip(row, x, strict=True)] for row in blocks]


def test_push_is_the_jacobian(leaves: list[torch.Tensor]) -> None:
    outputs = function(*leaves)
    linear, jacobian = LinearMap(outputs, leaves), dense(leaves)
    for seed in (10, 20):
        dx = [normal(shape, seed + k) for k, shape in enumerate(SHAPES)]
        found = linear.push(dx)
        for output, change, row in zip(outputs, found, jacobian, strict=True):
            expected = sum(block @ t.reshape(-1) for block, t in zip(row, dx, strict=True))
            assert float(expected.abs().sum()) > 0
            torch.testing.assert_close(change, expected.reshape(output.shape), rtol=1e-12, atol=1e-13)


def test_pull_is_its_transpose(leaves: list[torch.Tensor]) -> None:
    outputs = function(*leaves)
    linear, jacobian = LinearMap(outputs, leaves), dense(leaves)
    for seed in (10, 20):
        q = [normal(tuple(o.shape), seed + k) for k, o in enumerate(outputs)]
        found = linear.pull(q)
        for k, (x, change) in enumerate(zip(leaves, found, strict=True)):
            expected = sum(row[k].T @ t.reshape(-1) for row, t in zip(jacobian, q, strict=True))
            torch.testing.assert_close(change, expected.reshape(x.shape), rtol=1e-12, atol=1e-13)


def test_push_and_pull_are_adjoint(leaves: list[torch.Tensor]) -> None:
    outputs = function(*leaves)
    linear = LinearMap(outputs, leaves)
    dx = [normal(shape, 30 + k) for k, shape in enumerate(SHAPES)]
    q = [normal(tuple(o.shape), 40 + k) for k, o in enumerate(outputs)]
    forward = sum(float((a * b).sum()) for a, b in zip(linear.push(dx), q, strict=True))
    backward = sum(float((a * b).sum()) for a, b in zip(linear.pull(q), dx, strict=True))
    assert forward == pytest.approx(backward, rel=1e-13)


def test_what_does_not_depend_counts_as_zero(leaves: list[torch.Tensor]) -> None:
    """An input seen by no output, and outputs that do not see the input that moves."""
    outputs = function(*leaves)
    linear = LinearMap(outputs, leaves)
    pulled = linear.pull([torch.ones_like(o) for o in outputs])
    assert torch.equal(pulled[3], torch.zeros(4, dtype=torch.float64))
    zero = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    only_unused = linear.push([*zero[:3], torch.ones(4, dtype=torch.float64)])
    assert [t.shape for t in only_unused] == [o.shape for o in outputs]
    assert all(torch.count_nonzero(t) == 0 for t in only_unused)
    only_b = linear.push([zero[0], torch.ones((), dtype=torch.float64), *zero[2:]])
    assert [bool(t.any()) for t in only_b] == [True, False, False, False, True]


def test_linear_functions_are_their_own_derivative() -> None:
    """Nothing of the input is left in the derivative; the map must not lose it for that."""
    a = normal((4, 3), 1)
    x = normal((3,), 2).requires_grad_()
    linear = LinearMap([a @ x, x], [x])
    dx, q = normal((3,), 3), normal((4,), 4)
    pushed = linear.push([dx])
    torch.testing.assert_close(pushed[0], a @ dx, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(pushed[1], dx, rtol=0, atol=0)
    torch.testing.assert_close(linear.pull([q, dx])[0], a.T @ q + dx, rtol=1e-13, atol=1e-14)


def test_precisions_may_differ() -> None:
    """Scalars in float64 decide over fields in float32, as parameters do over coefficients."""
    y = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    field = torch.linspace(0, 1, 5) * y[0].exp().float()
    linear = LinearMap([field, y.square().sum()], [y])
    pushed = linear.push([torch.tensor([1.0, 2.0], dtype=torch.float64)])
    assert [t.dtype for t in pushed] == [torch.float32, torch.float64]
    torch.testing.assert_close(pushed[0], field.detach())
    assert float(pushed[1]) == pytest.approx(2 * 0.3 - 4 * 0.2)
    (pulled,) = linear.pull([torch.ones(5), torch.zeros((), dtype=torch.float64)])
    assert pulled.dtype == torch.float64
    assert float(pulled[0]) == pytest.approx(float(field.detach().sum()), rel=1e-6)


def test_leaves_are_left_alone(leaves: list[torch.Tensor]) -> None:
    """No gradients are accumulated on the inputs, and what comes back carries no graph."""
    outputs = function(*leaves)
    linear = LinearMap(outputs, leaves)
    back = linear.pull([torch.ones_like(o) for o in outputs])
    there = linear.push([torch.ones_like(t) for t in leaves])
    assert all(t.grad is None for t in leaves)
    assert not any(t.requires_grad for t in (*back, *there))
