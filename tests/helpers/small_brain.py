"""A small spherical brain, white on one side and grey on the other, with a tumour in its middle."""

from __future__ import annotations

import numpy as np

from gliodil.data.labels import CONVENTIONS
from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.planning import PlanRule

SHAPE, SPACING = (36, 34, 32), (1.0, 1.0, 1.5)
RULE = PlanRule("test-6mm", "1", margin_mm=6.0, smoothing_mm=0.0, min_island_mm3=0.0, min_hole_mm3=0.0)


def radius(centre=(18, 17, 16)) -> np.ndarray:
    index = (np.indices(SHAPE).T - centre) * SPACING
    return np.asarray(np.linalg.norm(index, axis=-1).T)


BRAIN, GTV = radius() < 17, radius((18, 17, 16)) < 4


def patient(**changes) -> Patient:
    labels = np.where(GTV, 3, np.where(radius((22, 17, 16)) < 8, 2, 0)).astype(np.uint8)
    grey = np.zeros(SHAPE, np.float32)
    grey[:16] = 1
    affine = np.diag([*SPACING, 1.0])

    def volume(array, kind):
        return Volume(np.asarray(array), affine, kind=kind)

    maps = {"wm": (1 - grey) * BRAIN, "gm": grey * BRAIN} | changes
    volumes = {name: volume(a.astype(np.float32), "scalar") for name, a in maps.items() if a is not None}
    volumes["brain"] = volume(BRAIN.astype(np.uint8), "label")
    return Patient("test", volume(labels, "label"), CONVENTIONS["brats-2023"], volumes=volumes)


def density() -> Volume:
    return patient().segmentation.with_data(
        np.exp(-radius((12, 17, 16)) / 4).astype(np.float32), kind="scalar"
    )
