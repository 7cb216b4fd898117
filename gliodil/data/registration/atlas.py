"""The MNI152 template brought to a patient: an affine map by mutual information, then SyN.

A lesion has no counterpart in the template. Three ways to treat it are kept, to be compared (docs/evidence.md):

    untouched   registered as if it were tissue
    filled      overpainted with the template as the affine map carries it, in the grey values around it; after a
                first SyN overpainted again, and repeated
    masked      left out: of the histogram of the affine map, and of the forces of SyN
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.registration.images import Mask, coarse, stripped, working_grid
from gliodil.data.registration.linear import align, centres_of_mass
from gliodil.data.registration.syn import syn
from gliodil.data.registration.transform import GridGeometry, Transform
from gliodil.data.template import Anatomy
from gliodil.data.volume import Volume

LesionMode = Literal["untouched", "filled", "masked"]
Progress = Callable[[str, int, float], None]


@dataclass(frozen=True)
class AtlasConfig:
    """How the template is registered.

    Attributes
    ----------
    lesion
        What is done about the lesion, see the top of this file.
    affine_mm, warp_mm
        Cells that the affine map and the displacement fields are found on, mm; never finer than the image's voxels.
    iterations
        Of SyN at each level, coarsest first.
    """

    lesion: LesionMode = "masked"
    affine_mm: float = 4.0
    warp_mm: float = 1.5
    iterations: Sequence[int] = (20, 20, 10)


@dataclass(frozen=True, eq=False)
class Registered:
    """The template's transform to the patient (fixed: patient, moving: template), and how well the two match.

    Attributes
    ----------
    correlation
        Correlation of the patient's image and the carried template in the brain outside the lesion: the root mean
        square over windows of 9³ cells, 0 to 1, so neither bias fields nor inverted contrasts lower it.
    """

    transform: Transform
    correlation: float


def register_template(
    image: Volume,
    brain: Mask,
    lesion: Mask,
    anatomy: Anatomy,
    *,
    config: AtlasConfig | None = None,
    progress: Progress | None = None,
) -> Registered:
    """Return how the template lies in a patient.

    Parameters
    ----------
    image
        Anatomical MRI of the patient; T1 is what the template shows, other contrasts work through correlation.
    brain, lesion
        Masks on the image's grid.

    Raises
    ------
    MissingExtraError
        If dipy is not installed.
    InputError
        If the image has no contrast in the brain.
    NumericsError
        If no map was found.
    """
    config = config or AtlasConfig()
    tell = progress or (lambda *_: None)
    bare = stripped(image, brain, "MRI")
    template = stripped(anatomy.t1, anatomy.brain.data > 0, "template")

    voxel_mm = (1000 * image.voxel_volume_ml) ** (1 / 3)

    def on_grids(cells_mm: float) -> tuple[Volume, Volume, Mask]:
        spacing_mm = max(cells_mm, voxel_mm)
        grid = working_grid(image, brain, spacing_mm=spacing_mm)
        other = working_grid(anatomy.t1, anatomy.brain.data > 0, spacing_mm=spacing_mm)
        share = coarse(image.with_data(lesion.astype(np.float32), kind="scalar"), grid)
        return coarse(bare, grid), coarse(template, other), np.asarray(share.data > 0.1)

    tell("template, affine", 0, float("nan"))
    fixed, moving, covered = on_grids(config.affine_mm)
    keep = None if config.lesion == "untouched" or not covered.any() else ~covered
    matrix = align(
        fixed, moving, start=centres_of_mass(fixed, moving), freedom=("rigid", "affine"), keep=keep
    ).matrix

    tell("template, warp", 0, float("nan"))
    fixed, moving, covered = on_grids(config.warp_mm)
    geometry = (GridGeometry.of(image), GridGeometry.of(anatomy.t1))
    mask = ~covered if config.lesion == "masked" and covered.any() else None
    found = Transform(matrix, *geometry)
    for _ in range(2 if config.lesion == "filled" and covered.any() else 1):
        target = _filled(fixed, found.apply(moving, fixed), covered) if config.lesion == "filled" else fixed
        warp = syn(target, moving, start=matrix, iterations=config.iterations, keep=mask)
        found = Transform(matrix, *geometry, warp)
    inside = (coarse(image.with_data(brain.astype(np.float32), kind="scalar"), fixed).data > 0.9) & ~covered
    return Registered(found, local_correlation(fixed, found.apply(moving, fixed), inside))


def local_correlation(one: Volume, other: Volume, inside: Mask) -> float:
    """Return the root mean square of the windowed correlation of two images inside a mask, 0 to 1."""
    a, b = one.data.astype(np.float64), other.data.astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.uniform_filter(values, 9, mode="nearest"))

    a_mean, b_mean = mean(a), mean(b)
    spread_a, spread_b = mean(a * a) - a_mean**2, mean(b * b) - b_mean**2
    common = mean(a * b) - a_mean * b_mean
    square = common**2 / np.maximum(spread_a * spread_b, 1e-12)
    return float(np.sqrt(np.clip(square[inside], 0, 1).mean())) if inside.any() else 0.0


def _filled(image: Volume, carried: Volume, covered: Mask) -> Volume:
    """Return the image with the template in place of the lesion, in the grey values of its surroundings."""
    if not covered.any():
        return image
    around = ndimage.binary_dilation(covered, iterations=6) & ~covered & (image.data > 0)
    slope, level = np.polyfit(carried.data[around], image.data[around], 1) if around.any() else (1.0, 0.0)
    soft = np.clip(2 * ndimage.gaussian_filter(covered.astype(np.float32), 1.0), 0, 1) * (image.data > 0)
    paint = slope * carried.data + level
    return image.with_data(((1 - soft) * image.data + soft * paint).astype(np.float32))
