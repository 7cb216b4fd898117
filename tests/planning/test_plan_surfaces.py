"""Surfaces: closed, in world millimetres, outward, and readable by others."""

from __future__ import annotations

from collections import Counter

import meshio
import numpy as np
import pytest

from gliodil.planning.distance import orthogonal_spacing
from gliodil.planning.surfaces import margin_at, surface, write_surface


def _oblique():
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.array([[c, -s, 0, 10], [s, c, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    return affine @ np.diag([1.0, -0.8, 1.5, 1.0])


AFFINES = {
    "ras": np.eye(4),
    "lps": np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "las, thick": np.diag([-1.0, 1.0, 2.0, 1.0]),
    "permuted": np.eye(4)[[2, 0, 1, 3]],
    "oblique": _oblique(),
}


def _ball(radius, shape=(44, 46, 42), centre=(20, 23, 21)):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return ((index - centre) ** 2).sum(axis=-1) <= radius**2


def _is_closed(mesh):
    """Each edge is used once in each direction."""
    edges = Counter(map(tuple, mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).tolist()))
    return all(count == edges[(b, a)] for (a, b), count in edges.items())


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_surface_encloses_the_mask_in_world_coordinates(affine):
    mask = _ball(14.0)
    mesh = surface(mask, affine)
    volume = mask.sum() * abs(np.linalg.det(affine)) / 1000
    assert mesh.volume_ml == pytest.approx(volume, rel=0.02)
    centre = affine @ [20, 23, 21, 1]
    assert mesh.vertices.mean(axis=0) == pytest.approx(centre[:3], abs=0.1)
    assert _is_closed(mesh)


def test_surface_closes_at_the_edge_of_the_image():
    mesh = surface(np.ones((12, 12, 12), bool), np.eye(4))
    assert _is_closed(mesh)
    assert mesh.vertices.min(axis=0) == pytest.approx([-0.5] * 3)
    assert mesh.volume_ml == pytest.approx(12**3 / 1000, rel=0.05)


def test_holes_count_as_outside():
    solid, hollow = _ball(14.0), _ball(14.0) & ~_ball(9.0)
    lost = surface(solid, np.eye(4)).volume_ml - surface(hollow, np.eye(4)).volume_ml
    assert lost == pytest.approx(_ball(9.0).sum() / 1000, rel=0.02)


def test_empty_mask_has_no_surface():
    with pytest.raises(ValueError, match="empty"):
        surface(np.zeros((4, 4, 4), bool), np.eye(4))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_margin_at_the_vertices_is_the_distance_from_the_gtv(affine):
    gtv, ctv = _ball(0.5), _ball(12.0)
    mesh = surface(ctv, affine)
    margin = margin_at(mesh, gtv, ctv, affine, orthogonal_spacing(affine))
    exact = np.linalg.norm(mesh.vertices - (affine @ [20, 23, 21, 1])[:3], axis=1)
    assert margin == pytest.approx(exact, abs=0.15)


def test_margin_where_the_ctv_touches_the_edge_and_leaves_the_gtv():
    ctv, gtv = np.zeros((2, 10, 10, 10), bool)
    ctv[:3], gtv[8, 5, 5] = True, True
    mesh = surface(ctv, np.eye(4))
    margin = margin_at(mesh, gtv, ctv, np.eye(4), (1, 1, 1))
    assert np.isfinite(margin).all()
    assert margin.min() == pytest.approx(5.5, abs=0.01)


def test_stl_is_binary_and_reads_back(tmp_path):
    mesh = surface(_ball(8.0), AFFINES["lps"])
    path = write_surface(mesh, tmp_path / "new" / "gtv.stl")
    assert path.stat().st_size == 84 + 50 * len(mesh.faces)
    read = meshio.read(path)
    corners = read.points[read.cells_dict["triangle"]]
    assert corners == pytest.approx(mesh.vertices[mesh.faces], abs=1e-4)
    assert [p.name for p in path.parent.iterdir()] == ["gtv.stl"]


def test_vtu_carries_the_margin(tmp_path):
    mesh = surface(_ball(8.0), np.eye(4))
    values = np.arange(len(mesh.vertices), dtype=np.float32)
    read = meshio.read(write_surface(mesh, tmp_path / "ctv.vtu", point_data={"margin_mm": values}))
    assert np.array_equal(read.point_data["margin_mm"], values)
    assert np.array_equal(read.cells_dict["triangle"], mesh.faces)
    assert read.points == pytest.approx(mesh.vertices)
