"""Two fits of one patient side by side: how far their densities, plans and parameters agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.inference.result import Fit
from gliodil.inference.score import score
from gliodil.planning.plans import Plans


def compare(
    fit: Fit,
    plans: Plans,
    other: Fit,
    other_plans: Plans,
    *,
    visible: NDArray[np.bool_],
    truth: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Return how a fit and its plans compare with another fit of the same patient.

    Parameters
    ----------
    visible
        The segmented tumour on the grid of the densities.
    truth
        Scores of the other fit against the true density, for simulated patients.

    Returns
    -------
    `method`, `status`, `status_message`, `wall_s`, `label_misfit_mm` and `parameters` (values) of the other fit;
    `agreement`, the scores of ``inference.score`` with the other density in place of the truth; `ctv_model_dice`;
    `truth`.
    """
    here, there = plans.model.data > 0, other_plans.model.data > 0
    both, total = int((here & there).sum()), int(here.sum()) + int(there.sum())
    return {
        "method": other.method,
        "status": other.status,
        "status_message": other.message,
        "wall_s": other.wall_s,
        "label_misfit_mm": other.label_misfit_mm,
        "parameters": {name: entry.value for name, entry in other.parameters.items()},
        "agreement": score(fit.density, other.density, visible),
        "ctv_model_dice": 2 * both / max(total, 1),
        "truth": None if truth is None else dict(truth),
    }
