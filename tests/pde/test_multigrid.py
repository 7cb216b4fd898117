"""Multigrid decomposition: what prolongation reproduces, and its adjoint."""

from __future__ import annotations

import pytest
import torch

from gliodil.pde import fused
from gliodil.pde.grid import Grid
from gliodil.pde.multigrid import MultigridField, prolong


def test_splitting_and_composing_is_the_identity() -> None:
    grid = Grid((8, 6, 5), (1.0, 1.0, 1.0))
    field = MultigridField(grid, 12, levels=4)
    u = torch.randn(12, grid.cells, dtype=torch.float64)
    levels = field.split(u)
    assert [tuple(x.shape) for x in levels] == [(12, 8, 6, 5), (6, 4, 3, 2), (3, 2, 1, 1), (1, 1, 1, 1)]
    assert torch.equal(field.compose(levels), u)
    levels[0].zero_()
    assert torch.count_nonzero(u) == u.numel()  # the levels are copies


def test_composition_is_linear_and_every_level_reaches_the_field() -> None:
    grid = Grid((8, 4, 4), (1.0, 1.0, 1.0))
    field = MultigridField(grid, 8, levels=3)
    torch.manual_seed(0)
    a = [torch.randn(s, dtype=torch.float64) for s in field.shapes]
    b = [torch.randn(s, dtype=torch.float64) for s in field.shapes]
    both = field.compose([2 * x - y for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(both, 2 * field.compose(a) - field.compose(b))
    for level in range(3):
        only = [x if i == level else torch.zeros_like(x) for i, x in enumerate(a)]
        assert float(field.compose(only).abs().max()) > 0


@pytest.mark.parametrize("shape", [(8, 8, 8, 8), (12, 8, 6, 4), (7, 9, 5, 11)])
def test_linear_functions_are_reproduced_in_the_interior(shape: tuple[int, int, int, int]) -> None:
    coarse = tuple(n // 2 for n in shape)

    def linear(cells: tuple[int, ...]) -> torch.Tensor:
        axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in cells]  # the same box
        t, x, y, z = torch.meshgrid(*axes, indexing="ij")
        return 1 + 2 * t - 3 * x + 4 * y - 5 * z

    fine = prolong(linear(coarse), shape)
    inner = tuple(slice(2, -2) for _ in shape)
    torch.testing.assert_close(fine[inner], linear(shape)[inner], rtol=0, atol=1e-12)


def test_constants_are_reproduced_everywhere() -> None:
    ones = prolong(torch.ones(3, 2, 1, 4, dtype=torch.float64), (6, 5, 1, 8))
    torch.testing.assert_close(ones, torch.ones(6, 5, 1, 8, dtype=torch.float64), rtol=0, atol=1e-14)


def test_gradients_are_the_adjoint_of_composition() -> None:
    grid = Grid((6, 5, 4), (1.0, 1.0, 1.0))
    field = MultigridField(grid, 7, levels=3)
    torch.manual_seed(1)
    levels = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in field.shapes]
    direction = [torch.randn_like(x) for x in levels]
    weight = torch.randn(7, grid.cells, dtype=torch.float64)
    gradient = torch.autograd.grad((field.compose(levels) * weight).sum(), levels)
    forward = float((field.compose(direction) * weight).sum())
    backward = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert forward == pytest.approx(backward, rel=1e-12)


@pytest.mark.parametrize(("shape", "steps"), [((8, 4, 6), 8), ((6, 5, 4), 7), ((1, 9, 3), 5), ((2, 1, 1), 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_compiled_composition_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    steps: int,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    grid = Grid(shape, (1.0, 1.0, 1.0), dtype=dtype)
    field = MultigridField(grid, steps, levels=4)
    torch.manual_seed(2)
    levels = [torch.randn(s, dtype=dtype, requires_grad=True) for s in field.shapes]
    before = [x.detach().clone() for x in levels]
    weight = torch.randn(grid.cells, steps, dtype=dtype).T  # a gradient that is not contiguous
    results = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(fused, "applies", lambda *_: False)
        u = field.compose(levels)
        results.append([u.detach(), *torch.autograd.grad((u * weight).sum(), levels)])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max() + 1))
    assert all(torch.equal(x, y) for x, y in zip(levels, before, strict=True))
