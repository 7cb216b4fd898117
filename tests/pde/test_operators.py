"""The diffusion operator: conservation, symmetry, closed faces, and which neighbours a face sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.pde.grid import Grid
from gliodil.pde.models import FisherKolmogorov
from gliodil.pde.operators import (
    Faces,
    add_diffusion_,
    diffuse,
    face_means,
    open_faces,
    spectral_bound,
)

ModelFactory = Callable[..., FisherKolmogorov]
shapes = st.tuples(*[st.integers(1, 6)] * 3)
spacings = st.tuples(*[st.floats(0.3, 4.0)] * 3)
seeds = st.integers(0, 2**31)
quick = settings(max_examples=25, deadline=None)


def dense_diffusion(model: FisherKolmogorov, u: np.ndarray, diffusivity: float, ratio: float) -> np.ndarray:
    """Sum of fluxes, written cell by cell from the definition."""
    w, g = model.grid.box(model.white).numpy(), model.grid.box(model.grey).numpy()
    passable = w + g >= 0.1
    out = np.zeros_like(u)
    for index in np.ndindex(u.shape):
        for axis in range(3):
            for side in (-1, 1):
                other = list(index)
                other[axis] += side
                at = tuple(other)
                if not 0 <= at[axis] < u.shape[axis] or not (passable[index] and passable[at]):
                    continue
                d = diffusivity * ((w[index] + w[at]) / 2 + (g[index] + g[at]) / 2 / ratio)
                out[index] += d / model.grid.spacing[axis] ** 2 * (u[at] - u[index])
    return out


@quick
@given(shape=shapes, spacing=spacings, seed=seeds)
def test_equals_the_definition_cell_by_cell(
    random_model: ModelFactory, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int
) -> None:
    model = random_model(shape, spacing, seed=seed)
    u = np.random.default_rng(seed + 1).normal(size=shape)
    expected = dense_diffusion(model, u, 0.7, 15.0)
    found = model.grid.box(diffuse(model.grid.field(u), model.coefficients(0.7, 15.0))).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12 * max(1, np.abs(expected).max()))


@quick
@given(shape=shapes, spacing=spacings, seed=seeds)
def test_conserves_mass_and_is_symmetric_and_dissipative(
    random_model: ModelFactory, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int
) -> None:
    model = random_model(shape, spacing, seed=seed)
    c = model.coefficients(1.3, 12.0)
    torch.manual_seed(seed)
    a, b = torch.randn(2, model.grid.cells, dtype=torch.float64)
    la, lb = diffuse(a, c), diffuse(b, c)
    size = float(spectral_bound(c, model.grid.cells)) * max(float(a.norm()), float(b.norm()))
    assert abs(float(la.sum())) <= 1e-13 * size * model.grid.cells
    assert float(a @ lb) == pytest.approx(float(la @ b), abs=1e-13 * size * float(a.norm()) + 1e-300)
    assert float(a @ la) <= 1e-13 * size * float(a.norm())


@quick
@given(shape=shapes, spacing=spacings, seed=seeds)
def test_constants_do_not_diffuse(
    random_model: ModelFactory, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int
) -> None:
    model = random_model(shape, spacing, seed=seed)
    assert torch.count_nonzero(diffuse(model.grid.zeros() + 0.37, model.coefficients(2.0, 10.0))) == 0


@quick
@given(shape=shapes, seed=seeds, axis=st.integers(0, 2))
def test_flips_commute(random_model: ModelFactory, shape: tuple[int, int, int], seed: int, axis: int) -> None:
    model = random_model(shape, seed=seed)
    grid = model.grid

    def flip(field: torch.Tensor) -> torch.Tensor:
        return grid.box(field).flip(axis).reshape(-1)

    mirrored = FisherKolmogorov.on(grid, flip(model.white), flip(model.grey))
    u = torch.rand(grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    there = diffuse(flip(u), mirrored.coefficients(1.0, 20.0))
    torch.testing.assert_close(flip(there), diffuse(u, model.coefficients(1.0, 20.0)), rtol=0, atol=1e-13)


@quick
@given(shape=shapes, spacing=spacings, seed=seeds)
def test_in_place_and_out_of_place_agree(
    random_model: ModelFactory, shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int
) -> None:
    model = random_model(shape, spacing, seed=seed)
    c = model.coefficients(0.4, 25.0)
    generator = torch.Generator().manual_seed(seed)
    u, out = torch.randn(2, model.grid.cells, dtype=torch.float64, generator=generator)
    expected = out + diffuse(u, c)
    add_diffusion_(out, u, c, torch.empty_like(u))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_stacks_of_fields_are_treated_one_by_one(random_model: ModelFactory) -> None:
    model = random_model()
    c = model.coefficients(1.0, 10.0)
    u = torch.rand(3, model.grid.cells, dtype=torch.float64)
    torch.testing.assert_close(diffuse(u, c), torch.stack([diffuse(x, c) for x in u]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_faces_see_the_neighbours_of_their_own_axis(axis: int) -> None:
    """Tissue that varies along one axis: only that axis' faces average, the other two copy."""
    grid = Grid((4, 4, 4), (1.0, 2.0, 4.0))
    along = torch.tensor([0.2, 0.4, 0.8, 0.6], dtype=torch.float64)
    view = [1, 1, 1]
    view[axis] = 4
    field = along.reshape(view).expand(grid.shape).reshape(-1)
    faces = face_means(grid, field, grid.mask(torch.ones(grid.shape)))
    for other, values in enumerate(faces.values):
        box = torch.cat([values, values.new_zeros(grid.strides[other])]).reshape(grid.shape)
        inner = box.narrow(other, 0, 3)
        expected = (along[1:] + along[:-1]) / 2 if other == axis else along
        torch.testing.assert_close(
            inner, expected.reshape(view if other != axis else _resized(view, axis, 3)).expand(inner.shape)
        )
        assert torch.count_nonzero(box.narrow(other, 3, 1)) == 0


