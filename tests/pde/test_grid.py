"""The grid: storage order, geometry, refusal of nonsense."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gliodil.errors import GeometryError
from gliodil.pde.grid import Grid


def test_storage_is_c_order_and_strides_lead_to_the_neighbours() -> None:
    grid = Grid((3, 4, 5), (1.0, 2.0, 3.0))
    box = np.arange(60).reshape(3, 4, 5)
    flat = grid.field(box)
    for axis, stride in enumerate(grid.strides):
        index, neighbour = [1, 1, 1], [1, 1, 1]
        neighbour[axis] += 1
        at = np.ravel_multi_index(index, grid.shape)
        assert flat[at + stride] == box[tuple(neighbour)]
    assert torch.equal(grid.box(flat), torch.as_tensor(box, dtype=torch.float64))


def test_centres_are_measured_from_the_corner() -> None:
    grid = Grid((3, 4, 5), (1.0, 2.0, 3.0))
    centres = grid.centres()
    assert centres.shape == (3, 60)
    at = np.ravel_multi_index((2, 1, 3), grid.shape)
    assert centres[:, at].tolist() == [2.5, 3.0, 10.5]


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 6, 1), (3, 2, 1)])
def test_coarsening_keeps_the_box(shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, (1.0, 2.0, 3.0))
    coarse = grid.coarsen()
    assert all(m == max(1, round(n / 2)) for n, m in zip(shape, coarse.shape, strict=True))
    for n, h, m, k in zip(shape, grid.spacing, coarse.shape, coarse.spacing, strict=True):
        assert n * h == pytest.approx(m * k)
    assert coarse.cell_volume_mm3 * coarse.cells == pytest.approx(grid.cell_volume_mm3 * grid.cells)


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, -1, 4), (4, 4)])
def test_refuses_bad_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="cell counts"):
        Grid(shape, (1.0, 1.0, 1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spacing", [(1.0, 0.0, 1.0), (1.0, 1.0, -2.0), (math.nan, 1.0, 1.0), (math.inf, 1.0, 1.0)]
)
def test_refuses_bad_spacings(spacing: tuple[float, float, float]) -> None:
    with pytest.raises(GeometryError, match="spacings"):
        Grid((2, 2, 2), spacing)


def test_refuses_fields_of_another_shape() -> None:
    grid = Grid((3, 4, 5), (1.0, 1.0, 1.0))
    for wrong in (np.zeros((5, 4, 3)), np.zeros(59), np.zeros((1, 60))):
        with pytest.raises(GeometryError, match="do not fit"):
            grid.field(wrong)


def test_fields_follow_the_grid_s_precision() -> None:
    grid = Grid((2, 2, 2), (1.0, 1.0, 1.0)).with_dtype(torch.float32)
    assert grid.field(np.ones((2, 2, 2))).dtype == torch.float32
    assert grid.zeros(3).dtype == torch.float32
    assert grid.zeros(3).shape == (3, 8)
    assert grid.centres().dtype == torch.float32
    assert grid.mask(np.ones((2, 2, 2))).dtype == torch.bool
    assert "float32" in repr(grid)
