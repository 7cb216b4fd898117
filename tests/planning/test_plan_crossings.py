"""Crossings of midline and tentorium: known volumes on sheets, whatever way the grid is stored."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from gliodil.data.labels import CONVENTIONS
from gliodil.data.patient import Patient
from gliodil.data.template import load_anatomy
from gliodil.data.volume import Volume
from gliodil.planning import PlanRule, plan
from gliodil.planning.crossings import above_tentorium, crossings, midline_plane

SHAPE = (41, 44, 20)
SPACING = np.array([1.0, 1.0, 2.0])
RAS = np.diag([*SPACING, 1.0])
RAS[:3, 3] = (-20.0, -22.0, -19.0)  # the falx is at index 20: x = 0
ML = SPACING.prod() / 1000
X, Y, Z = (RAS[i, 3] + SPACING[i] * index for i, index in enumerate(np.indices(SHAPE)))
MARGIN_MM = 8.0
TENTORIUM_Z = -11.0


def stored(array, orientation, kind="label"):
    """Store an array in RAS order as a scanner with another orientation would."""
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    affine = RAS @ nib.orientations.inv_ornt_aff(turn, SHAPE)
    return Volume(nib.orientations.apply_orientation(array, turn), affine, kind=kind)


def sheets(*, open_in_front=False, falx=True, tentorium=True):
    found = np.zeros(SHAPE, np.uint8)
    if falx:
        found[(X == 0) & (Z > TENTORIUM_Z) & ((Y < 5) | (not open_in_front))] = 1
    if tentorium:
        found[(TENTORIUM_Z == Z) & (Y < 15)] = 2
    return found


def ball(centre, radius):
    return (X - centre[0]) ** 2 + (Y - centre[1]) ** 2 + (Z - centre[2]) ** 2 <= radius**2


LEFT = ball((-6, 0, 3), 4.1)


def found(gtv, model, barriers, *, orientation="RAS", csf=None, margin_mm=MARGIN_MM):
    standard = ball((-6, 0, 3), 4.1 + margin_mm) | gtv
    masks = {"gtv": gtv, "standard": standard, "trimmed": standard & (X < 0), "model": model | gtv}
    turned = {name: stored(mask.astype(np.uint8), orientation).data > 0 for name, mask in masks.items()}
    volumes = {} if barriers is None else {"barriers": stored(barriers, orientation)}
    if csf is not None:
        volumes["csf"] = stored(csf.astype(float), orientation, "scalar")
    segmentation = stored(gtv.astype(np.uint8), orientation)
    patient = Patient("p", segmentation, CONVENTIONS["brats-2023"], volumes)
    gtv = turned.pop("gtv")
    return crossings(patient, gtv, turned, brain=np.ones(gtv.shape, bool), margin_mm=margin_mm)


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPI", "SAR"])
def test_volumes_beyond_are_those_of_the_voxels_there(orientation):
    model = ball((0, 0, -5), 9)
    result = found(LEFT, model, sheets(), orientation=orientation)
    standard = ball((-6, 0, 3), 4.1 + MARGIN_MM)
    assert result.plane.residual_mm == pytest.approx(0, abs=1e-6)
    assert result.plane.normal == pytest.approx((1, 0, 0), abs=1e-9)
    assert result.plane.point_mm[0] == pytest.approx(0, abs=1e-9)
    assert (result.midline.gtv_side, result.midline.beyond) == ("left", "right")
    assert not result.midline.gtv_on_both_sides
    assert result.midline.beyond_ml == pytest.approx(
        {
            "gtv": 0,
            "ctv_standard": (standard & (X > 0)).sum() * ML,
            "ctv_trimmed": 0,
            "ctv_model": (model & (X > 0)).sum() * ML,
        }
    )
    assert (result.tentorium.gtv_side, result.tentorium.beyond) == ("above", "below")
    assert result.tentorium.beyond_ml["ctv_model"] == pytest.approx((model & (TENTORIUM_Z > Z)).sum() * ML)
    assert result.tentorium.beyond_ml["ctv_model"] > 0


@pytest.mark.parametrize("orientation", ["LAS", "LPI", "SAR", "IPL"])
def test_a_flipped_grid_changes_no_number(orientation):
    model = ball((1, 6, -4), 10)
    barriers = sheets(open_in_front=True)
    here, there = (found(LEFT, model, barriers, orientation=o).to_dict() for o in ("RAS", orientation))
    assert here["midline"]["why"]["around_ml"] > 0
    for sheet in ("midline", "tentorium"):
        for part in ("beyond_ml", "why"):
            assert there[sheet].pop(part) == pytest.approx(here[sheet].pop(part))
        assert there[sheet] == here[sheet]


def test_a_mirrored_patient_has_the_same_volumes_on_the_other_side():
    model, barriers = ball((1, 6, 1), 9), sheets(open_in_front=True)
    here = found(LEFT, model, barriers).midline
    mirrored = found(LEFT[::-1], model[::-1], barriers[::-1]).midline
    assert (mirrored.gtv_side, mirrored.beyond) == ("right", "left")
    for name in ("gtv", "ctv_model"):
        assert mirrored.beyond_ml[name] == pytest.approx(here.beyond_ml[name])
    assert mirrored.why.around_ml == pytest.approx(here.why.around_ml)
    assert mirrored.why.path_mm == pytest.approx(here.why.path_mm)


def test_behind_a_closed_falx_only_the_straight_distance_reaches():
    why = found(LEFT, ball((0, 0, 3), 3), sheets()).midline.why
    part = ball((0, 0, 3), 3) & (X > 0)
    assert why.path_mm is None
    assert why.around_ml == why.farther_ml == 0
    assert why.between_ml == pytest.approx(part.sum() * ML)
    assert why.straight_mm == pytest.approx(3.0)  # from x = -2 to x = 1


def test_round_the_edge_the_path_is_as_long_as_geometry_says():
    # From (-2, 0) round the last voxel of the falx at (0, 4), through (0, 5), to (1, 4): straight in plane.
    target = (X == 1) & (Y == 4) & (Z == 3)
    why = found(LEFT, target, sheets(open_in_front=True)).midline.why
    assert why.around_ml == pytest.approx(ML)
    assert why.between_ml == why.farther_ml == 0
    shortest = min(
        np.hypot(y - 5, x) + np.sqrt(2) for x, y in zip(X[LEFT & (Z == 3)], Y[LEFT & (Z == 3)], strict=True)
    )
    assert why.path_mm == pytest.approx(shortest, rel=0.05)
    assert why.straight_mm < why.path_mm


def test_csf_in_the_gap_closes_it():
    target = (X == 1) & (Y == 4) & (Z == 3)
    csf = (X == 0) & (Y >= 5)
    why = found(LEFT, target, sheets(open_in_front=True), csf=csf).midline.why
    assert (why.around_ml, why.between_ml) == pytest.approx((0, ML))


def test_what_lies_farther_than_the_margin_may_hang_together_with_the_gtv_or_not():
    bridge = (abs(X + 0.5) <= 14) & (Y >= 6) & (Y <= 8) & (abs(Z - 3) < 3) | (
        (abs(X + 6) < 2) & (Y >= 0) & (Y <= 8) & (abs(Z - 3) < 3)
    )
    island = ball((15, -10, 3), 3)
    why = found(LEFT, bridge | island, sheets(open_in_front=True)).midline.why
    beyond = (bridge | island) & (X > 0)
    assert why.around_ml + why.between_ml + why.farther_ml == pytest.approx(beyond.sum() * ML)
    assert why.farther_ml - why.farther_joined_ml == pytest.approx(island.sum() * ML)
    assert why.farther_joined_ml > 0


def test_a_gtv_on_both_sides_is_said_so():
    gtv = ball((-2, 0, 3), 4.1)
    midline = found(gtv, ball((0, 0, 3), 8), sheets()).midline
    assert midline.gtv_on_both_sides
    assert midline.gtv_side == "left"
    assert midline.beyond_ml["gtv"] == pytest.approx((gtv & (X > 0)).sum() * ML)
    assert midline.why is None


def test_a_gtv_below_the_tentorium_is_seen_from_there():
    gtv, model = ball((-6, 0, -16), 3), ball((-6, 0, -12), 6)
    tentorium = found(gtv, model, sheets()).tentorium
    assert (tentorium.gtv_side, tentorium.beyond) == ("below", "above")
    assert tentorium.beyond_ml["ctv_model"] == pytest.approx((model & (TENTORIUM_Z < Z)).sum() * ML)


def test_nothing_lies_below_the_tentorium_outside_its_outline():
    model = (Z < TENTORIUM_Z) & (Y > 16) & (X < 0)
    assert model.any()
    assert found(LEFT, model, sheets()).tentorium.beyond_ml["ctv_model"] == 0


def test_nothing_crossed_has_no_reason():
    midline = found(LEFT, LEFT, sheets()).midline
    assert midline.beyond_ml["ctv_model"] == 0
    assert midline.why is None


def test_without_barriers_or_without_a_sheet_it_is_unknown():
    assert found(LEFT, LEFT, None) is None
    only = found(LEFT, LEFT, sheets(falx=False))
    assert only.plane is only.midline is None
    assert only.tentorium is not None
    assert found(LEFT, LEFT, sheets(tentorium=False)).tentorium is None


def test_a_falx_that_is_no_sheet_between_left_and_right_defines_no_midline():
    line, coronal = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    line[20, :, 10] = 1
    coronal[:, 20, :] = 1
    for labels in (line, coronal):
        assert midline_plane(stored(labels, "RAS")) is None
    row = np.zeros(SHAPE, np.uint8)
    row[:, 20, 5] = 2
    assert above_tentorium(stored(row, "RAS"), np.zeros((1, 3))) is None


def test_a_tilted_falx_is_found_with_its_residual():
    angle = np.radians(10)
    distance = X * np.cos(angle) + Y * np.sin(angle)
    plane = midline_plane(stored((abs(distance) < 1.0).astype(np.uint8), "LPS"))
    assert np.degrees(np.arccos(np.dot(plane.normal, (np.cos(angle), np.sin(angle), 0)))) < 0.5
    assert plane.residual_mm == pytest.approx(1 / np.sqrt(3), abs=0.05)  # uniform within 1 mm


def test_the_plan_of_a_patient_tells_them():
    labels = np.where(LEFT, 3, 0).astype(np.uint8)
    volumes = {"barriers": stored(sheets(), "LPS"), "brain": stored(np.ones(SHAPE, np.uint8), "LPS")}
    patient = Patient("p", stored(labels, "LPS"), CONVENTIONS["brats-2023"], volumes)
    density = stored(np.exp(-np.hypot(X + 4, Y) / 5 - abs(Z - 3) / 9), "LPS", "scalar")
    plans = plan(patient, density, rule=PlanRule("test", "1", margin_mm=MARGIN_MM, barriers=("falx",)))
    beyond = plans.crossings.midline.beyond_ml
    turned = stored((X > 0).astype(np.uint8), "LPS").data > 0
    for name in ("standard", "trimmed", "model"):
        inside = (getattr(plans, name).data > 0) & turned
        assert beyond[f"ctv_{name}"] == pytest.approx(inside.sum() * ML)
    assert beyond["ctv_trimmed"] == 0 < beyond["ctv_standard"] < beyond["ctv_model"]


def test_on_the_template_cerebellum_and_pons_lie_below_and_the_cerebrum_does_not():
    pytest.importorskip("nilearn", reason="needs the anatomy in nilearn's wheel")
    from gliodil.data.barriers import falx_and_tentorium

    anatomy = load_anatomy(resolution_mm=2)
    barriers, brain = falx_and_tentorium(anatomy), anatomy.brain.data > 0
    plane = midline_plane(barriers)
    assert np.degrees(np.arccos(plane.normal[0])) < 0.1
    assert abs(plane.point_mm[0]) < 1.0
    world = barriers.to_world(np.argwhere(brain))
    below = above_tentorium(barriers, world) < 0
    x, y, z = world.T
    cerebellum = (y < -50) & (y > -75) & (z < -25) & (abs(x) < 40)
    assert below[cerebellum].mean() > 0.999
    assert not below[z > 20].any()
    assert not below[y > 5].any()
    temporal_poles = (y > 0) & (z < -25)
    assert temporal_poles.sum() > 500
    assert not below[temporal_poles].any()
    assert 150 < below.sum() * barriers.voxel_volume_ml < 250  # cerebellum and pons have 222 mL
