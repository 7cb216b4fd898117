"""What a scanner would show of a known tumour-cell density u: segmentation, FET-PET, recurrence.

Segmentation, labels of brats-2023:

    necrotic   u > θ_nec        enhancing  θ_core < u ≤ θ_nec        oedema  θ_oed < u ≤ θ_core

FET-PET, in units of its maximum. Uptake follows the living cells: it rises with u up to the middle of the
enhancing rim, u_s = (θ_core + θ_nec)/2, and no further. A scanner of 5 mm resolution (G: Gaussian, full width
at half maximum) blurs it over a constant background b, and noise n of the same resolution is added:

    p ∝ b + (1 − b)/u_s · G * min(u, u_s) + n,    b ∈ [0.05, 0.12],  n ~ N(0, 0.05²);    p ≥ 0, max p = 1,

in the brain, zero outside. Where the front is wider than the blur, u = s(p − b') with s, b' as returned. The
cap u_s keeps s in [0.5, 1.02] and b' in [0, 0.5], where the inverse problem looks for them. Fronts of 1 mm
are not wide: over rim and oedema the best s and b' leave 0.07 to 0.1 (root mean square), mostly blur.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.labels import get_convention

CONVENTION = get_convention("brats-2023")

RESOLUTION_MM = 5.0
"""Full width at half maximum of the PET scanner's point-spread function."""

NOISE = 0.05
"""Standard deviation of the PET noise, as a part of the largest signal."""

Mask = NDArray[np.bool_]
Density = NDArray[np.float32]


@dataclass(frozen=True)
class Thresholds:
    """Densities at the borders of necrosis, core and oedema, 1 > necrotic > core > oedema > 0."""

    necrotic: float
    core: float
    oedema: float


@dataclass(frozen=True)
class Uptake:
    """A PET image in [0, 1] and the numbers of u = scale (p - background)."""

    image: NDArray[np.float32]
    scale: float
    background: float


def segment(density: Density, thresholds: Thresholds) -> NDArray[np.uint8]:
    """Return the label map (brats-2023) of a density."""
    labels = np.zeros(density.shape, np.uint8)
    labels[density > thresholds.oedema] = CONVENTION.oedema[0]
    labels[density > thresholds.core] = CONVENTION.enhancing[0]
    labels[density > thresholds.necrotic] = CONVENTION.necrotic[0]
    return labels


def label_recurrence(density: Density, cavity: Mask, thresholds: Thresholds) -> NDArray[np.uint8]:
    """Return enhancing tumour and oedema (brats-2023) outside the resection cavity."""
    labels = np.zeros(density.shape, np.uint8)
    labels[density > thresholds.oedema] = CONVENTION.oedema[0]
    labels[density > thresholds.core] = CONVENTION.enhancing[0]
    labels[cavity] = 0
    return labels


def fet_pet(
    density: Density,
    brain: Mask,
    thresholds: Thresholds,
    *,
    spacing: tuple[float, float, float],
    rng: np.random.Generator,
) -> Uptake:
    """Return the PET image of a density; see the top of this file.

    Parameters
    ----------
    spacing
        Voxel spacing [mm].
    rng
        Source of the background level and of the noise.
    """
    sigma = [RESOLUTION_MM / (2 * math.sqrt(2 * math.log(2))) / h for h in spacing]
    saturation = (thresholds.core + thresholds.necrotic) / 2
    background = float(rng.uniform(0.05, 0.12))
    slope = (1 - background) / saturation
    uptake = background + slope * _blur(np.minimum(density, np.float32(saturation)), sigma)
    noise = _blur(rng.standard_normal(density.shape, np.float32), sigma)
    # Rounded to what a scanner resolves; the file is much smaller.
    image = np.where(brain, np.maximum(uptake + noise * (NOISE / noise[brain].std()), 0), 0)
    peak = float(image.max())
    return Uptake(np.round(image / peak, 3).astype(np.float32), peak / slope, background / peak)


def _blur(image: NDArray[np.floating], sigma: list[float]) -> NDArray[np.floating]:
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="constant"))
