"""Masks as RT Structure Set: what planning systems open as contours.

Every slice of a mask is outlined on pixel edges (`contours.py`). Each outline, of an island or of a hole, is one
CLOSED_PLANAR contour in patient coordinates (LPS, mm) that names the image it lies on; holes are understood by
the even-odd rule, or tied to their island by key-holes for systems that fill every contour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from gliodil.data.atomic import atomic_path
from gliodil.data.dicom.contours import join_holes, trace
from gliodil.data.dicom.objects import (
    DESCRIPTION,
    LABEL,
    UNFIT,
    copy_study,
    encode,
    header_access,
    moment,
    set_file_meta,
    stable_uid,
)
from gliodil.data.dicom.reference import Reference, read_reference
from gliodil.data.dicom.structures import interpreted_type, place
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"
Colour = tuple[int, int, int]
COLOURS: tuple[Colour, ...] = (
    (240, 228, 66),
    (86, 180, 233),
    (244, 166, 208),
    (213, 94, 0),
    (0, 158, 115),
    (230, 159, 0),
    (0, 114, 178),
    (204, 121, 167),
)
"""Given to structures in their order; distinct under the common colour-vision deficiencies."""


def write_rtstruct(
    path: Path | str,
    structures: Mapping[str, Volume],
    files: Sequence[Path | str] | Reference,
    *,
    keyholes: bool = False,
    created: datetime | None = None,
) -> Path:
    """Write masks as contours on the slices of a series; the file appears complete or not at all.

    Patient, study and frame of reference are those of the series. Identifiers of the new objects are derived
    from the content, so that equal input gives an equal file.

    Parameters
    ----------
    structures
        ROI name (1 to 64 characters) to label volume; every voxel that is not 0 belongs to it. Names that begin
        with GTV, CTV or PTV get that interpreted type. A mask on another grid takes the nearest voxel.
    files
        The series: its DICOM files, or what `read_reference` made of them.
    keyholes
        Tie holes to their island by cuts of no width instead of writing them as loops of their own.
    created
        Date and time in the file. By default those of the study, so that the file does not depend on the clock.

    Raises
    ------
    InputError
        If a structure is empty on the series, or its name does not fit.
    ImageFileError, GeometryError
        If the series cannot be referred to.
    OutputError
        If the file cannot be written.
    MissingExtraError
        If pydicom is not installed.
    """
    reference = files if isinstance(files, Reference) else read_reference(files)
    placed = place(structures, reference)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_rtstruct(placed, reference, keyholes=keyholes, created=created))
    return Path(path)


def encode_rtstruct(
    placed: Mapping[str, Volume],
    reference: Reference,
    *,
    keyholes: bool = False,
    created: datetime | None = None,
) -> bytes:
    """Return what `write_rtstruct` writes, of masks that are on the grid of the series."""
    with header_access(UNFIT, expected="a complete DICOM image series"):
        return encode(_structure_set(placed, reference, keyholes=keyholes, created=created))


def _structure_set(
    placed: Mapping[str, Volume], reference: Reference, *, keyholes: bool, created: datetime | None
) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.uid import ImplicitVRLittleEndian

    from gliodil import __version__

    header = reference.headers[0]
    date, time = moment(header, created)
    masks = [name.encode() + np.packbits(volume.data).tobytes() for name, volume in placed.items()]
    settings = repr((keyholes, date, time, __version__))
    content: tuple[str | bytes, ...] = (*reference.instances, *masks, settings)
    data = Dataset()
    copy_study(header, data)
    data.SOPClassUID = RT_STRUCTURE_SET
    data.SOPInstanceUID = stable_uid("rtstruct", *content)
    data.InstanceCreationDate, data.InstanceCreationTime = date, time
    data.Modality = "RTSTRUCT"
    data.SeriesInstanceUID = stable_uid("rtstruct series", *content)
    data.SeriesNumber = None
    data.SeriesDescription = DESCRIPTION
    data.OperatorsName = ""
    data.Manufacturer = "gliodil"
    data.ManufacturerModelName = "gliodil"
    data.SoftwareVersions = __version__
    data.FrameOfReferenceUID = reference.frame_of_reference
    data.PositionReferenceIndicator = header.get("PositionReferenceIndicator", "")
    data.StructureSetLabel = LABEL
    data.StructureSetDescription = "Research use only. Not a medical device. Contours at pixel edges."
    data.StructureSetDate, data.StructureSetTime = date, time
    data.ApprovalStatus = "UNAPPROVED"
    data.InstanceNumber = 1
    data.ReferencedFrameOfReferenceSequence = [_referenced_series(reference)]
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    data.RTROIObservationsSequence = []
    # A structure must stand in all three sequences, or planning systems drop it without a word.
    for number, (name, volume) in enumerate(placed.items(), start=1):
        data.StructureSetROISequence.append(_roi(number, name, reference))
        data.ROIContourSequence.append(_roi_contours(number, volume, reference, keyholes=keyholes))
        data.RTROIObservationsSequence.append(_observation(number, name))
    # Explicit VR holds at most 64 kB in one ContourData, about two thousand points; implicit VR has no such limit.
    set_file_meta(data, ImplicitVRLittleEndian)
    return data


def _referenced_series(reference: Reference) -> Any:
    from pydicom.dataset import Dataset

    header = reference.headers[0]
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [_image(reference, k) for k in range(len(reference.headers))]
    if reference.frames is not None:
        series.ContourImageSequence = [_instance(header)]
    study.ReferencedSOPClassUID = STUDY_COMPONENT
    study.ReferencedSOPInstanceUID = header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = reference.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _instance(header: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = header.SOPClassUID
    item.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return item


def _image(reference: Reference, slice_number: int) -> Any:
    if reference.frames is None:
        return _instance(reference.headers[slice_number])
    item = _instance(reference.headers[0])
    item.ReferencedFrameNumber = reference.frames[slice_number]
    return item


def _roi(number: int, name: str, reference: Reference) -> Any:
    from pydicom.dataset import Dataset

    roi = Dataset()
    roi.ROINumber = number
    roi.ReferencedFrameOfReferenceUID = reference.frame_of_reference
    roi.ROIName = name
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    return roi


def _roi_contours(number: int, volume: Volume, reference: Reference, *, keyholes: bool) -> Any:
    from pydicom.dataset import Dataset

    roi = Dataset()
    roi.ROIDisplayColor = list(COLOURS[(number - 1) % len(COLOURS)])
    roi.ReferencedROINumber = number
    roi.ContourSequence = []
    for k in np.flatnonzero(volume.data.any(axis=(0, 1))):
        loops = trace(volume.data[:, :, k] != 0)
        for loop in join_holes(loops) if keyholes else loops:
            contour = Dataset()
            contour.ContourImageSequence = [_image(reference, int(k))]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(loop)
            contour.ContourNumber = len(roi.ContourSequence) + 1
            contour.ContourData = _decimals(reference.to_patient(loop, int(k)))
            roi.ContourSequence.append(contour)
    return roi


def _observation(number: int, name: str) -> Any:
    from pydicom.dataset import Dataset

    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.ROIObservationLabel = name[:16]
    observation.RTROIInterpretedType = interpreted_type(name)
    observation.ROIInterpreter = ""
    return observation


def _decimals(points: Any) -> list[str]:
    """Return coordinates as decimal strings to 0.0001 mm, at most 16 characters each."""
    if np.abs(points).max() >= 1e6:
        raise GeometryError(
            "The series lies kilometres away from the origin.",
            expected="positions below 1,000,000 mm",
            found=f"{np.abs(points).max():.4g} mm",
        )
    return [f"{value:.4f}" for value in points.ravel()]
