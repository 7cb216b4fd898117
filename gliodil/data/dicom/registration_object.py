"""Spatial Registration objects (REG): rigid maps between frames of reference, read and written.

Every item of a Registration Sequence names a frame and carries its points into the frame of the object (LPS, mm)::

    x_object = Mₙ ⋯ M₂ M₁ x_item        matrices in the order of their items, none for the object's own frame

So the item that is the identity may come first or second, the object may lie in either frame or in a third one, and
which of the two frames the user calls source does not matter: the links enter a graph (``data.frames``).
RAS: M' = S M S, S = diag(−1, −1, 1, 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.atomic import atomic_path
from gliodil.data.dicom.headers import items, text
from gliodil.data.dicom.objects import (
    DESCRIPTION,
    UNFIT,
    MisplacedError,
    copy_study,
    encode,
    header_access,
    moment,
    read_dataset,
    set_file_meta,
    stable_uid,
)
from gliodil.data.dicom.reference import LPS_RAS, Reference
from gliodil.data.frames import Link, check_rigid
from gliodil.errors import GeometryError, ImageFileError

SPATIAL_REGISTRATION = "1.2.840.10008.5.1.4.1.1.66.1"
OTHERS = {
    "1.2.840.10008.5.1.4.1.1.66.2": "spatial fiducials",
    "1.2.840.10008.5.1.4.1.1.66.3": "a deformable registration",
}
RIGID = "a rigid registration (Spatial Registration Storage) between frames of reference"
STILL_MM = 1e-3
"""How far a matrix of a frame to itself may move a point 300 mm away."""


def read_registration(path: Path | str) -> tuple[Link, ...]:
    """Return the links of a Spatial Registration object: from the frame of each item to the frame of the object.

    Raises
    ------
    ImageFileError
        If the file is missing, damaged, or no such object.
    GeometryError
        If it is deformable, scales, shears or mirrors, or relates no two frames.
    MissingExtraError
        If pydicom is not installed.
    """
    path = Path(path)
    data = read_dataset(path)
    with header_access("The registration object cannot be read.", file=path, expected=RIGID):
        kind, modality = text(data, "SOPClassUID"), text(data, "Modality").upper()
        if kind in OTHERS or items(data, "DeformableRegistrationSequence"):
            raise GeometryError(
                "The registration object is not rigid.",
                file=path,
                expected=RIGID,
                found=OTHERS.get(kind, "a deformable registration"),
                remedy="export the rigid registration of the head from the planning system",
            )
        if modality != "REG" or (kind and kind != SPATIAL_REGISTRATION):
            raise ImageFileError(
                "The file is no registration object.",
                file=path,
                expected=RIGID,
                found=f"modality {modality[:16] or 'not stated'}",
                remedy="check the path",
            )
        common = text(data, "FrameOfReferenceUID")
        links = [
            Link(frame, common, matrix, "REG")
            for entry in items(data, "RegistrationSequence")
            for frame, matrix in [_item(entry, common, path)]
            if frame != common
        ]
    if not links or not common:
        raise GeometryError(
            "The registration object relates no two frames of reference.",
            file=path,
            expected=RIGID,
            found=f"{len(items(data, 'RegistrationSequence'))} items"
            + ("" if common else ", and no frame of its own"),
            remedy="export the registration between MR and planning CT",
        )
    return tuple(links)


def _item(entry: Any, common: str, path: Path) -> tuple[str, NDArray[np.float64]]:
    """Return the frame of an item, and its matrix to the frame of the object (RAS)."""
    frame = text(entry, "FrameOfReferenceUID")
    if not frame:
        raise MisplacedError("an item without FrameOfReferenceUID")
    total = np.eye(4)
    for registration in items(entry, "MatrixRegistrationSequence"):
        for step in items(registration, "MatrixSequence"):
            numbers = np.array(step.FrameOfReferenceTransformationMatrix, np.float64)
            if numbers.shape != (16,) or not np.isfinite(numbers).all():
                raise MisplacedError("a matrix that is not 16 numbers")
            total = numbers.reshape(4, 4) @ total
    if np.abs(total[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise MisplacedError("a matrix whose last row is not 0 0 0 1")
    matrix = check_rigid(LPS_RAS @ total @ LPS_RAS, path)
    if frame == common and not np.allclose(matrix @ (300, 300, 300, 1), (300, 300, 300, 1), atol=STILL_MM):
        raise GeometryError(
            "The registration object moves a frame of reference against itself.",
            file=path,
            expected=RIGID,
            found="images of one frame that do not lie on each other",
            remedy="give the images that were moved a frame of reference of their own",
        )
    return frame, matrix


def write_registration(
    path: Path | str,
    link: Link,
    reference: Reference,
    *,
    moving: Sequence[Any] = (),
    created: datetime | None = None,
) -> Path:
    """Write a link as Spatial Registration object in the frame of a series; the file appears whole or not at all.

    Parameters
    ----------
    link
        The map; its target is the frame of `reference`.
    reference
        The series that stays (the planning CT); patient and study are its own.
    moving
        Headers of the images that are moved, if they are DICOM.
    created
        Date and time in the file; by default those of the study.

    Raises
    ------
    ImageFileError
        If the series cannot be referred to.
    OutputError
        If the file cannot be written.
    """
    if link.target != reference.frame_of_reference:
        raise ValueError("the link does not lead to the frame of the reference")
    with header_access(UNFIT, expected="a complete DICOM image series"):
        encoded = encode(_registration(link, reference, moving, created))
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    return Path(path)


def _registration(link: Link, reference: Reference, moving: Sequence[Any], created: datetime | None) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import ExplicitVRLittleEndian

    from gliodil import __version__

    header = reference.headers[0]
    date, time = moment(header, created)
    matrix = LPS_RAS @ link.matrix @ LPS_RAS
    content: tuple[str | bytes, ...] = (
        *reference.instances,
        link.source,
        matrix.tobytes(),
        repr((date, time, __version__)),
    )
    data = Dataset()
    copy_study(header, data)
    data.SOPClassUID = SPATIAL_REGISTRATION
    data.SOPInstanceUID = stable_uid("registration", *content)
    data.Modality = "REG"
    data.SeriesInstanceUID = stable_uid("registration series", *content)
    data.SeriesNumber, data.InstanceNumber = None, 1
    data.SeriesDescription = DESCRIPTION
    data.Manufacturer = data.ManufacturerModelName = "gliodil"
    data.SoftwareVersions, data.DeviceSerialNumber = __version__, "0"
    data.FrameOfReferenceUID = reference.frame_of_reference
    data.PositionReferenceIndicator = header.get("PositionReferenceIndicator", "")
    data.ContentDate, data.ContentTime = date, time
    data.ContentLabel = "RESEARCH_USE"
    data.ContentDescription = "Research use only. Not a medical device."
    data.ContentCreatorName = ""
    data.RegistrationSequence = [
        _written(reference.frame_of_reference, reference.headers, np.eye(4)),
        _written(link.source, moving, matrix),
    ]
    data.ReferencedSeriesSequence = [
        _series(headers) for headers in (reference.headers, moving) if len(headers) > 0
    ]
    set_file_meta(data, ExplicitVRLittleEndian)
    return data


def _written(frame: str, images: Sequence[Any], matrix: NDArray[np.float64]) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DSfloat

    step, registration, entry = Dataset(), Dataset(), Dataset()
    step.FrameOfReferenceTransformationMatrixType = "RIGID"
    step.FrameOfReferenceTransformationMatrix = [
        DSfloat(float(value), auto_format=True) for value in matrix.ravel()
    ]
    registration.MatrixSequence = [step]
    registration.RegistrationTypeCodeSequence = []
    if images:
        entry.ReferencedImageSequence = [_image(image) for image in images]
    entry.FrameOfReferenceUID = frame
    entry.MatrixRegistrationSequence = [registration]
    return entry


def _series(headers: Sequence[Any]) -> Any:
    from pydicom.dataset import Dataset

    entry = Dataset()
    entry.SeriesInstanceUID = headers[0].SeriesInstanceUID
    entry.ReferencedInstanceSequence = [_image(header) for header in headers]
    return entry


def _image(header: Any) -> Any:
    from pydicom.dataset import Dataset

    entry = Dataset()
    entry.ReferencedSOPClassUID, entry.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return entry
