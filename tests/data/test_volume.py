"""Volume: geometry round trips, resampling, immutability, laziness."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gliodil.data import Volume
from gliodil.errors import GeometryError, LabelError

quick = settings(max_examples=25, deadline=None)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Oblique, flipped, permuted, anisotropic affines."""
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    flips = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    axes = draw(st.permutations(range(3)))
    origin = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = turned[:, list(axes)] @ np.diag(np.array(spacing) * flips)
    affine[:3, 3] = origin
    return affine


def array(seed: int, shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@quick
@given(affines())
def test_world_and_index_are_inverse(affine: np.ndarray) -> None:
    volume = Volume(np.zeros((5, 6, 7)), affine, kind="scalar")
    index = np.random.default_rng(0).uniform(-20, 20, (4, 3, 3))
    assert volume.to_world(index).shape == (4, 3, 3)
    np.testing.assert_allclose(volume.to_index(volume.to_world(index)), index, atol=1e-9)
    expected = np.einsum("ij,...j", affine, np.concatenate([index, np.ones((4, 3, 1))], -1))[..., :3]
    np.testing.assert_allclose(volume.to_world(index), expected, atol=1e-9)


@quick
@given(affines())
def test_spacing_volume_and_origin_come_from_the_affine(affine: np.ndarray) -> None:
    volume = Volume(np.zeros((2, 3, 4)), affine, kind="scalar")
    steps = volume.to_world(np.eye(3)) - volume.to_world(np.zeros(3))
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(steps, axis=1), rtol=1e-9)
    assert volume.voxel_volume_ml == pytest.approx(np.prod(volume.spacing) / 1000, rel=1e-6)
    np.testing.assert_allclose(volume.origin, affine[:3, 3])
    low, high = volume.field_of_view
    inside = volume.to_world(np.array([[0, 0, 0], [1, 2, 3]]))
    assert (inside > low).all()
    assert (inside < high).all()


@quick
@given(
    affines(),
    st.permutations(range(3)),
    st.tuples(*[st.booleans()] * 3),
    st.sampled_from(["scalar", "label"]),
)
def test_flipped_and_permuted_grids_copy_exactly(
    affine: np.ndarray, axes: list[int], flips: tuple[bool, ...], kind: str
) -> None:
    data = array(1) if kind == "scalar" else (array(1) * 9).astype(np.int16)
    source = Volume(data, affine, kind=kind)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    moved = np.transpose(data, axes)
    for new, old in enumerate(axes):
        turn[old, new] = -1 if flips[new] else 1
        turn[old, 3] = data.shape[old] - 1 if flips[new] else 0
        moved = np.flip(moved, new) if flips[new] else moved
    # Float noise as NIfTI headers carry it.
    target = (affine @ turn).astype(np.float32).astype(np.float64)
    reference = Volume(np.zeros(moved.shape), target, kind="scalar")
    np.testing.assert_array_equal(source.resample_to(reference).data, moved)
    np.testing.assert_array_equal(source.resample_to(reference).resample_to(source).data, data)


@quick
@given(affines(), affines())
def test_labels_never_yield_new_values(a: np.ndarray, b: np.ndarray) -> None:
    b = b.copy()
    a, b[:3, 3] = a.copy(), 0
    a[:3, 3] = 0
    source = Volume((array(2, (9, 9, 9)) > 0.5) * 7 + 2, a, kind="label")
    result = source.resample_to(Volume(np.zeros((8, 7, 6)), b, kind="scalar"))
    assert result.kind == "label"
    assert np.issubdtype(result.data.dtype, np.integer)
    assert set(np.unique(result.data)) <= {0, 2, 9}


@quick
@given(affines())
def test_resampling_onto_itself_is_identity(affine: np.ndarray) -> None:
    volume = Volume(array(3), affine, kind="scalar")
    np.testing.assert_array_equal(volume.resample_to(volume).data, volume.data)


@quick
@given(affines(), affines())
def test_linear_functions_survive_linear_resampling(a: np.ndarray, b: np.ndarray) -> None:
    shape = (12, 11, 10)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    grid = Volume(np.zeros(shape), a, kind="scalar")
    slope = np.array([0.3, -0.2, 0.5])
    source = Volume(grid.to_world(index) @ slope, a, kind="scalar")
    b = b.copy()
    b[:3, 3] = grid.to_world(np.array(shape) / 2) - b[:3, :3] @ np.full(3, 2.0)  # overlap in the middle
    reference = Volume(np.zeros((5, 5, 5)), b, kind="scalar")
    points = reference.to_world(np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), -1))
    where = source.to_index(points)
    interior = ((where >= 0) & (where <= np.array(shape) - 1)).all(-1)
    outside = ((where < -0.51) | (where > np.array(shape) - 0.49)).any(-1)
    result = source.resample_to(reference).data
    np.testing.assert_allclose(result[interior], (points @ slope)[interior], atol=1e-6)
    assert (result[outside] == 0).all()


