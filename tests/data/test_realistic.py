"""Realistic synthetic patients: what is distorted, by how much, and that it is recorded. Coarse, to be quick."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gliodil.data import load_patient
from gliodil.data.distort import carried, mass_effect, shifted, signed_distance, smooth_field
from gliodil.data.growth import Rates, grow
from gliodil.data.imperfect import Compartments, compartments, front_coordinate, labelled
from gliodil.data.realism import LABEL_SETS, REALISM, Realism
from gliodil.data.realistic import simulate_realistic
from gliodil.data.synthetic import UNITS, SyntheticPatient, simulate, simulate_in
from gliodil.data.synthetic_patient import DISTORTIONS
from gliodil.data.template import Anatomy, load_anatomy

if find_spec("nilearn") is None:
    pytest.skip("needs the anatomy in the wheel of nilearn", allow_module_level=True)

COARSE = 6.0
ONE = (1.0, 1.0, 1.0)
NOT_RECORDED = {"threshold_necrotic", "threshold_oedema"}  # rims and oedema have widths instead


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy(resolution_mm=COARSE)


@pytest.fixture(scope="module")
def made(anatomy: Anatomy) -> SyntheticPatient:
    return simulate_in(anatomy, seed=100, realistic=True)


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"))
    return np.asarray((index**2).sum(axis=0) < radius**2)


def test_smooth_fields_have_their_size_and_width() -> None:
    field = smooth_field(np.random.default_rng(0), (60, 60, 60), ONE, 8.0)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, rel=1e-4)
    # White noise blurred by a Gaussian of width f correlates as a Gaussian of width √2 f.
    at = (field[:-8] * field[8:]).mean()
    assert at == pytest.approx(2 ** (-2 * (2 * 8 / (np.sqrt(2) * 8)) ** 2 / 2), abs=0.1)


def test_an_image_is_carried_by_millimetres() -> None:
    image = np.arange(20, dtype=np.float32)[:, None, None] * np.ones((1, 5, 5), np.float32)
    displacement = np.zeros((3, 20, 5, 5), np.float32)
    displacement[0] = 3.0
    moved = carried(image, displacement, (2.0, 1.0, 1.0))
    np.testing.assert_allclose(moved[:18], image[:18] + 1.5, atol=1e-5)


def test_boundaries_move_by_millimetres() -> None:
    mask = ball((41, 41, 41), 10.0)
    for shift in (-3.0, 0.0, 2.0):
        moved = shifted(mask, np.full(mask.shape, shift, np.float32), ONE)
        radius = (3 * np.count_nonzero(moved) / (4 * np.pi)) ** (1 / 3)
        assert radius == pytest.approx(10 + shift, abs=0.4)
    np.testing.assert_array_equal(shifted(mask, np.zeros(mask.shape, np.float32), ONE), mask)
    assert not shifted(np.zeros_like(mask), np.ones(mask.shape, np.float32), ONE).any()
    assert signed_distance(mask, ONE)[20, 20, 20] < -9


def test_mass_effect_pushes_outwards_and_stops_at_the_skull() -> None:
    core, brain = ball((61, 61, 61), 8.0), ball((61, 61, 61), 28.0)
    source = mass_effect(core, brain, 4.0, ONE)
    # What is seen 10 mm from the centre came from nearer to it.
    assert source[0][40, 30, 30] == pytest.approx(-4 * np.exp(-0.5 * (2 / 8) ** 2), rel=0.05)
    assert source[0][20, 30, 30] == pytest.approx(-source[0][40, 30, 30], rel=1e-4)
    assert np.abs(source[:, ~brain]).max() == 0
    assert np.linalg.norm(source, axis=0).max() <= 4


def test_oedema_follows_white_matter_and_rims_have_a_width() -> None:
    z = np.abs(np.arange(61) - 30).astype(np.float32) - 12  # a front 12 mm from the middle plane
    u = (1 + np.exp(z / np.float32(np.sqrt(6)))) ** -2
    density = np.broadcast_to(u[:, None, None], (61, 40, 40)).astype(np.float32)
    np.testing.assert_allclose(front_coordinate(density, 1.0)[:, 0, 0], z, atol=1e-2)
    white = np.zeros(density.shape, np.float32)
    white[:, :20] = 1
    plain = Realism(oedema_log_sd=0, rim_log_sd=0, boundary_mm=0)
    seen = compartments(
        density,
        white,
        1 - white,
        np.ones(density.shape, bool),
        threshold=0.26,
        length_mm=1.0,
        oedema_mm=9.9,
        rim_mm=3.0,
        spacing=ONE,
        realism=plain,
        rng=np.random.default_rng(0),
    )
    width = seen.visible.sum(axis=0)[:, 10] - seen.core.sum(axis=0)[:, 10]
    assert width[5] == pytest.approx(20, abs=1)
    assert width[35] == pytest.approx(20 * plain.oedema_in_grey, abs=1)
    middle = seen.necrosis[:, 20, 20].sum()
    assert seen.core[:, 20, 20].sum() - middle == pytest.approx(6, abs=1)


@pytest.mark.parametrize("name", sorted(set(LABEL_SETS)))
def test_label_sets(name: str) -> None:
    visible, core, necrosis = (ball((31, 31, 31), r) for r in (14.0, 9.0, 5.0))
    labels = labelled(Compartments(visible, core, necrosis), name)
    expected = {
        "complete": {1: necrosis, 2: visible & ~core, 3: core & ~necrosis},
        "no oedema": {1: necrosis, 3: core & ~necrosis},
        "hollow rim": {3: core & ~necrosis},
        "core alone": {3: core},
        "no enhancement": {1: core, 2: visible & ~core},
    }[name]
    assert set(np.unique(labels)) == {0, *expected}
    for label, mask in expected.items():
        np.testing.assert_array_equal(labels == label, mask)


def test_what_is_distorted_is_recorded(made: SyntheticPatient) -> None:
    p = made.parameters
    assert set(p) == set(UNITS | DISTORTIONS) - NOT_RECORDED
    assert p["label_set"] == LABEL_SETS[100 % len(LABEL_SETS)]
    assert REALISM.wm_gm_ratio[0] <= p["wm_gm_ratio"] <= REALISM.wm_gm_ratio[1]
    assert REALISM.csf_speed[0] <= p["csf_speed"] <= REALISM.csf_speed[1]
    # Three axes of one standard deviation each, seen over a part of the head.
    assert 0.3 < p["registration_error_mm"] / (REALISM.registration_mm * 3**0.5) < 2
    low, high = REALISM.core_ml
    assert 0.7 * low <= made.volumes_ml["core"] <= 1.4 * high
    assert made.settings["realistic"] is True
    assert len(p["origins_mm"]) == len(p["origin_delays_days"]) == made.settings["foci"]


def test_maps_are_off_and_the_density_is_one(made: SyntheticPatient, anatomy: Anatomy) -> None:
    brain, volumes = made.patient.brain, made.patient.volumes
    total = sum(volumes[role].data for role in ("wm", "gm", "csf"))
    np.testing.assert_allclose(total[brain], 1, atol=1e-5)
    assert not total[~brain].any()
    off = np.abs(volumes["wm"].data - anatomy.wm.data)[brain].mean()
    assert off > 0.03
    u = made.truth.data
    assert u.dtype == np.float32
    assert u.min() >= 0
    assert 0.9 < u.max() <= 1
    assert not u[~brain].any()
    # CSF is slow, not closed.
    assert u[(anatomy.csf.data > 0.9) & ndimage.binary_dilation(made.patient.tumour, iterations=2)].max() > 0


def test_oedema_is_no_isodensity_and_later_tumour_overlaps_the_core(made: SyntheticPatient) -> None:
    patient, u = made.patient, made.truth.data
    assert patient.oedema.any()
    outside = patient.brain & ~patient.tumour
    assert u[patient.oedema].min() < 0.1 * u[outside].max()
    recurrence = patient.recurrence
    assert recurrence is not None
    later = recurrence.data > 0
    assert set(np.unique(recurrence.data)) == {0, 3}
    assert (later & patient.core).any()
    assert (later & ~patient.core).any()
    assert not later[~patient.brain].any()


def test_growth_is_uneven(anatomy: Anatomy) -> None:
    even = Realism(diffusion_log_sd=0, proliferation_log_sd=0)
    plain = simulate_realistic(anatomy, seed=3, realism=even).truth.data
    uneven = simulate_realistic(anatomy, seed=3).truth.data
    assert np.linalg.norm(plain - uneven) > 0.1 * np.linalg.norm(plain)


def test_equal_seeds_give_equal_files(made: SyntheticPatient, tmp_path: Path) -> None:
    stages = set()
    again = simulate(
        seed=100, realistic=True, resolution_mm=COARSE, progress=lambda stage, day, ml: stages.add(stage)
    )
    assert stages == {"growth", "recurrence"}
    first, second = made.save(tmp_path / "a"), again.save(tmp_path / "b")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    record = json.loads((first / "truth.json").read_text(encoding="utf-8"))
    assert record["parameters"] == made.parameters
    assert record["units"].keys() == record["parameters"].keys()
    patient = load_patient(first, labels="brats-2023")
    np.testing.assert_array_equal(patient.core, made.patient.core)


def test_a_factor_on_proliferation_is_that_proliferation() -> None:
    tissue, start = np.ones((24, 24, 24), np.float32), np.zeros((24, 24, 24), np.float32)
    start[10:14, 10:14, 10:14] = 0.5

    def grown(rho: float, factor: float) -> np.ndarray:
        return grow(
            start,
            tissue,
            0 * tissue,
            spacing=ONE,
            rates=Rates(0.1, rho, 3.0),
            days=8,
            level=0.3,
            limit_ml=100,
            proliferation=np.full(tissue.shape, factor, np.float32),
        )[0]

    np.testing.assert_allclose(grown(0.05, 2.0), grown(0.1, 1.0), atol=1e-6)
    assert np.abs(grown(0.05, 2.0) - grown(0.05, 1.0)).max() > 0.05


def test_foci_can_be_asked_for(anatomy: Anatomy) -> None:
    assert len(simulate_in(anatomy, seed=1, foci=3, realistic=True).parameters["origins_mm"]) == 3
