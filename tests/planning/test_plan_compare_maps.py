"""Maps made elsewhere against a plan folder written by hand: volumes, gains, coverage, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.data.nifti import write_nifti
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError
from gliodil.planning.compare_maps import compare_maps
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import distance_from
from gliodil.planning.maps import put_first, read_map

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (30, 20, 12)
METRICS = {
    "patient": "one",
    "rule": {"gtv": ["enhancing", "necrotic"]},
    "label_convention": "brats-2024-post",
}


def box(*sides):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


BRAIN, GTV = box((1, 29), (1, 19), (1, 11)), box((8, 12), (8, 12), (4, 7))
STANDARD = standard_ctv(GTV, BRAIN, (1, 1, 2), 5.0)
RIGHT = np.broadcast_to(np.arange(30.0)[:, None, None] / 30, SHAPE)


def label(mask):
    return Volume(np.asarray(mask, np.uint8), AFFINE, kind="label")


@pytest.fixture
def folder(tmp_path):
    """A plan whose model CTV is the standard CTV: its density falls with the distance from the GTV."""
    out = tmp_path / "out"
    density = np.exp(-distance_from(GTV, (1, 1, 2)) / 5).astype(np.float32)
    write_nifti(Volume(density, AFFINE, kind="scalar"), out / "density.nii.gz")
    for name, mask in {"gtv": GTV, "brain": BRAIN, "ctv_standard": STANDARD, "ctv_model": STANDARD}.items():
        write_nifti(label(mask), out / f"{name}.nii.gz")
    return out


@pytest.fixture
def right(tmp_path):
    """A map that prefers one side."""
    return write_nifti(Volume(RIGHT.astype(np.float32), AFFINE, kind="scalar"), tmp_path / "right.nii.gz")


def test_a_map_is_cut_at_the_standard_volume_and_its_gains_are_told(folder, right):
    found = compare_maps(folder, {"right": right, "same": folder / "density.nii.gz"}, METRICS)
    standard, same, mine = (found["plans"][name] for name in ("standard", "same", "right"))
    assert found["maps"] == {"right": "right.nii.gz", "same": "density.nii.gz"}
    assert standard["volume_ml"] == pytest.approx(STANDARD.sum() * 0.002)
    assert standard["dice_with_model"] == same["dice_with_model"] == 1
    assert same["gained_ml"] == same["given_up_ml"] == 0
    assert mine["volume_ml"] == pytest.approx(standard["volume_ml"])
    chosen = model_ctv(RIGHT, BRAIN, distance_from(GTV, (1, 1, 2)), int(STANDARD.sum()))
    assert mine["gained_ml"] == pytest.approx(mine["given_up_ml"])
    assert mine["gained_ml"] == pytest.approx((chosen & ~STANDARD).sum() * 0.002)
    assert mine["dice_with_model"] < 0.5
    # x runs to the left in this affine: the map reaches far on that side only.
    assert mine["margin_mm"]["left"] > standard["margin_mm"]["left"]
    assert mine["margin_mm"]["right"] is None
    assert mine["coverage"] is None
    assert found["margins"] is None


def test_coverage_with_the_follow_up_of_the_folder_or_another(folder, right, tmp_path):
    write_nifti(label(box((14, 20), (9, 11), (5, 6))), folder / "recurrence.nii.gz")
    found = compare_maps(folder, {"right": right}, METRICS)
    # 4 mm in reach of 5 mm beyond the last voxel of the GTV, of 6.
    assert found["plans"]["standard"]["coverage"] == {"enhancing": 0.5, "any": 0.5}
    assert set(found["margins"]["coverage"]) == {"isotropic", "model", "right"}
    assert found["margins"]["coverage"]["isotropic"] == found["margins"]["coverage"]["model"]
    assert found["margins"]["coverage"]["isotropic"]["all"] == [1 / 6, 3 / 6, 1, 1, 1]
    other = write_nifti(label(GTV), tmp_path / "other.nii.gz")
    found = compare_maps(folder, {"right": right}, METRICS, recurrence=other)
    assert found["margins"]["coverage"]["isotropic"]["all"] == [1.0] * 5
    assert found["margins"]["coverage"]["isotropic"]["new"] == [None] * 5


def test_under_a_rule_with_a_cavity_every_ranking_begins_with_the_gtv(folder, right):
    metrics = {**METRICS, "rule": {"gtv": ["enhancing", "cavity"]}}
    write_nifti(label(GTV), folder / "recurrence.nii.gz")
    assert compare_maps(folder, {"right": right}, METRICS)["plans"]["right"]["coverage"]["any"] < 1
    assert compare_maps(folder, {"right": right}, metrics)["plans"]["right"]["coverage"]["any"] == 1


def test_what_cannot_be_compared_is_refused(folder, right, tmp_path):
    with pytest.raises(InputError, match="cannot have this name"):
        compare_maps(folder, {"model": right}, METRICS)
    flat = write_nifti(Volume(np.ones(SHAPE, np.float32), AFFINE, kind="scalar"), tmp_path / "flat.nii.gz")
    with pytest.raises(InputError, match="one value throughout the brain"):
        compare_maps(folder, {"flat": flat}, METRICS)
    away = AFFINE.copy()
    away[0, 3] = 500
    far = write_nifti(Volume(RIGHT.astype(np.float32), away, kind="scalar"), tmp_path / "far.nii.gz")
    with pytest.raises(InputError, match="in the same space"):
        compare_maps(folder, {"far": far}, METRICS)
    later = write_nifti(Volume(GTV.astype(np.uint8), away, kind="label"), tmp_path / "later.nii.gz")
    with pytest.raises(GeometryError, match="outside the plan"):
        compare_maps(folder, {"right": right}, METRICS, recurrence=later)
    two = write_nifti(label(GTV + STANDARD.astype(int)), tmp_path / "two.nii.gz")
    with pytest.raises(LabelError, match="several labels"):
        compare_maps(folder, {"right": right}, {**METRICS, "label_convention": None}, recurrence=two)
    (folder / "brain.nii.gz").unlink()
    with pytest.raises(InputError, match=r"without brain.nii.gz"):
        compare_maps(folder, {"right": right}, METRICS)


def test_a_map_on_another_grid_is_interpolated(right, tmp_path):
    fine = np.repeat(np.repeat(np.repeat(RIGHT, 2, 0), 2, 1), 2, 2).astype(np.float32)
    affine = AFFINE / 2
    affine[:3, 3] = AFFINE[:3, :3] @ np.full(3, -0.25)
    affine[3, 3] = 1
    path = write_nifti(Volume(fine, affine, kind="scalar"), tmp_path / "fine.nii.gz")
    read = read_map(path, label(BRAIN), BRAIN)
    np.testing.assert_allclose(read.data, RIGHT, atol=1e-6)


def test_voxels_can_be_put_first():
    ranking = np.array([3.0, 1.0, 2.0])
    assert put_first(np.array([False, True, False]), ranking).tolist() == [3.0, 4.0, 2.0]
    assert put_first(np.zeros(3, bool), ranking) is ranking
