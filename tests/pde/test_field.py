"""The sums of squares over a space-time field: compiled as in plain torch, and their gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch

from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.odil import field
from gliodil.pde.odil.field import FieldSquares, field_squares
from gliodil.pde.operators import Faces
from gliodil.pde.residual import theta_residual

ModelFactory = Callable[..., FisherKolmogorov]
DT = 0.7
SHAPES = [(5, 4, 3), (1, 6, 5), (7, 1, 1), (1, 1, 1), (2, 2, 2), (17, 16, 18)]


class Problem(NamedTuple):
    """What the sums depend on, and with which weights they enter a loss."""

    inputs: list[torch.Tensor]
    strides: tuple[int, int, int]
    impassable: torch.Tensor
    weights: FieldSquares


def problem(model: FisherKolmogorov, levels: int = 5) -> Problem:
    """Entries on both sides of 0 and 1, and some on them."""
    generator = torch.Generator().manual_seed(4)
    dtype, n = model.grid.dtype, model.grid.cells
    u = 1.6 * torch.rand(levels, n, dtype=dtype, generator=generator) - 0.3
    u[0, ::3], u[1, ::4] = 0, 1
    faces = model.coefficients(0.4, 12.0)
    first, last = torch.randn(2, n, dtype=dtype, generator=generator)
    numbers = (torch.tensor(w, dtype=torch.float64) for w in (0.7, 1.3, -0.4))
    return Problem(
        [u, *faces.values, torch.tensor(0.11, dtype=dtype)],
        faces.strides,
        (~model.passable).to(dtype),
        FieldSquares(*numbers, first, last),
    )


def compiled(a: Problem, inputs: list[torch.Tensor]) -> FieldSquares:
    u, cx, cy, cz, rho = inputs
    return field_squares(u, Faces((cx, cy, cz), a.strides), rho, a.impassable, dt=DT)


def defined(a: Problem, inputs: list[torch.Tensor], model: FisherKolmogorov) -> FieldSquares:
    u, cx, cy, cz, rho = inputs
    r = theta_residual(u, lambda w: model.rate(w, Faces((cx, cy, cz), a.strides), rho), DT)
    sums = (x.double().square().sum() for x in (r, u - u.clamp(0, 1), u * a.impassable))
    return FieldSquares(*sums, u[0], u[-1])


def loss(a: Problem, seen: FieldSquares) -> torch.Tensor:
    return torch.stack([(w * x).double().sum() for w, x in zip(a.weights, seen, strict=True)]).sum()


def derived(
    a: Problem, of: Callable[[list[torch.Tensor]], FieldSquares]
) -> tuple[float, tuple[torch.Tensor, ...]]:
    """The loss and its gradient; zero in the coefficients of an axis without faces."""
    inputs = [x.clone().requires_grad_() for x in a.inputs]
    total = loss(a, of(inputs))
    return float(total.detach()), torch.autograd.grad(total, inputs, materialize_grads=True)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share the cells among as many threads; where there are fewer, they take turns."""

    @contextmanager
    def threads(_: int) -> Iterator[int]:
        yield request.param

    monkeypatch.setattr(field, "threads", threads)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_and_gradient_are_those_of_the_definition(
    random_model: ModelFactory,
    shape: tuple[int, int, int],
    levels: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    model = random_model(shape, seed=2, holes=0.3, dtype=dtype)
    a = problem(model, levels)
    value, gradient = derived(a, lambda x: compiled(a, x))
    expected, definition = derived(a, lambda x: defined(a, x, model))
    assert value == pytest.approx(expected, rel=tolerance)
    for found, right, x in zip(gradient, definition, a.inputs, strict=True):
        assert found.dtype == right.dtype == x.dtype
        assert found.shape == right.shape
        size = float(right.abs().max()) if right.numel() else 0.0
        torch.testing.assert_close(found, right, rtol=0, atol=tolerance * max(size, 1e-3))
    for found, right in zip(compiled(a, a.inputs), defined(a, a.inputs, model), strict=True):
        torch.testing.assert_close(found, right, rtol=tolerance, atol=0)


def test_gradient_by_differences(random_model: ModelFactory) -> None:
    """Every sum is piecewise of low degree: central differences are exact but for round-off, kinks apart."""
    a = problem(random_model((4, 3, 3), seed=5, holes=0.3))
    _, gradient = derived(a, lambda x: compiled(a, x))
    generator = torch.Generator().manual_seed(1)
    step = 1e-5
    for which, x in enumerate(a.inputs):
        away = torch.nonzero(((x != 0) & (x != 1)).reshape(-1))[:, 0]
        for entry in away[torch.randperm(len(away), generator=generator)[:12]].tolist():
            values = []
            for sign in (1, -1):
                moved = [y.clone() for y in a.inputs]
                moved[which].reshape(-1)[entry] += sign * step
                values.append(float(loss(a, compiled(a, moved))))
            difference = (values[0] - values[1]) / (2 * step)
            assert float(gradient[which].reshape(-1)[entry]) == pytest.approx(difference, rel=1e-6, abs=1e-6)


def test_a_field_that_is_not_finite_is_noticed(random_model: ModelFactory) -> None:
    a = problem(random_model((5, 4, 3), seed=2, holes=0.3))
    for bad in (torch.nan, torch.inf):
        u = a.inputs[0].clone()
        u[2, 7] = bad
        assert not torch.isfinite(compiled(a, [u, *a.inputs[1:]]).physics)
