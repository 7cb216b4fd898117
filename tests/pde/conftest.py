"""Small tissues and forward models shared by the tests of the equations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from gliodil.pde import fused
from gliodil.pde.grid import Grid
from gliodil.pde.models import FisherKolmogorov

ModelFactory = Callable[..., FisherKolmogorov]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["fused", "plain"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the compiled kernel where it applies, and on plain torch (the path of GPUs) everywhere."""
    if request.param == "plain":
        monkeypatch.setattr(fused, "applies", lambda *_: False)


@pytest.fixture(scope="session")
def random_model() -> ModelFactory:
    """Build a model on random tissue; about ``holes`` of the cells are impassable."""

    def build(
        shape: tuple[int, int, int] = (5, 4, 3),
        spacing: tuple[float, float, float] = (1.0, 1.5, 2.0),
        *,
        seed: int = 0,
        holes: float = 0.2,
        dtype: torch.dtype = torch.float64,
    ) -> FisherKolmogorov:
        rng = np.random.default_rng(seed)
        grid = Grid(shape, spacing, dtype=dtype)
        white = rng.uniform(0.1, 0.9, shape)
        grey = rng.uniform(0, 1, shape) * (1 - white)
        hole = rng.uniform(size=shape) < holes
        white[hole], grey[hole] = 0.05, 0.04
        return FisherKolmogorov.on(grid, torch.tensor(white), torch.tensor(grey))

    return build


@pytest.fixture(scope="session")
def uniform_model() -> ModelFactory:
    """Build a model on pure white matter along one axis of the grid."""

    def build(cells: int, spacing: float, *, axis: int = 0) -> FisherKolmogorov:
        shape, h = [1, 1, 1], [7.0, 5.0, 3.0]
        shape[axis], h[axis] = cells, spacing
        grid = Grid((shape[0], shape[1], shape[2]), (h[0], h[1], h[2]))
        return FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros())

    return build
