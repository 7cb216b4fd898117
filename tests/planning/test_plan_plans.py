"""The whole planning layer on a small patient: contract, files, warnings, errors, invariances."""

from __future__ import annotations

import html
import json
from dataclasses import replace

import meshio
import nibabel as nib
import numpy as np
import pytest

from gliodil.data.labels import CONVENTIONS
from gliodil.data.patient import Patient, load_patient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError, NumericsError
from gliodil.inference.result import Fit, LossHistory
from gliodil.planning import PlanRule, get_rule, plan

SHAPE = (48, 44, 36)
LPS = np.array([[-1.0, 0, 0, 20], [0, -1, 0, 30], [0, 0, 1.2, -15], [0, 0, 0, 1]])
AS_RANKED = {"smoothing_mm": 0.0, "min_island_mm3": 0.0, "min_hole_mm3": 0.0}
RULE = PlanRule("test-6mm", "1", margin_mm=6.0, **AS_RANKED)
FILES = {
    "gtv.nii.gz": np.uint8,
    "brain.nii.gz": np.uint8,
    "recurrence.nii.gz": None,
    "density.nii.gz": np.float32,
    "ctv_standard.nii.gz": np.uint8,
    "ctv_trimmed.nii.gz": np.uint8,
    "ctv_model.nii.gz": np.uint8,
    "margin.nii.gz": np.float32,
    "plan_difference.nii.gz": np.int8,
}
SURFACES = ("gtv.stl", "ctv_standard.stl", "ctv_model.stl", "ctv_model.vtu")


def _radius(centre, scale=(1.0, 1.0, 1.0)):
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    return np.linalg.norm((index - centre) * np.array(scale), axis=-1)


def _arrays(**changes):
    """An ellipsoid brain with a CSF slit beside a three-layer tumour, and a skewed, noisy density."""
    brain = _radius((24, 22, 18)) < 17
    brain |= _radius((24, 22, 18), (0.85, 0.9, 1.1)) < 17
    tumour = _radius((19, 20, 17))
    segmentation = np.select([tumour < 2, tumour < 4, tumour < 6], [1, 3, 2], 0)
    csf = np.zeros(SHAPE)
    csf[26:28, :26] = 0.9
    noise = np.random.default_rng(5).random(SHAPE)
    arrays = {
        "segmentation": segmentation,
        "brain": brain,
        "wm": np.where(brain, 1 - csf, 0) * 0.6,
        "gm": np.where(brain, 1 - csf, 0) * 0.4,
        "csf": np.where(brain, csf, 0),
        "density": np.exp(-_radius((20, 21, 18), (1.0, 0.8, 1.2)) / 4) * (0.9 + 0.1 * noise),
        "recurrence": np.where(_radius((26, 24, 18)) < 3, 3, 0),
    }
    return arrays | changes


def _patient(arrays, affine=LPS, convention="brats-2023"):
    labels = ("brain", "recurrence")
    volumes = {
        key: Volume(value, affine, kind="label" if key in labels else "scalar")
        for key, value in arrays.items()
        if key not in ("segmentation", "density") and value is not None
    }
    segmentation = Volume(arrays["segmentation"], affine, kind="label")
    return Patient("p1", segmentation, CONVENTIONS[convention], volumes)


def _plan(arrays, affine=LPS, rule=RULE):
    return plan(_patient(arrays, affine), Volume(arrays["density"], affine, kind="scalar"), rule=rule)


@pytest.fixture(scope="module")
def plans():
    return _plan(_arrays())


def test_model_has_exactly_the_standard_volume(plans):
    assert plans.equal_volume_voxel_difference == 0
    assert (
        plans.model.data.sum() == plans.standard.data.sum() > plans.trimmed.data.sum() > plans.gtv.data.sum()
    )
    assert plans.volumes_ml["ctv_model"] == plans.volumes_ml["ctv_standard"]
    assert plans.volumes_ml["gtv"] == pytest.approx(plans.gtv.data.sum() * 1.2e-3)


def test_model_is_the_densest_set_and_density_is_what_ranked_it(plans):
    u, model, brain = plans.density.data, plans.model.data > 0, _arrays()["brain"]
    assert u.dtype == np.float32
    assert u[model].min() >= u[~model & brain].max()


def test_difference_is_model_minus_standard(plans):
    standard, model = plans.standard.data > 0, plans.model.data > 0
    assert np.array_equal(plans.difference.data == 1, model & ~standard)
    assert np.array_equal(plans.difference.data == -1, standard & ~model)
    assert (plans.difference.data == 1).sum() == (plans.difference.data == -1).sum() > 0


def test_trimmed_stops_at_the_slit_of_csf(plans):
    standard, trimmed = plans.standard.data > 0, plans.trimmed.data > 0
    assert not (trimmed & ~standard).any()
    assert not trimmed[26:28, :26].any()
    assert (standard & ~trimmed)[28:].any()


