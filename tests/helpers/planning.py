"""A planning CT for a patient of the tests, and registration objects as others write them (not through the product)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    spacing: tuple[float, float, float] = (3.0, 3.0, 5.0),
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


CENTRE = np.array([12.0, -8.0, 5.0])
"""Of the tumour of `ball_volumes`, MR world mm."""
RADIUS_MM = 13.0


def ball_volumes(spacing: tuple[float, float, float] = (4.0, 4.0, 4.0)) -> dict[str, Volume]:
    """A brain that is an ellipsoid with a tumour that is a ball, on an oblique grid, in the frame of the MR."""
    affine = rigid(9.0, (0, 0, 0), (1.0, -0.4, 0.2)) @ np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    shape = tuple(int(150 / step) for step in spacing)
    affine[:3, 3] -= affine[:3, :3] @ (np.array(shape) - 1) / 2
    grid = Volume(np.zeros(shape, np.float32), affine, kind="scalar", frame=MR_FRAME)
    world = grid.to_world(np.moveaxis(np.indices(shape), 0, -1))
    brain = np.sqrt(((world / (62.0, 68.0, 58.0)) ** 2).sum(axis=-1)) < 1
    away = np.linalg.norm(world - CENTRE, axis=-1)
    tumour = away <= RADIUS_MM
    mask = {"seg": (3 * tumour).astype(np.uint8), "brain": brain.astype(np.uint8)}
    volumes = {name: grid.with_data(data, kind="label") for name, data in mask.items()}
    scalars = {"wm": 0.7 * brain, "gm": 0.3 * brain, "t1c": 500.0 * brain + 300 * tumour, "csf": 0.0 * brain}
    scalars["density"] = np.where(brain, np.exp(-np.maximum(away - RADIUS_MM, 0) / 6), 0)
    return volumes | {name: grid.with_data(data.astype(np.float32)) for name, data in scalars.items()}


def write_structures(
    path: Path, series: Sequence[Path], centre: np.ndarray, radius: float, frame: str, name: str = "GTV"
) -> Path:
    """Write the circles of a ball (RAS mm) on the axial slices of a series as RTSTRUCT; not through the product."""
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in series]
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", "1.2.3.4.5"
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", "1.2.3.4.6"
    data.StudyInstanceUID, data.PatientID = headers[0].StudyInstanceUID, IDENTIFIERS["PatientID"]
    data.FrameOfReferenceUID = frame
    referenced, study, inner = Dataset(), Dataset(), Dataset()
    inner.SeriesInstanceUID = headers[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = [inner]
    referenced.FrameOfReferenceUID, referenced.RTReferencedStudySequence = frame, [study]
    data.ReferencedFrameOfReferenceSequence = [referenced]
    roi, drawn, seen = Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = 1, name, frame
    seen.ObservationNumber, seen.ReferencedROINumber, seen.RTROIInterpretedType = (
        1,
        1,
        name[:3] if name[1:3] == "TV" else "",
    )
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, []
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    for header in headers:
        height = float(header.ImagePositionPatient[2])
        if abs(height - centre[2]) < radius:
            reach = np.sqrt(radius**2 - (height - centre[2]) ** 2)
            points = np.c_[
                -centre[0] + reach * np.cos(turn), -centre[1] + reach * np.sin(turn), 0 * turn + height
            ]
            contour, image = Dataset(), Dataset()
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = (
                header.SOPClassUID,
                header.SOPInstanceUID,
            )
            contour.ContourImageSequence = [image]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
            drawn.ContourSequence.append(contour)
    data.StructureSetROISequence, data.ROIContourSequence = [roi], [drawn]
    data.RTROIObservationsSequence = [seen]
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path


def write_dose(
    path: Path,
    function: Callable[[np.ndarray], np.ndarray],
    centre: np.ndarray,
    frame: str,
    *,
    half_mm: float = 60.0,
    spacing: float = 2.5,
    patient: str = IDENTIFIERS["PatientID"],
) -> Path:
    """Write an RTDOSE whose values [Gy] are a function of the place (RAS mm), on a cube about a centre (RAS mm)."""
    steps = np.arange(-half_mm, half_mm + spacing / 2, spacing)
    low = np.asarray(centre) * (-1, -1, 1) - half_mm
    z, y, x = np.meshgrid(*(low[axis] + half_mm + steps for axis in (2, 1, 0)), indexing="ij")
    values = function(np.stack([-x, -y, z], -1))
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.2", "1.2.3.4.7"
    data.Modality, data.PatientID, data.FrameOfReferenceUID = "RTDOSE", patient, frame
    data.SeriesInstanceUID, data.StudyInstanceUID = "1.2.3.4.8", "1.2.826.0.1.3680043.8.498.1"
    data.DoseUnits, data.DoseType, data.DoseSummationType = "GY", "PHYSICAL", "PLAN"
    data.ImagePositionPatient = [f"{value:.6g}" for value in low]
    data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [spacing, spacing]
    data.GridFrameOffsetVector = [float(step) for step in steps + half_mm]
    data.NumberOfFrames = data.Rows = data.Columns = len(steps)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 32
    data.HighBit, data.DoseGridScaling = 31, "1e-6"
    data.PixelData = np.round(values * 1e6).astype("<u4").tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    pydicom.dcmwrite(path, data, enforce_file_format=True)
    return path
