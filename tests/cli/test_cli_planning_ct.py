"""`gliodil plan` with a planning CT: targets on its slices, in its frame, by the clinic's registration or without."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from planning import CT_FRAME, MR_FRAME, head, hounsfield, rigid, write_ct, write_reg

from gliodil.data import Volume, planning_ct, read_nifti, write_nifti
from gliodil.data.dicom.registration_object import read_registration
from gliodil.data.frames import Link
from gliodil.data.planning_ct import PlanningCT

MR_TO_CT = rigid(7.0, (12.0, -9.0, 20.0))


@pytest.fixture(scope="module")
def clinic(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic patient: maps as NIfTI, MR and CT as DICOM in two frames, a registration object."""
    folder = tmp_path_factory.mktemp("clinic")
    for role in ("seg", "wm", "gm", "csf", "brain"):
        volume = read_nifti(
            original / f"{role}.nii.gz", kind="label" if role in ("seg", "brain") else "scalar"
        )
        write_nifti(volume, folder / "patient" / f"{role}.nii.gz")
    brain = read_nifti(original / "brain.nii.gz", kind="label")
    t1 = read_nifti(original / "t1.nii.gz", kind="scalar")
    write_series(
        folder / "patient" / "MR", head(brain, t1.data), t1.affine, description="t1 mprage +C",
        frame_of_reference=MR_FRAME,
    )  # fmt: skip
    ct = t1.with_data(hounsfield(brain, t1.data).astype(np.float32))
    write_ct(folder / "CT", ct, MR_TO_CT)
    write_ct(folder / "tilted", ct, MR_TO_CT, tilt=0.3)
    write_reg(folder / "reg.dcm", CT_FRAME, [(CT_FRAME, [np.eye(4)]), (MR_FRAME, [MR_TO_CT])])
    return folder


def centroid_of(path: Path, name: str) -> np.ndarray:
    """Centroid of a structure, RAS mm, by the areas of its (axial) polygons; read with pydicom alone."""
    data = pydicom.dcmread(path)
    number = next(roi.ROINumber for roi in data.StructureSetROISequence if roi.ROIName == name)
    contours = next(c.ContourSequence for c in data.ROIContourSequence if c.ReferencedROINumber == number)
    areas, moments = [], []
    for contour in contours:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        after = np.roll(points, -1, axis=0)
        cross = points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]
        areas.append(cross.sum() / 2)
        x, y = ((points + after)[:, :2] * cross[:, None]).sum(axis=0) / 6
        moments.append((x, y, points[0, 2] * areas[-1]))
    return np.sum(moments, axis=0) / np.sum(areas) * (-1, -1, 1)


OFF_MM = 1.5


@pytest.fixture(autouse=True, scope="module")
def _own_registration() -> Iterator[None]:
    """The product's own registration (tested by itself) answers at once, 1.5 mm off."""

    def answer(planning: PlanningCT, image: Volume, source: str, target: object) -> Link:
        matrix = MR_TO_CT.copy()
        matrix[0, 3] += OFF_MM
        return Link(source, planning.frame, matrix, "registered", 0.7)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning_ct, "_registered", answer)
        yield


