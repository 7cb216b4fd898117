"""How sure a mean over patients is: the percentile bootstrap.

interval = 2.5 and 97.5 % points of the means of n patients drawn with replacement from the n there are
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

RESAMPLES = 20_000
LEVEL = 0.95


def bootstrap_interval(
    differences: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float | None, float | None]:
    """Return the 95 % percentile-bootstrap interval of the mean; (None, None) for fewer than two values."""
    if differences.size < 2:
        return None, None
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    found = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=resamples,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
