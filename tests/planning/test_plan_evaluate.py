"""Coverage added to a plan folder afterwards."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from gliodil.data.nifti import write_nifti
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, InputError, LabelError
from gliodil.planning import evaluate_plan_folder

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (12, 10, 8)


def _box(*sides):
    mask = np.zeros(SHAPE, np.uint8)
    mask[tuple(slice(*side) for side in sides)] = 1
    return mask


@pytest.fixture
def folder(tmp_path):
    plans = {"standard": _box((2, 8), (2, 8), (2, 6)), "trimmed": _box((2, 6), (2, 8), (2, 6))}
    plans["model"] = _box((4, 10), (2, 8), (2, 6))
    for name, mask in plans.items():
        write_nifti(Volume(mask, AFFINE, kind="label"), tmp_path / f"ctv_{name}.nii.gz")
    return tmp_path


def _file(folder, data, affine=AFFINE):
    return write_nifti(Volume(data, affine, kind="label"), folder / "recurrence.nii.gz")


def test_binary_recurrence_from_a_file(folder):
    file = _file(folder, _box((5, 9), (3, 5), (3, 4)))
    expected = {"standard": 0.75, "trimmed": 0.25, "model": 1.0}
    assert evaluate_plan_folder(folder, file) == {"enhancing": expected, "any": expected}


def test_another_orientation_and_field_of_view_changes_nothing(folder):
    data = _box((5, 9), (3, 5), (3, 4))
    flip = np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    larger = np.pad(data[::-1].transpose(2, 0, 1), 3)
    back = np.zeros((4, 4))
    back[[0, 1, 2], [1, 2, 0]] = 1
    back[:3, 3], back[3, 3] = -3, 1
    file = _file(folder, larger, AFFINE @ flip @ back)
    assert evaluate_plan_folder(folder, file) == evaluate_plan_folder(
        folder, Volume(data, AFFINE, kind="label")
    )


def test_labels_need_a_convention(folder):
    data = _box((5, 9), (3, 5), (3, 4)) * 2
    data[5] = np.where(data[5], 3, 0)
    file = _file(folder, data)
    with pytest.raises(LabelError, match="--labels"):
        evaluate_plan_folder(folder, file)
    found = evaluate_plan_folder(folder, file, convention="brats-2023")
    assert found["enhancing"] == {"standard": 1.0, "trimmed": 1.0, "model": 1.0}
    assert found["any"]["trimmed"] == 0.25


def test_empty_recurrence_is_none(folder):
    file = _file(folder, np.zeros(SHAPE, np.uint8))
    assert evaluate_plan_folder(folder, file) == {"enhancing": None, "any": None}


def test_recurrence_elsewhere_is_refused(folder):
    away = AFFINE.copy()
    away[0, 3] = 500.0
    with pytest.raises(GeometryError, match="outside"):
        evaluate_plan_folder(folder, _file(folder, _box((5, 9), (3, 5), (3, 4)), away))


def test_recurrence_partly_outside_is_reported(folder, caplog):
    shifted = AFFINE.copy()
    shifted[2, 3] = 2 * 4.0
    with caplog.at_level(logging.WARNING, logger="gliodil.planning.evaluate"):
        evaluate_plan_folder(folder, _file(folder, _box((5, 9), (3, 5), (2, 8)), shifted))
    assert "mL" in caplog.text


@pytest.mark.parametrize("damage", ["absent", "incomplete"])
def test_not_a_plan_folder(folder, damage):
    (folder / "ctv_model.nii.gz").unlink()
    place = folder if damage == "incomplete" else folder / "nowhere"
    with pytest.raises(InputError, match="not a plan folder"):
        evaluate_plan_folder(place, _box((5, 9), (3, 5), (3, 4)))


def test_missing_recurrence_file(folder):
    with pytest.raises(ImageFileError):
        evaluate_plan_folder(folder, folder / "nothing.nii.gz")
