"""Images of one head are brought to each other: known motions are found, whatever contrast and grid."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.data import Volume
from gliodil.data.registration.rigid import align_rigidly
from gliodil.data.registration.transform import GridGeometry
from gliodil.data.template import Anatomy, load_anatomy
from gliodil.errors import InputError, NumericsError


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy(resolution_mm=4)


def other_contrast(anatomy: Anatomy) -> np.ndarray:
    """CSF bright, white matter dark, with noise."""
    image = 40 * anatomy.wm.data + 80 * anatomy.gm.data + 160 * anatomy.csf.data
    return image + np.random.default_rng(0).random(image.shape) * 8


def motion(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = (k for k in range(3) if k != axis)
        turn = np.eye(4)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    matrix[:3, 3] = shift
    return matrix


@pytest.mark.parametrize(
    ("degrees", "shift", "far"),
    [((6, -4, 9), (7, -5, 6), False), ((3, 0, -5), (140, 60, -200), True)],
)
def test_a_known_motion_is_found(anatomy, degrees, shift, far):
    """To a millimetre (a quarter of a voxel) anywhere in the brain; `far`: another frame of reference."""
    truth = motion(degrees, shift)
    moved = Volume(other_contrast(anatomy), truth @ anatomy.t1.affine, kind="scalar")
    thick = GridGeometry((38, 60, 24), moved.affine @ np.diag([4 / 3, 1, 2, 1]))
    image = moved.resample_to(Volume.lazy(lambda: None, shape=thick.shape, affine=thick.affine, kind="label"))
    found = align_rigidly(anatomy.t1, image, "t2")
    points = anatomy.brain.to_world(np.argwhere(anatomy.brain.data > 0)[::97])
    error = np.linalg.norm(found.transform.points(points) - (points @ truth[:3, :3].T + truth[:3, 3]), axis=1)
    assert error.max() < 1.0
    assert found.transform.warp is None
    np.testing.assert_allclose(
        found.transform.matrix[:3, :3] @ found.transform.matrix[:3, :3].T, np.eye(3), atol=1e-9
    )
    assert (found.shift_mm > 100) == far


def test_what_cannot_be_aligned_is_refused(anatomy):
    flat = anatomy.t1.with_data(np.full(anatomy.t1.shape, 3.0))
    with pytest.raises(InputError, match="one value only"):
        align_rigidly(anatomy.t1, flat, "t2")


def slab(volume: Volume, low: int, high: int) -> Volume:
    """Some slices of an image."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] * low
    return Volume(volume.data[:, :, low:high], affine, kind="scalar")


def test_a_slab_is_aligned_with_a_whole_head_and_says_how_sure_it_is(anatomy):
    """Of 60 mm."""
    truth = motion((10, -6, 8), (12, -15, 10))
    part = slab(anatomy.t1, 18, 33)
    points = part.to_world(np.argwhere(anatomy.brain.data[:, :, 18:33] > 0)[::41])
    moved = Volume(other_contrast(anatomy), truth @ anatomy.t1.affine, kind="scalar")
    found = align_rigidly(moved, part, "MR", target=points)
    link = found.link("a", "b")
    change = link.matrix - truth
    assert np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1).max() < 2.0  # half a voxel
    assert found.spread_mm < 2.0
    assert found.overlap > 0.9
    assert (link.origin, link.residual_mm) == ("registered", found.spread_mm)
    np.testing.assert_allclose(link.matrix @ found.transform.matrix, np.eye(4), atol=1e-9)


def test_too_little_of_the_target_is_refused(anatomy):
    part = slab(anatomy.t1, 20, 29)
    points = anatomy.brain.to_world(np.argwhere(anatomy.brain.data > 0)[::97])
    moved = Volume(other_contrast(anatomy), anatomy.t1.affine, kind="scalar")
    with pytest.raises(InputError, match="shares too little") as refused:
        align_rigidly(part, moved, "MR", target=points)
    assert "50%" in str(refused.value.expected)


def test_noise_is_refused(anatomy):
    noise = np.random.default_rng(3).random(anatomy.t1.shape).astype(np.float32)
    with pytest.raises((NumericsError, InputError)):
        align_rigidly(anatomy.t1, anatomy.t1.with_data(noise), "t2")
