"""Transforms: both directions, labels and scalars, files that read back to the same numbers, damage refused."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gliodil.data import Volume
from gliodil.data.registration.transform import GridGeometry, Transform, Warp
from gliodil.data.registration.transform_files import load_transform, save_transform, transform_files
from gliodil.errors import GeometryError, InputError

OBLIQUE = np.array([[-1.9, 0.3, 0.1, 50.0], [0.2, -2.0, 0.4, 60.0], [0.1, 0.3, 3.1, -70.0], [0, 0, 0, 1.0]])
TEMPLATE = np.diag([3.0, 3.0, 3.0, 1.0])
TEMPLATE[:3, 3] = (-55, -60, -65)
AFFINE = np.array(
    [[1.05, 0.06, -0.02, 3.0], [-0.07, 0.96, 0.05, -2.0], [0.03, -0.04, 1.02, 4.0], [0, 0, 0, 1.0]]
)


def bump(shape: tuple[int, int, int], affine: np.ndarray, seed: int = 0) -> np.ndarray:
    """A smooth displacement field of up to 3 mm."""
    rng = np.random.default_rng(seed)
    field = np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), 4) for _ in range(3)], -1)
    return (3 * field / np.abs(field).max()).astype(np.float32)


def inverse_field(field: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """e with x + d(x) = q  =>  x = q + e(q), by fixed-point iteration: independent of the package."""
    index = np.stack(np.meshgrid(*map(np.arange, field.shape[:3]), indexing="ij"), -1).astype(float)
    back = np.zeros(field.shape)
    for _ in range(25):
        at = np.moveaxis(index + back @ np.linalg.inv(affine[:3, :3]).T, -1, 0)
        back = -np.stack(
            [ndimage.map_coordinates(field[..., k], at, order=1, mode="nearest") for k in range(3)], -1
        )
    return back.astype(np.float32)


@functools.cache
def warped_transform() -> Transform:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-70, -70, -75)
    forward = bump((36, 36, 38), affine)
    warp = Warp(forward, inverse_field(forward, affine), affine)
    fixed = GridGeometry((40, 44, 36), OBLIQUE)
    return Transform(AFFINE, fixed, GridGeometry((38, 40, 42), TEMPLATE), warp)


def blob(grid: GridGeometry, centre: tuple[float, float, float], kind: str) -> Volume:
    empty = Volume(np.zeros(grid.shape, np.uint8), grid.affine, kind="label")
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    away = np.linalg.norm(empty.to_world(index) - np.asarray(centre), axis=-1)
    if kind == "label":
        return empty.with_data((away < 20).astype(np.uint8) * 3)
    return empty.with_data(np.exp(-((away / 20) ** 2)).astype(np.float32), kind="scalar")


def test_points_go_there_and_back():
    transform = warped_transform()
    points = np.random.default_rng(1).uniform(-40, 40, (500, 3))
    there = transform.points(points)
    assert np.abs(there - (points @ AFFINE[:3, :3].T + AFFINE[:3, 3])).max() > 1  # the warp does something
    np.testing.assert_allclose(transform.points(there, inverse=True), points, atol=0.05)


@pytest.mark.parametrize("inverse", [False, True])
def test_an_image_is_looked_up_where_the_points_go(inverse):
    """What stands at a voxel of the result is what the image shows at that voxel's point, moved."""
    transform = warped_transform()
    source, target = (transform.fixed, transform.moving) if inverse else (transform.moving, transform.fixed)
    image = blob(source, (5.0, -8.0, 3.0), "scalar")
    result = transform.apply(image, inverse=inverse)
    assert (result.shape, result.kind) == (target.shape, "scalar")
    np.testing.assert_array_equal(result.affine, target.affine)
    index = np.random.default_rng(2).integers(5, 30, (200, 3))
    at = image.to_index(transform.points(result.to_world(index), inverse=inverse))
    inside = ((at >= 0) & (at <= np.asarray(image.shape) - 1)).all(axis=1)
    assert np.count_nonzero(inside) > 50
    expected = ndimage.map_coordinates(image.data, at[inside].T, order=1)
    np.testing.assert_allclose(result.data[tuple(index[inside].T)], expected, atol=1e-5)


def test_labels_stay_labels_and_come_back():
    transform = warped_transform()
    labels = blob(transform.fixed, (0.0, 5.0, -5.0), "label")
    there = transform.apply(labels, inverse=True)
    back = transform.apply(there)
    assert there.kind == back.kind == "label"
    assert set(np.unique(there.data)) == {0, 3}
    a, b = labels.data > 0, back.data > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9


