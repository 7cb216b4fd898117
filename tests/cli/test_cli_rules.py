"""`gliodil plan --rule ... --oar ... --exclude-oar ...`: files, numbers, report, errors."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gliodil.data.nifti import read_nifti, write_nifti

CELLS = "12"
RULE = """
name = "mine"
version = "3"
description = "Core and 10 mm, a PTV, two phases; nothing crosses the falx."
scan = "pre-operative"
gtv = ["enhancing", "necrotic"]
margin_mm = 10
ptv_mm = 4
barriers = ["brain-surface", "falx", "tentorium", "ventricles"]
dose = "60 Gy in 30 fractions"
source = "A test."
verify = ["dose"]

[reach_mm]
ventricles = 5

[initial]
gtv = ["enhancing", "necrotic", "oedema"]
margin_mm = 12
dose = "46 Gy in 23 fractions"
"""


def voxels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) > 0


@pytest.fixture
def organ(patient: Path, tmp_path: Path) -> Path:
    """A mask beside the tumour."""
    seg = read_nifti(patient / "seg.nii.gz", kind="label")
    rim = ndimage.binary_dilation(seg.data > 0, iterations=2) & (seg.data == 0)
    mask = rim & (np.indices(seg.shape)[1] > np.argwhere(rim)[:, 1].mean())
    return write_nifti(seg.with_data(mask.astype(np.uint8)), tmp_path / "organ.nii.gz")


@pytest.fixture
def rule(tmp_path: Path) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(RULE, encoding="utf-8")
    return file


def test_a_rule_from_a_file_with_organs(cli, patient: Path, rule: Path, organ: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("plan", patient, "--out", out, "--cells", CELLS)
    run = cli(
        *arguments,
        "--rule",
        rule,
        "--oar",
        f"near={organ}",
        "--oar",
        f"same={organ}",
        "--exclude-oar",
        "near",
    )
    assert run.code == 0, run.err
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rule"]["name"] == "mine"
    assert metrics["rule"]["initial"] == {
        "gtv": ["enhancing", "necrotic", "oedema"],
        "margin_mm": 12.0,
        "dose": "46 Gy in 23 fractions",
    }
    assert metrics["equal_volume_voxel_difference"] == 0
    assert metrics["organs_excluded"] == ["near"]
    inside = read_nifti(organ, kind="label").data > 0
    for name in ("standard", "trimmed", "model"):
        ctv, ptv, first = (voxels(out, f"{kind}_{name}") for kind in ("ctv", "ptv", "ctv_initial"))
        assert not (ctv & inside).any()
        assert not (ctv & ~ptv).any()
        assert not (ctv & ~first).any()
        assert metrics["organs_ml"]["same"][f"ctv_{name}"] == 0
        assert metrics["volumes_ml"][f"ptv_{name}"] == pytest.approx(ptv.sum() * 0.064)
    assert not (voxels(out, "ctv_trimmed") & ~voxels(out, "ctv_standard")).any()
    assert metrics["organs_ml"]["near"]["organ"] == pytest.approx(inside.sum() * 0.064)
    page = (out / "report.html").read_text(encoding="utf-8")
    for words in (
        "Rule mine",
        'class="verify"',
        "Organs at risk",
        "near (excluded)",
        "Model PTV",
        "first phase",
    ):
        assert words in page
    assert "near: " in run.err
    provenance = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert {"organ near", "organ same"} <= {record["key"] for record in provenance["inputs"]}
    assert provenance["config"]["rule"]["margin_mm"] == 10
    assert str(tmp_path) not in (out / "provenance.json").read_text(encoding="utf-8")

    kept = cli(*arguments, "--rule", rule, "--oar", f"near={organ}", "--oar", f"same={organ}", "--exclude-oar",
               "near", "--resume")  # fmt: skip
    assert "Kept" in kept.err
    # Another rule leaves nothing of this one behind.
    again = cli(*arguments, "--resume")
    assert "Kept" not in again.err
    assert not list(out.glob("ptv_*")) + list(out.glob("*initial*"))
    assert "verify" not in (out / "report.html").read_text(encoding="utf-8").split("</style>")[1]


def test_misuse_is_told_before_anything_is_computed(cli, patient: Path, organ: Path, tmp_path: Path) -> None:
    arguments = ("plan", patient, "--out", tmp_path / "out")
    for extra, words in (
        (("--rule", tmp_path / "none.toml"), "does not exist"),
        (("--rule", "nope"), "estro-eano-2023"),
        (("--oar", "brainstem"), "NAME=FILE"),
        (("--oar", f"a={tmp_path / 'none.nii.gz'}"), "none.nii.gz"),
        (("--oar", f"a={organ}", "--exclude-oar", "b"), "no mask"),
    ):
        run = cli(*arguments, *extra)
        assert run.code == 1
        assert words in run.err
        assert not (tmp_path / "out").exists()


def test_after_surgery(cli, patient: Path, tmp_path: Path) -> None:
    """All that was seen is gone: no core is left, and the rule in force decides."""
    seg = read_nifti(patient / "seg.nii.gz", kind="label")
    labels = np.where(np.isin(seg.data, (1, 3)), 4, seg.data)
    write_nifti(seg.with_data(labels), patient / "seg.nii.gz")
    arguments = ("plan", patient, "--labels", "brats-2024-post", "--cells", CELLS, "--out", tmp_path / "out")
    run = cli(*arguments)
    assert run.code == 1
    assert "no visible tumour" in run.err
    run = cli(*arguments, "--rule", "eortc-2016")
    assert run.code == 0, run.err
    assert "cavity is taken for the core" in run.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rule"]["gtv_ml"]["cavity"] == pytest.approx((labels == 4).sum() * 0.064)
    assert not ((labels == 4) & ~voxels(tmp_path / "out", "ctv_model")).any()
