"""The gate between a fit and the plan drawn from it: is this density one to be read?

A plan that fails is written all the same and called "not accepted", with the reasons. An optimizer that converged says
that a minimum was found, not that the minimum is right; these are the conditions under which it may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gliodil.data.patient import Patient
from gliodil.inference.agreement import Agreement
from gliodil.inference.result import Fit
from gliodil.planning.plans import Plans

MISFIT_MM = 1.2
"""Largest mean distance between predicted and labelled boundaries on voxels of up to 2 mm."""
MISFIT_VOXELS = 0.6
"""... and on larger ones, in voxels."""
CORE_BELOW_LEVEL = 0.10
"""Largest share of the core below its level."""
BARE_SHARE = 0.5
"""Largest share of the visible tumour where the tissue maps have no tissue."""
BARE_TISSUE = 0.1
MEASURABLE = 1e-4
"""Density below which no image says anything: a CTV that such densities rank ends somewhere arbitrary."""


@dataclass(frozen=True)
class Acceptance:
    """Whether a plan's estimate is to be read, and every reason against it."""

    accepted: bool
    reasons: tuple[str, ...]


def accept(
    patient: Patient, fit: Fit, plans: Plans, *, registration: Mapping[str, Any] | None = None
) -> Acceptance:
    """Return whether a fit and its plans are accepted.

    Parameters
    ----------
    registration
        Record of how the tissue maps were made, where they were not given: `correlation` of the template with the
        patient's image, and `correlation_expected`.
    """
    reasons = []
    if fit.status not in ("converged", "given"):
        reasons.append(f"the optimizer did not converge ({fit.status.replace('_', ' ')})")
    if fit.agreement is not None:
        reasons += _labels(fit.agreement, patient.spacing)
    reasons += _tissue(patient)
    if registration and (found := registration.get("correlation")) is not None:
        expected = registration["correlation_expected"]
        if found < expected:
            reasons.append(
                f"the template's tissue maps match the image poorly (local correlation {found:.2f}, at least "
                f"{expected:.2f} expected)"
            )
    level = plans.ctv_end.get("density")
    if plans.rank == "density" and level is not None and level < MEASURABLE and fit.method != "given":
        reasons.append(
            f"the model CTV ends at a density of {level:.0e}, and below {MEASURABLE:.0e} no image can tell one from "
            "another"
        )
    return Acceptance(not reasons, tuple(reasons))


def _labels(found: Agreement, spacing: tuple[float, float, float]) -> list[str]:
    reasons = []
    limit = max(MISFIT_MM, MISFIT_VOXELS * sum(spacing) / 3)
    if found.misfit_mm > limit:
        reasons.append(
            f"the density's boundaries are {found.misfit_mm:.1f} mm from those of the labels on average (at most "
            f"{limit:.1f} mm is accepted)"
        )
    if found.core_below_level > CORE_BELOW_LEVEL:
        reasons.append(
            f"{found.core_below_level:.0%} of the tumour core lies below the density of its own edge (at most "
            f"{CORE_BELOW_LEVEL:.0%} is accepted)"
        )
    if missed := found.lesions_found - found.lesions_explained:
        reasons.append(f"{missed} of {found.lesions_found} lesions are not explained by the estimate")
    return reasons


def _tissue(patient: Patient) -> list[str]:
    if not {"wm", "gm"} <= patient.volumes.keys() or not patient.tumour.any():
        return []
    tissue = patient.volumes["wm"].data[patient.tumour] + patient.volumes["gm"].data[patient.tumour]
    share = float(np.mean(tissue < BARE_TISSUE))
    if share <= BARE_SHARE:
        return []
    return [f"the tissue maps show no tissue in {share:.0%} of the visible tumour"]
