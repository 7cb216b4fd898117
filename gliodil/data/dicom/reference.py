"""The series that exported objects refer to: its geometry, its images, and the study it belongs to.

DICOM places pixel (column i, row j) of a slice in patient coordinates, LPS in mm::

    position = ImagePositionPatient + i · spacing_columns · row direction + j · spacing_rows · column direction

Slices are ordered by projection on the normal, row direction x column direction. World coordinates here are
RAS: x and y change sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.contours import Loop
from gliodil.data.dicom.objects import MisplacedError, header_access, read_dataset
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns LPS into RAS and back."""
PLACING = "orientation, position, pixel spacing, rows and columns"
TOLERANCE_MM = 0.1
"""How far pixels may be off the regular grid; contours are placed by each slice's own header."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A series with its geometry.

    Attributes
    ----------
    headers
        pydicom datasets without pixels, one per slice in slice order; one for a multi-frame image.
    frames
        Frame number of each slice, for a multi-frame image.
    positions
        Centre of pixel (0, 0) of each slice, LPS [mm], shape (slices, 3).
    steps
        LPS vectors [mm] from one column to the next and from one row to the next, shape (2, 3).
    shape
        Columns, rows, slices.
    """

    headers: tuple[Any, ...]
    frames: tuple[int, ...] | None
    positions: NDArray[np.float64]
    steps: NDArray[np.float64]
    shape: tuple[int, int, int]

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, index (column, row, slice) to world mm (RAS+)."""
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = self.steps
        affine[:3, 2] = _slice_step(self.headers[0], self.positions, self.steps)
        affine[:3, 3] = self.positions[0]
        return np.asarray(LPS_RAS @ affine)

    @property
    def grid(self) -> Volume:
        """An empty label volume on the grid of the series."""
        shape = self.shape
        return Volume.lazy(
            lambda: np.zeros(shape, np.uint8),
            shape=shape,
            affine=self.affine,
            kind="label",
            frame=self.frame_of_reference,
        )

    @property
    def pixel_area(self) -> float:
        """Area of a pixel [mm²]."""
        return float(np.prod(np.linalg.norm(self.steps, axis=1)))

    @property
    def slice_distance(self) -> float:
        """Distance between neighbouring slices along their normal [mm]."""
        normal = np.cross(*self.steps)
        step = _slice_step(self.headers[0], self.positions, self.steps)
        return float(abs(step @ normal) / np.linalg.norm(normal))

    @property
    def frame_of_reference(self) -> str:
        """UID of the coordinate system."""
        return str(self.headers[0].FrameOfReferenceUID)

    @property
    def instances(self) -> tuple[str, ...]:
        """SOP instance UIDs of the images, in slice order."""
        return tuple(str(header.SOPInstanceUID) for header in self.headers)

    def to_patient(self, loop: Loop, slice_number: int) -> NDArray[np.float64]:
        """Return LPS positions [mm], shape (n, 3), of (column, row) coordinates on a slice."""
        return np.asarray(self.positions[slice_number] + loop @ self.steps)


def read_reference(files: Sequence[Path | str]) -> Reference:
    """Read the headers of a series: single images in any order, or one multi-frame image.

    Raises
    ------
    ImageFileError
        If a file is missing, is not a DICOM image, or lacks what places it.
    GeometryError
        If the images do not form one regular stack of parallel slices with a frame of reference.
    MissingExtraError
        If pydicom is not installed.
    """
    paths = [Path(file) for file in files]
    if not paths:
        raise ImageFileError("There is no series to refer to.", expected="at least one DICOM image")
    headers = [read_dataset(path, stop_before_pixels=True) for path in paths]
    planes: list[tuple[float, ...]] = []
    frames: list[int] = []
    order: list[int] = []
    for number, (header, path) in enumerate(zip(headers, paths, strict=True)):
        with header_access("The header does not place the image in space.", file=path, expected=PLACING):
            found = _planes(header)
            sizes = [int(header.Columns), int(header.Rows)]
        planes += [(*plane, *sizes) for plane in found]
        frames += range(1, len(found) + 1)
        order += [number] * len(found)
    if not planes:
        raise ImageFileError("The image has no frame.", file=paths[0], expected=PLACING)
    table = np.asarray(planes, np.float64)
    first = paths[0]
    steps = _common_steps(table, first)
    with header_access("The images cannot be referred to.", file=first, expected="their identifiers"):
        _same_series(headers, first)
    sorting = np.argsort(table[:, :3] @ np.cross(*steps), kind="stable")
    positions = table[sorting, :3]
    multi = len(headers) == 1 and len(planes) > 1
    if not multi and len(planes) > len(headers):
        raise GeometryError(
            "The series has several multi-frame images.",
            file=first,
            expected="single images, or one multi-frame image",
            found=f"{len(headers)} files with {len(planes)} frames",
        )
    reference = Reference(
        headers=tuple(headers) if multi else tuple(headers[order[i]] for i in sorting),
        frames=tuple(frames[i] for i in sorting) if multi else None,
        positions=positions,
        steps=steps,
        shape=(int(table[0, 9]), int(table[0, 10]), len(planes)),
    )
    with header_access("The slices cannot be placed.", file=first, expected="spacing or thickness of slices"):
        _check_stack(reference, first)
    return reference


def _planes(header: Any) -> list[tuple[float, ...]]:
    """Return position, orientation (6) of every frame in steps of mm: 3 + 6 numbers each."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        return [_plane(header, header, header)]
    shared = header.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in header else {}

    def macro(frame: Any, name: str) -> Any:
        return (frame if name in frame else shared)[name][0]

    return [
        _plane(
            macro(frame, "PlanePositionSequence"),
            macro(frame, "PlaneOrientationSequence"),
            macro(frame, "PixelMeasuresSequence"),
        )
        for frame in header.PerFrameFunctionalGroupsSequence
    ]


