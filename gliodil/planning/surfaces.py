"""Closed surfaces of masks in world millimetres, as STL and VTU for viewers and treatment planning.

Marching cubes at 0.5 of the mask, padded so that surfaces close at the edge of the image too; vertices go
through the affine. Triangles are ordered so that normals point outwards, also where the affine mirrors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gliodil.data.atomic import atomic_path
from gliodil.errors import MissingExtraError
from gliodil.planning.distance import Mask, bounding_box, distance_from


@dataclass(frozen=True)
class Surface:
    """A triangle mesh.

    Attributes
    ----------
    vertices
        World positions [mm], RAS+, shape (n, 3), float64.
    faces
        Vertex indices, shape (m, 3), counter-clockwise seen from outside.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.intp]

    @property
    def volume_ml(self) -> float:
        """Enclosed volume [mL]: sum of signed tetrahedra; positive if normals point outwards."""
        a, b, c = (self.vertices[self.faces[:, i]] - self.vertices.mean(axis=0) for i in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6000.0)


def surface(mask: Mask, affine: ArrayLike) -> Surface:
    """Return the closed surface of a mask.

    Parameters
    ----------
    mask
        3-D, not empty.
    affine
        4x4, voxel index to world mm (RAS+).

    Raises
    ------
    ValueError
        If the mask is empty.
    MissingExtraError
        If scikit-image is not installed.
    """
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtraError("scikit-image", "all") from error
    box = bounding_box(mask)
    padded = np.pad(mask[box].astype(np.float32), 1)
    points, faces, _, _ = marching_cubes(padded, 0.5)
    matrix = np.asarray(affine, np.float64)
    index = points.astype(np.float64) - 1.0 + [side.start for side in box]
    mesh = Surface(index @ matrix[:3, :3].T + matrix[:3, 3], faces.astype(np.intp))
    return mesh if mesh.volume_ml > 0 else Surface(mesh.vertices, mesh.faces[:, ::-1])


def margin_at(
    mesh: Surface, gtv: Mask, ctv: Mask, affine: ArrayLike, spacing: Sequence[float]
) -> NDArray[np.float32]:
    """Return the distance from the GTV [mm] at the vertices of a CTV's surface, interpolated between voxels.

    Parameters
    ----------
    mesh
        Surface of `ctv`.
    gtv, ctv
        3-D masks.
    affine, spacing
        Voxel index to world mm (4x4), and voxel spacing [mm].
    """
    # Vertices lie half way to the neighbours outside the CTV, which therefore need a distance too.
    around = np.zeros(ctv.shape, bool)
    around[bounding_box(ctv, pad=(1, 1, 1))] = True
    box = bounding_box(around | gtv)
    matrix = np.asarray(affine, np.float64)
    index = np.linalg.solve(matrix[:3, :3], (mesh.vertices - matrix[:3, 3]).T)
    index -= np.array([[side.start] for side in box])
    distance = distance_from(gtv[box], spacing)
    return np.asarray(ndimage.map_coordinates(distance, index, order=1, mode="nearest"), np.float32)


def write_surface(
    mesh: Surface, path: Path | str, *, point_data: dict[str, NDArray[np.float32]] | None = None
) -> Path:
    """Write a mesh as binary STL or as VTU, by suffix; the file appears complete or not at all.

    Parameters
    ----------
    mesh
        What to write.
    path
        Name ending in `.stl` or `.vtu`.
    point_data
        Values per vertex by name; VTU only.

    Raises
    ------
    OutputError
        If the file cannot be written.
    MissingExtraError
        If meshio is not installed.
    """
    try:
        import meshio
    except ImportError as error:
        raise MissingExtraError("meshio", "all") from error
    path = Path(path)
    content = meshio.Mesh(mesh.vertices, [("triangle", mesh.faces)], point_data=point_data)
    # ASCII STL is five times as large and most viewers are slow to read it.
    options = {"binary": True} if path.suffix.lower() == ".stl" else {}
    with atomic_path(path) as temporary:
        meshio.write(temporary, content, **options)
    return path
