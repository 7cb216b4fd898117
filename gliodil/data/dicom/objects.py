"""What all DICOM objects share: reading, whose they are, when they were made, what they are called."""

from __future__ import annotations

import hashlib
import re
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from gliodil import __version__
from gliodil.data.dicom.headers import is_dicom, open_dicom, require_pydicom
from gliodil.errors import GliodilError, ImageFileError

LABEL = "RESEARCH USE"
DESCRIPTION = "gliodil, RESEARCH USE ONLY"
UNFIT = "The headers of the series do not allow other objects to refer to it."
NO_DATE = "19000101"
"""Stands where a date is required and the study has none."""

PATIENT_AND_STUDY = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "StudyDescription",
)
"""What says whose image it is and to which study it belongs."""
REQUIRED_BUT_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
IMAGE = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "Modality",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence",
)
"""What a segmentation takes from the images it refers to, besides patient and study."""
UTF_8 = "ISO_IR 192"
KEPT_SETS = (
    *(f"ISO_IR {number}" for number in (100, 101, 109, 110, 144, 127, 126, 138, 148, 13, 166, 192)),
    "GB18030",
    "GBK",
)
"""Character sets of one encoding, which every reader and writer knows."""
WELL_FORMED = {
    "PatientSex": "[MFO]",
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"\d{2,6}(\.\d{1,6})?",
}
"""What may be empty in a header, but not anything else."""


def reason(error: Exception) -> str:
    """Return what went wrong without a value from the header, which could identify the patient."""
    told = (AttributeError, LookupError, MisplacedError)
    return str(error) if isinstance(error, told) and str(error) else type(error).__name__


class MisplacedError(ValueError):
    """Geometry in a header that makes no sense; the message holds numbers of the geometry only."""


@contextmanager
def header_access(problem: str, *, file: Path | str | None = None, expected: str) -> Iterator[None]:
    """Turn what damaged headers make pydicom and highdicom raise in the block into an ImageFileError.

    Elements are decoded when they are first asked for, so that any look at a header can fail. Warnings are
    dropped: they quote values from headers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except GliodilError:
        raise
    except Exception as error:  # pydicom and highdicom raise whatever a broken element makes them run into
        raise ImageFileError(
            problem, file=file, expected=expected, found=reason(error), remedy="check it, or export it again"
        ) from error


def read_dataset(path: Path | str, *, stop_before_pixels: bool = False) -> Any:
    """Return a DICOM file as pydicom dataset, or raise ImageFileError (MissingExtraError without pydicom)."""
    require_pydicom()
    path = Path(path)
    problem = "The file is not a readable DICOM file." if path.is_file() else "The file does not exist."
    with header_access(problem, file=path, expected="DICOM"):
        if path.is_file() and not is_dicom(path):
            raise MisplacedError("no DICOM preamble")
        return open_dicom(path, stop_before_pixels=stop_before_pixels)


def encode(data: Any) -> bytes:
    """Return a dataset as the bytes of its file."""
    stream = BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def set_file_meta(data: Any, syntax: str) -> None:
    """Set what the head of an object's file says: its class and name, how it is written, and by what."""
    from pydicom.dataset import FileMetaDataset

    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.ImplementationClassUID = stable_uid("gliodil")
    data.file_meta.ImplementationVersionName = f"GLIODIL_{__version__}"[:16]


def stable_uid(*parts: str | bytes) -> str:
    """Return a UID that depends on `parts` alone, so that equal content has an equal name."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}"


def copy_study(source: Any, target: Any) -> None:
    """Copy what says whose image this is and to which study it belongs: patient and study modules.

    The character set is kept if it is one of `KEPT_SETS`. Others (code extensions, names that are none, an empty one)
    are not accepted by every writer: what they spell is written in `UTF_8`.
    """
    from pydicom import DataElement

    kept = _keeps_set(source)
    for keyword in PATIENT_AND_STUDY:
        if keyword not in source:
            continue
        element = source[keyword]
        if not kept and keyword != "SpecificCharacterSet":
            # A new element: names remember the bytes they were read from.
            spelt = "" if element.value is None else str(element.value)
            element = DataElement(keyword, element.VR, spelt)
        target[keyword] = element
    if not kept:
        target.SpecificCharacterSet = UTF_8
    for keyword in REQUIRED_BUT_MAY_BE_EMPTY:
        if keyword not in target:
            setattr(target, keyword, "")


def _keeps_set(source: Any) -> bool:
    """Whether text can be written in the character set of a header: a common one, or none and no need of one."""
    stated = source.get("SpecificCharacterSet")
    if stated in KEPT_SETS:
        return True
    plain = all(
        str(source[keyword].value or "").isascii() for keyword in PATIENT_AND_STUDY if keyword in source
    )
    return plain and "SpecificCharacterSet" not in source


def image_source(header: Any) -> Any:
    """Return what highdicom needs of a header: what may be empty stands in it, nonsense in it is emptied."""
    from pydicom import DataElement
    from pydicom.dataset import Dataset

    source = Dataset()
    for keyword in IMAGE:
        if keyword in header:
            source[keyword] = header[keyword]
    copy_study(header, source)
    for keyword, form in WELL_FORMED.items():
        if not re.fullmatch(form, str(source[keyword].value)):
            # A new element: assigning to the old one would change the header it is shared with.
            source[keyword] = DataElement(keyword, source[keyword].VR, None)
    return source


def moment(header: Any, created: datetime | None) -> tuple[str, str]:
    """Return date and time for new objects as DICOM strings: `created`, or those of the study."""
    if created is not None:
        return created.strftime("%Y%m%d"), created.strftime("%H%M%S")
    date, time = str(header.get("StudyDate") or ""), str(header.get("StudyTime") or "")
    if not re.fullmatch(r"\d{8}", date):
        return NO_DATE, "000000"
    return date, time if re.fullmatch(r"\d{6}(\.\d{1,6})?", time) else "000000"
