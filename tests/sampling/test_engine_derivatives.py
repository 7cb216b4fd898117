"""Taylor streams, residual Jacobians and gradients against nested automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from plain_sampler import PlainUniform

from gliodil.sampling.bases import LocalBases, Sum
from gliodil.sampling.derivatives import coordinates
from gliodil.sampling.domain import Box
from gliodil.sampling.mlp import MLP
from gliodil.sampling.objective import Objective, predict
from gliodil.sampling.problems.burgers import burgers
from gliodil.sampling.problems.fisher_kpp import fisher_kpp
from gliodil.sampling.problems.problem import Problem

BOX = Box((-1.0, 0.0), (1.0, 2.0))
ROWS = ((1.0, 0.3), (0.0, 2.0))


def networks() -> dict[str, object]:
    places = torch.tensor([[0.1, 0.4], [-0.5, 1.2], [0.8, 1.9]], dtype=torch.float64)
    local = LocalBases(places, torch.full_like(places, 0.4))
    return {
        "mlp": MLP(BOX, (5, 4)),
        "softplus": MLP(BOX, (5, 4), activation="softplus"),
        "residual": MLP(BOX, (5, 5, 5), residual=True),
        "fourier": MLP(BOX, (5,), fourier=3),
        "local": local,
        "sum": Sum((MLP(BOX, (4,)), local)),
    }


def start(network: object) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(network.size, generator=generator, dtype=torch.float64)
    return theta, BOX.from_unit(torch.rand(7, 2, generator=generator, dtype=torch.float64))


def hessians(value, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    gradient = torch.func.vmap(torch.func.grad(value))(x)
    return gradient, torch.func.vmap(torch.func.hessian(value))(x)


@pytest.mark.parametrize("name", list(networks()))
def test_streams_are_the_derivatives(name: str) -> None:
    network = networks()[name]
    theta, x = start(network)
    c = torch.tensor(ROWS, dtype=torch.float64)
    streams = network.forward(theta, x, c).streams
    torch.testing.assert_close(network.value(theta, x), streams[0])
    for n, point in enumerate(x):
        with torch.enable_grad():
            p = point.clone().requires_grad_()
            value = network.forward(theta, p[None], c[:0]).streams[0, 0]
            gradient = torch.autograd.grad(value, p, create_graph=True)[0]
            rows = [torch.autograd.grad(g, p, retain_graph=True)[0] for g in gradient]
        diagonal = torch.stack([rows[0][0], rows[1][1]])
        torch.testing.assert_close(streams[0, n], value.detach())
        torch.testing.assert_close(streams[1:3, n], gradient.detach())
        torch.testing.assert_close(streams[3:, n], c @ diagonal)


@pytest.mark.parametrize("name", list(networks()))
def test_jacobian_is_that_of_autograd(name: str) -> None:
    network = networks()[name]
    theta, x = start(network)
    c = torch.tensor(ROWS, dtype=torch.float64)
    adjoint = torch.randn(5, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(
        lambda t: (adjoint * network.forward(t, x, c).streams).sum(0), theta
    )
    tape = network.forward(theta, x, c)
    found = network.jacobian(theta, tape, adjoint)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(network.gradient(theta, tape, adjoint), expected.sum(0))
    torch.testing.assert_close(
        network.jacobian(theta, tape, adjoint, linear_only=True), expected[:, network.linear]
    )


def test_jets_follow_the_chain_rule() -> None:
    x = BOX.from_unit(torch.rand(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64))

    def jet(a, b):  # type: ignore[no-untyped-def]
        return (a * b).sin() / (2.0 + b.cos()) + ((a - 0.3) ** 3).tanh() * (-b).exp() - 1.0 / (3.0 + a)

    found = jet(*coordinates(x, ROWS))

    def plain(p: torch.Tensor) -> torch.Tensor:
        return jet(p[0], p[1])

    gradient, hessian = hessians(plain, x)
    torch.testing.assert_close(found.value, torch.func.vmap(plain)(x))
    torch.testing.assert_close(found.gradient.T, gradient)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(found.second.T, diagonal @ torch.tensor(ROWS, dtype=torch.float64).T)


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("problem", [burgers(), fisher_kpp()], ids=lambda p: p.name)
def test_jacobian_of_a_nonlinear_residual(problem: Problem, decay: float) -> None:
    """Hard and soft conditions, weights, the lift and the decay included."""
    network = MLP(problem.box, (4, 3))
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(network.size, generator=generator, dtype=torch.float64)
    points = PlainUniform(problem.box).draw(6, generator=generator)
    conditions = tuple(c.points(4, generator=generator, dtype=torch.float64) for c in problem.conditions)
    objective = Objective(problem, network, points, conditions=conditions, decay=decay)
    r, jacobian = objective.linearize(theta)
    assert len(r) == objective.rows
    torch.testing.assert_close(r, objective.residual(theta))
    torch.testing.assert_close(
        jacobian, torch.autograd.functional.jacobian(objective.residual, theta), rtol=1e-9, atol=1e-11
    )
    _, last = objective.linearize(theta, linear_only=True)
    torch.testing.assert_close(last, jacobian[:, network.linear])
    loss, gradient = objective.gradient(theta)
    assert loss == pytest.approx(0.5 * float(r @ r))
    torch.testing.assert_close(gradient, jacobian.T @ r)


def test_hard_conditions_hold_for_any_network() -> None:
    problem = burgers()
    network = MLP(problem.box, (4,))
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(network.size, generator=generator, dtype=torch.float64)
    first = problem.box.face(1, upper=False, count=50, generator=generator)
    torch.testing.assert_close(
        predict(problem, network, theta, first), -(torch.pi * first[:, 0]).sin(), atol=1e-14, rtol=0
    )
    wall = problem.box.face(0, upper=True, count=50, generator=generator)
    assert float(predict(problem, network, theta, wall).abs().max()) < 1e-14