def test_outside_the_outer_faces_is_zero_and_inside_is_not() -> None:
    source = Volume(np.ones((4, 4, 4), np.float32), np.diag([2.0, 2, 2, 1]), kind="scalar")
    affine = np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] = -2.75
    fine = source.resample_to(Volume(np.zeros((24, 24, 24)), affine, kind="scalar")).data
    centres = -2.75 + 0.5 * np.arange(24)
    covered = (centres > -1) & (centres < 7)
    np.testing.assert_array_equal(fine[:, 12, 12], covered.astype(np.float32))
    assert fine.sum() == covered.sum() ** 3


def test_same_grid_has_a_tolerance_in_mm() -> None:
    volume = Volume(array(0), np.eye(4), kind="scalar")
    near, far = np.eye(4), np.eye(4)
    near[0, 3], far[0, 3] = 5e-4, 5e-3
    assert volume.same_grid(Volume(array(0), near, kind="scalar"))
    assert not volume.same_grid(Volume(array(0), far, kind="scalar"))
    assert volume.same_grid(Volume(array(0), far, kind="scalar"), tolerance_mm=0.01)
    assert not volume.same_grid(Volume(array(0, (5, 6, 8)), np.eye(4), kind="scalar"))


def test_volume_cannot_be_changed() -> None:
    data, affine = array(0), np.eye(4)
    volume = Volume(data, affine, kind="scalar")
    data[:] = -1
    affine[0, 0] = 5
    assert volume.data.min() >= 0
    assert volume.spacing == (1, 1, 1)
    with pytest.raises(ValueError, match="read-only"):
        volume.data[0, 0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 1
    with pytest.raises(AttributeError):
        volume.kind = "label"


def test_voxels_are_loaded_once_on_first_use() -> None:
    calls = []

    def load() -> np.ndarray:
        calls.append(1)
        return array(0)

    volume = Volume.lazy(load, shape=(5, 6, 7), affine=np.eye(4), kind="scalar")
    assert volume.spacing == (1, 1, 1)
    assert repr(volume) == "Volume(scalar, 5 x 6 x 7, 1 x 1 x 1 mm, RAS)"
    assert not volume.is_loaded
    assert volume.data is volume.data
    assert calls == [1]


@pytest.mark.parametrize(
    ("given_type", "kind", "kept"),
    [
        (np.bool_, "label", np.uint8),
        (np.uint16, "label", np.uint16),
        (np.float64, "label", np.int16),
        (np.int16, "scalar", np.float32),
        (np.int32, "scalar", np.float64),
        (np.float16, "scalar", np.float32),
        (np.dtype(">f4"), "scalar", np.float32),
        (np.float64, "scalar", np.float64),
    ],
)
def test_types_by_kind(given_type: type, kind: str, kept: type) -> None:
    assert Volume(np.ones((2, 2, 2), given_type), np.eye(4), kind=kind).data.dtype == kept


def test_fractional_labels_are_refused() -> None:
    labels = np.zeros((4, 4, 4))
    labels[1, 1, 1] = 1.5
    with pytest.raises(LabelError, match="resampled linearly") as error:
        Volume(labels, np.eye(4), kind="label")
    assert "1.5" in str(error.value)
    labels[1, 1, 1] = 2.0002
    assert Volume(labels, np.eye(4), kind="label").data[1, 1, 1] == 2


@pytest.mark.parametrize(
    "affine",
    [
        np.eye(3),
        np.zeros((4, 4)),
        np.diag([1.0, 1, 0, 1]),
        np.full((4, 4), np.nan),
        np.array([[1.0, 2, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]),
    ],
    ids=["3x3", "zero", "flat", "nan", "parallel axes", "projective"],
)
def test_unusable_affines_are_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="affine"):
        Volume(np.zeros((2, 2, 2)), affine, kind="scalar")


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4, 2), (4, 0, 4)])
def test_only_three_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError, match="three dimensions"):
        Volume(np.zeros(shape), np.eye(4), kind="scalar")


def test_mask_with_data_orientation_and_oblique() -> None:
    labels = np.arange(8).reshape(2, 2, 2)
    volume = Volume(labels, np.diag([-1.0, -1, 1, 1]), kind="label")
    np.testing.assert_array_equal(volume.mask([1, 7]), np.isin(labels, [1, 7]))
    assert volume.mask(3).sum() == 1
    assert volume.mask(()).sum() == 0
    assert volume.orientation == "LPS"
    assert not volume.is_oblique
    other = volume.with_data(np.ones((2, 2, 2)), kind="scalar")
    assert other.kind == "scalar"
    assert other.same_grid(volume)
    with pytest.raises(GeometryError, match="does not fit"):
        volume.with_data(np.ones((2, 2, 3)))
    with pytest.raises(TypeError, match="label"):
        other.mask(1)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 5, degrees=True).as_matrix()
    assert Volume(labels, turned, kind="label").is_oblique


def test_pickle_and_html() -> None:
    volume = Volume(array(0), np.diag([1.0, 2, 3, 1]), kind="scalar")
    again = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.same_grid(volume)
    page = volume._repr_html_()
    assert "1 x 2 x 3" in page
    assert "RAS" in page
