"""RT Dose objects: the dose of a plan [Gy] on its own grid, in world coordinates.

    dose(i, j, k) = DoseGridScaling * pixel(k, j, i)
    x(i, j, k)    = ImagePositionPatient + i dx row + j dy column + height(k) normal,   normal = row x column

`GridFrameOffsetVector` has two conventions. Its first value is 0: heights are offsets from the first plane. Or it is
the z coordinate of the first plane, which axial planes only can have: the values are z coordinates. Planes may go up
or down; they must be equally far apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.headers import number, numbers, text, value
from gliodil.data.dicom.objects import MisplacedError, header_access, read_dataset
from gliodil.data.dicom.person import Person, person_of
from gliodil.data.dicom.reference import LPS_RAS
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, InputError

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
WHOLE = ("PLAN", "MULTI_PLAN", "PLAN_OVERVIEW", "RECORD")
"""What a dose may be summed over: a plan, or several. One of beams or of fractions is a part of it."""
TYPES = ("PHYSICAL", "EFFECTIVE")
LARGEST_GY = 1000.0
"""No dose to a patient exceeds this: the scaling is wrong."""
SPACING_TOLERANCE_MM = 0.01
"""How far planes may be from where equal distances would put them."""
Z_TOLERANCE_MM = 0.01
EXPECTED = "the dose of a plan (RT Dose Storage) in Gy on a grid of equally distant planes"


@dataclass(frozen=True)
class Dose:
    """The dose of a plan.

    Attributes
    ----------
    volume
        Scalar volume [Gy] on the grid of the dose, in its frame of reference.
    kind
        `physical`, or `effective`: weighted for biological effect.
    person
        Whose it is.
    file
        Where it was read.
    """

    volume: Volume
    kind: str
    person: Person
    file: Path


def read_dose(path: Path | str) -> Dose:
    """Return the dose of a file.

    Raises
    ------
    ImageFileError
        If the file is missing, damaged, or no RT Dose.
    InputError
        If it is no dose in Gy, or not that of a whole plan.
    GeometryError
        If it states no frame of reference, or its planes make no regular grid.
    MissingExtraError
        If pydicom is not installed.
    """
    path = Path(path)
    data = read_dataset(path)
    with header_access("The RT Dose cannot be read.", file=path, expected=EXPECTED):
        _check_kind(data, path)
        frame = text(data, "FrameOfReferenceUID")
        if not frame:
            raise GeometryError(
                "The RT Dose states no frame of reference.",
                file=path,
                expected="a FrameOfReferenceUID",
                found="none",
                remedy="export the dose again with its identifiers",
            )
        values = _values(data, path)
        affine = _affine(data, values.shape[2], path)
        volume = Volume(values, affine, kind="scalar", path=path, frame=frame)
        return Dose(volume, text(data, "DoseType").lower() or "physical", person_of(data), path)


def _check_kind(data: Any, path: Path) -> None:
    modality = text(data, "Modality").upper()
    if modality != "RTDOSE":
        raise ImageFileError(
            "The file is no RT Dose.",
            file=path,
            expected="modality RTDOSE",
            found=f"modality {modality[:16] or 'not stated'}",
            remedy="check the path",
        )
    for keyword, name, known, remedy in (
        ("DoseUnits", "in Gy", ("GY",), "export the dose in Gy (absolute dose)"),
        ("DoseType", "to a patient", ("", *TYPES), "export the dose itself, not its error"),
        ("DoseSummationType", "of a whole plan", ("", *WHOLE), "export the sum over all beams and fractions"),
    ):
        found = text(data, keyword).upper()
        if found not in known:
            raise InputError(
                f"The RT Dose is no dose {name}.",
                file=path,
                expected=f"{keyword} {' or '.join(filter(None, known))}",
                found=found[:16] or "not stated",
                remedy=remedy,
            )


def _values(data: Any, path: Path) -> NDArray[np.float32]:
    """Return the dose [Gy], indexed as x, y, plane."""
    if "PixelData" not in data:
        raise InputError(
            "The RT Dose holds no grid.",
            file=path,
            expected=EXPECTED,
            found="no PixelData (points or histograms alone)",
            remedy="export the dose grid",
        )
    scaling = number(data, "DoseGridScaling")
    if scaling is None or not (np.isfinite(scaling) and scaling > 0):
        raise MisplacedError("no DoseGridScaling above 0")
    if int(data.get("PixelRepresentation", 0)) != 0:
        raise MisplacedError("signed doses")
    pixels = np.asarray(data.pixel_array)
    planes = int(data.get("NumberOfFrames") or 1)
    if planes < 2 or pixels.ndim != 3:
        raise GeometryError(
            "The RT Dose has one plane only.",
            file=path,
            expected="all planes of the dose in one file",
            found="1 plane",
            remedy="export the dose as one object of several frames",
        )
    dose = np.asarray(pixels.transpose(2, 1, 0) * np.float64(scaling), np.float32)
    if (highest := float(dose.max())) > LARGEST_GY:
        raise MisplacedError(f"doses up to {highest:.3g} Gy")
    return dose


def _affine(data: Any, planes: int, path: Path) -> NDArray[np.float64]:
    """Return voxel (x, y, plane) to world, RAS [mm]."""
    position, axes = numbers(data, "ImagePositionPatient", 3), numbers(data, "ImageOrientationPatient", 6)
    spacing = numbers(data, "PixelSpacing", 2)
    if position is None or axes is None or spacing is None or min(spacing) <= 0:
        raise MisplacedError("no position, orientation and spacing")
    row, column = np.array(axes[:3]), np.array(axes[3:])
    lengths = np.array([row @ row, column @ column, 1 + row @ column])
    if np.abs(lengths - 1).max() > 1e-3:
        raise MisplacedError("an orientation whose axes are not perpendicular and of length 1")
    normal = np.cross(row, column)
    heights = _heights(data, planes, position[2], normal, path)
    steps = np.diff(heights)
    step = (heights[-1] - heights[0]) / (planes - 1)
    regular = heights[0] + step * np.arange(planes)
    if abs(step) < SPACING_TOLERANCE_MM or np.abs(heights - regular).max() > SPACING_TOLERANCE_MM:
        raise GeometryError(
            "The planes of the RT Dose are not equally far apart.",
            file=path,
            expected="planes at equal distances",
            found=f"distances from {steps.min():.2f} to {steps.max():.2f} mm",
            remedy="export the dose on a regular grid",
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * spacing[1], column * spacing[0], normal * step
    affine[:3, 3] = np.array(position) + heights[0] * normal
    return np.asarray(LPS_RAS @ affine)


def _heights(
    data: Any, planes: int, z: float, normal: NDArray[np.float64], path: Path
) -> NDArray[np.float64]:
    """Return the distance of every plane from ImagePositionPatient along the normal [mm]."""
    stated = value(data, "GridFrameOffsetVector")
    offsets = np.array([] if stated is None else stated, np.float64).ravel()
    if offsets.size != planes or not np.isfinite(offsets).all():
        raise MisplacedError(f"{offsets.size} frame offsets for {planes} planes")
    if abs(offsets[0]) <= Z_TOLERANCE_MM:
        return np.asarray(offsets - offsets[0])
    if abs(offsets[0] - z) > Z_TOLERANCE_MM or abs(abs(normal[2]) - 1) > 1e-3:
        raise GeometryError(
            "The frame offsets of the RT Dose follow neither convention.",
            file=path,
            expected="offsets that begin at 0, or z coordinates of axial planes that begin at the first one's",
            found=f"offsets that begin at {offsets[0]:g} mm",
            remedy="export the dose again",
        )
    return np.asarray((offsets - offsets[0]) * np.sign(normal[2]))
