"""Synthetic patients: anatomy, growth, images, recurrence, files. Coarse, to be quick."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from gliodil.data import Volume, load_patient
from gliodil.data.draw import draw_tumour, objection
from gliodil.data.growth import FLOOR, Rates, grow, seed_density
from gliodil.data.observe import Thresholds, fet_pet, segment
from gliodil.data.synthetic import UNITS, SyntheticPatient, simulate, simulate_in
from gliodil.data.template import Anatomy, load_anatomy
from gliodil.errors import InputError, MissingExtraError, OutputError

if find_spec("nilearn") is None:
    pytest.skip("needs the anatomy in the wheel of nilearn", allow_module_level=True)

COARSE = 4.0
RANGES = {
    "diffusivity_wm_mm2_per_day": (0.035, 0.2),
    "proliferation_rate_per_day": (0.035, 0.2),
    "wm_gm_ratio": (10, 30),
    "threshold_necrotic": (0.70, 0.85),
    "threshold_core": (0.45, 0.60),
    "threshold_oedema": (0.15, 0.35),
    "pet_scale": (0.5, 1.02),
    "pet_background": (0, 0.5),
    "duration_days": (100, 100),
    "recurrence_days": (1, 200),
}


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy(resolution_mm=COARSE)


@pytest.fixture(scope="module", params=[(1, 0), (1, 7), (3, 0)], ids=["seed 0", "seed 7", "three foci"])
def made(request: pytest.FixtureRequest, anatomy: Anatomy) -> SyntheticPatient:
    foci, seed = request.param
    return simulate_in(anatomy, foci=foci, seed=seed)


def impassable(made: SyntheticPatient) -> np.ndarray:
    volumes = made.patient.volumes
    return volumes["wm"].data + volumes["gm"].data < 0.1


def test_anatomy_is_a_head(anatomy: Anatomy) -> None:
    brain = anatomy.brain.data > 0
    assert 1200 < brain.sum() * anatomy.brain.voxel_volume_ml < 2000
    total = anatomy.wm.data + anatomy.gm.data + anatomy.csf.data
    np.testing.assert_allclose(total[brain], 1, atol=1e-6)
    assert not total[~brain].any()
    below = anatomy.infratentorial()
    # World positions (mm): ventricle, deep white matter, caudate/thalamus, cerebellum, outside the head.
    places = {"csf": (-6, 8, 14), "wm": (-26, -10, 30), "gm": (-10, -20, 8)}
    for tissue, place in places.items():
        index = tuple(np.rint(anatomy.brain.to_index(place)).astype(int))
        shares = {name: float(getattr(anatomy, name).data[index]) for name in ("wm", "gm", "csf")}
        assert max(shares, key=lambda name: shares[name]) == tissue
        assert brain[index]
        assert not below[index]
    assert below[tuple(np.rint(anatomy.brain.to_index((25, -60, -40))).astype(int))]


def test_coarse_anatomy_keeps_volumes_and_places(anatomy: Anatomy) -> None:
    fine = load_anatomy(resolution_mm=1)
    assert fine.brain.shape == (197, 233, 189)
    for name in ("wm", "gm", "csf", "brain"):
        a, b = getattr(fine, name), getattr(anatomy, name)
        volumes = [v.data.sum(dtype=np.float64) * v.voxel_volume_ml for v in (a, b)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.08)
        centres = [v.to_world(np.argwhere(v.data > 0.5).mean(axis=0)) for v in (a, b)]
        np.testing.assert_allclose(centres[1], centres[0], atol=1.5)
    wm = fine.wm.resample_to(anatomy.wm).data
    assert np.corrcoef(wm.ravel(), anatomy.wm.data.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("size", [0, 0.5, 1.5, 9, math.inf, math.nan])
def test_other_resolutions_are_refused(size: float) -> None:
    with pytest.raises(InputError, match="resolution"):
        load_anatomy(resolution_mm=size)


def test_without_nilearn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliodil.data.template.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="nilearn"):
        load_anatomy()


def test_growth_in_a_moving_box_is_growth_in_the_whole_head(anatomy: Anatomy) -> None:
    import torch

    from gliodil.pde.grid import Grid
    from gliodil.pde.integrate import integrate
    from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov

    wm, gm, spacing = anatomy.wm.data, anatomy.gm.data, anatomy.wm.spacing
    seed = seed_density(anatomy.wm, anatomy.gm, [(-28, -12, 32)])
    rates = Rates(0.15, 0.12, 20.0)
    boxed, days = grow(seed, wm, gm, spacing=spacing, rates=rates, days=30, level=0.3, limit_ml=1e9)
    grid = Grid(wm.shape, spacing, dtype=torch.float64)
    model = FisherKolmogorov.on(grid, wm.copy(), gm.copy())
    whole = integrate(
        model,
        grid.field(seed.copy()),
        diffusivity=rates.diffusivity,
        proliferation_rate=rates.proliferation,
        wm_gm_ratio=rates.wm_gm_ratio,
        duration=30,
        steps=30,
    )
    assert days == 30
    np.testing.assert_allclose(boxed, grid.box(whole).numpy(), atol=20 * FLOOR)


def test_growth_stops_at_the_first_day_at_the_limit(anatomy: Anatomy) -> None:
    seed = seed_density(anatomy.wm, anatomy.gm, [(-28, -12, 32)])
    seen: list[tuple[int, float]] = []
    density, days = grow(
        seed,
        anatomy.wm.data,
        anatomy.gm.data,
        spacing=anatomy.wm.spacing,
        rates=Rates(0.15, 0.15, 20.0),
        days=100,
        level=0.3,
        limit_ml=8,
        on_day=lambda day, volume: seen.append((day, volume)),
    )
    assert [day for day, _ in seen] == list(range(1, days + 1))
    assert all(volume < 8 for _, volume in seen[:-1])
    assert seen[-1][1] == pytest.approx((density > 0.3).sum() * anatomy.wm.voxel_volume_ml)
    assert 8 <= seen[-1][1] < 12


def test_seeds_add_up_to_at_most_one_and_avoid_csf(anatomy: Anatomy) -> None:
    place, ventricle = (-28.0, -12.0, 32.0), (-6.0, 8.0, 14.0)
    once, thrice = (seed_density(anatomy.wm, anatomy.gm, [place] * n) for n in (1, 3))
    np.testing.assert_allclose(thrice, np.minimum(3 * once, 1), atol=1e-6)
    beside = seed_density(anatomy.wm, anatomy.gm, [ventricle])
    assert beside.any()
    assert not beside[anatomy.wm.data + anatomy.gm.data < 0.1].any()


def test_drawn_foci_keep_their_distances() -> None:
    everywhere = Volume(np.ones((50, 60, 50), np.uint8), np.diag([4.0, 4, 4, 1]), kind="label")
    affine = everywhere.affine.copy()
    affine[:3, 3] = (-98, -120, -90)
    allowed = Volume(everywhere.data, affine, kind="label")
    for seed in range(20):
        origins = np.array(draw_tumour(np.random.default_rng(seed), allowed, 3).origins)
        gaps = [np.linalg.norm(a - b) for a, b in combinations(origins, 2)]
        assert min(gaps) >= 15
        assert max(gaps) <= 40
        assert len(set(np.sign(origins[:, 0]))) == 1
        assert (np.abs(origins[:, 0]) >= 10).all()


def test_objections() -> None:
    thresholds = Thresholds(0.8, 0.5, 0.25)
    density, nowhere = np.zeros((20, 20, 20), np.float32), np.zeros((20, 20, 20), bool)
    density[:10, :10, :4], density[:10, :10, 4:10] = 0.9, 0.4  # 40 mL of core and 60 mL of oedema at 0.1 mL
    assert objection(density, thresholds, nowhere, 0.1) is None
    assert "mL are visible" in str(objection(density, thresholds, nowhere, 0.01))
    assert "mL are visible" in str(objection(density, thresholds, nowhere, 0.3))
    assert "core" in str(objection(np.minimum(density, np.float32(0.4)), thresholds, nowhere, 0.1))
    assert "tentorium" in str(objection(density, thresholds, ~nowhere, 0.1))


def test_pet_of_a_wide_front_is_affine_in_the_density() -> None:
    x = np.arange(64.0)
    front = np.broadcast_to((1 / (1 + np.exp((x - 32) / 6)))[:, None, None], (64, 48, 48)).astype(np.float32)
    brain = np.ones(front.shape, bool)
    brain[:, :2] = False
    thresholds = Thresholds(0.8, 0.55, 0.25)
    uptake = fet_pet(front, brain, thresholds, spacing=(1.0, 1.0, 1.0), rng=np.random.default_rng(1))
    assert uptake.image.max() == pytest.approx(1)
    assert uptake.image.min() >= 0
    assert not uptake.image[~brain].any()
    # Away from the array's faces, where the blur mixes in the air.
    inner = (slice(8, 56), slice(8, 40), slice(8, 40))
    lively = (front[inner] < 0.5) & (front[inner] > 0.15)
    back = uptake.scale * (uptake.image[inner] - uptake.background)
    assert (back - front[inner])[lively].mean() == pytest.approx(0, abs=0.03)
    assert (back - front[inner])[lively].std() < 0.08


def test_truth_is_a_density_in_tissue(made: SyntheticPatient) -> None:
    truth = made.truth.data
    assert truth.dtype == np.float32
    assert truth.min() >= 0
    assert truth.max() <= 1
    assert not truth[impassable(made)].any()
    assert not truth[~made.patient.brain].any()
    border = np.ones(truth.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert truth[border].max() < 1e-3


def test_labels_follow_the_thresholds_and_are_nested(made: SyntheticPatient) -> None:
    p, patient, u = made.parameters, made.patient, made.truth.data
    assert patient.convention.name == "brats-2023"
    np.testing.assert_array_equal(patient.necrotic, u > p["threshold_necrotic"])
    np.testing.assert_array_equal(patient.core, u > p["threshold_core"])
    np.testing.assert_array_equal(patient.tumour, u > p["threshold_oedema"])
    assert patient.necrotic.any()
    assert patient.enhancing.any()
    assert patient.oedema.any()
    np.testing.assert_array_equal(
        segment(u, Thresholds(p["threshold_necrotic"], p["threshold_core"], p["threshold_oedema"])),
        patient.segmentation.data,
    )


def test_parameters_and_volumes_are_in_range(made: SyntheticPatient) -> None:
    p = made.parameters
    for key, (low, high) in RANGES.items():
        assert low <= p[key] <= high, key
    assert set(p) == set(UNITS)
    length = math.sqrt(p["diffusivity_wm_mm2_per_day"] / p["proliferation_rate_per_day"])
    assert p["infiltration_length_mm"] == pytest.approx(length)
    assert len(p["origins_mm"]) == made.settings["foci"]
    for origin in p["origins_mm"]:
        assert made.truth.data[tuple(np.rint(made.truth.to_index(origin)).astype(int))] > 0.5
    ml = made.volumes_ml
    assert 15 <= ml["visible"] <= 200
    assert ml["core"] >= 3
    assert ml["visible"] == pytest.approx(made.patient.tumour.sum() * made.truth.voxel_volume_ml)
    assert 5 <= ml["recurrence_enhancing"] < 20 or p["recurrence_days"] == 200


def test_recurrence_lies_outside_the_cavity(made: SyntheticPatient) -> None:
    patient = made.patient
    assert patient.recurrence is not None
    labels = patient.recurrence.data
    assert set(np.unique(labels)) == {0, 2, 3}
    assert not labels[patient.core].any()
    assert not labels[impassable(made)].any()
    assert labels[patient.oedema].any()


def test_pet_follows_the_tumour(made: SyntheticPatient) -> None:
    patient = made.patient
    assert patient.pet is not None
    uptake = patient.pet.data
    assert uptake.min() >= 0
    assert not uptake[~patient.brain].any()
    visible = patient.enhancing | patient.oedema
    away = patient.brain & (made.truth.data < 0.01)
    assert uptake[visible].mean() > 3 * uptake[away].mean()
    assert np.corrcoef(uptake[patient.brain], made.truth.data[patient.brain])[0, 1] > 0.8


def test_growth_is_the_same_on_one_thread_and_on_two() -> None:
    import torch

    tissue = np.random.default_rng(0).random((48, 48, 48), np.float32)
    start = np.zeros(tissue.shape, np.float32)
    start[20:28, 20:28, 20:28] = 0.8
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(
                grow(
                    start,
                    tissue,
                    1 - tissue,
                    spacing=(1.0, 1.0, 1.0),
                    rates=Rates(0.2, 0.2, 10.0),
                    days=7,
                    level=0.3,
                    limit_ml=100,
                )[0]
            )
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*found)


def test_same_seed_same_bytes_and_other_seed_other_patient(anatomy: Anatomy, tmp_path: Path) -> None:
    first = simulate_in(anatomy, seed=1).save(tmp_path / "a")
    days: list[tuple[str, int]] = []
    again = simulate(
        seed=1, resolution_mm=COARSE, progress=lambda stage, day, volume: days.append((stage, day))
    )
    second = again.save(tmp_path / "b")
    assert ("growth", 100) in days
    assert ("recurrence", 1) in days
    names = {path.name for path in first.iterdir()}
    roles = ("seg", "wm", "gm", "csf", "brain", "t1", "pet", "recurrence", "barriers", "truth_density")
    assert names == {*(f"{role}.nii.gz" for role in roles), "truth.json", "manifest.json"}
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert simulate_in(anatomy, seed=2).parameters["origins_mm"] != again.parameters["origins_mm"]


def test_saved_folder_reads_back(made: SyntheticPatient, tmp_path: Path) -> None:
    folder = made.save(tmp_path / "patient")
    patient = load_patient(folder, labels="brats-2023")
    assert patient.warnings == ()
    assert set(patient.volumes) == {*made.patient.volumes, "truth"}
    for part in ("necrotic", "enhancing", "oedema", "brain"):
        np.testing.assert_array_equal(getattr(patient, part), getattr(made.patient, part))
    for role in ("wm", "gm", "csf", "pet", "recurrence"):
        np.testing.assert_array_equal(patient.volumes[role].data, made.patient.volumes[role].data)
    np.testing.assert_array_equal(patient.volumes["truth"].data, made.truth.data)
    assert patient.segmentation.same_grid(made.truth)
    record = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert record["parameters"] == made.parameters
    assert record["settings"] == made.settings
    assert record["volumes_ml"] == made.volumes_ml
    assert record["units"].keys() == record["parameters"].keys()


def test_an_unwritable_folder_is_one_clear_error(made: SyntheticPatient, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        made.save(tmp_path / "file" / "patient")


@pytest.mark.parametrize("options", [{"foci": 0}, {"foci": 2}, {"seed": -1}, {"resolution_mm": 2.5}])
def test_bad_arguments(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        simulate(**options)
