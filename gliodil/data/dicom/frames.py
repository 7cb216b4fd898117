"""Frames: the planes of a series, each with its place, whether one per file or many in one (enhanced).

A frame's pixel in column i and row j lies at  p + i*Δ_col*r + j*Δ_row*c  (mm, LPS), with p the ImagePositionPatient,
r and c the two halves of the ImageOrientationPatient, and PixelSpacing = (Δ_row, Δ_col).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.headers import item, items, number, numbers, text, value
from gliodil.errors import GeometryError

COSINE_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length and right angles; headers round them."""

LARGEST_SPACING_MM = 100.0
FARTHEST_MM = 1e5


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane of pixels: where it is stored and where it lies (mm, LPS)."""

    path: Path
    index: int
    """Place among the frames of the file, 0 where it holds one."""
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    """Direction cosines of a row and of a column, shape (2, 3)."""
    spacing: tuple[float, float]
    """Distance between rows and between columns, mm."""
    shape: tuple[int, int]
    """Columns and rows: the shape of the array it fills."""
    slope: float
    intercept: float
    reference: str
    """Frame of reference UID, "" if there is none."""
    traits: Mapping[str, str]
    """What can tell apart two frames at one place: echo, time point, kind of image, ..."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit normal of the plane, rows × columns, LPS."""
        return np.cross(self.orientation[0], self.orientation[1])


def frames_of(header: Any, path: Path, name: str) -> tuple[Frame, ...]:
    """Return the frames of one file.

    Raises
    ------
    GeometryError
        If a frame is not a plane of grey values placed in the patient; `name` says which series it is.
    """

    def refuse(found: str) -> GeometryError:
        return GeometryError(
            f"The geometry of {name} is incomplete.",
            file=path,
            expected="grey-value images with ImagePositionPatient, ImageOrientationPatient and PixelSpacing",
            found=found,
            remedy="export the series again, as the original images of the scanner",
        )

    columns, rows = number(header, "Columns"), number(header, "Rows")
    if not columns or not rows or min(columns, rows) < 2:
        raise refuse("no number of rows and columns, or fewer than two")
    if (number(header, "SamplesPerPixel") or 1) != 1:
        raise refuse("a colour image")
    shared = item(header, "SharedFunctionalGroupsSequence")
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    count = number(header, "NumberOfFrames") or 1
    if not groups and count != 1:
        raise refuse(f"{count:.0f} frames in one file without a place for each")
    if groups and count != len(groups):
        raise refuse(f"{count:.0f} frames, but places for {len(groups)}")
    if not groups:
        places = [_Place(header, header, header, header, _classic_traits(header))]
    else:
        places = [_enhanced(group, shared) for group in groups]
    reference = text(header, "FrameOfReferenceUID")
    size = int(columns), int(rows)
    return tuple(_frame(place, path, index, size, reference, refuse) for index, place in enumerate(places))


@dataclass(frozen=True)
class _Place:
    """The data sets in which one frame's geometry stands."""

    position: Any
    orientation: Any
    measures: Any
    scale: Any
    traits: dict[str, str]


def _enhanced(own: Any, shared: Any) -> _Place:
    """Look up what an enhanced image says of one frame: in the frame's own groups, else in the shared ones."""

    def group(keyword: str) -> Any:
        return item(own, keyword) if items(own, keyword) else item(shared, keyword)

    content = group("FrameContentSequence")
    traits = {
        "stack": text(content, "StackID"),
        "echo time": text(group("MREchoSequence"), "EffectiveEchoTime"),
        "kind of image": text(group("MRImageFrameTypeSequence"), "FrameType"),
        "time point": text(content, "TemporalPositionIndex"),
        "acquisition": text(content, "FrameAcquisitionNumber"),
        "b-value": text(group("MRDiffusionSequence"), "DiffusionBValue"),
    }
    return _Place(
        group("PlanePositionSequence"),
        group("PlaneOrientationSequence"),
        group("PixelMeasuresSequence"),
        group("PixelValueTransformationSequence"),
        traits,
    )


def _classic_traits(header: Any) -> dict[str, str]:
    return {
        "echo time": text(header, "EchoTime"),
        "echo": text(header, "EchoNumbers"),
        "kind of image": text(header, "ImageType"),
        "time point": text(header, "TemporalPositionIdentifier"),
        "acquisition": text(header, "AcquisitionNumber"),
        "b-value": text(header, "DiffusionBValue"),
        "frame time": text(header, "FrameReferenceTime"),
        "trigger time": text(header, "TriggerTime"),
    }


def _frame(
    place: _Place,
    path: Path,
    index: int,
    shape: tuple[int, int],
    reference: str,
    refuse: Callable[[str], GeometryError],
) -> Frame:
    position = numbers(place.position, "ImagePositionPatient", 3)
    cosines = numbers(place.orientation, "ImageOrientationPatient", 6)
    spacing = numbers(place.measures, "PixelSpacing", 2)
    if position is None:
        raise refuse("no ImagePositionPatient of three numbers")
    if cosines is None:
        raise refuse("no ImageOrientationPatient of six numbers")
    if spacing is None or not all(0 < s < LARGEST_SPACING_MM for s in spacing):
        raise refuse("no PixelSpacing of two lengths above 0 mm")
    if max(map(abs, position)) > FARTHEST_MM:
        raise refuse(f"an ImagePositionPatient {max(map(abs, position)):.3g} mm away")
    orientation = np.array(cosines).reshape(2, 3)
    if np.abs(orientation @ orientation.T - np.eye(2)).max() > COSINE_TOLERANCE:
        raise refuse("an ImageOrientationPatient that is not two unit vectors at a right angle")
    slope, intercept = number(place.scale, "RescaleSlope"), number(place.scale, "RescaleIntercept")
    stated = value(place.scale, "RescaleSlope") is not None
    if slope == 0 or (slope is None and stated):
        raise refuse("a RescaleSlope that is 0 or no number")
    return Frame(
        path=path,
        index=index,
        position=np.array(position),
        orientation=orientation,
        spacing=(spacing[0], spacing[1]),
        shape=shape,
        slope=1.0 if slope is None else slope,
        intercept=intercept or 0.0,
        reference=reference,
        traits=place.traits,
    )
