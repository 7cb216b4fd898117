"""From the scanner to the planning system: skull on, four contrasts on four grids, no tissue maps, RTSTRUCT out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import make_affine, write_series
from scipy import ndimage

from gliodil.data import Volume, read_nifti, write_nifti
from gliodil.data.synthetic import SyntheticPatient, simulate

PLANES = {
    "t1c": ((1, 0, 0), (0, 1, 0), (1.0, 1.0, 3.0)),
    "t1": ((0, 1, 0), (0, 0, -1), (1.0, 1.0, 3.0)),
    "t2": ((1, 0.1, -0.15), (-0.08, 1, 0.2), (1.2, 1.0, 3.0)),
    "flair": ((1, 0, 0), (0, 0, -1), (1.0, 1.0, 3.0)),
}
"""Directions of rows and columns (LPS) and spacing [mm]: axial, sagittal, oblique, coronal."""
DESCRIPTIONS = {"t1c": "t1 mprage +C", "t1": "t1 mprage", "t2": "t2 tse", "flair": "t2 flair"}


def with_skull(patient: SyntheticPatient) -> dict[str, np.ndarray]:
    """The contrasts of a head: brain, a gap of CSF, a bright shell 8 mm thick, background."""
    volumes, labels = patient.patient.volumes, patient.patient.segmentation.data
    brain = volumes["brain"].data > 0
    away = ndimage.distance_transform_edt(~brain, sampling=patient.patient.segmentation.spacing)
    shell = (away > 4) & (away < 12)
    t1 = volumes["t1"].data / volumes["t1"].data[brain].max()
    wet = 1 - t1
    core, tumour = np.isin(labels, (1, 3)), labels > 0
    contrasts = {
        "t1": t1,
        "t1c": t1 + 0.6 * (labels == 3),
        "t2": np.where(brain, wet + 0.3 * tumour, 0),
        "flair": np.where(brain, 0.7 * t1 + 0.4 * (tumour & ~core), 0),
    }
    return {role: 1000 * np.where(brain, image, 0.9 * shell) for role, image in contrasts.items()}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SyntheticPatient]:
    """A folder of DICOM series, and beside it a segmentation and a brain mask as a contouring tool saves them."""
    folder = tmp_path_factory.mktemp("clinic")
    patient = simulate(seed=0, resolution_mm=2.0)
    grid = patient.patient.segmentation
    corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * (
        np.array(grid.shape) - 1
    )
    world = grid.to_world(corners)
    for number, (role, image) in enumerate(with_skull(patient).items(), 1):
        affine = make_affine(*PLANES[role], origin=(0.0, 0.0, 0.0))  # type: ignore[arg-type]
        index = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        low, high = np.floor(index.min(axis=0)), np.ceil(index.max(axis=0))
        affine[:3, 3] += affine[:3, :3] @ low
        shape = tuple(int(n) for n in high - low + 1)
        frame = Volume(np.zeros(shape, np.float32), affine, kind="scalar")
        there = grid.with_data(image.astype(np.float32), kind="scalar").resample_to(frame)
        write_series(
            folder / "export",
            np.rint(there.data).astype(np.int16),
            affine,
            number=number,
            description=DESCRIPTIONS[role],
            names=role + "{:03d}",
        )
    write_nifti(grid, folder / "tumour.nii.gz")
    write_nifti(patient.patient.volumes["brain"], folder / "mask.nii.gz")
    return folder, patient


def test_a_clinic_case_ends_in_a_structure_set(
    clinic: tuple[Path, SyntheticPatient], cli: Callable, tmp_path: Path
) -> None:
    folder, patient = clinic
    out = tmp_path / "out"
    run = cli(
        *("plan", folder / "export", "--seg", folder / "tumour.nii.gz", "--brain", folder / "mask.nii.gz"),
        *("--labels", patient.patient.convention.name, "--cells", 16, "--out", out),
    )
    assert run.code == 0, run.err
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    structures = metrics["dicom"]["structures"]
    assert {"GTV", "CTV standard", "CTV model"} <= set(structures)
    for name, found in structures.items():
        assert found["dice"] == found["seg_dice"] == 1, name
        assert abs(found["difference_percent"]) < 0.1, name
    structure_set = pydicom.dcmread(out / "rtstruct.dcm")
    slices = [pydicom.dcmread(path) for path in (folder / "export").rglob("t1c*") if path.is_file()]
    assert slices
    assert {image.StudyInstanceUID for image in slices} == {structure_set.StudyInstanceUID}
    referred = {
        image.ReferencedSOPInstanceUID
        for roi in structure_set.ROIContourSequence
        for contour in roi.ContourSequence
        for image in contour.ContourImageSequence
    }
    assert referred
    assert referred <= {image.SOPInstanceUID for image in slices}
    # all masks lie on the grid of the segmentation, and the tissue maps where the anatomy is
    assert read_nifti(out / "ctv_model.nii.gz", kind="label").same_grid(patient.patient.segmentation)
    outside = patient.patient.brain & (patient.patient.segmentation.data == 0)
    for role, least in (("wm", 0.95), ("gm", 0.95)):
        made = read_nifti(out / "preprocess" / f"{role}.nii.gz", kind="scalar").data > 0.5
        known = patient.patient.volumes[role].data > 0.5
        both = np.count_nonzero(made & known & outside)
        assert 2 * both / (np.count_nonzero(made & outside) + np.count_nonzero(known & outside)) >= least
    assert (out / "preprocess" / "barriers.nii.gz").exists()
