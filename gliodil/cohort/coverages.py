"""Coverage by plan and patient, from whatever table it comes in, and its analysis against the standard plan.

A table of coverages is text with tab-separated columns `Patient_Code Model_Name Coverage[%] IoU`, as published
with GliODIL; lines ending in a colon head its sections: "152 patients, no FET-PET, enhancing core recurrence:".
In such a table an empty recurrence stands as covered by 100 % with an IoU of 0, for every plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.cohort.statistics import CLASSES, Paired, Stratum, paired, recurrence_class, strata
from gliodil.errors import InputError
from gliodil.planning.bootstrap import RESAMPLES

_HEADER = ("Patient_Code", "Model_Name", "Coverage[%]", "IoU")


@dataclass(frozen=True)
class Coverages:
    """Coverage of one kind of recurrence in one set of patients."""

    title: str
    """Which patients."""
    definition: str
    """Which recurrence."""
    plans: Mapping[str, Mapping[str, float | None]]
    """Plan to patient to fraction; None: the recurrence is empty."""

    @property
    def reference(self) -> str:
        """Name of the standard plan."""
        return next(name for name in self.plans if name.lower().startswith("standard"))


@dataclass(frozen=True)
class Analysis:
    """What a set of coverages says; differences are against the reference plan."""

    title: str
    definition: str
    reference: str
    patients: int
    empty: int
    """Patients whose recurrence is empty; not in `primary`."""
    reference_full: int
    """Patients whose recurrence the reference plan covers in full already (empties not counted)."""
    primary: Mapping[str, Paired] = field(default_factory=dict)
    """By plan, without empty recurrences."""
    with_empty: Mapping[str, Paired] = field(default_factory=dict)
    """By plan, empty recurrences counted as covered in full by every plan."""
    strata: Mapping[str, Sequence[Stratum]] = field(default_factory=dict)
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By plan, how many recurrences are central, in-field, marginal and distant; empty ones are none of them."""


def analyse(coverages: Coverages, *, resamples: int = RESAMPLES, seed: int = 0) -> Analysis:
    """Compare every plan with the standard plan, with and without empty recurrences.

    A plan is compared on the patients for which it and the standard plan are known.
    """
    name = coverages.reference
    reference = coverages.plans[name]
    primary: dict[str, Paired] = {}
    with_empty: dict[str, Paired] = {}
    layers: dict[str, Sequence[Stratum]] = {}
    for plan, values in coverages.plans.items():
        common = [patient for patient in reference if patient in values]
        known = [
            (p, v, r) for p in common if (v := values[p]) is not None and (r := reference[p]) is not None
        ]
        filled = [(p, _full(values[p]), _full(reference[p])) for p in common]
        for target, triples in ((primary, known), (with_empty, filled)):
            if triples:
                patients, plan_values, standard = zip(*triples, strict=True)
                target[plan] = paired(plan_values, standard, patients, resamples=resamples, seed=seed)
        if known and plan != name:
            layers[plan] = strata([v for _, v, _ in known], [r for _, _, r in known])
    return Analysis(
        coverages.title,
        coverages.definition,
        name,
        patients=len(reference),
        empty=sum(value is None for value in reference.values()),
        reference_full=sum(value == 1 for value in reference.values()),
        primary=primary,
        with_empty=with_empty,
        strata=layers,
        classes={plan: _classes(values.values()) for plan, values in coverages.plans.items()},
    )


def _classes(values: Iterable[float | None]) -> dict[str, int]:
    counts = Counter(recurrence_class(value) for value in values if value is not None)
    return {name: counts[name] for name in CLASSES}


def _full(coverage: float | None) -> float:
    return 1.0 if coverage is None else coverage


def is_coverage_table(path: Path) -> bool:
    """Whether a file is a table of coverages, told from its first lines."""
    if not path.is_file():
        return False
    try:
        with path.open(encoding="utf-8-sig") as stream:
            return any(
                line.split("\t")[0].strip() == _HEADER[0] for line, _ in zip(stream, range(5), strict=False)
            )
    except (OSError, UnicodeDecodeError):
        return False


def read_coverage_table(path: Path) -> list[Coverages]:
    """Read a table of coverages in per cent.

    Raises
    ------
    InputError
        If a line is not what the table needs, a patient has two values for one plan, or a section lacks the
        standard plan.
    """
    sections: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    section = sections.setdefault("", {})
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip() or cells[0] == _HEADER[0]:
            continue
        if len(cells) == 1 and line.rstrip().endswith(":"):
            section = sections.setdefault(line.strip().rstrip(":"), {})
            continue
        try:
            patient, plan, coverage, iou = cells
            values = float(coverage), float(iou)
        except ValueError as error:
            raise _not_a_table(path, number, line) from error
        known = section.setdefault(plan, {})
        if patient in known or not (0 <= values[0] <= 100 and 0 <= values[1] <= 1):
            raise _not_a_table(path, number, line)
        known[patient] = values
    return [_section(heading, plans, path) for heading, plans in sections.items() if plans]


def _section(heading: str, plans: Mapping[str, Mapping[str, tuple[float, float]]], path: Path) -> Coverages:
    if not any(name.lower().startswith("standard") for name in plans):
        raise InputError(
            "The table has no standard plan to compare with.",
            file=path,
            expected="a Model_Name that begins with Standard" + (f" under {heading!r}" if heading else ""),
            found=", ".join(plans),
            remedy="add the rows of the standard plan",
        )
    empty = {
        patient
        for patient in set().union(*plans.values())
        if all(values[patient] == (100.0, 0.0) for values in plans.values() if patient in values)
    }
    title, comma, definition = heading.rpartition(", ")
    return Coverages(
        title if comma else heading or path.name,
        definition if comma else "recurrence",
        {
            plan: {patient: None if patient in empty else value[0] / 100 for patient, value in values.items()}
            for plan, values in plans.items()
        },
    )


def _not_a_table(path: Path, number: int, line: str) -> InputError:
    return InputError(
        "The table of coverages cannot be read.",
        file=path,
        expected=f"in line {number}: {', '.join(_HEADER)}, once per patient and plan",
        found=line[:80],
        remedy="correct the line",
    )
