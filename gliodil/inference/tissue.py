"""Tissue maps as well as they are known.

A map carried by a registration that errs by σ [mm] says of a point what is true of one about σ away. What is then known
of the point is the mean over where it may have come from, inside the mask M that it cannot have left:

    m̄ = G_σ ∗ (M m) / G_σ ∗ M   in M,      0 outside

The division keeps the brain's surface from fading: a constant stays what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from gliodil.data.patient import Patient, TissueSource
from gliodil.inference.config import FitConfig

ERROR_MM: dict[TissueSource, float] = {"given": 0.0, "template": 4.0}
"""How far maps may be off, by where they come from: files of this patient, or the template registered here.

Given maps are taken at their word: where they are right, blurring them by 0.5 mm already opens sulci that are closed.
"""
REACH = 3.0
"""Where the Gaussian is cut off, in standard deviations."""


def blurred(
    map: ArrayLike, sigma_mm: float, *, spacing: Sequence[float], inside: ArrayLike
) -> NDArray[np.float32]:
    """Return a map blurred by a Gaussian inside a mask.

    Parameters
    ----------
    map
        Tissue fraction or any other 3-D array of finite numbers, (nx, ny, nz).
    sigma_mm
        Standard deviation of the Gaussian [mm], 0 or more.
    spacing
        Voxel size along each axis [mm], (3,).
    inside
        The mask, same shape; what the map holds outside is not heeded.

    Returns
    -------
    The blurred map: 0 outside the mask, within the map's own range inside.
    """
    mask = np.asarray(inside, dtype=bool)
    values = np.where(mask, np.asarray(map, dtype=np.float32), np.float32(0))
    if sigma_mm <= 0 or not mask.any():
        return values
    sigmas = [sigma_mm / h for h in spacing]
    box = tuple(  # the Gaussian of what lies outside the mask's box is never used
        slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(mask)
    )

    def smooth(field: NDArray[np.float32]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = ndimage.gaussian_filter(field, sigmas, mode="constant", truncate=REACH)
        return out

    weight = smooth(mask[box].astype(np.float32))
    result = np.zeros_like(values)
    result[box] = np.where(mask[box], smooth(values[box]) / np.maximum(weight, np.float32(1e-12)), 0)
    return np.clip(result, values.min(), values.max())


def error_mm(patient: Patient, config: FitConfig) -> float:
    """Return how far the patient's maps may be off [mm]; 0 with the reference loss, which takes them as they are."""
    if config.loss == "reference":
        return 0.0
    return ERROR_MM[patient.tissue_source] if config.tissue_error_mm is None else config.tissue_error_mm


def csf_is_open(patient: Patient, config: FitConfig) -> bool:
    """Return whether cells spread where the maps show cerebrospinal fluid; that takes a map of it."""
    if config.loss == "reference" or config.method != "odil" or "csf" not in patient.volumes:
        return False
    return config.csf == "slow" or (config.csf == "auto" and patient.tissue_source == "template")
