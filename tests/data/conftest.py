"""A small synthetic head with a layered tumour, as arrays and as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from gliodil.data import CONVENTIONS, Volume, write_nifti

SHAPE = (40, 44, 36)
AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])
AFFINE[:3, 3] = (78.0, 86.0, -70.0)


def layered(shape: tuple[int, int, int], affine: np.ndarray, convention: str) -> np.ndarray:
    """Label map of a tumour with a necrotic centre, an enhancing rim and oedema around it."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    distance = np.linalg.norm(world - (24.0, 10.0, 8.0), axis=-1)
    scheme = CONVENTIONS[convention]
    labels = np.zeros(shape, np.uint8)
    labels[distance < 28] = scheme.oedema[0]
    labels[distance < 18] = scheme.enhancing[0]
    labels[distance < 11] = scheme.necrotic[0]
    return labels


@pytest.fixture
def head() -> dict[str, Volume]:
    """Volumes of a synthetic patient in the convention brats-2017 (1.3 L brain, 4 mm voxels)."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    world = index @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    radius = np.linalg.norm(world / (66.0, 78.0, 60.0), axis=-1)
    brain = radius < 1
    wm = np.where(radius < 0.75, 0.9, 0.0).astype(np.float32)
    gm = np.where(brain & (radius >= 0.75), 0.8, 0.0).astype(np.float32)
    csf = np.where(brain, np.float32(1) - wm - gm, 0).astype(np.float32)
    labels = layered(SHAPE, AFFINE, "brats-2017")
    uptake = np.where(labels > 0, 2.0, 0.5).astype(np.float32)
    scalars = {"wm": wm, "gm": gm, "csf": csf, "pet": uptake, "t1c": np.where(labels == 4, 9.0, 3.0)}
    volumes = {role: Volume(data, AFFINE, kind="scalar") for role, data in scalars.items()}
    maps = {"seg": labels, "brain": brain, "recurrence": labels == 2}
    volumes |= {role: Volume(data, AFFINE, kind="label") for role, data in maps.items()}
    return volumes


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Mapping[str, Volume]], Path]:
    """Write volumes to a patient folder as <role>.nii.gz and return the folder."""

    def write(volumes: Mapping[str, Volume]) -> Path:
        folder = tmp_path / "patient_007"
        for role, volume in volumes.items():
            write_nifti(volume, folder / f"{role}.nii.gz")
        return folder

    return write
