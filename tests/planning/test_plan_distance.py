"""Distances and boxes on a voxel grid."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.errors import GeometryError
from gliodil.planning.distance import boundary, bounding_box, distance_from, margin_box, orthogonal_spacing


def _rotation(degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def test_spacing_of_an_oblique_affine():
    affine = _rotation(20) @ np.diag([-1.0, 0.5, 3.0, 1.0])
    assert orthogonal_spacing(affine) == pytest.approx((1.0, 0.5, 3.0))


@pytest.mark.parametrize("shear", [0.05, -0.3])
def test_sheared_affine_is_refused(shear):
    affine = np.eye(4)
    affine[0, 2] = shear
    with pytest.raises(GeometryError, match="perpendicular"):
        orthogonal_spacing(affine)


def test_bounding_box_is_tight_padded_and_clipped():
    mask = np.zeros((8, 9, 10), bool)
    mask[2, 3:5, 9] = True
    assert bounding_box(mask) == (slice(2, 3), slice(3, 5), slice(9, 10))
    assert bounding_box(mask, pad=(1, 4, 1)) == (slice(1, 4), slice(0, 9), slice(8, 10))
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3, 3), bool))


def test_margin_box_holds_everything_within_the_margin():
    mask = np.zeros((30, 30, 30), bool)
    mask[15, 15, 15] = True
    spacing = (1.0, 2.0, 0.7)
    near = distance_from(mask, spacing) <= 5.0
    outside = near.copy()
    outside[margin_box(mask, spacing, 5.0)] = False
    assert near.any()
    assert not outside.any()


def test_distance_in_a_region_equals_the_full_one():
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 14, 16), bool)
    mask[3:5, 4, 5:7] = True
    region = rng.random(mask.shape) > 0.98
    region[:, :, 12:] = False
    full, partial = distance_from(mask, (1, 1, 2)), distance_from(mask, (1, 1, 2), region=region)
    assert np.array_equal(full[region], partial[region])
    assert np.isinf(partial[:, :, 13:]).all()


def test_boundary_includes_the_edge_of_the_array():
    mask = np.zeros((5, 5, 5), bool)
    mask[:3, 1:4, 1:4] = True
    inner = mask & ~boundary(mask)
    assert np.argwhere(inner).tolist() == [[1, 2, 2]]
