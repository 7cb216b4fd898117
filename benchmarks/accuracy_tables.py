"""Tables of the rows of `benchmarks/accuracy.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

MARGINS_MM = (3, 5, 8)
COVERAGES, LATER = (tuple(f"{name}_{mm}mm" for mm in MARGINS_MM) for name in ("cover", "later"))
HIGHER_IS_BETTER = ("dice_20", "dice_10", "dice_5", "dice_1", "coverage", *COVERAGES, *LATER)
DENSITY_ERRORS = ("relative_l2", "rmse_outside_visible")
SCORES = (
    *("dice_20", "dice_10", "dice_5", "dice_1", "coverage", *COVERAGES, *DENSITY_ERRORS),
    *("length_error", "growth_error", "origin_mm"),
)
REALISTIC_SCORES = (*HIGHER_IS_BETTER, *DENSITY_ERRORS, "misfit_mm")
COMPARED = ("dice_10", "dice_1", "relative_l2", "coverage", "cover_3mm")


def table(cohort: str, rows: list[dict[str, Any]], methods: list[str]) -> str:
    """Return medians (worst) by method, and paired mean differences to the first with bootstrap intervals."""
    lines = [f"\n{cohort}: {len({r['patient'] for r in rows})} patients; median (worst)"]
    lines.append(f"{'':<22}" + "".join(f"{m:>24}" for m in methods))
    by = {m: {r["patient"]: r for r in rows if r["method"] == m} for m in methods}
    for name in scores(cohort):
        cells = []
        for m in methods:
            values = [r[name] for r in by[m].values() if r.get(name) is not None]
            worst = min if name in HIGHER_IS_BETTER else max
            cells.append(f"{np.median(values):.3f} ({worst(values):.3f})" if values else "-")
        lines.append(f"{name:<22}" + "".join(f"{c:>24}" for c in cells))
    lines.append(
        f"{'seconds, mean':<22}"
        + "".join(f"{np.mean([r['seconds'] for r in by[m].values()]):>24.1f}" for m in methods)
    )
    exact = sum(r["physics"] == "exact" for r in by[methods[0]].values())
    lines.append(f"{methods[0]} kept the equation exactly in {exact}")
    lines.append(f"paired mean difference, {methods[0]} minus the other [95 % bootstrap interval]")
    for name in COMPARED:
        cells = [difference(by[methods[0]], by[m], name) for m in methods]
        lines.append(f"{name:<22}" + "".join(f"{c:>24}" for c in cells))
    lines.append(
        f"coverage of the recurrence by {methods[0]}, mean, and paired difference to plans of equal volume"
    )
    for name in (*COVERAGES, *(LATER if cohort == "realistic" else ())):
        values = [r[name] for r in by[methods[0]].values() if r.get(name) is not None]
        if values:
            cells = [
                f"{plan} {spread([r[name] - r[other] for r in by[methods[0]].values() if name in r])}"
                for plan in ("standard", "trimmed", "density")
                if all((other := f"{name}_{plan}") in r for r in by[methods[0]].values() if name in r)
            ]
            lines.append(f"{name:<22}{np.mean(values):>10.3f}    " + "    ".join(cells))
    return "\n".join(lines)


def against(rows: list[dict[str, Any]], other: list[dict[str, Any]], methods: list[str]) -> str:
    """Return paired mean differences to another version's rows of the same methods, score by score."""
    lines = ["paired mean difference, this minus the other version [95 % bootstrap interval], patients"]
    lines.append(f"{'':<22}" + "".join(f"{m:>30}" for m in methods))
    mine, theirs = (
        {m: {r["patient"]: r for r in found if r["method"] == m} for m in methods} for found in (rows, other)
    )
    for name in scores(rows[0]["cohort"]):
        cells = []
        for m in methods:
            both = common(mine[m], theirs[m], name)
            cells.append(f"{difference(mine[m], theirs[m], name)} {len(both):>3}")
        lines.append(f"{name:<22}" + "".join(f"{c:>30}" for c in cells))
    return "\n".join(lines)


def scores(cohort: str) -> tuple[str, ...]:
    """Return the scores that mean something in a cohort."""
    return REALISTIC_SCORES if cohort == "realistic" else SCORES


def common(a: dict[str, Any], b: dict[str, Any], name: str) -> list[str]:
    """Return the patients that have a score in both."""
    return [k for k in a if k in b and a[k].get(name) is not None and b[k].get(name) is not None]


def difference(a: dict[str, Any], b: dict[str, Any], name: str) -> str:
    """Return the paired mean difference and its bootstrap interval as text."""
    both = common(a, b, name)
    if a is b or len(both) < 2:
        return "-"
    return spread([a[k][name] - b[k][name] for k in both])


def spread(differences: list[float]) -> str:
    """Return a mean and its bootstrap interval as text."""
    d = np.array(differences)
    means = np.random.default_rng(0).choice(d, (10000, len(d))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{d.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