def _plane(position: Any, orientation: Any, measures: Any) -> tuple[float, ...]:
    place = np.array(position.ImagePositionPatient, np.float64)
    axes = np.array(orientation.ImageOrientationPatient, np.float64)
    rows, columns = (float(value) for value in measures.PixelSpacing)
    if place.shape != (3,) or axes.shape != (6,):
        raise MisplacedError("position or orientation of the wrong length")
    if not (np.isfinite([*place, *axes, rows, columns]).all() and min(rows, columns) > 0):
        raise MisplacedError("position, orientation or spacing that is no number")
    lengths = np.linalg.norm(axes.reshape(2, 3), axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(axes[:3] @ axes[3:]) > 1e-2:
        raise MisplacedError(f"an orientation that is not two unit vectors at right angles: {axes.tolist()}")
    return (*place, *axes[:3] / lengths[0] * columns, *axes[3:] / lengths[1] * rows)


def _common_steps(table: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Return the steps all planes share, or refuse planes that differ in orientation, spacing or size."""
    extent = table[0, 9:].max()
    if (
        np.abs(table[:, 3:9] - table[0, 3:9]).max() * extent > TOLERANCE_MM
        or (table[:, 9:] != table[0, 9:]).any()
    ):
        raise GeometryError(
            "The images of the series differ in orientation, pixel spacing or size.",
            file=path,
            expected="one stack of parallel slices",
            remedy="name the files of a single series",
        )
    return table[0, 3:9].reshape(2, 3)


def _same_series(headers: Iterable[Any], path: Path) -> None:
    for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPClassUID"):
        values = {str(header.get(keyword, "")) for header in headers}
        if len(values) != 1 or values == {""}:
            raise GeometryError(
                "The images cannot be referred to as one series.",
                file=path,
                expected=f"one {keyword} in all of them",
                found="none" if values == {""} else f"{len(values)} different ones",
                remedy="name the files of a single series"
                if values != {""}
                else "export the series with its identifiers, or convert it to NIfTI to do without DICOM output",
            )
    if any(not header.get("SOPInstanceUID") for header in headers):
        raise ImageFileError("An image of the series has no SOP instance UID.", file=path)


def _slice_step(
    header: Any, positions: NDArray[np.float64], steps: NDArray[np.float64]
) -> NDArray[np.float64]:
    if len(positions) > 1:
        return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1))
    normal = np.cross(*steps) / np.linalg.norm(np.cross(*steps))
    measures = header
    if "SharedFunctionalGroupsSequence" in header:
        measures = header.SharedFunctionalGroupsSequence[0].get("PixelMeasuresSequence", [header])[0]
    distance = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0
    return np.asarray(normal * abs(float(distance)))


def _check_stack(reference: Reference, path: Path) -> None:
    """Refuse gaps and doubles, and shear unless a tilted CT gantry made it: slices must be equally far apart."""
    normal = np.cross(*reference.steps)
    normal = normal / np.linalg.norm(normal)
    heights = (reference.positions - reference.positions[0]) @ normal
    step = heights[-1] / max(len(heights) - 1, 1)
    off = np.abs(heights - step * np.arange(len(heights))).max()
    if len(heights) > 1 and (step <= 1e-3 or off > min(TOLERANCE_MM, 0.2 * step)):
        gaps = np.diff(heights)
        raise GeometryError(
            "The slices of the series are not equally far apart.",
            file=path,
            expected=f"{len(heights)} slices {step:.4g} mm apart",
            found=f"distances from {gaps.min():.4g} to {gaps.max():.4g} mm",
            remedy="name every image of the series once, without gaps",
        )
    drift = reference.positions - reference.positions[0] - heights[:, None] * normal
    if str(reference.headers[0].get("Modality", "")) == "CT":  # stacked along a line that leaves the normal
        first, last = reference.positions[[0, -1]]
        drift = reference.positions - np.linspace(first, last, len(heights))
    aside = float(np.linalg.norm(drift, axis=1).max())
    if aside > max(TOLERANCE_MM, 1e-3 * heights[-1]):
        raise GeometryError(
            "The slices of the series are shifted against each other, as by a tilted gantry.",
            file=path,
            expected="slices stacked along their normal",
            found=f"a shift of {aside:.3g} mm in the plane",
            remedy="resample the series to a stack without shear",
        )
