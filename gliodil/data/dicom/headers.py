"""DICOM headers, read with distrust.

A header can lack any field, hold it in the wrong type, or break off. The functions here return a usable value or
None; what that means is for the caller to say. Values that identify the patient are read for one purpose
only: to take them out of descriptions, so that no message can repeat them. For the same reason errors never
quote what the DICOM library says, since it quotes the values it trips over.
"""

from __future__ import annotations

import logging
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gliodil.data.gate import BLOCK, check_file, obstacle
from gliodil.errors import GliodilError, ImageFileError, MissingExtraError

IDENTIFIERS = (
    "PatientName",
    "PatientID",
    "OtherPatientNames",
    "OtherPatientIDs",
    "PatientBirthDate",
    "PatientBirthName",
    "PatientMotherBirthName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "MedicalRecordLocator",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "NameOfPhysiciansReadingStudy",
    "RequestingPhysician",
)
"""Fields that name people: never in a message, a log or a result, not even where a description repeats them."""

PRIVATE_B_VALUES = {
    "SIEMENS MR HEADER": (0x00190010, 0x0019100C),
    "Philips Imaging DD 001": (0x20010010, 0x20011003),
}
"""Creator of a private block to where its name and the b-value stand in it."""

_FIELDS: tuple[str | int, ...] = (
    *IDENTIFIERS,
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *(
        "Modality",
        "Manufacturer",
        "SeriesNumber",
        "SeriesDescription",
        "ProtocolName",
        "SequenceName",
        "ImageType",
    ),
    *("ScanningSequence", "EchoTime", "RepetitionTime", "InversionTime", "ContrastBolusAgent"),
    *("PulseSequenceName", "ContrastBolusAgentSequence"),
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "PixelSpacing", "ImagePositionPatient"),
    *("ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "InstanceNumber"),
    *("EchoNumbers", "AcquisitionNumber", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime"),
    *("FrameReferenceTime", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("Units", "PatientWeight", "DecayCorrection", "CorrectedImage", "SeriesDate", "SeriesTime"),
    *("AcquisitionDate", "AcquisitionTime", "RadiopharmaceuticalInformationSequence"),
    *("ReferencedFrameOfReferenceSequence", "ReferencedSeriesSequence", "StructureSetROISequence"),
    "AcquisitionContrast",
    *(tag for pair in PRIVATE_B_VALUES.values() for tag in pair),
)

_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR
LONGEST = 64
"""Characters a description may have by the standard; longer ones come from damage."""
LARGEST_INFLATED = 1 << 29
"""Bytes to which a deflated file may unpack."""


def require_pydicom() -> None:
    """Raise MissingExtraError unless pydicom is installed."""
    if find_spec("pydicom") is None:
        raise MissingExtraError("pydicom", "dicom")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content: the mark at byte 128, or, without preamble, a first element like one."""
    if obstacle(path) is not None:  # pipes and devices would block
        return False
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _starts_as_data_set(head)


def _starts_as_data_set(head: bytes) -> bool:
    """Whether bytes begin as a data set does without preamble: tag of group 2 or 8, then a type or a short length."""
    if len(head) < 132:
        return False
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    if head[:3] == b"\x00\x08\x00":  # big endian, which always states types
        group, element = 8, head[3]
    elif group not in (2, 8):
        return False
    typed = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"SH", b"DA", b"LO", b"AE")
    plain = group == 8 and head[:2] == b"\x08\x00" and int.from_bytes(head[4:8], "little") <= LONGEST
    return element <= 0x70 and (typed or plain)


@contextmanager
def quietly() -> Iterator[None]:
    """Let pydicom neither warn nor log inside the block: what it says quotes header values."""
    from pydicom import config

    logger, mode = logging.getLogger("pydicom"), config.settings.reading_validation_mode
    disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        config.settings.reading_validation_mode = config.IGNORE
        try:
            yield
        finally:
            config.settings.reading_validation_mode = mode
            logger.disabled = disabled


def read_header(path: Path) -> Any | None:
    """Return the fields used here of one DICOM file, without pixels; None for a directory of files.

    Raises
    ------
    ImageFileError
        If the file cannot be read as DICOM, or does not say which series it belongs to.
    """
    require_pydicom()
    try:
        with quietly():
            header = open_dicom(path, stop_before_pixels=True, tags=_FIELDS)
            storage = str(header.file_meta.get("MediaStorageSOPClassUID", ""))
            series = text(header, "SeriesInstanceUID")
    except GliodilError:
        raise
    except Exception as error:  # whatever damage leads pydicom to raise
        raise damaged(path, error) from None
    if storage == _DIRECTORY:
        return None
    if not series:
        raise ImageFileError(
            "The DICOM file does not say which series it belongs to.",
            file=path,
            expected="a SeriesInstanceUID",
            found="none that can be read",
            remedy="copy the series again; remove the file if it is no image",
        )
    return header


def open_dicom(
    path: Path, *, stop_before_pixels: bool = False, tags: Sequence[str | int] | None = None
) -> Any:
    """Return a file as pydicom data set, with or without preamble and meta header; every DICOM file is opened here.

    Parameters
    ----------
    path
        The file.
    stop_before_pixels
        Whether to leave out the pixels.
    tags
        Fields wanted; by default all.

    Raises
    ------
    ImageFileError
        If it is no file that can be read, or unpacks to more than `LARGEST_INFLATED`.
    Exception
        Whatever pydicom raises for damage; for the caller to name.
    """
    from pydicom import dcmread
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    check_file(path, expected="a DICOM file", error=ImageFileError)
    _check_deflated(path)
    data = dcmread(
        path,
        stop_before_pixels=stop_before_pixels,
        force=True,
        specific_tags=None if tags is None else list(tags),
    )
    if "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return data


def _check_deflated(path: Path) -> None:
    """Refuse a deflated file that unpacks to more than any is: pydicom unpacks it whole."""
    from pydicom.filereader import _read_file_meta_info, read_preamble

    with path.open("rb") as file:
        if b"1.2.840.10008.1.2.1.99" not in file.read(2048):
            return
        file.seek(0)
        read_preamble(file, True)
        _read_file_meta_info(file)
        unpacked, inflate = 0, zlib.decompressobj(-zlib.MAX_WBITS)
        while unpacked <= LARGEST_INFLATED and (block := file.read(BLOCK // 1024)):
            unpacked += len(inflate.decompress(block))
    if unpacked > LARGEST_INFLATED:
        raise ImageFileError(
            "The DICOM file is damaged.",
            file=path,
            expected=f"a file that unpacks to at most {LARGEST_INFLATED >> 20} MiB",
            found="more",
            remedy="copy the series again; remove the file if it is no image",
        )


def damaged(path: Path, error: Exception) -> ImageFileError:
    """Return the error for a file the DICOM library cannot make sense of."""
    return ImageFileError(
        "The DICOM file is damaged.",
        file=path,
        expected="a complete DICOM file",
        found=f"reading stopped with {type(error).__name__}",
        remedy="copy the series again; remove the file if it is no image",
    )


def value(header: Any, keyword: str | int) -> Any:
    """Return a field (keyword or tag) as pydicom reads it, or None if it is missing, empty or unreadable."""
    try:
        found = header.get(keyword)
        found = found.value if isinstance(keyword, int) and found is not None else found
    except Exception:  # conversion of nonsense raises anything
        return None
    return None if found is None or found == "" else found


def items(header: Any, keyword: str) -> list[Any]:
    """Return the items of a sequence; an empty list if there are none, or it is no sequence."""
    from pydicom.sequence import Sequence

    found = value(header, keyword)
    return list(found) if isinstance(found, Sequence) else []


def item(header: Any, keyword: str) -> Any:
    """Return the first item of a sequence, or an empty data set."""
    from pydicom.dataset import Dataset

    found = items(header, keyword)
    return found[0] if found else Dataset()


def numbers(header: Any, keyword: str | int, count: int) -> tuple[float, ...] | None:
    """Return `count` finite numbers, or None."""
    found = value(header, keyword)
    if found is None or isinstance(found, bytes):
        return None
    parts: Any = str(found).split("\\") if isinstance(found, str) else found
    try:
        converted = tuple(float(part) for part in parts) if hasattr(parts, "__iter__") else (float(parts),)
    except (TypeError, ValueError, OverflowError):
        return None
    return converted if len(converted) == count and all(map(math.isfinite, converted)) else None


def number(header: Any, keyword: str | int) -> float | None:
    """Return one finite number, or None."""
    found = numbers(header, keyword, 1)
    return found[0] if found else None


def text(header: Any, keyword: str | int) -> str:
    """Return a field as one line of text, "" if there is none; several values joined by spaces.

    A value with control characters is no text: where a length is damaged, a field swallows the next ones, whatever
    they hold.
    """
    found = value(header, keyword)
    if found is None or isinstance(found, bytes):
        return ""
    parts = found if isinstance(found, list | tuple) or hasattr(found, "append") else [found]
    try:
        joined = " ".join(str(part) for part in parts)
    except Exception:  # names in a character set that is not what it claims
        return ""
    line = " ".join(joined.rstrip("\0").split())
    return line if line.isprintable() else ""
