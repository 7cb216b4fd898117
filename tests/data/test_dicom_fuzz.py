"""Damaged DICOM: typed errors only, no hanging, no writing, no identity. `benchmarks/fuzz_inputs.py` does more of it."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dicom_fuzz import field_damage, mutate, outcome, read_everything, write_small

from gliodil.data.dicom.scan import find_series

KINDS = ("files", "enhanced", "pet")


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = write_small(tmp_path, kind)[0]
    content, random = target.read_bytes(), np.random.default_rng(7)
    ended: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(120):
            target.write_bytes(mutate(content, random))
            ended[outcome(lambda: read_everything(tmp_path), target)] += 1
    assert ended["read"] > 5
    assert ended["ImageFileError"] + ended["GeometryError"] > 10
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_damaged(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    target = write_small(tmp_path, kind)[0]
    random, damages = np.random.default_rng(3), list(field_damage(target))
    wanted = {"Rows missing", "ImagePositionPatient missing", "ImagePositionPatient = b'NaN '"}
    geometry = {"ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"}
    assert len(damages) > 500
    for name, content in damages:
        # All damage to geometry, every sixth of the rest.
        if name.split()[0] not in geometry and name not in wanted and random.random() > 1 / 6:
            continue
        target.write_bytes(content)
        ended = outcome(lambda: read_everything(tmp_path), target)
        assert kind == "enhanced" or name not in wanted or ended == "GeometryError", name
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("cut", [132, 140, 300, 900, -61, -1])
def test_truncated(tmp_path: Path, cut: int) -> None:
    target = write_small(tmp_path, "files")[1]
    target.write_bytes(target.read_bytes()[:cut])
    assert outcome(lambda: read_everything(tmp_path), target) in ("ImageFileError", "GeometryError")


@pytest.mark.parametrize("kind", ["files", "enhanced"])
def test_a_field_that_swallows_the_next_ones_is_not_quoted(tmp_path: Path, kind: str) -> None:
    for target in write_small(tmp_path, kind):
        damaged = bytearray(target.read_bytes())
        described = damaged.find(b"\x08\x00\x3e\x10LO")
        following = damaged.find(b"\x08\x00\x50\x10PN")
        assert 0 < described < following
        whole = following + 8 + int.from_bytes(damaged[following + 6 : following + 8], "little")
        damaged[described + 6 : described + 8] = (whole - described - 8).to_bytes(2, "little")
        target.write_bytes(damaged)
    assert b"Plantedperformer" in damaged[described:whole]
    assert outcome(lambda: read_everything(tmp_path), target) == "read"
    (series,) = find_series(tmp_path)
    assert series.description == ""
