"""What a cohort's patients say at the volumes of isotropic margins: `cohort_margins.tsv`, differences, intervals.

d = c(ranking, margin) - c(isotropic margin), patient by patient; mean and 95 % bootstrap interval over the n
patients that have the target and the ranking
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gliodil.planning.equal_volume import paired_difference

REFERENCE = "standard"
"""The ranking that is the isotropic margin itself."""
TARGETS = {
    "any": "any recurrence",
    "any_new": "any recurrence outside the GTV",
    "enhancing": "enhancing recurrence",
    "enhancing_new": "enhancing recurrence outside the GTV",
}
COLUMNS: dict[str, dict[str, Any]] = {
    "patient_id": {"Description": "Name of the patient"},
    "ranking": {
        "Description": "What the voxels of the brain are ranked by",
        "Levels": {
            "standard": "distance from the GTV: the isotropic margin",
            "trimmed": "length of the path round barriers",
            "model": "what the model CTV ranks by",
            "density:NAME": "the map NAME, made elsewhere",
        },
    },
    "target": {"Description": "Later tumour that is to be covered", "Levels": TARGETS},
    "target_ml": {"Description": "Its volume", "Units": "mL"},
    "margin_mm": {"Description": "Isotropic margin whose volume the ranking is cut at", "Units": "mm"},
    "coverage": {"Description": "Fraction of the target inside; n/a if it is empty"},
    "difference": {"Description": "coverage minus that of the isotropic margin"},
}
"""Columns of `cohort_margins.tsv`, as its JSON sidecar describes them."""

Margins = Mapping[str, Any]
"""Content of a patient's `coverage_margins.json`."""


@dataclass(frozen=True)
class MarginResult:
    """A ranking at the volume of one isotropic margin, over the patients that have the target; fractions."""

    target: str
    ranking: str
    margin_mm: float
    n: int
    mean: float
    difference: float
    low: float | None
    high: float | None
    """Bootstrap interval of the mean difference."""


def margin_results(followed: Sequence[Margins]) -> list[MarginResult]:
    """Return every ranking at every margin, target by target; targets that no patient has are left out."""
    results = []
    rankings = list(dict.fromkeys(r for margins in followed for r in margins["coverage"]))
    margins_mm = followed[0]["margins_mm"] if followed else []
    for target in TARGETS:
        for ranking in rankings:
            for at, margin_mm in enumerate(margins_mm):
                pairs = [
                    (found[target][at], margins["coverage"][REFERENCE][target][at])
                    for margins in followed
                    if (found := margins["coverage"].get(ranking)) is not None
                    and found[target][at] is not None
                ]
                if pairs:
                    values, isotropic = zip(*pairs, strict=True)
                    mean, low, high = paired_difference(values, isotropic)
                    assert mean is not None
                    results.append(
                        MarginResult(
                            *(target, labelled(ranking), margin_mm, len(pairs)),
                            *(sum(values) / len(values), mean, low, high),
                        )
                    )
    return results


def by_target(results: Sequence[MarginResult]) -> dict[str, dict[str, list[MarginResult]]]:
    """Return the results as tables: target in words to ranking to one result per margin.

    Where every later tumour is enhancing, that is said once.
    """
    tables: dict[str, dict[str, list[MarginResult]]] = {}
    for result in results:
        tables.setdefault(result.target, {}).setdefault(result.ranking, []).append(result)
    for kind in ("enhancing", "enhancing_new"):
        anything = tables.get(kind.replace("enhancing", "any"), {})
        if tables.get(kind) == {r: [replace(x, target=kind) for x in row] for r, row in anything.items()}:
            del tables[kind]
    return {TARGETS[target]: table for target, table in tables.items()}


def margin_rows(patients: Mapping[str, Margins]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `cohort_margins.tsv`."""
    for identity, margins in patients.items():
        for ranking, curves in margins["coverage"].items():
            for target, values in curves.items():
                isotropic = margins["coverage"][REFERENCE][target]
                for margin_mm, value, reference in zip(margins["margins_mm"], values, isotropic, strict=True):
                    yield {
                        "patient_id": identity,
                        "ranking": labelled(ranking),
                        "target": target,
                        "target_ml": margins["target_ml"][target],
                        "margin_mm": margin_mm,
                        "coverage": value,
                        "difference": None if value is None else value - reference,
                    }


def margin_table(patients: Mapping[str, Margins]) -> str:
    """Return the content of `cohort_margins.tsv`: one row per patient, ranking, target and margin."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(COLUMNS), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for row in margin_rows(patients):
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return stream.getvalue()


def _cell(value: Any) -> str:
    return "n/a" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def labelled(ranking: str) -> str:
    """Return the name of a ranking in tables: `density:NAME` for a map made elsewhere."""
    return ranking if ranking in ("standard", "trimmed", "model") else f"density:{ranking}"
