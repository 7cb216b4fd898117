"""Finished runs as JSON lines: what is there is not run again, and tables are printed from what is there."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
KEY = ("experiment", "size", "variant", "seed")


def load(file: Path) -> list[Row]:
    """Return the finished runs; a last line cut short by an interruption is left out."""
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def append(file: Path, row: Row) -> None:
    """Add a finished run as one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torn = file.exists() and file.stat().st_size > 0 and not file.read_bytes().endswith(b"\n")
    with file.open("a") as stream:
        stream.write(("\n" if torn else "") + json.dumps(row, allow_nan=False) + "\n")


def has(rows: Iterable[Row], **key: object) -> bool:
    """Say whether a run is among them."""
    return any(all(row.get(name) == value for name, value in key.items()) for row in rows)


def table(rows: list[Row], experiment: str, size: str) -> str:
    """Return one experiment as text: mean ± standard deviation over seeds, and the ratio of NFE to vanilla."""
    mine = [row for row in rows if row["experiment"] == experiment and row["size"] == size]
    if not mine:
        return f"{experiment}, {size}: no runs yet"
    metric = mine[0]["metric"]
    heads = ["variant", "seeds", metric, "Δ vanilla", "NFE", "× vanilla", "acc./rej."]
    heads += ["train CPU s", "predict CPU s", "status"]
    vanilla = _mean(mine, "vanilla", "value"), _mean(mine, "vanilla", "nfe")
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in mine):
        group = [row for row in mine if row["variant"] == variant]
        value, nfe = _mean(group, variant, "value"), _mean(group, variant, "nfe")
        relative = metric.startswith("loss")
        change = (value / vanilla[0] - 1) * 100 if relative else value - vanilla[0]
        comparable = vanilla[0] is not None and not math.isnan(vanilla[0])
        lines.append(
            [
                variant,
                str(len(group)),
                _spread(group, "value", 3),
                (f"{change:+.2f}" + (" %" if relative else "")) if comparable else "",
                _spread(group, "nfe", 1),
                f"{nfe / vanilla[1]:.2f}" if comparable else "",
                f"{_mean(group, variant, 'accepted'):.0f}/{_mean(group, variant, 'rejected'):.1f}",
                _spread(group, "train_cpu_s", 1),
                _spread(group, "predict_cpu_s", 3),
                ",".join(sorted({row["status"] for row in group})),
            ]
        )
        lines.extend(_peer_lines(group, variant, vanilla[1]))
    widths = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]
    show = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in [heads, *lines]
    ]
    note = mine[0].get("note", "")
    return "\n".join([f"{experiment}, {size}" + (f": {note}" if note else ""), *(s.rstrip() for s in show)])


def _peer_lines(group: list[Row], variant: str, vanilla_nfe: float) -> list[list[str]]:
    lines = []
    for peer in dict.fromkeys(name for row in group for name in row.get("peers", {})):
        runs = [row["peers"][peer] for row in group if peer in row.get("peers", {})]
        nfe = statistics.fmean(run["nfe"] for run in runs)
        lines.append(
            [
                f"  same model, {peer}",
                str(len(runs)),
                _spread(runs, "value", 3),
                "",
                _spread(runs, "nfe", 1),
                f"{nfe / vanilla_nfe:.2f}" if vanilla_nfe == vanilla_nfe else "",
                "",
                "",
                _spread(runs, "predict_cpu_s", 3),
                "",
            ]
        )
    return lines


def _mean(rows: list[Row], variant: str, field: str) -> float:
    values = [row[field] for row in rows if row.get("variant") == variant and row.get(field) is not None]
    return statistics.fmean(values) if values else math.nan


def _spread(rows: list[Row], field: str, digits: int) -> str:
    values = [row[field] for row in rows if row.get(field) is not None]
    if not values:
        return "-"
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"
