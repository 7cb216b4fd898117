"""Which series is the planning CT, and how the MR lies to it; structures drawn on the CT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_series
from planning import (
    CENTRE,
    CT_FRAME,
    MR_FRAME,
    RADIUS_MM,
    THIRD_FRAME,
    ball_volumes,
    hounsfield,
    rigid,
    write_ct,
    write_reg,
    write_structures,
)

from gliodil.data import Patient, load_patient, planning_ct, write_nifti
from gliodil.data.frames import Link
from gliodil.data.planning_ct import difference_mm, related
from gliodil.errors import GeometryError, GliodilError, InputError
from gliodil.preflight import on_planning_ct

MR_TO_CT = rigid(11.0, (14.0, -22.0, 31.0))
USUAL = (CT_FRAME, [(CT_FRAME, [np.eye(4)]), (MR_FRAME, [MR_TO_CT])])
RULE = "benchmark-15mm"


@pytest.fixture(autouse=True)
def registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the product's own registration is asked; it answers the truth, 2 mm off (it is tested by itself)."""
    asked: list[str] = []

    def answer(planning: planning_ct.PlanningCT, image: object, source: str, target: object) -> Link:
        asked.append(source)
        matrix = MR_TO_CT.copy()
        matrix[2, 3] += 2
        return Link(source, planning.frame, matrix, "registered", 0.5)

    monkeypatch.setattr(planning_ct, "_registered", answer)
    return asked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A patient: maps as NIfTI, the MR as DICOM."""
    volumes = ball_volumes()
    for role in ("seg", "brain", "wm", "gm"):
        write_nifti(volumes[role], tmp_path / "patient" / f"{role}.nii.gz")
    t1c = volumes["t1c"]
    write_series(
        tmp_path / "patient" / "MR", t1c.data, t1c.affine, description="t1 +C", frame_of_reference=MR_FRAME
    )
    return tmp_path / "patient"


def add_ct(folder: Path, name: str = "CT", **more: object) -> list[Path]:
    volumes = ball_volumes()
    image = volumes["t1c"].with_data(hounsfield(volumes["brain"], volumes["t1c"].data).astype(np.float32))
    return write_ct(folder / name, image, MR_TO_CT, **more)  # type: ignore[arg-type]


def related_patient(folder: Path, **more: object) -> Patient:
    labels = "brats-2023" if (folder / "seg.nii.gz").exists() else None
    return on_planning_ct(load_patient(folder, labels=labels, **more), RULE)  # type: ignore[arg-type]


def test_a_ct_in_the_folder_is_the_planning_ct(folder: Path, registrations: list[str]) -> None:
    add_ct(folder)
    patient = related_patient(folder)
    assert patient.planning is not None
    assert patient.planning.frame == CT_FRAME
    assert patient.planning.related_link.origin == "registered"
    assert registrations == [MR_FRAME]
    assert not any("not used" in warning for warning in patient.warnings)
    assert "ct" in [row["role"] for row in patient.describe()]


def test_no_ct_is_asked_for(folder: Path, registrations: list[str]) -> None:
    add_ct(folder)
    assert load_patient(folder, ct="none", labels="brats-2023").planning is None
    assert registrations == []


def test_one_frame_needs_no_registration(folder: Path, registrations: list[str]) -> None:
    add_ct(folder, frame=MR_FRAME)
    patient = related_patient(folder)
    assert patient.planning is not None
    assert patient.planning.related_link.origin == "same frame"
    np.testing.assert_array_equal(patient.planning.related_link.matrix, np.eye(4))
    assert registrations == []


@pytest.mark.parametrize(
    ("common", "items"),
    [
        USUAL,
        (THIRD_FRAME, [(CT_FRAME, [rigid(30, (1, 2, 3))]), (MR_FRAME, [rigid(30, (1, 2, 3)) @ MR_TO_CT])]),
    ],
)
def test_the_clinics_registration_in_the_folder_is_used_and_checked(
    folder: Path, common: str, items: list, registrations: list[str]
) -> None:
    add_ct(folder)
    write_reg(folder / "clinic" / "RE.dcm", common, items)
    patient = related_patient(folder)
    planning = patient.planning
    assert planning is not None
    assert planning.related_link.origin == "REG"
    np.testing.assert_allclose(planning.related_link.matrix, MR_TO_CT, atol=1e-6)
    assert registrations == [MR_FRAME]
    assert planning.difference_mm == pytest.approx(2.0, abs=1e-3)
    assert not any("differ by" in warning for warning in patient.warnings)


def test_a_clinics_registration_that_is_far_off_is_said(folder: Path) -> None:
    add_ct(folder)
    items = [(MR_FRAME, [rigid(6.0, (0, 0, 0)) @ MR_TO_CT])]
    patient = related_patient(folder, reg=[write_reg(folder.parent / "RE.dcm", CT_FRAME, items)])
    (warning,) = [text for text in patient.warnings if "differ by" in text]
    assert "the clinic's is used" in warning


@pytest.mark.parametrize("named", [True, False])
def test_a_deformable_registration_is_refused_or_said(folder: Path, named: bool) -> None:
    """Named by the user it is an error; one that merely lies there is said, if there is another way."""
    add_ct(folder)
    place = folder.parent if named else folder / "clinic"
    path = write_reg(place / "RE.dcm", *USUAL, sop_class="1.2.840.10008.5.1.4.1.1.66.3")
    if named:
        with pytest.raises(GeometryError, match="deformable"):
            related_patient(folder, reg=[path])
    else:
        assert any("not rigid" in warning for warning in related_patient(folder).warnings)


def test_where_the_registration_fails_the_remedies_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Link:
        raise InputError("The images cannot be aligned.")

    monkeypatch.setattr(planning_ct, "_registered", refuse)
    add_ct(folder)
    with pytest.raises(InputError, match="cannot be aligned") as caught:
        related_patient(folder)
    assert "--reg" in str(caught.value)
    write_reg(folder / "RE.dcm", *USUAL)
    patient = related_patient(folder)
    assert any("could not be checked" in warning for warning in patient.warnings)


def test_several_cts_are_told_apart_by_the_user(folder: Path) -> None:
    add_ct(folder)
    add_ct(folder, "other", SeriesInstanceUID="1.2.3.99")
    with pytest.raises(InputError, match="Several series could be the ct") as caught:
        load_patient(folder, labels="brats-2023")
    assert "--ct none" in str(caught.value)
    chosen = load_patient(folder, ct=folder / "CT", labels="brats-2023").planning
    assert chosen is not None
    assert chosen.series.files[0].parent.name == "CT"


def test_a_ct_with_unequal_slices_is_refused_by_name(folder: Path) -> None:
    add_ct(folder)[4].unlink()
    with pytest.raises(GeometryError, match=r"Series 7 \"planning CT\"") as caught:
        load_patient(folder, labels="brats-2023")
    assert "--ct none" in str(caught.value)


def test_a_ct_without_a_frame_is_refused(folder: Path) -> None:
    add_ct(folder, FrameOfReferenceUID=None)
    with pytest.raises(GliodilError, match="no frame of reference"):
        load_patient(folder, labels="brats-2023")


def test_a_ct_that_does_not_show_the_tumour_is_refused(folder: Path) -> None:
    lowest = sorted(add_ct(folder, spacing=(3.0, 3.0, 4.0)), key=lambda path: path.name)
    for path in lowest[:-8]:  # names count from the top
        path.unlink()
    write_reg(folder / "RE.dcm", *USUAL)
    with pytest.raises(GeometryError, match="outside the planning CT"):
        related_patient(folder)


def test_an_mr_in_nifti_takes_the_frame_that_the_registration_object_names(
    folder: Path, registrations: list[str]
) -> None:
    for path in (folder / "MR").iterdir():
        path.unlink()
    write_nifti(ball_volumes()["t1c"], folder / "t1c.nii.gz")
    add_ct(folder)
    write_reg(folder / "RE.dcm", *USUAL)
    patient = related_patient(folder)
    assert patient.planning is not None
    assert patient.planning.related_link.origin == "REG"
    assert any("states no frame of reference" in warning for warning in patient.warnings)


class TestDrawnOnTheCT:
    """An RTSTRUCT in the frame of the CT."""

    @pytest.fixture
    def drawn(self, folder: Path) -> Patient:
        ct = add_ct(folder)
        write_reg(folder / "RE.dcm", *USUAL)
        (folder / "seg.nii.gz").unlink()
        centre = (MR_TO_CT @ [*CENTRE, 1])[:3]
        write_structures(folder / "RS.dcm", ct, centre, RADIUS_MM, CT_FRAME)
        return on_planning_ct(load_patient(folder), RULE)

    def test_it_is_carried_to_the_mr(self, drawn: Patient) -> None:
        """The centre to a tenth of a voxel, the volume to what voxels of 3 mm leave."""
        assert drawn.shape == ball_volumes()["t1c"].shape
        index = np.argwhere(drawn.core)
        np.testing.assert_allclose(drawn.segmentation.to_world(index).mean(axis=0), CENTRE, atol=0.3)
        ball = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
        assert len(index) * drawn.segmentation.voxel_volume_ml == pytest.approx(ball, rel=0.05)

    def test_it_is_said(self, drawn: Patient) -> None:
        assert any("drawn on the planning CT" in warning for warning in drawn.warnings)
        assert drawn.planning is not None
        assert drawn.planning.drawn is not None

    def test_without_the_ct_it_is_refused(self, drawn: Patient) -> None:
        folder = drawn.places[0]
        with pytest.raises(GliodilError):
            load_patient(folder, ct="none")


def test_a_nifti_segmentation_on_the_grid_of_the_ct_was_drawn_there(folder: Path) -> None:
    add_ct(folder)
    write_reg(folder / "RE.dcm", *USUAL)
    ct = load_patient(folder, labels="brats-2023").planning
    assert ct is not None
    grid = ct.series.volume()
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    ball = np.linalg.norm(world - (MR_TO_CT @ [*CENTRE, 1])[:3], axis=-1) <= RADIUS_MM
    write_nifti(grid.with_data(3 * ball.astype(np.uint8), kind="label"), folder / "seg.nii.gz")
    patient = related_patient(folder)
    assert patient.planning is not None
    assert patient.planning.drawn is not None
    centre = patient.segmentation.to_world(np.argwhere(patient.core)).mean(axis=0)
    np.testing.assert_allclose(centre, CENTRE, atol=0.3)


def test_a_ct_alone_carries_the_model(tmp_path: Path) -> None:
    """Maps in the world of the CT, structures drawn on it, no MR: nothing has to be carried."""
    volumes = ball_volumes()
    image = volumes["t1c"].with_data(hounsfield(volumes["brain"], volumes["t1c"].data).astype(np.float32))
    ct = write_ct(tmp_path / "CT", image, np.eye(4))
    for role in ("brain", "wm", "gm"):
        write_nifti(volumes[role], tmp_path / f"{role}.nii.gz")
    write_structures(tmp_path / "RS.dcm", ct, CENTRE, RADIUS_MM, CT_FRAME)
    patient = related_patient(tmp_path)
    assert patient.planning is not None
    assert patient.planning.related_link.origin == "same frame"
    assert patient.shape == patient.planning.series.shape


def test_the_difference_of_two_links_is_the_largest_distance_of_a_point() -> None:
    one = Link("a", "b", np.eye(4), "REG")
    other = Link("a", "b", rigid(90.0, (0, 0, 0), (0, 0, 1)), "registered")
    points = np.array([[10.0, 0, 0], [0, 0, 50]])
    assert difference_mm(one, other, points) == pytest.approx(np.sqrt(200))


def test_a_related_ct_is_not_registered_again(folder: Path, registrations: list[str]) -> None:
    add_ct(folder)
    patient = related_patient(folder)
    assert patient.planning is not None
    assert related(patient.planning, patient.mr_image) is patient.planning
    assert len(registrations) == 1
