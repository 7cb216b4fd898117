"""Paired comparison of recurrence coverage between a plan and the standard plan of the same patients.

    dᵢ = c_plan,ᵢ − c_standard,ᵢ        c: coverage, a fraction of the recurrence

mean of d with a 95 % bootstrap interval (percentiles of the means of patients drawn with replacement), median,
counts of d > 0, = 0, < 0, Wilcoxon's signed-rank test and Student's paired t-test, the mean without the most
influential patient, and the mean of the middle 80 %.

**Zero rule:** Wilcoxon's test leaves out patients with d = 0 exactly (Wilcoxon's own rule); bootstrap, t-test and
means keep them. **Empties:** a patient without recurrence has no coverage and no part in the primary analysis;
counted as covered in full by every plan (d = 0) it enters a second one, for comparison with published tables.
All p-values are two-sided, exploratory and not adjusted for their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from gliodil.planning.bootstrap import RESAMPLES, bootstrap_interval

TRIM = 0.1
"""Share of patients cut off at each end for the trimmed mean."""


@dataclass(frozen=True)
class Influence:
    """The patient whose removal moves the mean difference most, and what is left without."""

    patient: str
    difference: float
    mean_without: float
    low_without: float | None
    high_without: float | None


@dataclass(frozen=True)
class Paired:
    """Coverage of a plan against the standard plan; fractions. None where too few patients say nothing."""

    n: int
    mean: float
    median: float
    mean_difference: float
    low: float | None
    high: float | None
    """Bootstrap interval of the mean difference."""
    median_difference: float
    sd_difference: float | None
    trimmed_difference: float
    better: int
    equal: int
    worse: int
    p_wilcoxon: float | None
    """Of `better + worse` patients: those with no difference are left out."""
    p_t: float | None
    influence: Influence | None


def paired(
    plan: ArrayLike,
    standard: ArrayLike,
    patients: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Paired:
    """Compare two coverages of the same patients.

    Parameters
    ----------
    plan, standard
        Coverage per patient, fractions, shape (n,), n ≥ 1, finite.
    patients
        Their names.
    resamples, seed
        Number of bootstrap samples, and the seed that makes them repeatable.
    """
    values, reference = np.asarray(plan, float), np.asarray(standard, float)
    if values.shape != reference.shape or values.shape != (len(patients),) or not values.size:
        raise ValueError("plan, standard and patients need one entry per patient, and at least one")
    # Coverages are ratios of small integers or rounded numbers; their differences carry rounding errors.
    d = np.where(np.isclose(values, reference, rtol=0, atol=1e-12), 0.0, values - reference)
    low, high = bootstrap_interval(d, resamples=resamples, seed=seed)
    several = d.size > 1
    return Paired(
        n=d.size,
        mean=float(values.mean()),
        median=float(np.median(values)),
        mean_difference=float(d.mean()),
        low=low,
        high=high,
        median_difference=float(np.median(d)),
        sd_difference=float(d.std(ddof=1)) if several else None,
        trimmed_difference=float(stats.trim_mean(d, TRIM)),
        better=int((d > 0).sum()),
        equal=int((d == 0).sum()),
        worse=int((d < 0).sum()),
        p_wilcoxon=_known(stats.wilcoxon(d, zero_method="wilcox").pvalue) if d.any() else None,
        p_t=_known(stats.ttest_1samp(d, 0.0).pvalue) if several and np.ptp(d) > 0 else None,
        influence=_influence(d, patients, resamples=resamples, seed=seed),
    )


def _influence(
    d: NDArray[np.float64], patients: Sequence[str], *, resamples: int, seed: int
) -> Influence | None:
    """Leave out each patient in turn; the mean without patient i is (Σd − dᵢ) / (n − 1)."""
    if d.size < 3 or not d.any():
        return None
    without = (d.sum() - d) / (d.size - 1)
    most = int(np.argmax(np.abs(without - d.mean())))
    low, high = bootstrap_interval(np.delete(d, most), resamples=resamples, seed=seed)
    return Influence(patients[most], float(d[most]), float(without[most]), low, high)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True)
class Stratum:
    """Patients whose standard plan covers between two fractions of the recurrence."""

    low: float
    high: float
    n: int
    mean_difference: float | None


EDGES = (0.0, 0.5, 0.8, 0.95, 1.0)
"""Coverage by the standard plan at which patients are divided; a patient at an edge belongs above it."""


def strata(plan: ArrayLike, standard: ArrayLike) -> list[Stratum]:
    """Return the mean difference by how much the standard plan covers: where there is room for a change."""
    values, reference = np.asarray(plan, float), np.asarray(standard, float)
    found = np.digitize(reference, EDGES[1:-1])
    return [
        Stratum(
            EDGES[i],
            EDGES[i + 1],
            int(np.sum(found == i)),
            float(np.mean((values - reference)[found == i])) if np.any(found == i) else None,
        )
        for i in range(len(EDGES) - 1)
    ]


CLASSES = ("central", "in-field", "marginal", "distant")


def recurrence_class(coverage: float) -> str:
    """Return where a recurrence lies relative to a plan, by the fraction inside.

    Central: more than 95 %; in-field: more than 80 %; marginal: 20 % or more; distant: less (McDonald et al.).
    """
    return CLASSES[0] if coverage > 0.95 else CLASSES[1] if coverage > 0.8 else CLASSES[2 + (coverage < 0.2)]
