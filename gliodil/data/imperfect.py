"""Segmentations as people draw them: boundaries off by a millimetre, oedema that follows tissue, labels missing.

With the front coordinate z = √6 ℓ ln(u^(−1/2) − 1) [mm] of a density u (a plane front of infiltration length ℓ is
linear in it) and z_c where u = θ_core:

    core      {u > θ_core}
    oedema    {z − z_c < L e^{σq} (w + κ g)}, core excepted        no isodensity: q is smooth noise, w and g are tissue
    necrosis  {s < −r e^{σq}}, s the signed distance to the core    a rim of r mm, whatever the density inside

and the outer boundary of each is then shifted by smooth noise [mm].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliodil.data.distort import Field, Mask, Spacing, shifted, smooth_field
from gliodil.data.growth import Density
from gliodil.data.observe import CONVENTION
from gliodil.data.realism import Realism


@dataclass(frozen=True)
class Compartments:
    """Nested masks: necrosis in core in visible tumour."""

    visible: Mask
    core: Mask
    necrosis: Mask


def front_coordinate(density: Density, length_mm: float) -> Field:
    """Return z of a density, increasing outwards [mm]; `length_mm` is √(D_w/ρ)."""
    u = np.clip(density.astype(np.float64), 1e-12, 1 - 1e-6)
    return np.asarray(math.sqrt(6) * length_mm * np.log(u**-0.5 - 1), np.float32)


def compartments(
    density: Density,
    white: Field,
    grey: Field,
    brain: Mask,
    *,
    threshold: float,
    length_mm: float,
    oedema_mm: float,
    rim_mm: float,
    spacing: Spacing,
    realism: Realism,
    rng: np.random.Generator,
) -> Compartments:
    """Return what is drawn of a density; see the top of this file.

    Parameters
    ----------
    density, white, grey, brain
        u, tissue fractions and brain mask on one grid.
    threshold
        θ_core.
    oedema_mm, rim_mm
        L and r [mm].
    """

    def noise(fwhm_mm: float) -> Field:
        return smooth_field(rng, density.shape, spacing, fwhm_mm)

    z = front_coordinate(density, length_mm)
    edge = float(front_coordinate(np.array([threshold], np.float32), length_mm)[0])
    reach = oedema_mm * np.exp(realism.oedema_log_sd * noise(realism.oedema_fwhm_mm))
    swollen = (z - edge < reach * (white + realism.oedema_in_grey * grey)) & (density > 0)
    core, visible = (
        shifted(mask, realism.boundary_mm * noise(realism.boundary_fwhm_mm), spacing) & brain
        for mask in (density > threshold, swollen)
    )
    rim = rim_mm * np.exp(realism.rim_log_sd * noise(realism.oedema_fwhm_mm))
    return Compartments(visible | core, core, shifted(core, -rim, spacing))


def labelled(seen: Compartments, label_set: str) -> NDArray[np.uint8]:
    """Return the label map (brats-2023) that one of `realism.LABEL_SETS` makes of the compartments."""
    labels = np.zeros(seen.core.shape, np.uint8)
    if label_set in ("complete", "no enhancement"):
        labels[seen.visible] = CONVENTION.oedema[0]
    labels[seen.core] = CONVENTION.enhancing[0]
    if label_set in ("complete", "no oedema"):
        labels[seen.necrosis] = CONVENTION.necrotic[0]
    elif label_set == "hollow rim":
        labels[seen.necrosis] = 0
    elif label_set == "no enhancement":
        labels[seen.core] = CONVENTION.necrotic[0]
    return labels
