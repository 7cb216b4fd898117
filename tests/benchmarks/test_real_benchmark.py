"""The evidence on patients, run on two small made-up ones in the layout of the data folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from small_brain import BRAIN, GTV, patient, radius

from gliodil.data.nifti import write_nifti
from gliodil.planning.ranking import reach_ranking

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import real


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Tumours that later fill what reach through tissue says, and one that grows all around."""
    known = patient()
    reach = reach_ranking(known, GTV, BRAIN, 15).reach_mm
    assert reach is not None
    rng = np.random.default_rng(1)
    for name, later in (
        ("01", BRAIN & (reach < 6 + rng.normal(0, 1.5, reach.shape))),
        ("02", BRAIN & (radius() < 9)),
    ):
        folder = tmp_path / "progression" / name
        grid = known.segmentation
        rim = GTV & ~(radius((18, 17, 16)) < 1.6)
        masks = {"gtv": rim, "followup_on_baseline": later, "brain_mask": BRAIN}
        for role, mask in masks.items():
            write_nifti(grid.with_data(mask.astype(np.uint8), kind="label"), folder / f"{role}.nii.gz")
        for role in ("wm", "gm"):
            write_nifti(known.volumes[role], folder / f"{role}.nii.gz", dtype=np.float32)
    return tmp_path


def test_quick_evidence_has_every_key_and_the_right_sign(data: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "found.json"
    real.main([str(data), "--json", str(file), "--quick", "--cache", str(tmp_path / "cache")])
    found = json.loads(file.read_text())
    pairs = found["pairs"]
    assert pairs["n"] == 2
    assert set(pairs["isotropic"]) == set(pairs["model_minus_isotropic"]) == {"3", "5", "8", "10", "15"}
    assert set(pairs["new_tumour"]["isotropic"]) == set(pairs["isotropic"])
    mean, low, high = pairs["model_minus_isotropic"]["5"]
    assert low <= mean <= high
    by = {row["patient"]: row["pair"] for row in found["patients"]}
    followed, round_one = by["progression_01"], by["progression_02"]
    # One patient's tumour follows the tissue, the other's does not heed it: the comparison tells them apart.
    assert followed["model"]["new"]["5"] > followed["isotropic"]["new"]["5"]
    assert round_one["model"]["new"]["5"] <= round_one["isotropic"]["new"]["5"]
    assert found["calibration"]["n"] == 2
    assert len(found["calibration"]["bins"]) == len(found["calibration"]["bins_mm"]) - 1
    assert found["core_to_oedema"] == {"n": 0}
    assert "n = 2" in capsys.readouterr().out


def test_a_map_made_elsewhere_is_scored_beside_the_model(data: Path, tmp_path: Path) -> None:
    truth = patient().segmentation.with_data(np.exp(-radius() / 9).astype(np.float32), kind="scalar")
    for name in ("progression_01", "progression_02"):
        write_nifti(truth, tmp_path / f"{name}.nii.gz")
    found = real.main([str(data), "--quick", "--density", f"mine={tmp_path}/{{patient}}.nii.gz"])
    assert set(found["pairs"]["others_minus_isotropic"]["mine"]) == {"all", "new"}


def test_a_folder_without_patients_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="progression"):
        real.main([str(tmp_path)])