def test_outside_the_image_is_nothing():
    transform = warped_transform()
    ones = Volume(np.ones((4, 4, 4), np.float32), np.diag([3.0, 3.0, 3.0, 1.0]), kind="scalar")
    result = transform.apply(ones)
    assert 0 < np.count_nonzero(result.data) < 200
    assert result.data.max() == pytest.approx(1, abs=1e-6)


@given(shift=st.tuples(*[st.integers(-3, 3)] * 3), order=st.permutations([0, 1, 2]))
@settings(max_examples=25, deadline=None)
def test_whole_voxel_motions_copy_voxels(shift, order):
    data = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
    turn = np.eye(4)[[*order, 3]]
    turn[:3, 3] = shift
    image = Volume(data, np.eye(4), kind="scalar")
    grid = GridGeometry(image.shape, image.affine)
    there = Transform(turn, grid, grid).apply(image, GridGeometry((9, 9, 9), np.eye(4)))
    assert set(np.unique(there.data)) <= {0, *np.unique(data)}


@pytest.mark.parametrize("warp", [True, False])
def test_files_read_back_to_the_same_transform(tmp_path: Path, warp: bool):
    transform = warped_transform()
    if not warp:
        transform = Transform(transform.matrix, transform.fixed, transform.moving)
    save_transform(transform, tmp_path / "one")
    save_transform(transform, tmp_path / "two")
    names = [path.name for path in transform_files(tmp_path / "one")]
    assert len(names) == (4 if warp else 2)
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = load_transform(tmp_path / "one")
    np.testing.assert_array_equal(again.matrix, transform.matrix)
    np.testing.assert_array_equal(again.moving.affine, transform.moving.affine)
    if warp:
        np.testing.assert_array_equal(again.warp.forward, transform.warp.forward)
        np.testing.assert_array_equal(again.warp.backward, transform.warp.backward)
    image = blob(transform.moving, (5.0, 0.0, 0.0), "scalar")
    np.testing.assert_array_equal(again.apply(image).data, transform.apply(image).data)


def test_files_are_in_the_coordinates_of_itk(tmp_path: Path):
    """LPS: a shift to the right and to the front is negative in x and y."""
    import nibabel as nib

    shift = np.eye(4)
    shift[:3, 3] = (1, 2, 3)
    field = np.zeros((3, 3, 3, 3), np.float32)
    field[...] = (4, 5, 6)
    grid = GridGeometry((3, 3, 3), np.eye(4))
    save_transform(Transform(shift, grid, grid, Warp(field, -field, np.eye(4))), tmp_path)
    text = (tmp_path / "affine.txt").read_text()
    assert text.startswith("#Insight Transform File V1.0\n")
    assert "Parameters: 1.0 0.0 0.0 0.0 1.0 0.0 0.0 0.0 1.0 -1.0 -2.0 3.0" in text.replace("-0.0 ", "0.0 ")
    image = nib.load(tmp_path / "warp.nii.gz")
    assert image.shape == (3, 3, 3, 1, 3)
    assert image.header.get_intent()[0] == "vector"
    np.testing.assert_array_equal(np.asarray(image.dataobj)[1, 1, 1, 0], (-4, -5, 6))


@pytest.mark.parametrize("name", ["transform.json", "affine.txt", "warp.nii.gz", "inverse_warp.nii.gz"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "nonsense"])
def test_damaged_files_are_one_clear_error(tmp_path: Path, name: str, damage: str):
    path = save_transform(warped_transform(), tmp_path / "t") / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "nonsense": b"{]: 1 2"}[damage])
    with pytest.raises(InputError, match=r"not a folder with a transform") as raised:
        load_transform(tmp_path / "t")
    assert name in str(raised.value.file)


def test_what_is_no_field_is_refused():
    with pytest.raises(GeometryError, match="displacement"):
        Warp(np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), np.eye(4))
    bad = np.full((3, 3, 3, 3), np.nan)
    with pytest.raises(GeometryError, match="displacement"):
        Warp(bad, bad, np.eye(4))
    with pytest.raises(GeometryError, match="different shapes"):
        Warp(np.zeros((3, 3, 3, 3)), np.zeros((4, 3, 3, 3)), np.eye(4))
