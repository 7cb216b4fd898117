"""Which tumours synthetic patients get: the numbers drawn, the places drawn, and what is rejected.

Drawn evenly: D_w ∈ [0.035, 0.2] mm²/day, ρ ∈ [0.035, 0.2] 1/day, R ∈ [10, 30], θ_nec ∈ [.70, .85],
θ_core ∈ [.45, .60], θ_oed ∈ [.15, .35]. Foci: evenly over the white matter (w ≥ 1/2) above the tentorium, at
least 15 mm below the brain's surface and 10 mm off the midplane; of three foci, each pair lies 15 to 40 mm
apart and all on one side.

A tumour is rejected unless its visible part u > θ_oed has 15 to 200 mL, a core u > θ_core of at least 3 mL,
and at most 1 % below the tentorium. Slow tumours are therefore rarer than the ranges suggest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.growth import Rates
from gliodil.data.label_geometry import bounding_box
from gliodil.data.observe import Thresholds
from gliodil.data.template import Anatomy
from gliodil.data.volume import Volume
from gliodil.errors import NumericsError

DIFFUSIVITY = (0.035, 0.2)
PROLIFERATION = (0.035, 0.2)
WM_GM_RATIO = (10.0, 30.0)
NECROTIC, CORE, OEDEMA = (0.70, 0.85), (0.45, 0.60), (0.15, 0.35)

VISIBLE_ML = (15.0, 200.0)
CORE_ML = 3.0
MAX_INFRATENTORIAL = 0.01

WHITE_MATTER = 0.5
DEPTH_MM = 15.0
OFF_MIDPLANE_MM = 10.0
APART_MM = (15.0, 40.0)
MAX_TRIES = 100_000

# A box around every place that can be drawn, world mm of MNI152.
_LOWEST, _HIGHEST = np.array([-70.0, -105.0, -50.0]), np.array([70.0, 75.0, 85.0])

Point = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Draw:
    """The numbers of one tumour; origins in world mm."""

    rates: Rates
    thresholds: Thresholds
    origins: tuple[tuple[float, float, float], ...]


def allowed_origins(anatomy: Anatomy, below: Mask) -> Volume:
    """Return a label volume that is 1 where a focus may lie. `below`: which voxels are infratentorial."""
    brain = anatomy.brain.data > 0
    box = bounding_box(brain)
    depth = np.zeros(brain.shape, np.float32)
    # A rim of one voxel stands for the outside where the brain is cut by the image's border.
    inside = np.pad(brain[box], 1)
    depth[box] = ndimage.distance_transform_edt(inside, sampling=anatomy.brain.spacing)[1:-1, 1:-1, 1:-1]
    deep_white = (depth >= DEPTH_MM) & (anatomy.wm.data >= WHITE_MATTER)
    return anatomy.brain.with_data((deep_white & ~below).astype(np.uint8))


def draw_tumour(rng: np.random.Generator, allowed: Volume, foci: int) -> Draw:
    """Return the numbers of a tumour with `foci` origins where `allowed` is 1."""
    rates = Rates(*(float(rng.uniform(*span)) for span in (DIFFUSIVITY, PROLIFERATION, WM_GM_RATIO)))
    thresholds = Thresholds(*(float(rng.uniform(*span)) for span in (NECROTIC, CORE, OEDEMA)))
    origins: list[Point] = []
    for _ in range(MAX_TRIES):
        low, high = (_LOWEST, _HIGHEST)
        if origins:  # the others lie near the first
            low, high = origins[0] - APART_MM[1], origins[0] + APART_MM[1]
        point = rng.uniform(low, high)
        if _is_allowed(point, allowed) and all(_fit_together(point, other) for other in origins):
            origins.append(point)
        if len(origins) == foci:
            return Draw(rates, thresholds, tuple((float(x), float(y), float(z)) for x, y, z in origins))
    raise NumericsError("No place for the foci was found.", found=f"{MAX_TRIES} points tried")


def objection(
    density: NDArray[np.float32], thresholds: Thresholds, below: Mask, voxel_ml: float
) -> str | None:
    """Return why a grown tumour is rejected, or None. `below`: which voxels lie below the tentorium."""
    seen = density > thresholds.oedema
    visible = float(np.count_nonzero(seen)) * voxel_ml
    core = float(np.count_nonzero(density > thresholds.core)) * voxel_ml
    if not VISIBLE_ML[0] <= visible <= VISIBLE_ML[1]:
        return f"{visible:.1f} mL are visible"
    if core < CORE_ML:
        return f"the core has {core:.1f} mL"
    if (share := float(np.count_nonzero(seen & below)) * voxel_ml / visible) > MAX_INFRATENTORIAL:
        return f"{share:.0%} of the visible tumour lie below the tentorium"
    return None


def _is_allowed(point: Point, allowed: Volume) -> bool:
    index = np.rint(allowed.to_index(point)).astype(int)
    if abs(point[0]) < OFF_MIDPLANE_MM or (index < 0).any() or (index >= allowed.shape).any():
        return False
    return bool(allowed.data[tuple(index)])


def _fit_together(a: Point, b: Point) -> bool:
    same_side = a[0] * b[0] > 0
    return bool(same_side and APART_MM[0] <= np.linalg.norm(a - b) <= APART_MM[1])