def _resized(view: list[int], axis: int, n: int) -> list[int]:
    return [n if a == axis else m for a, m in enumerate(view)]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spacing_enters_along_its_own_axis(axis: int) -> None:
    grid = Grid((5, 5, 5), (1.0, 2.0, 4.0))
    model = FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros())
    u = grid.centres()[axis].square()
    inner = grid.box(diffuse(u, model.coefficients(3.0, 10.0)))[1:-1, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 6.0))  # D u'' = 3 · 2


@pytest.mark.parametrize("cell", [(0, 0, 0), (1, 2, 3), (2, 1, 3), (2, 2, 0)])
def test_nothing_wraps_around(cell: tuple[int, int, int]) -> None:
    grid = Grid((3, 3, 4), (1.0, 1.0, 1.0))
    model = FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros())
    point = torch.zeros(grid.shape, dtype=torch.float64)
    point[cell] = 1
    reached = grid.box(diffuse(grid.field(point), model.coefficients(1.0, 10.0))).nonzero().tolist()
    expected = {cell} | {
        tuple(np.add(cell, step))
        for step in (*np.eye(3, dtype=int), *-np.eye(3, dtype=int))
        if all(0 <= i < n for i, n in zip(np.add(cell, step), grid.shape, strict=True))
    }
    assert {tuple(i) for i in reached} == {tuple(map(int, i)) for i in expected}


def test_faces_of_impassable_cells_are_closed() -> None:
    grid = Grid((3, 3, 3), (1.0, 1.0, 1.0))
    passable = torch.ones(grid.shape, dtype=torch.bool)
    passable[1, 1, 1] = False
    faces = open_faces(grid, passable.reshape(-1))
    for axis, (values, stride) in enumerate(faces):
        centre = 13
        assert values[centre] == 0, axis
        assert values[centre - stride] == 0, axis
        assert int(values.sum()) == 18 - 2


@quick
@given(seed=seeds)
def test_the_spectral_bound_bounds_the_spectrum(random_model: ModelFactory, seed: int) -> None:
    model = random_model((3, 4, 3), seed=seed)
    c = model.coefficients(1.0, 10.0)
    matrix = -diffuse(torch.eye(model.grid.cells, dtype=torch.float64), c)
    largest = float(torch.linalg.eigvalsh(matrix)[-1])
    bound = float(spectral_bound(c, model.grid.cells))
    assert largest <= bound * (1 + 1e-12)
    assert bound <= 2.1 * max(largest, 1e-300)


def test_faces_algebra(random_model: ModelFactory) -> None:
    model = random_model()
    c = model.white_faces
    total, doubled = c + c, c * 2.0
    scaled = c.map(1.0, 2.0, 3.0)
    for a, (x, y) in enumerate(zip(total.values, doubled.values, strict=True)):
        assert torch.equal(x, y)
        assert torch.equal(scaled.values[a], c.values[a] * (a + 1))
    assert isinstance(c.to(torch.float32), Faces)
    assert all(v.dtype == torch.float32 for v in c.to(torch.float32).values)


def test_diffusion_is_differentiable_in_field_and_coefficients(random_model: ModelFactory) -> None:
    model = random_model((3, 2, 3))
    strides = model.grid.strides
    u = torch.rand(model.grid.cells, dtype=torch.float64, requires_grad=True)
    values = [v.clone().requires_grad_() for v in model.coefficients(1.0, 10.0).values]
    assert torch.autograd.gradcheck(lambda f, x, y, z: diffuse(f, Faces((x, y, z), strides)), (u, *values))
