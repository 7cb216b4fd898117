"""Targets on the planning CT: where the registration puts them, cut there, on the CT's own slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from planning import (
    CENTRE,
    CT_FRAME,
    MR_FRAME,
    RADIUS_MM,
    ball_volumes,
    hounsfield,
    rigid,
    write_ct,
    write_reg,
)

from gliodil.data import Patient, Volume, load_patient, planning_ct, write_nifti
from gliodil.data.frames import Link
from gliodil.data.shapes import carry_labels, carry_mask, signed_distance
from gliodil.planning.on_ct import PlansOnCT, plans_on_ct
from gliodil.planning.plan import plan
from gliodil.planning.plans import Plans
from gliodil.planning.ranking import Rank
from gliodil.preflight import on_planning_ct
from gliodil.reporting.ct import write_on_ct

MR_TO_CT = rigid(11.0, (14.0, -22.0, 31.0))
TILT = 0.33


@pytest.fixture(scope="module", params=[0.0, TILT], ids=["upright", "tilted gantry"])
def patient(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Patient:
    """The patient with a ball for a tumour, and its CT."""
    folder, volumes = tmp_path_factory.mktemp("ball"), ball_volumes()
    for role in ("seg", "brain", "wm", "gm"):
        write_nifti(volumes[role], folder / f"{role}.nii.gz")
    t1c = volumes["t1c"]
    write_series(folder / "MR", t1c.data, t1c.affine, description="t1 +C", frame_of_reference=MR_FRAME)
    image = t1c.with_data(hounsfield(volumes["brain"], t1c.data).astype(np.float32))
    write_ct(folder / "CT", image, MR_TO_CT, tilt=request.param)
    write_reg(folder / "RE.dcm", CT_FRAME, [(MR_FRAME, [MR_TO_CT])])
    with pytest.MonkeyPatch.context() as patch:
        truth = Link(MR_FRAME, CT_FRAME, MR_TO_CT, "registered", 0.1)
        patch.setattr(planning_ct, "_registered", lambda *_: truth)
        return on_planning_ct(load_patient(folder, labels="brats-2023"), "benchmark-15mm")


@pytest.fixture(scope="module")
def plans(patient: Patient) -> Plans:
    return plan(patient, ball_volumes()["density"])


@pytest.fixture(scope="module")
def on_ct(patient: Patient, plans: Plans) -> PlansOnCT:
    return plans_on_ct(patient, plans)


def centre_and_ml(mask: Volume) -> tuple[np.ndarray, float]:
    index = np.argwhere(mask.data)
    return mask.to_world(index).mean(axis=0), len(index) * mask.voxel_volume_ml


def test_targets_lie_where_the_registration_puts_them(on_ct: PlansOnCT, plans: Plans) -> None:
    pairs = {
        "gtv": plans.gtv,
        "ctv_standard": plans.standard,
        "ctv_trimmed": plans.trimmed,
        "ctv_model": plans.model,
    }
    for name, before in pairs.items():
        centre, ml = centre_and_ml(before)
        moved, after = centre_and_ml(on_ct.targets[name])
        np.testing.assert_allclose(moved, (MR_TO_CT @ [*centre, 1])[:3], atol=0.4, err_msg=name)
        assert after == pytest.approx(ml, rel=0.04), name


def test_the_model_ctv_is_cut_on_the_ct(on_ct: PlansOnCT) -> None:
    """As many voxels as the standard CTV; no voxel outside has a higher density than one inside, beyond what blurs."""
    model, standard = (on_ct.targets[f"ctv_{name}"].data > 0 for name in ("model", "standard"))
    assert model.sum() == standard.sum()
    assert on_ct.equal_volume_voxel_difference == 0
    density = on_ct.density.data
    inside, edge = density[model].min(), np.quantile(density[standard], 0.01)
    assert inside > 0
    assert density[~model].max() <= inside + 0.02
    assert edge <= inside + 0.02


def test_the_files_give_everything_back(on_ct: PlansOnCT, patient: Patient, tmp_path: Path) -> None:
    """Also for a tilted gantry: contours lie on the CT's slices as they were taken."""
    said = write_on_ct(tmp_path / "ct", patient, on_ct, keyholes=False)
    assert all(trip["dice"] == trip["seg_dice"] == 1 for trip in said["dicom"]["structures"].values())
    names = {path.name for path in (tmp_path / "ct").iterdir()}
    assert {"rtstruct.dcm", "seg.dcm", "density_seg.dcm", "reg.dcm", "gtv.nii.gz", "density.nii.gz"} <= names
    assert patient.planning is not None
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in patient.planning.series.files]
    planes = {
        str(h.SOPInstanceUID): (
            np.array(h.ImagePositionPatient, float),
            np.array(h.ImageOrientationPatient, float),
        )
        for h in headers
    }
    data = pydicom.dcmread(tmp_path / "ct" / "rtstruct.dcm")
    for contour in (c for roi in data.ROIContourSequence for c in roi.ContourSequence):
        position, axes = planes[str(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)]
        normal = np.cross(axes[:3], axes[3:])
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert np.abs((points - position) @ normal).max() < 1e-3


