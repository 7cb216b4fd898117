"""The clinic's own dose and CTV, in the frame of the planning CT, against what a ball and a gradient must give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_series import write_series
from planning import (
    CENTRE,
    CT_FRAME,
    MR_FRAME,
    THIRD_FRAME,
    ball_volumes,
    hounsfield,
    rigid,
    write_ct,
    write_dose,
    write_reg,
    write_structures,
)

from gliodil.data import Patient, load_patient, planning_ct, write_nifti
from gliodil.data.frames import Link
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.planning.clinic import check_frames, clinic_dose, read_clinic_plan, with_clinic
from gliodil.planning.evaluate import evaluate_plan_folder
from gliodil.planning.plan import plan
from gliodil.planning.plans import FURTHER, Plans
from gliodil.preflight import on_planning_ct

MR_TO_CT = rigid(11.0, (14.0, -22.0, 31.0))
MIDDLE = (MR_TO_CT @ [*CENTRE, 1])[:3]
RADIUS_MM = 21.0


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Patient:
    """A ball for a tumour, later tumour beside it, and a CT in another frame."""
    folder, volumes = tmp_path_factory.mktemp("ball"), ball_volumes()
    for role in ("seg", "brain", "wm", "gm"):
        write_nifti(volumes[role], folder / f"{role}.nii.gz")
    seg = volumes["seg"]
    world = seg.to_world(np.moveaxis(np.indices(seg.shape), 0, -1))
    later = np.linalg.norm(world - CENTRE - (20, 0, 0), axis=-1) < 8
    write_nifti(seg.with_data((3 * later).astype(np.uint8)), folder / "recurrence.nii.gz")
    t1c = volumes["t1c"]
    write_series(folder / "MR", t1c.data, t1c.affine, description="t1 +C", frame_of_reference=MR_FRAME)
    image = t1c.with_data(hounsfield(volumes["brain"], t1c.data).astype(np.float32))
    write_ct(folder / "CT", image, MR_TO_CT)
    write_reg(folder / "RE.dcm", CT_FRAME, [(MR_FRAME, [MR_TO_CT])])
    with pytest.MonkeyPatch.context() as patch:
        truth = Link(MR_FRAME, CT_FRAME, MR_TO_CT, "registered", 0.1)
        patch.setattr(planning_ct, "_registered", lambda *_: truth)
        return on_planning_ct(load_patient(folder, labels="brats-2023"), "benchmark-15mm")


@pytest.fixture(scope="module")
def plans(patient: Patient) -> Plans:
    return plan(patient, ball_volumes()["density"])


def _ball(patient: Patient, path: Path, *, frame: str = CT_FRAME, name: str = "CTV_60") -> Path:
    assert patient.planning is not None
    return write_structures(path, patient.planning.series.files, MIDDLE, RADIUS_MM, frame, name)


def test_the_clinics_ctv_is_one_more_plan_at_its_own_volume(
    patient: Patient, plans: Plans, tmp_path: Path
) -> None:
    clinic = read_clinic_plan(patient, structures=_ball(patient, tmp_path / "rs.dcm"))
    assert clinic is not None
    assert clinic.roi == "CTV_60"
    found = with_clinic(patient, plans, clinic)
    masks = {name: found.further[name].data > 0 for name in FURTHER}
    assert {int(mask.sum()) for mask in masks.values()} == {int(masks["clinic"].sum())}
    truth = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
    assert found.volumes_ml["ctv_clinic"] == pytest.approx(truth, rel=0.05)
    middle = patient.segmentation.to_world(np.argwhere(masks["clinic"])).mean(axis=0)
    np.testing.assert_allclose(middle, CENTRE, atol=0.5)
    # The isotropic CTV is the nearest tissue to the GTV: about the same ball here.
    both = (masks["clinic"] & masks["isotropic_at_clinic"]).sum() * 2 / (2 * masks["clinic"].sum())
    assert both > 0.9
    assert found.coverage is not None
    later = patient.recurrence.data > 0  # type: ignore[union-attr]
    for name in FURTHER:
        expected = (later & masks[name]).sum() / later.sum()
        assert found.coverage["any"][name] == pytest.approx(expected)  # type: ignore[index]
    assert found.coverage["any"]["standard"] == plans.coverage["any"]["standard"]  # type: ignore[index]


def test_evaluate_covers_with_the_clinics_ctv_too(patient: Patient, plans: Plans, tmp_path: Path) -> None:
    clinic = read_clinic_plan(patient, structures=_ball(patient, tmp_path / "rs.dcm"))
    assert clinic is not None
    found = with_clinic(patient, plans, clinic)
    found.save(tmp_path / "out")
    assert patient.recurrence is not None
    again = evaluate_plan_folder(tmp_path / "out", patient.recurrence, convention="brats-2023")
    assert again == found.coverage


def test_dose_in_the_frame_of_the_ct(patient: Patient, plans: Plans, tmp_path: Path) -> None:
    """A gradient of 0.5 Gy/mm along an axis of the CT through the middle of a ball: mean as in the middle."""
    path = write_dose(tmp_path / "rd.dcm", lambda x: 60 + 0.5 * (x[..., 0] - MIDDLE[0]), MIDDLE, CT_FRAME)
    structures = _ball(patient, tmp_path / "rs.dcm")
    clinic = read_clinic_plan(patient, dose=path, structures=structures, prescription_gy=60)
    assert clinic is not None
    check_frames(patient, clinic)
    found = clinic_dose(patient, with_clinic(patient, plans, clinic), clinic)
    assert found is not None
    assert found.structures["gtv"].mean_gy == pytest.approx(60, abs=0.3)
    assert found.structures["ctv_clinic"].d50_gy == pytest.approx(60, abs=0.3)
    # Later tumour lies 20 mm along the x axis of the MR.
    shift = (MR_TO_CT[:3, :3] @ (20, 0, 0))[0]
    assert found.structures["recurrence"].mean_gy == pytest.approx(60 + 0.5 * shift, abs=0.3)
    assert found.structures["gtv"].v95 == pytest.approx(
        0.5 + (3 / 2) * (6 / 13.5) / 2 - (6 / 13.5) ** 3 / 4, abs=0.03
    )
    assert {"ctv_standard", "ctv_model", "ctv_trimmed"} <= set(found.structures)


def test_a_small_dose_grid_gives_no_figure_of_what_it_leaves_out(
    patient: Patient, plans: Plans, tmp_path: Path
) -> None:
    path = write_dose(tmp_path / "rd.dcm", lambda x: 60 + 0 * x[..., 0], MIDDLE, CT_FRAME, half_mm=20.0)
    clinic = read_clinic_plan(patient, dose=path, prescription_gy=60)
    assert clinic is not None
    found = clinic_dose(patient, plans, clinic)
    assert found is not None
    assert set(found.structures) == {"gtv"}
    assert {"ctv_standard", "ctv_model", "cells"} <= set(found.missing)


def test_unrelated_frames_are_refused(patient: Patient, tmp_path: Path) -> None:
    dose = write_dose(tmp_path / "rd.dcm", lambda x: 60 + 0 * x[..., 0], MIDDLE, THIRD_FRAME, half_mm=20.0)
    clinic = read_clinic_plan(patient, dose=dose)
    assert clinic is not None
    with pytest.raises(GeometryError, match="another frame of reference"):
        check_frames(patient, clinic)
    with pytest.raises(GeometryError, match="drawn on"):
        read_clinic_plan(patient, structures=_ball(patient, tmp_path / "rs.dcm", frame=THIRD_FRAME))


def test_another_patients_dose_is_refused_unless_said_to_be_the_same(
    patient: Patient, tmp_path: Path
) -> None:
    path = tmp_path / "rd.dcm"
    write_dose(path, lambda x: 60 + 0 * x[..., 0], MIDDLE, CT_FRAME, half_mm=20.0, patient="SOMEONE ELSE")
    with pytest.raises(InputError, match="another patient") as caught:
        read_clinic_plan(patient, dose=path)
    assert "SOMEONE ELSE" not in str(caught.value)
    assert read_clinic_plan(patient, dose=path, same_patient=True) is not None


@pytest.mark.parametrize(("name", "roi"), [("Target", None), ("PCTV", None), ("CTV", "CTV2")])
def test_an_unclear_ctv_is_refused(patient: Patient, tmp_path: Path, name: str, roi: str | None) -> None:
    path = _ball(patient, tmp_path / "rs.dcm", name=name)
    with pytest.raises(LabelError, match="not clear which structure"):
        read_clinic_plan(patient, structures=path, roi=roi)


def test_a_ctv_of_another_name_can_be_named(patient: Patient, tmp_path: Path) -> None:
    clinic = read_clinic_plan(patient, structures=_ball(patient, tmp_path / "r.dcm", name="Ziel"), roi="Ziel")
    assert clinic is not None
    assert clinic.roi == "Ziel"


def test_options_without_their_file_are_refused(patient: Patient) -> None:
    assert read_clinic_plan(patient) is None
    with pytest.raises(InputError, match="--prescription-gy"):
        read_clinic_plan(patient, prescription_gy=60.0)
    with pytest.raises(InputError, match="--clinic-ctv"):
        read_clinic_plan(patient, roi="CTV")


def test_without_a_frame_of_their_own_images_share_that_of_the_dose(
    patient: Patient, plans: Plans, tmp_path: Path
) -> None:
    volumes = {name: volume.carried(np.eye(4), "") for name, volume in patient.volumes.items()}
    bare = replace(
        patient,
        segmentation=patient.segmentation.carried(np.eye(4), ""),
        volumes=volumes,
        series={},
        planning=None,
    )
    path = write_dose(tmp_path / "rd.dcm", lambda x: 60 + 0.5 * (x[..., 0] - CENTRE[0]), CENTRE, CT_FRAME)
    clinic = read_clinic_plan(bare, dose=path)
    assert clinic is not None
    found = clinic_dose(bare, plans, clinic)
    assert found is not None
    assert found.structures["gtv"].mean_gy == pytest.approx(60, abs=0.3)
