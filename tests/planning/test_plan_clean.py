"""Clean targets: specks and pin-holes go, volume and what must stay do not."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.planning.clean import Cleaning, clean_ctv, cleanliness, last_density
from gliodil.planning.ctv import model_ctv

SHAPE = (28, 28, 24)
SPACING = (1.0, 1.0, 2.0)
VOXEL_MM3 = 2.0


def _radius(centre: tuple[float, float, float] = (14, 14, 12)) -> np.ndarray:
    index = np.indices(SHAPE).astype(float)
    return np.sqrt(sum(((i - c) * h) ** 2 for i, c, h in zip(index, centre, SPACING, strict=True)))


@pytest.fixture
def ragged() -> dict[str, np.ndarray]:
    """A ball whose ranking is noisy: its cut has islands and holes."""
    distance = _radius()
    noise = np.random.default_rng(3).normal(0, 2.5, SHAPE)
    return {"order": -(distance + noise), "brain": distance < 13, "distance": distance}


def _cut(given: dict[str, np.ndarray], voxels: int = 900, **options: object) -> np.ndarray:
    cleaning = Cleaning(**options)  # type: ignore[arg-type]
    return clean_ctv(**given, voxels=voxels, spacing=SPACING, cleaning=cleaning)


def test_without_cleaning_the_ranking_cuts(ragged: dict[str, np.ndarray]) -> None:
    plain = model_ctv(ragged["order"], ragged["brain"], ragged["distance"], 900)
    assert np.array_equal(_cut(ragged), plain)
    found = cleanliness(plain, ragged["brain"], SPACING)
    assert found.islands > 20
    assert found.holes > 10
    assert found.smallest_island_mm3 == found.smallest_hole_mm3 == VOXEL_MM3


@pytest.mark.parametrize("voxels", [1, 500, 900])
@pytest.mark.parametrize(
    "options",
    [
        {"smoothing_mm": 1.5},
        {"min_island_mm3": 50.0, "min_hole_mm3": 50.0},
        {"smoothing_mm": 1.0, "min_island_mm3": 100.0, "min_hole_mm3": 100.0},
    ],
)
def test_volume_is_exact_and_stays_in_the_brain(
    ragged: dict[str, np.ndarray], voxels: int, options: dict[str, float]
) -> None:
    clean = _cut(ragged, voxels, **options)
    assert np.count_nonzero(clean) == voxels
    assert not (clean & ~ragged["brain"]).any()


def test_small_islands_and_holes_go(ragged: dict[str, np.ndarray]) -> None:
    clean = _cut(ragged, min_island_mm3=60.0, min_hole_mm3=40.0)
    found = cleanliness(clean, ragged["brain"], SPACING)
    assert found.smallest_island_mm3 is not None
    assert found.smallest_island_mm3 >= 60
    assert found.smallest_hole_mm3 is None or found.smallest_hole_mm3 >= 40


def test_islands_and_holes_of_the_stated_size_stay() -> None:
    order = -_radius()
    order[14, 14, 12] = -5000.0  # a hole of one voxel, 2 mm³
    order[1, 14, 11:13] = 1000.0  # an island of two, 4 mm³
    given = {"order": order, "brain": np.ones(SHAPE, bool), "distance": _radius()}
    both = _cut(given, min_island_mm3=4.0, min_hole_mm3=2.0)
    assert both[1, 14, 11:13].all()
    assert not both[14, 14, 12]
    neither = _cut(given, min_island_mm3=4.1, min_hole_mm3=2.1)
    assert not neither[1, 14, 11:13].any()
    assert neither[14, 14, 12]


def test_what_must_stay_stays(ragged: dict[str, np.ndarray]) -> None:
    keep = np.zeros(SHAPE, bool)
    keep[14, 26, 12] = True  # 12 mm off: an island of its own
    order = np.where(keep, 100.0, ragged["order"])
    cleaning = Cleaning(2.0, 500.0, 500.0)
    rest = {"brain": ragged["brain"], "distance": ragged["distance"], "spacing": SPACING}
    assert not clean_ctv(order, voxels=300, cleaning=cleaning, **rest)[keep].any()
    assert clean_ctv(order, voxels=300, cleaning=cleaning, keep=keep, **rest)[keep].all()


def test_a_smooth_ball_is_nearly_left_alone() -> None:
    distance = _radius()
    given = {"order": -distance, "brain": np.ones(SHAPE, bool), "distance": distance}
    plain, clean = _cut(given, 1500), _cut(given, 1500, smoothing_mm=1.0)
    assert np.count_nonzero(plain & clean) > 0.97 * 1500


def test_specks_of_the_brain_mask_are_no_holes() -> None:
    distance = _radius()
    brain = distance < 11
    brain[1, 1, 1] = True  # far off, on its own
    target = distance < 7
    assert cleanliness(target, brain, SPACING).holes == 0
    given = {"order": -distance, "brain": brain, "distance": distance}
    clean = _cut(given, 400, smoothing_mm=2.0, min_island_mm3=1000.0, min_hole_mm3=1000.0)
    assert not clean[1, 1, 1]


def test_the_result_does_not_hang_on_the_scale_of_the_ranking(ragged: dict[str, np.ndarray]) -> None:
    options = {"smoothing_mm": 1.0, "min_island_mm3": 50.0, "min_hole_mm3": 50.0}
    scaled = ragged | {"order": np.exp(ragged["order"] / 3)}
    assert np.array_equal(_cut(ragged, **options), _cut(scaled, **options))


def test_density_of_the_last_voxels() -> None:
    order = np.arange(1000.0).reshape(10, 10, 10)
    target = order >= 500
    last = last_density(order, target, order / 1000)
    assert last == {"low": 0.5, "median": pytest.approx(0.502), "high": 0.504}
