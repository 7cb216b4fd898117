"""DICOM series of any geometry, written with pydicom alone; what is expected of them is computed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

pydicom = pytest.importorskip("pydicom", reason="needs the dicom extra")
pytest.importorskip("highdicom", reason="needs the dicom extra")

from gliodil.data.volume import Volume  # noqa: E402

MR, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"


@dataclass(frozen=True)
class Geometry:
    """Row direction, column direction (LPS unit vectors), spacing between columns, rows, slices [mm], sizes."""

    row: tuple[float, ...]
    column: tuple[float, ...]
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int]
    origin: tuple[float, float, float] = (-31.25, -42.5, 17.75)

    @property
    def normal(self) -> NDArray:
        return np.cross(self.row, self.column)

    @property
    def lps(self) -> NDArray:
        affine = np.eye(4)
        affine[:3, :3] = np.stack([self.row, self.column, self.normal], axis=1) * self.spacing
        affine[:3, 3] = self.origin
        return affine

    @property
    def affine(self) -> NDArray:
        """Index (column, row, slice) to RAS."""
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.lps

    def volume(self, array: NDArray, kind: str = "label") -> Volume:
        return Volume(array, self.affine, kind=kind)


TURN = Rotation.from_euler("zyx", [17, -11, 23], degrees=True).as_matrix()
GEOMETRIES = {
    "axial": Geometry((1, 0, 0), (0, 1, 0), (1.0, 1.0, 1.0), (24, 24, 5)),
    "sagittal": Geometry((0, 1, 0), (0, 0, -1), (1.0, 1.0, 1.0), (22, 26, 5)),
    "oblique": Geometry(tuple(TURN[:, 0]), tuple(TURN[:, 1]), (0.9375, 0.9375, 1.5), (23, 23, 5)),
    "non-square": Geometry((1, 0, 0), (0, 1, 0), (0.7, 1.1, 2.0), (31, 17, 5)),
    "anisotropic": Geometry(tuple(TURN[:, 1]), tuple(-TURN[:, 2]), (1.0, 1.0, 3.0), (20, 27, 5)),
}


def write_series(folder: Path, geometry: Geometry, *, multiframe: bool = False) -> list[Path]:
    """Write a series and return its files in slice order; their names are in another order."""
    folder.mkdir(parents=True, exist_ok=True)
    if multiframe:
        return [_write_multiframe(folder / "all.dcm", geometry)]
    files = []
    for k in range(geometry.shape[2]):
        data = _common(geometry, MR, f"1.2.826.0.1.3680043.8.498.7.{k + 1}")
        data.ImagePositionPatient = _decimals(geometry.lps @ [0, 0, k, 1])
        data.ImageOrientationPatient = [*map(_short, (*geometry.row, *geometry.column))]
        data.PixelSpacing = [geometry.spacing[1], geometry.spacing[0]]
        data.SliceThickness = geometry.spacing[2]
        data.InstanceNumber = geometry.shape[2] - k
        data.PixelData = np.zeros(geometry.shape[1::-1], np.uint16).tobytes()
        path = folder / f"IM{geometry.shape[2] - k:04d}"
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _common(geometry: Geometry, sop_class: str, instance: str):
    from pydicom.dataset import Dataset, FileMetaDataset

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SpecificCharacterSet = "ISO_IR 100"
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = sop_class, instance, "MR"
    data.PatientName, data.PatientID = "Zöllner^Erika", "SECRET-4711"
    data.PatientBirthDate, data.PatientSex = "19510203", "F"
    data.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.5"
    data.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.6"
    data.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.8"
    data.StudyDate, data.StudyTime, data.StudyID = "20210304", "101112", "77"
    data.AccessionNumber, data.ReferringPhysicianName = "A1", "Doctor^Who"
    data.SeriesDescription, data.SeriesNumber = "t1c", 3
    data.Manufacturer, data.ManufacturerModelName = "Maker", "Scanner"
    data.Columns, data.Rows = geometry.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    return data


def _write_multiframe(path: Path, geometry: Geometry) -> Path:
    from pydicom.dataset import Dataset

    data = _common(geometry, ENHANCED_MR, "1.2.826.0.1.3680043.8.498.7.100")
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [geometry.spacing[1], geometry.spacing[0]]
    measures.SliceThickness = geometry.spacing[2]
    orientation.ImageOrientationPatient = [*map(_short, (*geometry.row, *geometry.column))]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    frames = []
    for k in reversed(range(geometry.shape[2])):  # frames run against the normal
        position, frame = Dataset(), Dataset()
        position.ImagePositionPatient = _decimals(geometry.lps @ [0, 0, k, 1])
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    data.NumberOfFrames = geometry.shape[2]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    data.ContentDate, data.ContentTime, data.InstanceNumber = "20210304", "101112", 1
    data.PixelData = np.zeros(geometry.shape[::-1], np.uint16).tobytes()
    data.save_as(path, enforce_file_format=True)
    return path


def _short(value: float) -> str:
    return f"{value:.10f}"[:16]


def _decimals(point: NDArray) -> list[str]:
    return [f"{value:.6f}"[:16] for value in point[:3]]


@pytest.fixture(scope="session", params=list(GEOMETRIES))
def series(request, tmp_path_factory) -> tuple[Geometry, list[Path]]:
    """A series of each geometry: its geometry and its files in slice order."""
    geometry = GEOMETRIES[request.param]
    return geometry, write_series(tmp_path_factory.mktemp(request.param) / "t1c", geometry)


@pytest.fixture(scope="session")
def new_series() -> Callable[..., list[Path]]:
    return write_series


@pytest.fixture(scope="session")
def geometries() -> dict[str, Geometry]:
    return GEOMETRIES
