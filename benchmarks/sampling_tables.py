"""Tables and curves of the runs of `benchmarks/sampling.py`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers import PEERS

from gliodil.sampling.problems.catalogue import PROBLEMS

LEVELS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-9)


def tables(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return one Markdown table per problem: error at the end and time to each level, medians over seeds."""
    lines = ["# Time to accuracy", ""]
    for problem in dict.fromkeys(run["problem"] for run in runs):
        budgets = sorted({run["budget_s"] for run in runs if run["problem"] == problem})
        for budget in budgets:
            lines += [
                f"## {problem}, {budget:g} CPU s",
                "",
                f"Evaluation law: {PROBLEMS[problem]().evaluation}.",
                "",
                "| method | seeds | parameters | rel. L2, median (range) | MSE | "
                + " | ".join(f"s to {level:.0e}" for level in LEVELS)
                + " | failures |",
                "|---" * (6 + len(LEVELS)) + "|",
            ]
            chosen = [run for run in runs if run["problem"] == problem and run["budget_s"] == budget]
            groups = {m: [r for r in chosen if r["method"] == m] for m in {r["method"] for r in chosen}}
            for method, group in sorted(groups.items(), key=lambda item: median_error(item[1])):
                lines.append(row(method, group))
            lines.append("")
    return "\n".join(lines)


def final(run: Mapping[str, Any], column: int = 1) -> float:
    """Return what a run ended with; a failed run ended with nothing."""
    last = run["history"][-1][column] if run["history"] else None
    return math.inf if last is None or not math.isfinite(last) else float(last)


def median_error(group: Sequence[Mapping[str, Any]]) -> float:
    """Median of the last errors; failures count as infinite."""
    return statistics.median(final(run) for run in group)


def reached(run: Mapping[str, Any], level: float) -> float:
    """CPU seconds after which the error stays at or below the level at that moment first."""
    return next((h[0] for h in run["history"] if h[1] is not None and h[1] <= level), math.inf)


def row(method: str, group: Sequence[Mapping[str, Any]]) -> str:
    """One line of a table."""
    errors = sorted(final(run) for run in group)
    times = [statistics.median(reached(run, level) for run in group) for level in LEVELS]
    shown = [f"{t:.1f}" if math.isfinite(t) else "–" for t in times]
    mse = statistics.median(final(run, 2) for run in group)
    failures = sum(run["status"] in ("failed", "diverged") for run in group)
    cells = [method, str(len(group)), str(max(run["size"] for run in group))]
    cells += [f"{median_error(group):.1e} ({errors[0]:.1e} to {errors[-1]:.1e})", f"{mse:.1e}", *shown]
    return "| " + " | ".join([*cells, str(failures)]) + " |"


def draw(runs: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write one figure per problem: error against CPU seconds, every seed thin, methods by colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for problem in dict.fromkeys(run["problem"] for run in runs):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        chosen = [run for run in runs if run["problem"] == problem and run["history"]]
        for index, method in enumerate(sorted({run["method"] for run in chosen})):
            for number, run in enumerate(r for r in chosen if r["method"] == method):
                curve = [(h[0], h[1]) for h in run["history"] if h[1] is not None]
                style = "--" if method in PEERS else "-"
                label = method if number == 0 else None
                axes.plot(
                    *zip(*curve, strict=True), style, color=f"C{index % 10}", lw=1, alpha=0.8, label=label
                )
        axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="relative L2 error", title=problem)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.savefig(out / f"sampling_{problem}.png", dpi=150)
        pyplot.close(figure)
