"""From voxels to pictures in patient orientation.

An array is first turned to the closest RAS+ axes (permutations and flips only, so that no value is
interpolated), whatever way it was stored. A plane is then laid out in the radiological convention:

    axial     columns right -> left       rows anterior -> posterior    seen from the feet
    coronal   columns right -> left       rows superior -> inferior     seen from the front
    sagittal  columns anterior -> posterior   rows superior -> inferior seen from the patient's left

so the patient's left is on the right of axial and coronal pictures. Picture coordinates are millimetres
from the picture's upper left corner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gliodil.data.volume import Volume

PlaneName = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")

# RAS axis that a plane cuts, the axes along its columns and rows, and the letters at its edges.
_NORMAL = {"axial": 2, "coronal": 1, "sagittal": 0}
_IN_PLANE = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
_LETTERS = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


@dataclass(frozen=True)
class Display:
    """How the volumes of one grid are cut and laid out.

    Attributes
    ----------
    orientation
        nibabel orientation array that turns stored axes into the closest RAS+ axes.
    affine
        4x4, RAS-ordered voxel index to world mm.
    shape, spacing
        Of the RAS-ordered array; spacing in mm.
    centre
        RAS-ordered index of the voxel the three planes pass through.
    window_mm
        Per RAS axis, the range to show, in mm along that axis from the outer face of its first voxel.
    oblique
        Whether the planes are tilted against the patient's axes (the letters are then the nearest ones).
    """

    orientation: NDArray[np.float64]
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    centre: tuple[int, int, int]
    window_mm: tuple[tuple[float, float], ...]
    oblique: bool = False

    def reorient(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array of the grid in RAS order; a view, shape `self.shape`."""
        return np.asarray(nib.orientations.apply_orientation(array, self.orientation))

    def cut(self, array: NDArray[Any], plane: PlaneName) -> NDArray[Any]:
        """Return the picture (rows, columns) of an array in stored order, first row on top."""
        sliced = np.take(self.reorient(array), self.centre[_NORMAL[plane]], axis=_NORMAL[plane])
        return np.asarray(sliced[::-1, ::-1].T)

    def extent(self, plane: PlaneName) -> tuple[float, float, float, float]:
        """Return (left, right, bottom, top) of the whole picture in mm, as `imshow` wants it."""
        width, height = (self.shape[axis] * self.spacing[axis] for axis in _IN_PLANE[plane])
        return 0.0, width, height, 0.0

    def limits(self, plane: PlaneName) -> tuple[float, float, float, float]:
        """Return (left, right, bottom, top) of the window to show, in mm."""
        _, width, height, _ = self.extent(plane)
        across, down = (self.window_mm[axis] for axis in _IN_PLANE[plane])
        return width - across[1], width - across[0], height - down[0], height - down[1]

    def pixel_centres(self, plane: PlaneName) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mm coordinates of the picture's columns and of its rows."""
        across, down = _IN_PLANE[plane]
        return (
            np.asarray((np.arange(self.shape[across]) + 0.5) * self.spacing[across]),
            np.asarray((np.arange(self.shape[down]) + 0.5) * self.spacing[down]),
        )

    def centre_mm(self, plane: PlaneName) -> tuple[float, float]:
        """Return the picture coordinates (across, down) of the common point of the three planes."""
        x, y = self.pixel_centres(plane)
        across, down = _IN_PLANE[plane]
        return (
            float(x[self.shape[across] - 1 - self.centre[across]]),
            float(y[self.shape[down] - 1 - self.centre[down]]),
        )

    def position_mm(self, plane: PlaneName) -> float:
        """Return the world coordinate (RAS, mm) at which the plane passes through the centre."""
        world = self.affine @ np.append(np.asarray(self.centre, float), 1.0)
        return float(world[_NORMAL[plane]])

    def letters(self, plane: PlaneName) -> dict[str, str]:
        """Return the orientation letter at each edge of the picture."""
        return dict(zip(("left", "right", "top", "bottom"), _LETTERS[plane], strict=True))


def display_for(
    grid: Volume, *, target: NDArray[np.bool_], region: NDArray[np.bool_], brain: NDArray[np.bool_]
) -> Display:
    """Return the display whose planes pass through the middle of `target` and show `region` large.

    The window is a cube, `region` plus 18 mm on every side, moved so as to show as much brain as it can.

    Parameters
    ----------
    grid
        Any volume on the grid that the masks live on.
    target
        Mask whose voxel nearest to its own centroid fixes the planes; the image centre if empty.
    region
        Mask to be seen whole.
    brain
        Mask that the window should not waste space outside of.
    """
    orientation = nib.io_orientation(grid.affine)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(orientation, grid.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)

    def turned(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(nib.orientations.apply_orientation(mask, orientation))

    shape = turned(target).shape
    centre = _middle_voxel(turned(target), spacing)
    window = _window(_bounds_mm(turned(region), spacing), _bounds_mm(turned(brain), spacing))
    return Display(
        orientation=orientation,
        affine=np.asarray(affine, np.float64),
        shape=(shape[0], shape[1], shape[2]),
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        centre=centre,
        window_mm=window,
        oblique=grid.is_oblique,
    )


def _middle_voxel(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> tuple[int, int, int]:
    """Index of the mask's voxel nearest to its centroid, so that rings and several foci are hit too."""
    indices = np.argwhere(mask)
    if len(indices) == 0:
        indices = np.asarray([[n // 2 for n in mask.shape]])
    away = ((indices - indices.mean(axis=0)) * spacing) ** 2
    i, j, k = indices[int(away.sum(axis=1).argmin())]
    return int(i), int(j), int(k)


def _bounds_mm(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per axis, lower and upper outer face of the mask in mm; the whole image if the mask is empty."""
    bounds = np.empty((3, 2))
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        first, last = (hit[0], hit[-1]) if len(hit) else (0, mask.shape[axis] - 1)
        bounds[axis] = first * spacing[axis], (last + 1) * spacing[axis]
    return bounds


def _window(
    region: NDArray[np.float64], brain: NDArray[np.float64], *, rim_mm: float = 18.0, edge_mm: float = 4.0
) -> tuple[tuple[float, float], ...]:
    """Equal range on every axis around `region`, shifted into `brain` where it fits."""
    length = float((region[:, 1] - region[:, 0]).max() + 2 * rim_mm)
    length = min(length, float((brain[:, 1] - brain[:, 0]).max() + 2 * edge_mm))
    window = []
    for (low, high), (inner, outer) in zip(region, brain, strict=True):
        inner, outer = inner - edge_mm, outer + edge_mm
        start = 0.5 * (low + high - length)
        fits = length <= outer - inner
        start = min(max(start, inner), outer - length) if fits else 0.5 * (inner + outer - length)
        window.append((float(start), float(start + length)))
    return tuple(window)
