"""`gliodil plan` without tissue maps, and `gliodil apply-transform`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data.template import load_anatomy

PREPROCESS = [
    "barriers.nii.gz",
    "brain.nii.gz",
    "csf.nii.gz",
    "gm.nii.gz",
    "transforms/template/affine.txt",
    "transforms/template/inverse_warp.nii.gz",
    "transforms/template/transform.json",
    "transforms/template/warp.nii.gz",
    "wm.nii.gz",
]


@pytest.fixture(scope="module")
def mri_only(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient of segmentation and T1."""
    folder = tmp_path_factory.mktemp("mri") / "patient_008"
    folder.mkdir()
    for name in ("seg", "t1"):
        shutil.copy(original / f"{name}.nii.gz", folder)
    return folder


@pytest.fixture(scope="module")
def planned_from_mri(cli, mri_only: Path, tmp_path_factory: pytest.TempPathFactory):
    """The plan of that patient."""
    out = tmp_path_factory.mktemp("planned") / "out"
    run = cli("plan", mri_only, "--out", out, "--cells", "12", "--labels", "brats-2023")
    assert run.code == 0, run.err
    return out, run


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_tissue_maps_are_made_and_kept(planned_from_mri, mri_only, original):
    out, run = planned_from_mri
    assert files_below(out / "preprocess") == sorted(PREPROCESS)
    seg = nib.load(mri_only / "seg.nii.gz")
    brain = voxels(out / "preprocess" / "brain.nii.gz") > 0
    total = np.zeros(brain.shape)
    for role in ("wm", "gm", "csf"):
        image = nib.load(out / "preprocess" / f"{role}.nii.gz")
        np.testing.assert_array_equal(image.affine, seg.affine)
        total += image.get_fdata()
    np.testing.assert_allclose(total, brain, atol=1e-5)
    # This T1 is the template's own, so the maps have to be found again.
    white, known = voxels(out / "preprocess" / "wm.nii.gz") > 0.5, voxels(original / "wm.nii.gz") > 0.5
    assert 2 * (white & known).sum() / (white.sum() + known.sum()) > 0.95

    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["preprocessing"]["image"] == "t1"
    assert metrics["preprocessing"]["brain"] == "stripped"
    assert 0.9 < metrics["preprocessing"]["correlation"] <= 1
    assert any("MNI152" in text for text in metrics["warnings"])
    assert "MNI152" in run.err
    assert (out / "figures" / "tissue.png").is_file()
    report = (out / "report.html").read_text()
    assert "No tissue maps were given" in report
    assert "<h2>Tissue maps</h2>" in report


def test_given_maps_replace_made_ones(cli, planned_from_mri, mri_only, original, tmp_path):
    out = shutil.copytree(planned_from_mri[0], tmp_path / "out")
    maps = [f"--{role}={original / role}.nii.gz" for role in ("wm", "gm")]
    run = cli("plan", mri_only, *maps, "--out", out, "--cells", "12", "--labels", "brats-2023")
    assert run.code == 0, run.err
    assert not (out / "preprocess").exists()
    assert json.loads((out / "metrics.json").read_text())["preprocessing"] is None
    assert "No tissue maps were given" not in (out / "report.html").read_text()
    assert (out / "figures" / "tissue.png").is_file()


def test_a_finished_plan_is_resumed_without_registering(cli, planned_from_mri, mri_only):
    out, _ = planned_from_mri
    request = ("plan", mri_only, "--out", out, "--cells", "12", "--labels", "brats-2023", "--resume")
    before = (out / "report.html").stat().st_mtime_ns
    run = cli(*request)
    assert run.code == 0
    assert "Kept" in run.err
    assert (out / "report.html").stat().st_mtime_ns == before


def test_a_dry_run_says_what_will_be_made(cli, mri_only, tmp_path):
    run = cli("plan", mri_only, "--out", tmp_path / "out", "--dry-run", "--labels", "brats-2023")
    assert run.code == 0
    assert "tissue maps will be made from the MNI152 template, registered to the t1 image" in run.err
    assert not (tmp_path / "out").exists()


def test_without_maps_and_mri_the_remedy_names_both(cli, mri_only, tmp_path):
    run = cli("plan", "--seg", mri_only / "seg.nii.gz", "--out", tmp_path / "out", "--labels", "brats-2023")
    assert run.code == 1
    assert "White- and grey-matter maps are needed" in run.err
    assert "anatomical MRI" in run.err
    assert not (tmp_path / "out").exists()


def test_one_image_cannot_be_aligned(cli, mri_only, tmp_path):
    run = cli("plan", mri_only, "--register", "--out", tmp_path / "out", "--labels", "brats-2023")
    assert run.code == 1
    assert "There is nothing to align" in run.err
    assert "patient_008" in run.err


def test_images_and_labels_go_through_the_transform(cli, planned_from_mri, mri_only, tmp_path):
    transform = planned_from_mri[0] / "preprocess" / "transforms" / "template"
    seg, there, back = mri_only / "seg.nii.gz", tmp_path / "there.nii.gz", tmp_path / "back.nii.gz"
    run = cli("apply-transform", transform, seg, "--inverse", "--labels", "--out", there)
    assert (run.code, run.out) == (0, f"{there}\n")
    anatomy = load_anatomy(resolution_mm=4)
    image = nib.load(there)
    assert image.shape == anatomy.t1.shape
    np.testing.assert_allclose(image.affine, anatomy.t1.affine)
    assert set(np.unique(voxels(there))) == set(np.unique(voxels(seg)))
    run = cli("apply-transform", transform, there, "--labels", "--onto", seg, "--out", back)
    assert run.code == 0
    one, other = voxels(seg) > 0, voxels(back) > 0
    assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.9
    before = there.read_bytes()
    again = ("apply-transform", transform, mri_only / "t1.nii.gz", "--inverse", "--out", there)
    assert "file of that name already" in cli(*again).err
    assert there.read_bytes() == before
    run = cli(*again, "--overwrite")
    assert run.code == 0
    assert voxels(there).dtype == np.float32
    inside = anatomy.brain.data > 0
    assert np.corrcoef(voxels(there)[inside], anatomy.t1.data[inside])[0, 1] > 0.8


def test_misuse_of_apply_transform_is_one_error(cli, planned_from_mri, mri_only, tmp_path):
    out, t1 = planned_from_mri[0], mri_only / "t1.nii.gz"
    transform = out / "preprocess" / "transforms" / "template"
    far = tmp_path / "far.nii.gz"
    image = nib.load(t1)
    nib.save(nib.Nifti1Image(image.get_fdata(), image.affine + 1e4 * np.eye(4)[:, [3, 3, 3, 0]].T), far)
    for arguments, words in (
        ((out, t1, "--out", tmp_path / "a.nii.gz"), "not a folder with a transform"),
        ((transform, t1, "--out", tmp_path / "a.png"), "named as NIfTI"),
        ((transform, tmp_path / "none.nii.gz", "--out", tmp_path / "a.nii.gz"), "does not exist"),
        ((transform, far, "--out", tmp_path / "a.nii.gz"), "Nothing of the image"),
        ((transform, far, "--out", far, "--overwrite"), "one of the files that are read"),
    ):
        run = cli("apply-transform", *arguments)
        assert run.code == 1
        assert words in run.err
    assert not list(tmp_path.glob("a.*"))
