"""How likely tumour is seen later where none is seen now: a readout of the reach, calibrated on pairs of visits.

    P(new tumour at x) = σ(a + b d + c ln(1 + d/5 mm)),      d the expected reach [mm] (``reach``), 0 in the GTV

New tumour is what is segmented at a later visit outside the (filled) GTV of the first. The three numbers maximize the
likelihood of all voxels within 30 mm, by volume, of the pairs named in ``SOURCE``; ``benchmarks/real.py`` fits them
again and says, leaving out one patient after the other, what they are worth. They hold for tumours like those, at the
time those came back, and for a GTV that is the tumour's core; beyond that they are an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gliodil.planning.distance import Mask

COEFFICIENTS = (-0.16153, -0.35362, -0.07288)
"""a, b [1/mm], c."""
PATIENTS = 5
"""Patients the coefficients come from."""
SOURCE = (
    "four glioblastomas between chemoradiation and progression (TCIA Brain-Tumor-Progression) and one before surgery "
    "(GliODIL data set), TCIA's enhancing rims filled"
)
MEANING = "tumour seen at a later visit where none is labelled now"
BEND_MM = 5.0
"""Reach about which the readout may bend [mm]."""
WITHIN_MM = 30.0
"""Reach up to which voxels count."""


def features(reach_mm: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1, d and ln(1 + d/5 mm), shape (n, 3)."""
    d = np.asarray(reach_mm, np.float64)
    return np.stack([np.ones_like(d), d, np.log1p(d / BEND_MM)], axis=-1)


def probability(
    reach_mm: NDArray[np.floating], coefficients: Sequence[float] = COEFFICIENTS
) -> NDArray[np.float64]:
    """Return the probability of later tumour at a reach outside the GTV, same shape; 0 where it is infinite."""
    reach, found = np.asarray(reach_mm), np.zeros(np.shape(reach_mm))
    finite = np.isfinite(reach)
    logit = features(reach[finite]) @ np.asarray(coefficients, np.float64)
    found[finite] = 1 / (1 + np.exp(-logit))
    return found


def probability_map(reach_mm: NDArray[np.floating], gtv: Mask) -> NDArray[np.float32]:
    """Return the probability per voxel, 1 in the GTV."""
    return np.where(gtv, 1, probability(reach_mm)).astype(np.float32)


def fit_coefficients(
    reaches_mm: Sequence[NDArray[np.floating]], new_tumour: Sequence[Mask], voxel_ml: Sequence[float]
) -> tuple[float, float, float]:
    """Return the coefficients of greatest likelihood.

    Parameters
    ----------
    reaches_mm, new_tumour
        Per patient, one entry per voxel outside the GTV: its reach, and whether it is tumour later.
    voxel_ml
        Volume of each patient's voxels [mL]: what a voxel counts.
    """
    from scipy.optimize import minimize

    x = np.concatenate([features(d) for d in reaches_mm])
    y = np.concatenate(new_tumour).astype(np.float64)
    weight = np.concatenate([np.full(len(d), v) for d, v in zip(reaches_mm, voxel_ml, strict=True)])
    weight /= weight.sum()

    def loss(b: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logit = x @ b
        excess = 1 / (1 + np.exp(-logit)) - y
        return float(weight @ (np.logaddexp(0, logit) - y * logit)), x.T @ (weight * excess)

    a, b, c = minimize(loss, np.zeros(3), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return float(a), float(b), float(c)
