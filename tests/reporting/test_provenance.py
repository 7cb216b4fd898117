from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from gliodil.data.nifti import write_nifti
from gliodil.reporting.provenance import build_provenance, checkout_commit, without_folders

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_inputs_are_named_hashed_and_placed_but_not_located(case, tmp_path):
    patient, fit, _ = case
    path = write_nifti(patient.segmentation, tmp_path / "secret-folder" / "seg.nii.gz")
    other = tmp_path / "secret-folder" / "notes.txt"
    other.write_text("not an image")
    patient = dataclasses.replace(patient, files={"seg": path, "t1": other})
    provenance = build_provenance(
        patient, fit, config={"out": tmp_path / "o", "seed": 7}, command=["gliodil", str(path)]
    )
    seg, t1 = provenance["inputs"]
    assert seg["name"] == "seg.nii.gz"
    assert seg["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert seg["orientation"] == "LPS"
    assert seg["shape"] == list(patient.shape)
    np.testing.assert_allclose(seg["affine"], patient.affine)
    assert t1["sha256"] == hashlib.sha256(b"not an image").hexdigest()
    assert "note" in t1
    text = json.dumps(provenance, allow_nan=False)
    assert "secret-folder" not in text
    assert str(Path.home()) not in text


def test_what_is_needed_to_run_it_again_is_recorded(case):
    patient, fit, _ = case
    provenance = build_provenance(patient, fit, config={"method": "odil", "seed": 7}, command=["gliodil"])
    assert provenance["config"] == {"method": "odil", "seed": 7}
    assert provenance["seed"] == 7
    assert {"numpy", "scipy", "nibabel"} <= set(provenance["libraries"])
    assert provenance["threads"]["processors"] >= 1
    assert provenance["patient"] == "sub-01"
    assert provenance["label_convention"] == "brats-2023"


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("plan", "plan"),
        ("--seg", "--seg"),
        ("/home/someone/p1/seg.nii.gz", "seg.nii.gz"),
        ("../p1/", "p1"),
        ("--out=/home/someone/out", "--out=out"),
        ("C:\\Users\\someone\\seg.nii.gz", "seg.nii.gz"),
        ("0.5", "0.5"),
        ("/", "/"),
    ],
)
def test_folders_are_cut_off_the_command_line(word, kept):
    assert without_folders(word) == kept


class TestCheckoutCommit:
    def git(self, root: Path, head: str) -> Path:
        folder = root / ".git"
        folder.mkdir()
        (folder / "HEAD").write_text(head + "\n")
        return folder

    def test_on_a_branch(self, tmp_path):
        heads = self.git(tmp_path, "ref: refs/heads/topic/x") / "refs/heads/topic"
        heads.mkdir(parents=True)
        (heads / "x").write_text(COMMIT + "\n")
        assert checkout_commit(tmp_path) == COMMIT

    def test_on_a_packed_branch(self, tmp_path):
        folder = self.git(tmp_path, "ref: refs/heads/main")
        (folder / "packed-refs").write_text(
            f"# pack-refs\n{'f' * 40} refs/heads/other\n{COMMIT} refs/heads/main\n"
        )
        assert checkout_commit(tmp_path) == COMMIT

    def test_detached(self, tmp_path):
        self.git(tmp_path, COMMIT)
        assert checkout_commit(tmp_path) == COMMIT

    def test_in_a_linked_work_tree(self, tmp_path):
        (tmp_path / "main").mkdir()
        store = self.git(tmp_path / "main", "ref: refs/heads/main")
        (store / "refs/heads").mkdir(parents=True)
        (store / "refs/heads/side").write_text(COMMIT)
        linked = store / "worktrees/side"
        linked.mkdir(parents=True)
        (linked / "HEAD").write_text("ref: refs/heads/side\n")
        (linked / "commondir").write_text("../..\n")
        (tmp_path / "side").mkdir()
        (tmp_path / "side/.git").write_text(f"gitdir: {linked}\n")
        assert checkout_commit(tmp_path / "side") == COMMIT

    @pytest.mark.parametrize("head", [None, "ref: refs/heads/unborn", "nonsense"])
    def test_none_where_there_is_none(self, tmp_path, head):
        if head is not None:
            self.git(tmp_path, head)
        assert checkout_commit(tmp_path) is None