def test_margin_is_in_millimetres_outside_the_gtv(plans):
    gtv, model = plans.gtv.data > 0, plans.model.data > 0
    outside = model & ~gtv
    assert (plans.margin.data[~outside] == 0).all()
    assert plans.margin.data[outside].min() == pytest.approx(1.0)
    assert plans.margin_mm["min"] < plans.margin_mm["mean"] < plans.margin_mm["max"]


def test_coverage_of_the_three_plans(plans):
    assert plans.coverage["enhancing"] == plans.coverage["any"]
    assert set(plans.coverage["any"]) == {"standard", "trimmed", "model"}
    assert 0 < plans.coverage["any"]["trimmed"] < plans.coverage["any"]["standard"] < 1


def test_metrics_are_plain_json(plans):
    content = [plans.volumes_ml, plans.margin_mm, plans.coverage, plans.equal_volume_voxel_difference]
    assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_saved_folder_holds_the_files_of_the_contract(plans, tmp_path):
    paths = plans.save(tmp_path / "out")
    written = {
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert written == {*FILES, *(f"surfaces/{name}" for name in SURFACES)}
    assert {p.relative_to(tmp_path / "out").as_posix() for p in paths} == written
    for name, dtype in FILES.items():
        image = nib.load(tmp_path / "out" / name)
        assert dtype is None or image.get_data_dtype() == dtype
        assert np.allclose(image.affine, LPS)
    assert np.array_equal(np.asarray(image.dataobj), plans.difference.data)
    mesh = meshio.read(tmp_path / "out" / "surfaces" / "ctv_model.vtu")
    margin = mesh.point_data["margin_mm"]
    assert margin.shape == (len(mesh.points),)
    assert 0 <= margin.min() < margin.max() < plans.margin_mm["max"] + 2


def test_surfaces_lie_where_the_volumes_do(plans, tmp_path):
    plans.save(tmp_path)
    mesh = meshio.read(tmp_path / "surfaces" / "gtv.stl")
    centre = LPS @ [19, 20, 17, 1]
    assert mesh.points.mean(axis=0) == pytest.approx(centre[:3], abs=0.2)


def test_repr_says_what_matters(plans):
    assert "test-6mm" in repr(plans)
    assert f"{plans.volumes_ml['gtv']:.1f} mL" in repr(plans)
    page = plans._repr_html_()
    assert "trimmed CTV" in page
    assert "covers any recurrence" in page
    gained = np.count_nonzero(plans.difference.data == 1) * plans.difference.voxel_volume_ml
    assert f"{gained:.1f} mL gained" in page
    assert f"left {plans.margin_mm['left']:.0f} mm" in page
    assert "Research use only" in page
    assert all(html.escape(warning) in page for warning in plans.warnings)
    assert page.count("data:image/png;base64,") == 1


def test_a_fit_is_as_good_as_its_density(plans):
    arrays = _arrays()
    fit = Fit(
        density=Volume(arrays["density"], LPS, kind="scalar"),
        parameters={},
        status="converged",
        message="",
        loss_total=0.0,
        loss_terms={},
        evaluations=1,
        history=LossHistory((1,), (0.0,), (0.0,), ("full",)),
        method="odil",
        optimizer="none",
        grid_shape=(1, 1, 1),
        steps=1,
        spacing_mm=(1.0, 1.0, 1.0),
        device="cpu",
        dtype="float64",
        wall_s=0.0,
    )
    assert np.array_equal(plan(_patient(arrays), fit, rule=RULE, rank="density").model.data, plans.model.data)


def test_default_rule_is_the_benchmark():
    arrays = _arrays()
    density = Volume(arrays["density"], LPS, kind="scalar")
    assert plan(_patient(arrays), density).rule == get_rule("benchmark-15mm")


def test_density_on_another_grid_is_resampled_with_a_warning(plans):
    affine = LPS.copy()
    affine[:3, 3] -= LPS[:3, :3] @ [2, 2, 2]
    density = Volume(np.pad(_arrays()["density"], 2), affine, kind="scalar")
    shifted = plan(_patient(_arrays()), density, rule=RULE)
    assert any("resampled" in warning for warning in shifted.warnings)
    assert np.array_equal(shifted.model.data, plans.model.data)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flipping_data_and_affine_together_gives_the_same_world(plans, axis):
    arrays = {key: np.flip(value, axis) for key, value in _arrays().items()}
    flip = np.eye(4)
    flip[axis, axis], flip[axis, 3] = -1, SHAPE[axis] - 1
    flipped = _plan(arrays, LPS @ flip)
    for name in ("gtv", "standard", "trimmed", "model", "margin", "difference"):
        here, there = getattr(plans, name).data, getattr(flipped, name).data
        assert np.array_equal(np.flip(there, axis), here), name
    assert flipped.coverage == plans.coverage
    assert flipped.margin_mm == pytest.approx(plans.margin_mm, abs=0.3)


def test_mirror_image_of_a_patient_has_the_mirror_image_of_the_plans(plans):
    mirrored = _plan({key: np.flip(value, 0) for key, value in _arrays().items()})
    for name in ("standard", "trimmed", "model", "difference"):
        assert np.array_equal(np.flip(getattr(mirrored, name).data, 0), getattr(plans, name).data), name
    assert mirrored.margin_mm["left"] == pytest.approx(plans.margin_mm["right"], abs=0.3)
    assert mirrored.margin_mm["superior"] == pytest.approx(plans.margin_mm["superior"], abs=0.3)


def test_good_input_gives_no_warning(plans):
    assert plans.warnings == ()


def test_gtv_outside_the_brain_is_reported():
    arrays = _arrays()
    brain = arrays["brain"] & (np.arange(SHAPE[0]) > 17)[:, None, None]
    found = _plan(arrays | {"brain": brain})
    assert any("outside the brain" in warning and "mL" in warning for warning in found.warnings)
    assert not (found.standard.data > brain).any()


def test_density_without_cells_is_filled_up_by_distance_and_reported():
    arrays = _arrays(density=np.where(_radius((19, 20, 17)) < 5, 0.8, 0.0))
    found = _plan(arrays)
    assert any("no predicted cell" in warning for warning in found.warnings)
    # Equal density everywhere outside: the nearest voxels win, which is the standard plan but for rounding.
    assert (found.difference.data != 0).mean() < 0.01


def test_gtv_left_out_by_the_model_is_reported():
    far = np.exp(-_radius((34, 24, 18)) / 5)
    assert any("leaves out" in warning for warning in _plan(_arrays(density=far)).warnings)


def test_without_tissue_maps_the_trimmed_plan_says_so():
    found = _plan(_arrays(wm=None, gm=None, csf=None))
    assert any("no tissue maps" in warning for warning in found.warnings)
    assert np.array_equal(found.trimmed.data, found.standard.data)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.2])
