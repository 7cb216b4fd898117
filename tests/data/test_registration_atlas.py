"""The template finds its way to heads whose anatomy is known; what is made of it is checked and repeatable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gliodil.data import Patient, Volume, write_nifti
from gliodil.data.patient import load_patient
from gliodil.data.registration.atlas import AtlasConfig, Registered, local_correlation, register_template
from gliodil.data.registration.brain import find_brain
from gliodil.data.registration.known import CONVENTION, KnownHead, known_head
from gliodil.data.registration.prepare import check_preparation, needs_tissue, prepare, preprocess_files
from gliodil.data.registration.tissue import carry_sheets, tissue_maps
from gliodil.data.registration.transform import GridGeometry, Transform
from gliodil.data.template import Anatomy, load_anatomy
from gliodil.errors import GliodilError, InputError

FAST = AtlasConfig(affine_mm=6, warp_mm=3, iterations=(10, 10, 10))
FASTER = AtlasConfig(affine_mm=8, warp_mm=5, iterations=(10, 5))


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy(resolution_mm=3)


@pytest.fixture(scope="module")
def head(anatomy: Anatomy) -> KnownHead:
    return known_head(anatomy)


def patient_of(head: KnownHead, **more: Volume) -> Patient:
    return Patient("known", head.segmentation, CONVENTION, {"t1": head.t1, **more})


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


@pytest.fixture(scope="module")
def registered(head: KnownHead, anatomy: Anatomy) -> Registered:
    lesion = head.segmentation.data > 0
    return register_template(head.t1, head.brain.data > 0, lesion, anatomy, config=FAST)


def test_tissue_is_found_outside_the_lesion(head, anatomy, registered):
    maps = tissue_maps(registered.transform, anatomy, head.brain)
    outside = (head.segmentation.data == 0) & (head.brain.data > 0)
    unmoved = {"wm": anatomy.wm, "gm": anatomy.gm}
    for role in ("wm", "gm"):
        true = (getattr(head, role).data > 0.5) & outside
        assert dice((maps[role].data > 0.5) & outside, true) >= 0.95
        assert dice((unmoved[role].data > 0.5) & outside, true) < 0.75
    assert registered.correlation > 0.9
    total = sum(volume.data.astype(float) for volume in maps.values())
    np.testing.assert_allclose(total[head.brain.data > 0], 1, atol=1e-5)
    assert not total[head.brain.data == 0].any()


def test_the_warp_is_invertible_without_folds(registered):
    transform = registered.transform
    points = np.random.default_rng(0).uniform(-50, 50, (500, 3))
    there = transform.points(points)
    np.testing.assert_allclose(transform.points(there, inverse=True), points, atol=0.3)
    steps = np.gradient(transform.warp.forward.astype(float), axis=(0, 1, 2))
    jacobian = np.stack(steps, -1) / transform.warp.affine[0, 0] + np.eye(3)
    assert np.linalg.det(jacobian).min() > 0.1


@pytest.mark.parametrize("lesion", ["untouched", "filled", "masked"])
def test_every_treatment_of_the_lesion_works(head, anatomy, lesion):
    config = replace(FASTER, lesion=lesion)
    mask = head.segmentation.data > 0
    found = register_template(head.t1, head.brain.data > 0, mask, anatomy, config=config)
    maps = tissue_maps(found.transform, anatomy, head.brain)
    outside = (head.segmentation.data == 0) & (head.brain.data > 0)
    assert dice((maps["wm"].data > 0.5) & outside, (head.wm.data > 0.5) & outside) > 0.9


def test_an_oblique_anisotropic_head_gives_the_same_maps(head, anatomy, registered):
    """The same head on tilted 3 x 3 x 5 mm voxels, stored another way round: points agree to parts of a voxel."""
    angle = np.radians(15)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ np.diag([-3.0, -3.0, 5.0, 1.0])
    affine[:3, 3] = -(affine[:3, :3] @ np.array([35.0, 42.0, 20.0])) + (0, -18, 5)
    tilted = Volume.lazy(lambda: np.zeros((70, 84, 40)), shape=(70, 84, 40), affine=affine, kind="label")
    t1, brain, seg = (v.resample_to(tilted) for v in (head.t1, head.brain, head.segmentation))
    found = register_template(t1, brain.data > 0, seg.data > 0, anatomy, config=FAST)
    points = head.brain.to_world(np.argwhere(ndimage.binary_erosion(head.brain.data > 0, iterations=2))[::53])
    apart = np.linalg.norm(found.transform.points(points) - registered.transform.points(points), axis=1)
    assert np.median(apart) < 1  # a third of a voxel
    assert np.quantile(apart, 0.95) < 3


def test_a_wrong_match_has_a_low_correlation(head, anatomy, registered):
    """A third of what the right one has, and below the level that is warned of."""
    from gliodil.data.registration.prepare import POOR_CORRELATION

    inside = head.brain.data > 0
    off = Transform(np.diag([1.0, -1.0, 1.0, 1.0]), GridGeometry.of(head.t1), GridGeometry.of(anatomy.t1))
    wrong = local_correlation(head.t1, off.apply(anatomy.t1), inside)
    right = local_correlation(head.t1, registered.transform.apply(anatomy.t1), inside)
    assert wrong < POOR_CORRELATION < 0.9 < right


def test_a_constant_image_is_refused(head, anatomy):
    flat = head.t1.with_data(np.where(head.brain.data > 0, 5.0, 0.0))
    with pytest.raises(InputError, match="no contrast") as raised:
        register_template(flat, head.brain.data > 0, head.brain.data > 1, anatomy, config=FAST)
    assert "--wm" in str(raised.value)


def test_a_tiny_image_is_refused(head, anatomy):
    coarse = GridGeometry((6, 7, 6), head.t1.affine @ np.diag([11, 11, 10.5, 1]))
    reference = Volume.lazy(lambda: None, shape=coarse.shape, affine=coarse.affine, kind="label")
    t1, brain = (v.resample_to(reference) for v in (head.t1, head.brain))
    with pytest.raises(GliodilError, match=r"few voxels|could not be aligned"):
        register_template(t1, brain.data > 0, brain.data > 1, anatomy, config=FAST)


def test_sheets_are_carried_without_holes(anatomy, registered, head):
    """A sheet one voxel thick parts the brain afterwards too, for steps over faces, edges and corners."""
    sheet = np.zeros(anatomy.brain.shape, np.uint8)
    sheet[sheet.shape[0] // 2] = 1
    carried = carry_sheets(registered.transform, anatomy.brain.with_data(sheet), head.brain)
    assert carried.kind == "label"
    parts, _ = ndimage.label((carried.data == 0) & (head.brain.data > 0), np.ones((3, 3, 3)))
    sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
    total = np.count_nonzero(head.brain.data)
    assert sizes[1] > 0.3 * total
    assert np.count_nonzero(carried.data[head.brain.data > 0]) < 0.08 * total


@pytest.fixture(scope="module")
def prepared(head: KnownHead):
    return prepare(patient_of(head), config=FASTER)


def test_prepare_fills_in_what_is_missing(head, prepared):
    patient = prepared.patient
    assert set(patient.volumes) == {"t1", "wm", "gm", "csf", "brain"}
    assert set(prepared.made) == {"wm", "gm", "csf", "brain"}
    np.testing.assert_array_equal(patient.brain, ndimage.binary_fill_holes(head.brain.data))
    assert prepared.record["brain"] == "stripped"
    assert prepared.record["correlation"] > 0.9
    assert any("MNI152" in text and "0.9" in text for text in patient.warnings)
    assert not any("poorly" in text for text in patient.warnings)
    assert (patient_of(head).tissue_source, patient.tissue_source) == ("given", "template")
    assert "made from the MNI152 template" in check_preparation(patient_of(head))[0]


def test_equal_input_gives_equal_bytes(head, prepared, tmp_path: Path):
    again = prepare(patient_of(head), config=FASTER)
    prepared.save(tmp_path / "one")
    again.save(tmp_path / "two")
    names = [path.relative_to(tmp_path / "one") for path in preprocess_files(tmp_path / "one")]
    assert len(names) == 8
    assert len(names) == sum(path.is_file() for path in (tmp_path / "one").rglob("*"))
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_given_maps_are_left_alone(head, prepared):
    complete = patient_of(head, wm=head.wm, gm=head.gm)
    assert not needs_tissue(complete)
    assert prepare(complete).patient is complete
    only_one = patient_of(head, wm=head.wm)
    assert prepare(only_one).patient is only_one
    given = patient_of(head, brain=head.brain, csf=prepared.patient.volumes["csf"])
    assert check_preparation(given)
    assert needs_tissue(given)


def test_images_are_aligned_on_request(head, anatomy, tmp_path: Path):
    """T2 lies 8 mm off in its file; it comes back, interpolated from the file."""
    contrast = 40 * head.wm.data + 90 * head.gm.data + 5 * head.brain.data
    shift = np.eye(4)
    shift[:3, 3] = (8, 0, 0)
    files = {
        "seg": write_nifti(head.segmentation, tmp_path / "seg.nii.gz"),
        "t1": write_nifti(head.t1, tmp_path / "t1.nii.gz"),
        "t2": write_nifti(Volume(contrast, shift @ head.t1.affine, kind="scalar"), tmp_path / "t2.nii.gz"),
        "wm": write_nifti(head.wm, tmp_path / "wm.nii.gz"),
        "gm": write_nifti(head.gm, tmp_path / "gm.nii.gz"),
    }
    patient = load_patient(files=files, labels="brats-2023")
    done = prepare(patient, register=True)
    assert done.made == ("t2",)
    assert done.record["reference"] == "t1"
    assert done.record["aligned"]["t2"]["shift_mm"] == pytest.approx(8, abs=0.5)
    before, after = (
        np.abs(p.volumes["t2"].data - contrast)[head.brain.data > 0].mean() for p in (patient, done.patient)
    )
    assert after < 0.25 * before
    assert "aligned with t1" in check_preparation(patient, register=True)[0]
    with pytest.raises(InputError, match="nothing to align"):
        prepare(patient_of(head), register=True)


def test_real_patient(shared_data: Path):
    """White matter is brighter than grey matter, and that than CSF, on the T1 of a real patient."""
    patient = load_patient(shared_data / "tcga_du_7294", labels="brats-2017")
    brain = find_brain(patient.volumes)
    assert brain.source == "stripped"
    assert 1200 < np.count_nonzero(brain.mask.data) / 1000 < 1300
    coarse = GridGeometry((80, 80, 52), patient.affine @ np.diag([3, 3, 3, 1.0]))
    reference = Volume.lazy(lambda: None, shape=coarse.shape, affine=coarse.affine, kind="label")
    volumes = {role: volume.resample_to(reference) for role, volume in patient.volumes.items()}
    small = Patient("small", patient.segmentation.resample_to(reference), patient.convention, volumes)
    done = prepare(small, config=FASTER)
    assert done.record["correlation"] > 0.8
    maps, t1 = done.patient.volumes, volumes["t1"].data
    outside = ~small.tumour & ndimage.binary_erosion(done.patient.brain, iterations=2)
    means = [t1[outside & (maps[role].data > 0.8)].mean() for role in ("wm", "gm", "csf")]
    assert means[0] > 1.15 * means[1] > 1.3 * means[2]