@pytest.fixture(scope="module")
def planned(clinic: Path, cli: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planned-ct") / "out"
    run = cli(
        "plan", clinic / "patient", "--ct", clinic / "CT", "--reg", clinic / "reg.dcm", "--out", out, "--cells", 12
    )  # fmt: skip
    assert run.code == 0, run.err
    return out


def test_targets_lie_on_the_slices_of_the_ct(planned: Path, clinic: Path) -> None:
    slices = {
        str(header.SOPInstanceUID): float(header.ImagePositionPatient[2])
        for header in (pydicom.dcmread(path) for path in (clinic / "CT").iterdir())
    }
    data = pydicom.dcmread(planned / "ct" / "rtstruct.dcm")
    assert data.FrameOfReferenceUID == CT_FRAME
    assert {roi.ReferencedFrameOfReferenceUID for roi in data.StructureSetROISequence} == {CT_FRAME}
    contours = [c for roi in data.ROIContourSequence for c in roi.ContourSequence]
    assert contours
    for contour in contours:
        (image,) = contour.ContourImageSequence
        heights = np.array(contour.ContourData, float).reshape(-1, 3)[:, 2]
        np.testing.assert_allclose(heights, slices[str(image.ReferencedSOPInstanceUID)], atol=1e-3)


def test_targets_lie_where_the_registration_puts_them(planned: Path) -> None:
    """Moved back to the MR, the GTV of the contours is that of the MR."""
    gtv = read_nifti(planned / "gtv.nii.gz", kind="label")
    there = np.linalg.inv(MR_TO_CT) @ [*centroid_of(planned / "ct" / "rtstruct.dcm", "GTV"), 1]
    centre = gtv.to_world(np.argwhere(gtv.data)).mean(axis=0)
    np.testing.assert_allclose(there[:3], centre, atol=0.5)
    ml = read_nifti(planned / "ct" / "gtv.nii.gz", kind="label")
    volume = ml.data.sum() * ml.voxel_volume_ml
    assert volume == pytest.approx(gtv.data.sum() * gtv.voxel_volume_ml, rel=0.05)


def test_the_model_ctv_has_the_standards_volume_on_the_ct(planned: Path) -> None:
    standard, model = (
        read_nifti(planned / "ct" / f"ctv_{name}.nii.gz", kind="label").data for name in ("standard", "model")
    )
    assert standard.sum() == model.sum() > 0
    metrics = json.loads((planned / "metrics.json").read_text())
    assert metrics["ct"]["equal_volume_voxel_difference"] == 0
    assert metrics["ct"]["origin"] == "REG"
    assert metrics["ct"]["difference_mm"] == pytest.approx(OFF_MM, abs=1e-6)
    assert metrics["ct"]["spread_mm"] == 0.7
    assert metrics["ct"]["angle_deg"] == pytest.approx(7.0, abs=1e-3)
    (link,) = metrics["frames"]
    np.testing.assert_allclose(link["matrix"], MR_TO_CT, atol=1e-6)


def test_our_registration_object_is_written_along(planned: Path) -> None:
    (link,) = read_registration(planned / "ct" / "reg.dcm")
    assert (link.source, link.target) == (MR_FRAME, CT_FRAME)
    np.testing.assert_allclose(link.matrix, MR_TO_CT, atol=1e-7)


def test_the_density_is_carried_linearly(planned: Path) -> None:
    on_mr = read_nifti(planned / "density.nii.gz", kind="scalar")
    on_ct = read_nifti(planned / "ct" / "density.nii.gz", kind="scalar")
    assert on_ct.data.max() == pytest.approx(on_mr.data.max(), rel=0.1)
    cells = [float(v.data.sum()) * v.voxel_volume_ml for v in (on_mr, on_ct)]
    assert cells[1] == pytest.approx(cells[0], rel=0.02)


def test_a_dry_run_says_how_the_ct_lies(clinic: Path, cli: Callable, tmp_path: Path) -> None:
    run = cli(
        "plan", clinic / "patient", "--ct", clinic / "tilted", "--reg", clinic / "reg.dcm", "--out", tmp_path / "o",
        "--cells", 12, "--dry-run",
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "by the clinic's registration" in run.err
    assert "7.0°" in run.err
    assert not (tmp_path / "o").exists()


def test_a_ct_is_no_mr(clinic: Path, cli: Callable, tmp_path: Path) -> None:
    run = cli("plan", clinic / "patient", "--t1c", clinic / "CT", "--out", tmp_path / "o")
    assert run.code == 1
    assert "modality MR" in run.err
    assert "CT" in run.err


def test_a_registration_that_relates_nothing_is_said(clinic: Path, cli: Callable, tmp_path: Path) -> None:
    run = cli(
        "plan", clinic / "patient", "--reg", clinic / "reg.dcm", "--out", tmp_path / "o", "--dry-run", "--cells", 12
    )  # fmt: skip
    assert run.code == 0, run.err
    assert "reg.dcm relates none of the images" in run.err


def test_the_report_shows_the_ct(planned: Path) -> None:
    page = (planned / "report.html").read_text(encoding="utf-8")
    assert "<h2>Planning CT</h2>" in page
    assert "related by the clinic’s registration object" in page.replace("&#39;", "’")
    assert page.count("data:image/png") >= 8
    assert {"ct_checkerboard.png", "ct_bone.png"} <= {path.name for path in (planned / "figures").iterdir()}