def test_density_must_be_a_fraction(value):
    density = _arrays()["density"].copy()
    density[20, 20, 20] = value
    with pytest.raises(NumericsError, match="p1"):
        _plan(_arrays(density=density))


def test_rounding_beyond_the_range_is_cut_off():
    density = _arrays()["density"].copy()
    density[19, 20, 17], density[0, 0, 0] = 1.00005, -0.00005
    saved = _plan(_arrays(density=density)).density.data
    assert (saved.min(), saved.max()) == (0.0, 1.0)


def test_no_core_is_one_clear_error():
    oedema_only = np.where(_arrays()["segmentation"] > 0, 2, 0)
    with pytest.raises(LabelError, match="no visible tumour") as caught:
        _plan(_arrays(segmentation=oedema_only))
    assert caught.value.patient == "p1"


def test_sheared_affine_is_refused():
    sheared = LPS.copy()
    sheared[0, 2] = 0.4
    with pytest.raises(GeometryError, match="perpendicular"):
        _plan(_arrays(), sheared)


def test_unknown_rule_is_refused():
    with pytest.raises(InputError, match="no plan rule"):
        _plan(_arrays(), rule="nope")


@pytest.mark.slow
def test_published_patient(shared_data):
    folder = shared_data / "gliodil_001"
    tissue = {name: shared_data / "sri24" / f"{name}.nii.gz" for name in ("wm", "gm", "csf")}
    files = {"seg": "segm", "brain": "brainMask", "recurrence": "segm_rec"}
    files = tissue | {key: folder / f"{name}.nii.gz" for key, name in files.items()}
    patient = load_patient(files=files, labels="gliodil", identity="001")
    published = np.asarray(nib.load(folder / "recurrencePrediction.nii.gz").dataobj) > 0
    density = Volume(published.astype(np.float32), patient.affine, kind="scalar")
    found = plan(patient, density, rule=replace(get_rule("benchmark-15mm"), **AS_RANKED))
    standard = np.asarray(nib.load(folder / "standardPlan.nii.gz").dataobj) > 0
    assert np.array_equal(found.standard.data > 0, standard)
    assert found.model.data.sum() == 350_794
    # The published model plan has 350,783 voxels; equal volume adds the nearest eleven.
    assert published.sum() == 350_783
    assert not (published & (found.model.data == 0)).any()
    assert 0.8 < found.volumes_ml["ctv_trimmed"] / found.volumes_ml["ctv_standard"] < 0.95


def test_a_rule_cleans_the_model_ctv_alone_and_at_its_volume():
    ranked, cleaned = (
        _plan(_arrays(), rule=replace(RULE, smoothing_mm=mm, min_island_mm3=mm * 50, min_hole_mm3=mm * 50))
        for mm in (0.0, 1.5)
    )
    assert np.array_equal(ranked.standard.data, cleaned.standard.data)
    assert np.array_equal(ranked.trimmed.data, cleaned.trimmed.data)
    assert not np.array_equal(ranked.model.data, cleaned.model.data)
    assert cleaned.equal_volume_voxel_difference == 0
    assert cleaned.ctv_end == ranked.ctv_end
    assert cleaned.contours["as_ranked"] == ranked.contours["model"]
    assert cleaned.contours["model"]["smallest_island_mm3"] >= 75
    assert cleaned.contours["model"]["holes"] <= ranked.contours["model"]["holes"]
    assert 0 <= ranked.last_density["low"] <= ranked.last_density["high"] < 1
