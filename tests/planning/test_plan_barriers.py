"""Barriers, their reach, ventricles, PTV, phases, cavities and organs: exact on phantoms, invariant on patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gliodil.data.barriers import FALX, TENTORIUM
from gliodil.data.labels import CONVENTIONS
from gliodil.data.nifti import write_nifti
from gliodil.data.patient import Patient, load_patient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.planning import PlanRule, get_rule, plan
from gliodil.planning.barriers import Domain, ventricles
from gliodil.planning.ctv import ptv, standard_ctv
from gliodil.planning.distance import distance_from
from gliodil.planning.geodesic import geodesic_distance, trimmed_ctv
from gliodil.planning.resected import as_before_surgery
from gliodil.planning.rules import Phase

SHAPE = (40, 36, 30)
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1, 0, -18], [0, 0, 1.5, -20], [0, 0, 0, 1]])
PLANS = ("standard", "trimmed", "model")
RULES = ("benchmark-15mm", "estro-eano-2023", "eortc-2016", "rtog")


def small(name: str) -> PlanRule:
    """Return a packaged rule with margins that fit the small patient."""
    rule = get_rule(name)
    phase = rule.initial
    if phase is not None:
        phase = replace(phase, margin_mm=5.0, margin_without_oedema_mm=7.0)
    return replace(rule, margin_mm=5.0, ptv_mm=min(rule.ptv_mm, 3.0), initial=phase)


def radius(centre, spacing=(1.0, 1.0, 1.5), shape=SHAPE):
    index = np.moveaxis(np.indices(shape), 0, -1)
    return np.linalg.norm((index - centre) * spacing, axis=-1)


def arrays(seed=0, *, cavity=True, oedema=True):
    """A tumour with a cavity beside a falx with a gap, ventricle and sulci; all of it a little random."""
    rng = np.random.default_rng(seed)
    brain = radius((20, 18, 15)) < 16.5
    away = radius(np.add((14, 17, 14), rng.uniform(-1, 1, 3)))
    labels = np.select([away < 1.6, away < 3.5, away < 6], [1, 3, 2 if oedema else 0], 0)
    if cavity:
        labels[(labels > 0) & (np.indices(SHAPE)[1] < 16)] = 4
    barriers = np.zeros(SHAPE, np.uint8)
    barriers[20, :, 12:] = FALX
    barriers[:, 24, :12] = TENTORIUM
    csf = np.where((radius((17, 22, 14)) < 4) | (rng.random(SHAPE) > 0.97), 0.9, 0.0)
    return {
        "segmentation": labels * brain,
        "brain": brain,
        "wm": np.where(brain, 1 - csf, 0) * 0.6,
        "gm": np.where(brain, 1 - csf, 0) * 0.4,
        "csf": np.where(brain, csf, 0),
        "barriers": barriers,
        "density": np.round(np.exp(-away / 6) * rng.uniform(0.8, 1, SHAPE), 2),
        "stem": radius((14, 25, 12)) < 4,
        "chiasm": radius((14, 12, 20)) < 2,
    }


ORGANS = ("stem", "chiasm")
LABELS = ("segmentation", "brain", "barriers")


def make(content, affine=AFFINE, without=()):
    volumes = {
        key: Volume(value, affine, kind="label" if key in LABELS else "scalar")
        for key, value in content.items()
        if key not in (*ORGANS, "density", *without)
    }
    organs = {key: Volume(content[key], affine, kind="label") for key in ORGANS}
    segmentation = volumes.pop("segmentation")
    patient = Patient("p", segmentation, CONVENTIONS["brats-2024-post"], volumes)
    return patient, Volume(content["density"], affine, kind="scalar"), organs


def planned(content, rule, affine=AFFINE, *, exclude=(), without=()):
    patient, density, organs = make(content, affine, without)
    return plan(patient, density, rule=rule, organs=organs, exclude=exclude)


def masks(plans):
    return {name: getattr(plans, name).data > 0 for name in PLANS}


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**16), name=st.sampled_from(RULES), cavity=st.booleans(), oedema=st.booleans())
def test_what_holds_under_every_rule(seed, name, cavity, oedema):
    content = arrays(seed, cavity=cavity, oedema=oedema)
    rule = small(name)
    plans = planned(content, rule, exclude=("stem",))
    found = masks(plans)
    assert plans.equal_volume_voxel_difference == 0
    assert not (found["trimmed"] & ~found["standard"]).any()
    assert "stem" in plans.organs_excluded
    for mask in found.values():
        assert not (mask & content["stem"]).any()
        assert not (mask & ~content["brain"]).any()
    assert plans.organs_ml["stem"]["ctv_model"] == 0
    assert plans.organs_ml["stem"]["organ"] == pytest.approx(content["stem"].sum() * 1.5e-3)
    assert set(plans.ptv) == (set(PLANS) if rule.ptv_mm else set())
    for key, volume in plans.ptv.items():
        assert not (found[key] & (volume.data == 0)).any()
        assert plans.volumes_ml[f"ptv_{key}"] > plans.volumes_ml[f"ctv_{key}"]
    assert (plans.initial is None) == (rule.initial is None)
    if plans.initial is not None:
        assert plans.initial.margin_mm == (5.0 if oedema else 7.0)
        for key, mask in found.items():
            first = plans.initial.ctv[key].data > 0
            assert not (mask & ~first).any(), key
            assert first.sum() >= mask.sum()
        assert not (plans.initial.ctv["trimmed"].data > plans.initial.ctv["standard"].data).any()
        assert plans.initial.ctv["model"].data.sum() == plans.initial.ctv["standard"].data.sum()


@pytest.mark.parametrize(("name", "axis"), [("estro-eano-2023", 0), ("rtog", 1), ("eortc-2016", 2)])
def test_flipping_data_and_affine_together_gives_the_same_world(name, axis):
    content, flip = arrays(7), np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1, SHAPE[axis] - 1
    here = planned(content, small(name))
    there = planned({key: np.flip(value, axis) for key, value in content.items()}, small(name), AFFINE @ flip)
    for key in ("standard", "trimmed"):
        assert np.array_equal(np.flip(getattr(there, key).data, axis), getattr(here, key).data)
        if here.ptv:
            assert np.array_equal(np.flip(there.ptv[key].data, axis), here.ptv[key].data)
    assert there.volumes_ml == pytest.approx(here.volumes_ml, rel=0.02)  # ties may fall differently
    assert there.organs_ml["chiasm"]["ctv_standard"] == here.organs_ml["chiasm"]["ctv_standard"]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    spacing=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    margin=st.floats(0.1, 6.0),
)
def test_ptv_equals_brute_force_and_ignores_the_brain(seed, spacing, margin):
    ctv = np.random.default_rng(seed).random((9, 8, 7)) > 0.97
    ctv[4, 4, 3] = True
    points = np.argwhere(np.ones_like(ctv)) * np.array(spacing)
    nearest = cdist(points, np.argwhere(ctv) * np.array(spacing)).min(axis=1).reshape(ctv.shape)
    assert np.array_equal(ptv(ctv, spacing, margin), nearest <= margin + 1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (0.9, 1.2, 1.5)])
@pytest.mark.parametrize("reach", [2.0, 5.0])
def test_a_barrier_is_entered_as_far_as_it_may_be(spacing, reach):
    shape = tuple(int(40 / h) | 1 for h in spacing)
    middle = tuple(n // 2 for n in shape)
    gtv = np.zeros(shape, bool)
    gtv[middle] = True
    x = (np.arange(shape[0]) - middle[0])[:, None, None] * spacing[0] * np.ones(shape)
    everywhere = np.ones(shape, bool)
    tissue = x < 6  # beyond it a barrier without end
    standard = standard_ctv(gtv, everywhere, spacing, 15.0)
    ctv = trimmed_ctv(gtv, Domain(tissue, ((everywhere, reach),)), standard, spacing, 15.0)
    wall = x[tissue].max()
    assert np.array_equal(ctv & tissue, standard & tissue)
    beyond = ctv & ~tissue
    assert beyond.any()
    assert (x[beyond] - wall).max() <= reach + 1e-6
    # Straight behind the wall nothing within reach is missing.
    line = (slice(None), *middle[1:])
    assert np.array_equal(ctv[line], (np.abs(x[line]) <= 15) & (x[line] <= wall + reach + 1e-6))


def test_a_barrier_without_reach_is_not_entered():
    content = arrays(3)
    rule = PlanRule("x", "1", margin_mm=6.0, barriers=("brain-surface", "falx"))
    closed = planned(content, rule)
    assert not (closed.trimmed.data[20, :, 12:] & ~closed.gtv.data[20, :, 12:]).any()
    opened = planned(content, replace(rule, reach_mm={"falx": 2.0}))
    assert not (closed.trimmed.data > opened.trimmed.data).any()
    assert opened.trimmed.data.sum() > closed.trimmed.data.sum()


def test_a_falx_is_passed_where_it_is_open_only():
    brain = np.ones((41, 41, 41), bool)
    gtv = radius((14, 20, 20), (1, 1, 1), brain.shape) <= 2
    sheet = np.zeros(brain.shape, bool)
    sheet[20, :, 16:] = True  # open below
    path = geodesic_distance(gtv, ~sheet, (1, 1, 1), limit_mm=15.0)
    straight = distance_from(gtv, (1, 1, 1))
    x, _, z = np.indices(brain.shape)
    behind = (x > 20) & (z > 20) & (straight <= 15)
    # Round the edge at (20, 15): down to it, and up again on the other side.
    up = np.hypot(x - 20, z - 15)[:, 20, :]
    edge = np.hypot(20 - 14, 20 - 15) - 2
    line = np.s_[:, 20, :]
    seen = behind[line] & np.isfinite(path[line])
    assert seen.any()
    error = path[line][seen] - (edge + up[seen])
    assert np.abs(error).max() < 0.025 * 15 + 1.0
    assert (path[line][seen] > straight[line][seen] + 3).all()


def test_path_lengths_commute_with_flips():
    rng = np.random.default_rng(4)
    passable = rng.random((21, 19, 15)) > 0.3
    gtv = np.zeros_like(passable)
    gtv[10, 9, 7] = True
    path = geodesic_distance(gtv, passable, (1.0, 1.2, 2.0), limit_mm=9.0)
    for axis in range(3):
        turned = geodesic_distance(np.flip(gtv, axis), np.flip(passable, axis), (1.0, 1.2, 2.0), limit_mm=9.0)
        assert np.allclose(np.flip(turned, axis), path, rtol=0, atol=1e-9)


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.5, 1.5, 3.0)])
def test_ventricles_are_the_wide_and_deep_csf(spacing):
    shape = tuple(int(130 / h) for h in spacing)
    middle = (np.array(shape) - 1) / 2
    r = radius(middle, spacing, shape)
    brain = r < 60
    centre = radius(middle + np.array([6, 0, 0]) / spacing, spacing, shape) < 9
    shell = brain & (r > 54)
    x = (np.arange(shape[0]) - middle[0])[:, None, None] * spacing[0] * np.ones(shape)
    slit = brain & (np.abs(x) < 1.6) & (r > 25)
    bubble = radius(middle + np.array([0, 42, 0]) / spacing, spacing, shape) < 7
    found = ventricles(centre | shell | slit | bubble, brain, spacing)
    assert not (centre & ~found).any()
    assert not (found & ~(centre | slit)).any()
    assert not (found & (shell | bubble)).any()
    assert not ventricles(slit | shell, brain, spacing).any()


def test_a_single_slice_has_no_ventricles():
    brain = radius((20, 18, 0), (1, 1, 1), (40, 36, 1)) < 15
    assert not ventricles(brain, brain, (3.0, 3.0, 3.0)).any()


def test_ventricles_have_a_reach_of_their_own():
    shape = (80, 80, 80)
    away = radius((40, 40, 40), (1.5, 1.5, 1.5), shape)
    brain, csf = away < 58, away < 12
    tumour = radius((24, 40, 40), (1.5, 1.5, 1.5), shape)
    labels = np.where(tumour < 6, 3, 0)
    tissue = (brain & ~csf).astype(float)
    volumes = {"wm": tissue, "gm": 0 * tissue, "csf": csf.astype(float)}
    affine = np.diag([1.5, 1.5, 1.5, 1])
    volumes = {key: Volume(value, affine, kind="scalar") for key, value in volumes.items()}
    patient = Patient("p", Volume(labels, affine, kind="label"), CONVENTIONS["brats-2023"], volumes)
    density = Volume(np.exp(-tumour / 9), affine, kind="scalar")
    rule = PlanRule("x", "1", margin_mm=15.0, barriers=("brain-surface", "csf", "ventricles"))
    closed, entered = (
        plan(patient, density, rule=replace(rule, reach_mm=reach)).trimmed.data > 0
        for reach in ({}, {"ventricles": 5.0})
    )
    assert not (closed & csf).any()
    assert np.array_equal(entered & ~csf, closed)
    depth = (12 - away)[entered & csf]
    assert 3 < depth.max() < 5 + 1.5


def test_the_cavity_belongs_to_the_model_ctv_of_rules_that_count_it():
    content = arrays(1)
    empty = np.where(content["segmentation"] == 4, 0.0, content["density"])
    plans = planned(content | {"density": empty}, small("estro-eano-2023"))
    cavity = (content["segmentation"] == 4) & content["brain"]
    assert not (cavity & (plans.model.data == 0)).any()
    assert plans.gtv_ml["cavity"] == pytest.approx((content["segmentation"] == 4).sum() * 1.5e-3)
    assert not any("no cavity" in warning for warning in plans.warnings)
    benchmark = planned(content, small("benchmark-15mm"))
    assert any("cavity of" in warning for warning in benchmark.warnings)


def test_a_fit_sees_the_cavity_as_core_under_rules_that_count_it():
    patient, _, _ = make(arrays(1))
    patient = replace(patient, volumes={**patient.volumes, "pet": patient.volumes["wm"]})
    assert as_before_surgery(patient, get_rule("benchmark-15mm")) is patient
    seen = as_before_surgery(patient, get_rule("rtog"))
    assert np.array_equal(seen.enhancing, patient.core | patient.cavity)
    assert np.array_equal(seen.oedema, patient.oedema)
    assert seen.pet is None
    assert "PET is not used" in seen.warnings[-1]
    whole, _, _ = make(arrays(1, cavity=False))
    assert as_before_surgery(whole, get_rule("rtog")) is whole


def test_a_complete_resection_can_be_read_and_is_no_case_for_a_fit_by_itself(tmp_path):
    labels = np.where(radius((14, 17, 14)) < 5, 4, 0)
    content = arrays(0) | {"segmentation": labels}
    for name in ("segmentation", "wm", "gm", "csf", "brain"):
        kind = "label" if name in LABELS else "scalar"
        write_nifti(Volume(content[name], AFFINE, kind=kind), tmp_path / f"{name}.nii.gz")
    patient = load_patient(tmp_path, labels="brats-2024-post")
    assert not patient.tumour.any()
    with pytest.raises(LabelError, match="no tumour core"):
        set_up(patient, FitConfig(cells=12, device="cpu"))
    seen = as_before_surgery(patient, get_rule("estro-eano-2023"))
    assert bool(set_up(seen, FitConfig(cells=12, device="cpu")).core.any())


def test_what_a_rule_wants_and_the_patient_lacks_is_said():
    plans = planned(
        arrays(2, cavity=False), small("estro-eano-2023"), without=("barriers", "csf", "wm", "gm")
    )
    text = "\n".join(plans.warnings)
    for words in ("after surgery", "falx and tentorium", "no tissue maps", "brainstem, optic-nerves"):
        assert words in text


def test_a_rule_does_not_exclude_an_organ_that_is_invaded():
    content = arrays(2)
    rule = replace(small("estro-eano-2023"), exclude_organs=("chiasm", "stem"))
    free = planned(content, rule)
    assert set(free.organs_excluded) == {"chiasm", "stem"}
    content["chiasm"] = content["segmentation"] == 3
    invaded = planned(content, rule)
    assert invaded.organs_excluded == ("stem",)
    assert any("chiasm is not excluded" in warning for warning in invaded.warnings)
    # Who asks for it gets it, and is told the price.
    asked = planned(content, rule, exclude=("chiasm",))
    assert any("in excluded organs" in warning for warning in asked.warnings)
    assert not (asked.model.data.astype(bool) & content["chiasm"]).any()


def test_organs_are_checked():
    patient, density, organs = make(arrays())
    with pytest.raises(InputError, match="no mask"):
        plan(patient, density, organs=organs, exclude=("lens",))
    elsewhere = Volume(organs["stem"].data[1:], AFFINE, kind="label")
    with pytest.raises(GeometryError, match="stem"):
        plan(patient, density, organs={"stem": elsewhere})


def test_a_ptv_that_the_image_cuts_off_is_reported():
    content = {key: value[6:] for key, value in arrays(2).items()}
    plans = planned(content, small("eortc-2016"))
    assert any("PTV is cut off" in warning for warning in plans.warnings)


def test_a_phase_must_contain_the_one_to_the_full_dose():
    phase = Phase(gtv=("enhancing",), margin_mm=5.0)
    with pytest.raises(InputError, match="initial"):
        PlanRule("x", "1", gtv=("enhancing", "necrotic"), margin_mm=5.0, initial=phase)
    with pytest.raises(InputError, match="initial"):
        PlanRule("x", "1", gtv=("enhancing",), margin_mm=6.0, initial=phase)
