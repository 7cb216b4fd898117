"""What all DICOM objects share: reading, whose they are, when they were made, what they are called."""

from __future__ import annotations

import hashlib
import re
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from gliodil.errors import ImageFileError, MissingExtraError

LABEL = "RESEARCH USE"
DESCRIPTION = "gliodil, RESEARCH USE ONLY"
DAMAGE = (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, EOFError, OSError)
"""What meets a reader in damaged or hostile headers."""
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
REQUIRED_BUT_MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)


def reason(error: Exception) -> str:
    """Return what went wrong without a value from the header, which could identify the patient."""
    told = (AttributeError, KeyError, IndexError, MisplacedError)
    return str(error) if isinstance(error, told) and str(error) else type(error).__name__


class MisplacedError(ValueError):
    """Geometry in a header that makes no sense; the message holds numbers of the geometry only."""


@contextmanager
def quietly() -> Iterator[None]:
    """Keep pydicom's warnings to itself inside the block: they quote values from headers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_dataset(path: Path | str, *, stop_before_pixels: bool = False) -> Any:
    """Return a DICOM file as pydicom dataset, or raise ImageFileError (MissingExtraError without pydicom)."""
    try:
        from pydicom import dcmread
    except ImportError as error:
        raise MissingExtraError("pydicom", "dicom") from error
    path = Path(path)
    try:
        with quietly():
            return dcmread(path, stop_before_pixels=stop_before_pixels)
    except Exception as error:  # damaged files raise whatever the parser ran into
        raise ImageFileError(
            "The file is not a readable DICOM file." if path.is_file() else "The file does not exist.",
            file=path,
            expected="DICOM",
            found=reason(error),
            remedy="check the path, or export the file again",
        ) from error


def stable_uid(*parts: str | bytes) -> str:
    """Return a UID that depends on `parts` alone, so that equal content has an equal name."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big") + content)
    return f"2.25.{uuid.UUID(bytes=digest.digest()[:16], version=5).int}"


def copy_study(source: Any, target: Any) -> None:
    """Copy what says whose image this is and to which study it belongs: patient and study modules."""
    for keyword in PATIENT_AND_STUDY:
        if keyword in source:
            target[keyword] = source[keyword]
    for keyword in REQUIRED_BUT_MAY_BE_EMPTY:
        if keyword not in target:
            setattr(target, keyword, "")


def moment(header: Any, created: datetime | None) -> tuple[str, str]:
    """Return date and time for new objects as DICOM strings: `created`, or those of the study."""
    if created is not None:
        return created.strftime("%Y%m%d"), created.strftime("%H%M%S")
    date, time = str(header.get("StudyDate") or ""), str(header.get("StudyTime") or "")
    if not re.fullmatch(r"\d{8}", date):
        return NO_DATE, "000000"
    return date, time if re.fullmatch(r"\d{6}(\.\d{1,6})?", time) else "000000"
