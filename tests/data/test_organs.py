"""Masks of organs at risk: read, placed, refused."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.data.labels import CONVENTIONS
from gliodil.data.nifti import write_nifti
from gliodil.data.organs import load_organs
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, InputError

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def patient() -> Patient:
    labels = np.zeros((12, 10, 8), np.uint8)
    labels[4:7, 4:7, 3:5] = 3
    return Patient("p", Volume(labels, AFFINE, kind="label"), CONVENTIONS["brats-2023"])


def written(tmp_path, data, affine=AFFINE, name="organ"):
    return write_nifti(Volume(data, affine, kind="label"), tmp_path / f"{name}.nii.gz")


def test_any_value_is_inside_and_another_grid_is_resampled(patient, tmp_path):
    data = np.zeros((12, 10, 8), np.uint8)
    data[2:5, 2:5, 2:5] = 7
    here = written(tmp_path, data)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 11
    there = written(tmp_path, data[::-1], AFFINE @ flip, "flipped")
    organs = load_organs([("stem", here), ("again", there)], patient)
    assert list(organs) == ["stem", "again"]
    for organ, path in zip(organs.values(), (here, there), strict=True):
        assert np.array_equal(organ.data, data > 0)
        assert organ.same_grid(patient.segmentation)
        assert organ.path == path


def test_what_is_no_organ_is_refused_by_name(patient, tmp_path):
    data = np.zeros((12, 10, 8), np.uint8)
    with pytest.raises(InputError, match="stem is empty") as caught:
        load_organs([("stem", written(tmp_path, data))], patient)
    assert caught.value.patient == "p"
    data[2] = 1
    away = AFFINE.copy()
    away[0, 3] = 300
    with pytest.raises(GeometryError, match="stem lies outside"):
        load_organs([("stem", written(tmp_path, data, away))], patient)
    file = written(tmp_path, data)
    with pytest.raises(InputError, match="two masks of stem"):
        load_organs([("stem", file), ("stem", file)], patient)
    with pytest.raises(ImageFileError):
        load_organs([("stem", tmp_path / "nothing.nii.gz")], patient)
