"""DICOM series written by the tests: any geometry, any header field, single files or one enhanced image.

`array[i, j, k]` and `affine` (index to RAS mm) follow the project's convention: column i, row j, slice k. The
identifiers in `IDENTIFIERS` are planted in every file, so that any test can look for them where they must not be.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

IDENTIFIERS = {
    "PatientName": "Plantedname^Quirin",
    "PatientID": "PLANTEDID-4711",
    "OtherPatientIDs": "PLANTEDOTHER-1",
    "PatientBirthDate": "19330417",
    "PatientBirthName": "Plantedbirth",
    "PatientMotherBirthName": "Plantedmother",
    "PatientAddress": "Plantedstreet 9",
    "PatientTelephoneNumbers": "555-PLANTED",
    "AccessionNumber": "PLANTEDACC77",
    "ReferringPhysicianName": "Plantedreferrer",
    "PerformingPhysicianName": "Plantedperformer",
    "OperatorsName": "Plantedoperator",
    "InstitutionName": "Plantedhospital",
    "StudyID": "PLANTEDSTUDY",
    "PatientComments": "Plantedcomment",
}

STORAGE = {
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "enhanced": "1.2.840.10008.5.1.4.1.1.4.1",
}


def make_affine(
    rows: tuple[float, float, float],
    columns: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float] = (-40.0, -55.0, 30.0),
) -> np.ndarray:
    """Affine (RAS) of a stack whose rows and columns run along two LPS directions.

    `spacing`: between columns, rows and slices, mm. `origin`: LPS, mm. The second direction is made
    perpendicular to the first.
    """
    r = np.asarray(rows, float) / np.linalg.norm(rows)
    c = np.asarray(columns, float) - r * (r @ np.asarray(columns, float))
    c /= np.linalg.norm(c)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([r, c, np.cross(r, c)]) * spacing
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


GEOMETRIES = {
    "axial": make_affine((1, 0, 0), (0, 1, 0), (1.0, 1.0, 3.0)),
    "anisotropic": make_affine((1, 0, 0), (0, 1, 0), (0.7, 1.3, 4.1)),
    "oblique": make_affine((1, 0.12, -0.2), (-0.1, 1, 0.31), (0.9, 1.1, 2.7)),
    "sagittal": make_affine((0, 1, 0), (0, 0, -1), (1.0, 1.2, 3.0)),
    "coronal": make_affine((1, 0, 0), (0, 0, -1), (1.1, 0.8, 3.0)),
}
SHAPE = (14, 11, 6)
"""Columns, rows, slices: different, so that no axis can be taken for another."""

SUV_FIELDS = {
    "Units": "BQML",
    "PatientWeight": 70,
    "DecayCorrection": "START",
    "SeriesDate": "20200102",
    "SeriesTime": "102000",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "102000.50",
    "description": "FET 20-40 min",
    "RescaleSlope": 2,
}
HALF_LIFE_S = 6586.2


def suv_edit(dataset: Dataset, _: int, **fields: Any) -> None:
    """200 MBq of fluorine-18 injected 20 minutes before."""
    administered = Dataset()
    values = {
        "RadionuclideTotalDose": 2e8,
        "RadionuclideHalfLife": HALF_LIFE_S,
        "RadiopharmaceuticalStartTime": "100000",
    }
    for keyword, value in (values | fields).items():
        if value is not None:
            setattr(administered, keyword, value)
    dataset.RadiopharmaceuticalInformationSequence = Sequence([administered])


Edit = Callable[[Dataset, int], None]


def ramp(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Voxels that all differ, so that every one can be found again."""
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def write_series(
    folder: Path,
    array: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    *,
    modality: str = "MR",
    description: str = "t1 mprage",
    number: int = 1,
    enhanced: bool = False,
    names: str = "IM{:04d}.dcm",
    reverse: bool = True,
    study: str = "1.2.826.0.1.3680043.8.498.1",
    frame_of_reference: str = "1.2.826.0.1.3680043.8.498.2",
    edit: Edit | None = None,
    **fields: Any,
) -> list[Path]:
    """Write one series and return its files, in the order of slices.

    Parameters
    ----------
    array, affine
        Voxels (integers) and their place; by default a ramp, axial.
    enhanced
        One multi-frame file instead of a file per slice.
    names
        Format of the file names; they are numbered against the order of slices if `reverse`.
    edit
        Called with each data set and its slice before it is written.
    fields
        Further header fields by keyword, for instance `EchoTime=3.0`; None removes one.
    """
    array = ramp() if array is None else np.asarray(array, np.int16)
    affine = GEOMETRIES["axial"] if affine is None else affine
    folder.mkdir(parents=True, exist_ok=True)
    series = fields.pop("SeriesInstanceUID", None) or _uid(str(folder), description, names)
    count = array.shape[2]
    common = {
        **IDENTIFIERS,
        "Modality": modality,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": frame_of_reference,
        "SeriesNumber": number,
        "SeriesDescription": description,
        "StudyDate": "20200102",
        "SliceThickness": round(float(np.linalg.norm(affine[:3, 2])), 6),
        "Columns": array.shape[0],
        "Rows": array.shape[1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        **fields,
    }
    sets = (
        [_enhanced(array, affine)] if enhanced else [_single(array, affine, k, reverse) for k in range(count)]
    )
    paths = []
    for k, dataset in enumerate(sets):
        storage = STORAGE["enhanced" if enhanced else modality]
        dataset.SOPClassUID = storage
        dataset.SOPInstanceUID = f"{series}.{k + 1}"
        for keyword, value in common.items():
            if value is not None:
                setattr(dataset, keyword, value)
        if edit is not None:
            edit(dataset, k)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = storage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / names.format(count - k if reverse else k + 1)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        paths.append(path)
    return paths


def _uid(*sources: str) -> str:
    """A UID that depends on nothing else and leaves room for a slice number."""
    return generate_uid(prefix="1.2.826.0.1.", entropy_srcs=list(sources))[:56].rstrip(".")


def _plane(affine: np.ndarray, k: float) -> tuple[list[float], list[float], list[float]]:
    """Position and orientation (LPS) of slice k, and spacing of its rows and columns."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    lengths = np.linalg.norm(lps[:3, :2], axis=0)
    cosines = (lps[:3, :2] / lengths).T.ravel()
    return _decimal(lps[:3, 3] + k * lps[:3, 2]), _decimal(cosines), _decimal(lengths[::-1])


def _decimal(values: np.ndarray) -> list[Any]:
    """As DICOM decimal strings, which hold 16 characters."""
    return [pydicom.valuerep.DSfloat(float(value), auto_format=True) for value in values]


def _single(array: np.ndarray, affine: np.ndarray, k: int, reverse: bool) -> Dataset:
    dataset = Dataset()
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing = _plane(affine, k)
    dataset.InstanceNumber = array.shape[2] - k if reverse else k + 1
    dataset.PixelData = np.ascontiguousarray(array[:, :, k].T).tobytes()
    return dataset


def _enhanced(array: np.ndarray, affine: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.NumberOfFrames = array.shape[2]
    dataset.InstanceNumber = 1
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    _, orientation.ImageOrientationPatient, measures.PixelSpacing = _plane(affine, 0)
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    # Frames are stored from the top, so that a reader has to sort them.
    for k in reversed(range(array.shape[2])):
        group, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = _plane(affine, k)[0]
        content.StackID = "1"
        group.PlanePositionSequence = Sequence([position])
        group.FrameContentSequence = Sequence([content])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = np.ascontiguousarray(array[:, :, ::-1].transpose(2, 1, 0)).tobytes()
    return dataset
