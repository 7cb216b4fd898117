"""A plan does not depend on the space it is made in: native voxels and the template's axes agree."""

from __future__ import annotations

import numpy as np
import pytest

from gliodil.data import Patient, Volume
from gliodil.data.labels import get_convention
from gliodil.data.registration.transform import GridGeometry, Transform
from gliodil.data.template import load_anatomy
from gliodil.planning.plan import plan


def test_volumes_agree_between_native_and_template_space():
    """Within 1 %; masks land on the grid of the segmentation they were made from."""
    anatomy = load_anatomy(resolution_mm=2)

    def from_tumour(world: np.ndarray) -> np.ndarray:
        return np.linalg.norm(world - (28.0, -15.0, 24.0), axis=-1)

    def drawn(away: np.ndarray) -> np.ndarray:
        return np.select([away < 8, away < 13, away < 19], [1, 3, 2], 0)

    index = np.stack(np.meshgrid(*map(np.arange, anatomy.t1.shape), indexing="ij"), -1)
    away = from_tumour(anatomy.t1.to_world(index))
    density = anatomy.t1.with_data(np.exp(-away / 15) * (anatomy.csf.data < 0.5))
    there = Patient(
        "there",
        anatomy.t1.with_data(drawn(away), kind="label"),
        get_convention("brats-2023"),
        {role: getattr(anatomy, role) for role in ("wm", "gm", "csf", "brain")},
    )
    # The scanner's axes: turned by 12 and 7 degrees, shifted, stored LPS.
    a, b = np.radians([12, 7])
    turn, tilt = np.eye(4), np.eye(4)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    tilt[1:3, 1:3] = [[np.cos(b), -np.sin(b)], [np.sin(b), np.cos(b)]]
    to_template = turn @ tilt
    to_template[:3, 3] = (10, -20, 30)
    affine = np.diag([-2.0, -2.0, 2.0, 1.0])
    middle = np.linalg.inv(to_template) @ (0, -15, 10, 1)
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ (52, 60, 52)
    native = GridGeometry((104, 120, 104), affine)
    motion = Transform(to_template, native, GridGeometry.of(anatomy.t1))
    # Drawn on the native voxels: labels resampled by nearest neighbour are jagged, and margins around them grow.
    frame = Volume.lazy(lambda: np.zeros(native.shape), shape=native.shape, affine=affine, kind="label")
    index = np.stack(np.meshgrid(*map(np.arange, native.shape), indexing="ij"), -1)
    here = Patient(
        "here",
        frame.with_data(drawn(from_tumour(motion.points(frame.to_world(index))))),
        there.convention,
        {role: motion.apply(volume) for role, volume in there.volumes.items()},
    )
    one, other = plan(here, motion.apply(density)), plan(there, density)
    for name in ("gtv", "ctv_standard", "ctv_trimmed", "ctv_model"):
        assert one.volumes_ml[name] == pytest.approx(other.volumes_ml[name], rel=0.01), name
    for name in ("gtv", "standard", "trimmed", "model", "margin", "density"):
        assert getattr(one, name).same_grid(frame)
