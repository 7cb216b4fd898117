"""Volume: a 3-D array, the affine that places it in the head, and what its numbers mean.

World coordinates are millimetres, RAS+ (x grows to the patient's right, y to the front, z upwards),
as in NIfTI::

    world = A[:3, :3] @ index + A[:3, 3]        A: 4x4, float64; index = voxel centre

A volume is either `scalar` (interpolated linearly) or `label` (nearest neighbour, integers only). The
kind belongs to the volume, so no caller can interpolate labels by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import obliquity
from numpy.typing import ArrayLike, NDArray

from gliodil.data.affine import box_corners, check_affine
from gliodil.data.resample import resample
from gliodil.data.voxels import Kind, freeze
from gliodil.errors import GeometryError

__all__ = ["Kind", "Volume"]


class Volume:
    """An immutable 3-D image with its geometry.

    Parameters
    ----------
    data
        3-D array. Labels must be integers, booleans, or floats that are integers to within 1e-3; scalars
        are kept as float32 or float64 (integers become the float type that holds them exactly).
        A writable array is copied.
    affine
        4x4, voxel index to world millimetres (RAS+). Copied, float64.
    kind
        `"scalar"` or `"label"`; decides how the volume is resampled.
    path
        File the volume came from, for messages.
    notes
        What was noticed on the way in (for instance contradictory header fields).
    frame
        UID of the frame of reference that the world coordinates belong to; "" where no file states one (NIfTI).

    Raises
    ------
    GeometryError
        If the data are not 3-D, or the affine is singular, not finite or not an affine.
    LabelError
        If `kind` is `"label"` and the values are not integers.
    """

    __slots__ = ("_affine", "_data", "_frame", "_kind", "_load", "_notes", "_path", "_shape")

    def __init__(
        self,
        data: ArrayLike,
        affine: ArrayLike,
        *,
        kind: Kind,
        path: Path | None = None,
        notes: tuple[str, ...] = (),
        frame: str = "",
    ) -> None:
        array = np.asarray(data)
        self._describe(array.shape, affine, kind=kind, path=path, notes=notes, frame=frame)
        self._load: Callable[[], NDArray[Any]] | None = None
        self._data: NDArray[Any] | None = freeze(array, kind, path)

    @classmethod
    def lazy(
        cls,
        load: Callable[[], NDArray[Any]],
        *,
        shape: tuple[int, ...],
        affine: ArrayLike,
        kind: Kind,
        path: Path | None = None,
        notes: tuple[str, ...] = (),
        frame: str = "",
    ) -> Volume:
        """Return a volume whose voxels `load()` delivers on first use."""
        volume = cls.__new__(cls)
        volume._describe(shape, affine, kind=kind, path=path, notes=notes, frame=frame)
        volume._load = load
        volume._data = None
        return volume

    def _describe(
        self,
        shape: tuple[int, ...],
        affine: ArrayLike,
        *,
        kind: Kind,
        path: Path | None,
        notes: tuple[str, ...],
        frame: str,
    ) -> None:
        if kind not in ("scalar", "label"):
            raise ValueError(f"kind must be 'scalar' or 'label', not {kind!r}")
        if len(shape) != 3 or 0 in shape:
            raise GeometryError(
                "A volume must have three dimensions.",
                file=path,
                expected="a 3-D array",
                found=f"shape {shape}",
            )
        self._shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        self._affine = check_affine(affine, path)
        self._kind: Kind = kind
        self._path = path
        self._notes = tuple(notes)
        self._frame = frame

    @property
    def data(self) -> NDArray[Any]:
        """Read-only voxels, shape `self.shape`: integers for labels, float32 or float64 for scalars."""
        if self._data is None:
            assert self._load is not None
            array = self._load()
            if array.shape != self._shape:
                raise GeometryError(f"Voxels of shape {array.shape}, not {self._shape}", file=self._path)
            self._data = freeze(array, self._kind, self._path)
            self._load = None
        return self._data

    @property
    def is_loaded(self) -> bool:
        """Whether the voxels are in memory."""
        return self._data is not None

    @property
    def affine(self) -> NDArray[np.float64]:
        """Read-only 4x4 affine, voxel index to world millimetres."""
        return self._affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels per axis."""
        return self._shape

    @property
    def kind(self) -> Kind:
        """`"scalar"` or `"label"`."""
        return self._kind

    @property
    def path(self) -> Path | None:
        """File the volume was read from, if any."""
        return self._path

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed while the volume was read."""
        return self._notes

    @property
    def frame(self) -> str:
        """UID of the frame of reference, "" where no file states one; frames meet through ``data.frames``."""
        return self._frame

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each array axis, mm."""
        x, y, z = np.linalg.norm(self._affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def origin(self) -> tuple[float, float, float]:
        """World position of the centre of voxel (0, 0, 0), mm."""
        x, y, z = self._affine[:3, 3]
        return float(x), float(y), float(z)

    @property
    def orientation(self) -> str:
        """Direction in which each array axis mostly increases, for instance `"LPS"`."""
        return "".join(str(letter) for letter in nib.aff2axcodes(self._affine))

    @property
    def is_oblique(self) -> bool:
        """Whether an array axis leaves its nearest world axis by more than 1e-3 rad."""
        return bool(np.max(obliquity(self._affine)) > 1e-3)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, mL."""
        return float(abs(np.linalg.det(self._affine[:3, :3])) / 1000.0)

    @property
    def field_of_view(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lowest and highest world coordinates the voxels reach, outer faces included, mm."""
        return self.bounds(np.zeros(3), np.asarray(self._shape) - 1.0)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """World box (mm) around the voxels from index `low` to index `high`, both with their faces."""
        points = self.to_world(box_corners(np.asarray(low, float) - 0.5, np.asarray(high, float) + 0.5))
        return points.min(axis=0), points.max(axis=0)

    def to_world(self, index: ArrayLike) -> NDArray[np.float64]:
        """World position (mm) of voxel coordinates; both `(..., 3)`."""
        points = np.asarray(index, np.float64)
        return np.asarray(points @ self._affine[:3, :3].T + self._affine[:3, 3])

    def to_index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Voxel coordinates (not rounded) of world positions in mm; both `(..., 3)`."""
        points = np.asarray(world, np.float64) - self._affine[:3, 3]
        return np.asarray(np.linalg.solve(self._affine[:3, :3], points[..., None])[..., 0])

    def same_grid(self, other: Volume, tolerance_mm: float = 1e-3) -> bool:
        """Whether both have the same shape and their corner voxels coincide within `tolerance_mm`."""
        if self._shape != other._shape:
            return False
        ends = box_corners(np.zeros(3), np.asarray(self._shape) - 1.0)
        return bool(np.abs(self.to_world(ends) - other.to_world(ends)).max() <= tolerance_mm)

    def resample_to(self, reference: Volume) -> Volume:
        """Return this volume on the grid of `reference`, through world coordinates.

        Scalars are interpolated linearly, labels take the nearest voxel; see `gliodil.data.resample`.
        The same grid (to 1e-3 mm) gives the voxels untouched. A frame that one of them does not state is taken to be
        the other's.

        Raises
        ------
        GeometryError
            If both state a frame of reference and these differ: coordinates meet through ``data.frames`` only.
        """
        if self._frame and reference.frame and self._frame != reference.frame:
            raise GeometryError(
                "The images lie in different frames of reference.",
                file=self._path,
                expected=f"frame {reference.frame}",
                found=f"frame {self._frame}",
                remedy="relate the two with a registration (--reg FILE, or --register)",
            )
        kept: Any = {"kind": self._kind, "path": self._path, "notes": self._notes}
        kept["frame"] = self._frame or reference.frame
        if self.same_grid(reference):
            return Volume(self.data, reference.affine, **kept)
        data = resample(
            self.data,
            self._affine,
            onto_affine=reference.affine,
            onto_shape=reference.shape,
            linear=self._kind == "scalar",
        )
        return Volume(data, reference.affine, **kept)

    def carried(self, matrix: ArrayLike, frame: str) -> Volume:
        """Return the same voxels placed in another frame: world' = matrix @ world (``data.frames.Link.matrix``)."""
        affine = np.asarray(matrix, np.float64) @ self._affine
        return Volume(self.data, affine, kind=self._kind, path=self._path, notes=self._notes, frame=frame)

    def with_data(self, data: ArrayLike, *, kind: Kind | None = None) -> Volume:
        """Return other voxels on the same grid (same shape required); the path is not kept."""
        array = np.asarray(data)
        if array.shape != self._shape:
            raise GeometryError(f"An array of shape {array.shape} does not fit the grid {self._shape}")
        return Volume(array, self._affine, kind=kind or self._kind, frame=self._frame)

    def mask(self, labels: int | Iterable[int]) -> NDArray[np.bool_]:
        """Return where the voxels carry one of `labels`; for label volumes only."""
        if self._kind != "label":
            raise TypeError("mask() needs a label volume")
        return np.asarray(np.isin(self.data, [labels] if isinstance(labels, int) else list(labels)))

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing)
        shape = " x ".join(str(n) for n in self._shape)
        origin = "" if self._path is None else f", {self._path.name!r}"
        return f"Volume({self._kind}, {shape}, {spacing} mm, {self.orientation}{origin})"

    def _repr_html_(self) -> str:
        from gliodil.data.display import volume_html

        return volume_html(self)
