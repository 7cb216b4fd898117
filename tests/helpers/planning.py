"""A planning CT for a patient of the tests, and registration objects as others write them (not through the product)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from dicom_series import IDENTIFIERS, write_series
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage

from gliodil.data import Volume

MR_FRAME = "1.2.826.0.1.3680043.8.498.20"
CT_FRAME = "1.2.826.0.1.3680043.8.498.21"
THIRD_FRAME = "1.2.826.0.1.3680043.8.498.22"
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])

Item = tuple[str, Sequence[np.ndarray]]


def rigid(degrees: float, shift: Sequence[float], axis: Sequence[float] = (0.3, 0.2, 1.0)) -> np.ndarray:
    """A rotation about an axis and a shift [mm], 4x4."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = shift
    return matrix


def write_reg(
    path: Path,
    common: str,
    items: Sequence[Item],
    *,
    sop_class: str = "1.2.840.10008.5.1.4.1.1.66.1",
    kind: str = "RIGID",
) -> Path:
    """Write a registration object: the frame of the object, and per item a frame and its matrices (RAS)."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = sop_class, f"1.2.3.4.{abs(hash(path.name)) % 10**8}"
    data.Modality, data.FrameOfReferenceUID = "REG", common
    data.SeriesInstanceUID, data.StudyInstanceUID = data.SOPInstanceUID + ".1", "1.2.826.0.1.3680043.8.498.1"
    data.PatientID = IDENTIFIERS["PatientID"]
    data.RegistrationSequence = []
    for frame, matrices in items:
        entry, registration = Dataset(), Dataset()
        registration.MatrixSequence = []
        for matrix in matrices:
            step = Dataset()
            step.FrameOfReferenceTransformationMatrixType = kind
            numbers = (FLIP @ matrix @ FLIP).ravel()
            step.FrameOfReferenceTransformationMatrix = [f"{value:.10g}" for value in numbers]
            registration.MatrixSequence.append(step)
        entry.FrameOfReferenceUID = frame
        entry.MatrixRegistrationSequence = [registration] if matrices else []
        data.RegistrationSequence.append(entry)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def hounsfield(brain: Volume, image: np.ndarray) -> np.ndarray:
    """A head in Hounsfield units around a brain: tissue by the image, skull, skin, air."""
    inside = brain.data > 0
    away = ndimage.distance_transform_edt(~inside, sampling=brain.spacing)
    soft = 20 + 30 * (1 - image / max(image.max(), 1e-6))
    return np.where(
        inside, soft, np.where(away < 4, 10, np.where(away < 9, 900, np.where(away < 13, 40, -1000)))
    )


def head(brain: Volume, image: np.ndarray) -> np.ndarray:
    """The same head as MR: dark skull, bright skin."""
    inside = brain.data > 0
    away = ndimage.distance_transform_edt(~inside, sampling=brain.spacing)
    return np.where(
        inside, 200 + 600 * image / max(image.max(), 1e-6), np.where((away >= 9) & (away < 13), 900, 10)
    )


def write_ct(
    folder: Path,
    source: Volume,
    mr_to_ct: np.ndarray,
    *,
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0),
    tilt: float = 0.0,
    frame: str = CT_FRAME,
    **fields: object,
) -> list[Path]:
    """Write a volume of Hounsfield units (in the MR's world) as CT series in another frame, sheared by `tilt` mm/mm."""
    placed = source.carried(mr_to_ct, "")
    low, high = placed.field_of_view
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[1, 2] = tilt * spacing[2]
    affine[:3, 3] = (high[0], high[1], low[2])
    shape = tuple(int(np.ceil(n)) for n in (high - low) / spacing)
    grid = Volume(np.zeros(shape, np.float32), affine, kind="scalar")
    lifted = placed.with_data(placed.data + 1024)  # beyond the volume there is air
    voxels = lifted.resample_to(grid).data - 1024
    return write_series(
        folder, voxels, affine, modality="CT", description="planning CT", number=7,
        frame_of_reference=frame, **fields,  # type: ignore[arg-type]
    )  # fmt: skip