def test_contours_lie_within_half_a_pixel_of_the_ball(
    on_ct: PlansOnCT, patient: Patient, tmp_path: Path
) -> None:
    """On average, of a ball of which the MR has voxels of 4 mm; the pixels of the CT are 3 mm."""
    write_on_ct(tmp_path / "ct", patient, on_ct, keyholes=False)
    data = pydicom.dcmread(tmp_path / "ct" / "rtstruct.dcm")
    points = np.concatenate(
        [np.array(c.ContourData, float).reshape(-1, 3) for c in data.ROIContourSequence[0].ContourSequence]
    )
    away = np.linalg.norm(points * (-1, -1, 1) - (MR_TO_CT @ [*CENTRE, 1])[:3], axis=1)
    assert abs(away.mean() - RADIUS_MM) < 0.5
    assert np.abs(away - RADIUS_MM).mean() < 1.5


@pytest.mark.parametrize(("rule", "rank"), [("rtog", None), ("estro-eano-2023", "density")])
def test_every_target_of_a_rule_is_carried(patient: Patient, rule: str, rank: Rank | None) -> None:
    """Two phases and PTVs; the phases are nested on the CT too."""
    one = plan(patient, ball_volumes()["density"], rule=rule, rank=rank)
    found = plans_on_ct(patient, one)
    assert set(found.targets) == set(one.volumes_ml)
    for name, ml in one.volumes_ml.items():
        assert found.volumes_ml[name] == pytest.approx(ml, rel=0.05), name
    for phase in ("", "initial_") if one.initial is not None else ("",):
        standard, model = (found.targets[f"ctv_{phase}{name}"].data > 0 for name in ("standard", "model"))
        assert standard.sum() == model.sum()
    if one.initial is not None:
        for name in ("standard", "trimmed", "model"):
            inner, outer = (found.targets[f"ctv_{phase}{name}"].data > 0 for phase in ("", "initial_"))
            assert not (inner & ~outer).any()


def test_what_the_ct_does_not_show_is_said(plans: Plans, patient: Patient) -> None:
    planning = patient.planning
    assert planning is not None
    low = planning.related_link.matrix.copy()
    low[2, 3] -= 75
    shifted = replace(planning, link=Link(MR_FRAME, CT_FRAME, low, "REG"))
    found = plans_on_ct(replace(patient, planning=shifted), plans)
    (warning,) = [text for text in found.warnings if text.startswith("ctv_standard reaches beyond")]
    ml = centre_and_ml(plans.standard)[1]
    missing = float(warning.split(":")[1].split("mL")[0])
    assert missing == pytest.approx(ml - found.volumes_ml["ctv_standard"], abs=0.05 * ml)


class TestShapes:
    """Masks carried by their outlines."""

    def test_the_same_grid_gives_the_same_mask(self) -> None:
        rng = np.random.default_rng(3)
        grid = Volume(
            (rng.random((14, 13, 12)) > 0.6).astype(np.uint8), np.diag([2, 1, 3, 1.0]), kind="label"
        )
        np.testing.assert_array_equal(carry_mask(grid, grid), grid.data > 0)

    def test_labels_stay_apart(self) -> None:
        data = np.zeros((20, 20, 20), np.uint8)
        data[4:10, 4:16, 4:16], data[10:16, 4:16, 4:16] = 1, 3
        labels = Volume(data, np.eye(4), kind="label")
        finer = np.diag([0.5, 0.5, 0.5, 1.0])
        finer[:3, 3] = 0.25
        fine = Volume(np.zeros((40, 40, 40), np.uint8), finer, kind="label")
        carried = carry_labels(labels, fine).data
        assert set(np.unique(carried)) == {0, 1, 3}
        assert (carried == 3).sum() == pytest.approx((carried == 1).sum(), rel=0.1)
        assert (carried > 0).sum() / 8 == pytest.approx((data > 0).sum(), rel=0.05)

    def test_an_outline_passes_between_slices(self) -> None:
        """A slanted edge on slices 6 mm apart moves evenly; the nearest slice would leave steps."""
        x = np.arange(60)[:, None, None]
        z = np.arange(8)[None, None, :] * 6.0
        edge = np.broadcast_to(x < 10 + z / 2, (60, 20, 8)).astype(np.uint8)
        thick = Volume(edge, np.diag([1, 1, 6, 1.0]), kind="label")
        thin = Volume(np.zeros((60, 20, 43), np.uint8), np.eye(4), kind="label")
        widths = carry_mask(thick, thin)[:, 10].sum(axis=0)
        assert np.abs(np.diff(widths)).max() <= 1
        np.testing.assert_allclose(widths, 10 + np.arange(43) / 2, atol=1.5)

    def test_beyond_the_field_of_view_there_is_nothing(self) -> None:
        full = Volume(np.ones((5, 5, 5), np.uint8), np.eye(4), kind="label")
        wide = Volume(np.zeros((9, 9, 9), np.uint8), np.eye(4), kind="label")
        assert carry_mask(full, wide).sum() == 125
        assert (signed_distance(full.data > 0, (1, 1, 1)) < 0).all()
