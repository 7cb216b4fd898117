"""Does a segmentation fit a label convention? If none was named, which one does it follow?

A stated convention is refused only on strong evidence, since nobody can overrule a refusal: labels it does
not know, or a geometry that contradicts it (score below -0.25, or below +0.25 with a part missing where
another convention shows all three layers and a closed rim) while that of another convention is good.
Weaker contradictions are warnings. Without a stated convention exactly one must be consistent.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from gliodil.data.label_geometry import Reading, contacts, read_as
from gliodil.data.labels import CONVENTIONS, LabelConvention
from gliodil.data.volume import Volume
from gliodil.errors import LabelError

SPECK_FRACTION = 1e-3
"""Labels that together hold less than this part of the tumour are stray specks."""

STRONG = 0.25
"""Score beyond which the geometry speaks clearly for (or, negative, against) a reading."""

EXCLUDED = -0.2
"""Score below which a reading is out of the question when no convention was named."""

OPEN_RIM = 1 / 3
"""Rim, as a part of the best reading's, below which a reading with all three layers is out of the question too."""


def check_labels(
    segmentation: Volume, convention: LabelConvention, *, by_name: bool = False
) -> tuple[str, ...]:
    """Check that a segmentation fits a stated convention; return warnings.

    Parameters
    ----------
    segmentation, convention
        The labels and what they are said to mean.
    by_name
        Whether names of structures said it: then their arrangement, whatever it is, says nothing against it.

    Raises
    ------
    LabelError
        If there is no tumour, no tumour core, labels the convention does not know (specks below 0.1 % of
        the tumour are ignored and reported), or a geometry that clearly contradicts the convention.
    """
    counts = label_counts(segmentation)
    total = sum(counts.values())
    unknown = {label: n for label, n in counts.items() if label not in convention.labels}
    others = [r for r in _readings(segmentation, counts) if r.convention != convention]
    if sum(unknown.values()) >= SPECK_FRACTION * total:
        raise LabelError(
            f"The segmentation does not follow the label convention {convention.name}.",
            file=segmentation.path,
            expected=str(convention),
            found=_inventory(segmentation, counts),
            remedy=_suggest(others) if others else "relabel the segmentation to a known convention",
        )
    common = _common(counts)
    given = read_as(convention, common, contacts(segmentation.data, common))
    if not (given.has_core or "cavity" in given.roles.values()):
        alternatives = [r for r in others if r.has_core]
        raise LabelError(
            f"The segmentation has no tumour core under the label convention {convention.name}.",
            file=segmentation.path,
            expected=f"voxels of label {_names(convention.enhancing + convention.necrotic)}",
            found=_inventory(segmentation, counts),
            remedy="add the enhancing or necrotic core to the segmentation"
            + (f", or, if the labels mean something else: {_suggest(alternatives)}" if alternatives else ""),
        )
    warnings = []
    if unknown:
        specks = ", ".join(f"{n} of label {label}" for label, n in sorted(unknown.items()))
        warnings.append(f"labels: stray voxels that {convention.name} does not know are ignored ({specks})")
    return tuple(warnings) if by_name else (*warnings, *_judge(segmentation, given, others))


def detect_convention(segmentation: Volume) -> tuple[LabelConvention, tuple[str, ...]]:
    """Return the one convention that fits labels and geometry, and the warnings that say so.

    Raises
    ------
    LabelError
        If there is no tumour, or not exactly one convention is consistent.
    """
    counts = label_counts(segmentation)
    if set(counts) == {1}:
        note = "labels: no convention was named; a mask of one label, 1, is read as gross tumour (core)"
        return CONVENTIONS["gtv"], (note,)
    fitting = _readings(segmentation, counts)
    if not fitting:
        raise LabelError(
            "The segmentation fits no known label convention.",
            file=segmentation.path,
            expected="; ".join(str(convention) for convention in CONVENTIONS.values()),
            found=_inventory(segmentation, counts),
            remedy="relabel the segmentation to one of these",
        )
    consistent = [r for r in fitting if r.has_core and (r.score is None or r.score >= EXCLUDED)]
    best_rim = max((r.rim for r in consistent if r.is_complete), default=0.0)
    closed = [r for r in consistent if not r.is_complete or r.rim >= OPEN_RIM * best_rim]
    layered = any(r.is_layered for r in closed)
    candidates = [r for r in closed if r.is_complete] if layered else closed
    meanings = {tuple(sorted(r.roles.items())) for r in candidates}
    unsupported = all(r.score is None or r.score < 0 for r in candidates)
    if len(meanings) != 1 or unsupported:
        shown = candidates or fitting
        raise LabelError(
            "What the labels of the segmentation mean cannot be told from their arrangement.",
            file=segmentation.path,
            expected="labels that only one known convention explains",
            found=f"{_inventory(segmentation, counts)}; candidates: "
            + "; ".join(str(r.convention) for r in shown),
            remedy="name the convention with --labels NAME",
        )
    # Equal meanings: prefer the convention that also knows the specks.
    best = min(candidates, key=lambda r: len(counts.keys() - r.convention.labels))
    same = [r.convention.name for r in candidates if r is not best]
    note = f"labels: no convention was named; {_names(best.roles)} read as {best.convention}"
    note += f" (means the same here as {', '.join(same)})" if same else ""
    return best.convention, (note, *check_labels(segmentation, best.convention))


def label_counts(segmentation: Volume) -> dict[int, int]:
    """Return the number of voxels of each label, background excluded; refuse an empty segmentation."""
    values, counts = np.unique(segmentation.data, return_counts=True)
    found = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v != 0}
    if not found:
        raise LabelError(
            "The segmentation is empty: every voxel is 0.",
            file=segmentation.path,
            expected="a segmented tumour",
            found="only background",
            remedy="give the tumour segmentation of this patient",
        )
    return found


def _judge(segmentation: Volume, given: Reading, others: list[Reading]) -> tuple[str, ...]:
    """Refuse or warn if the geometry favours another meaning of the same labels."""
    score = given.score or 0.0
    rivals = [
        other
        for other in others
        if other.has_core
        and (other.score or 0.0) >= STRONG
        and dict(other.roles) != dict(given.roles)
        and (other.is_complete or not given.is_complete)
    ]
    if not rivals:
        return (_doubt(given),) if score < 0 else ()
    rival = rivals[0]
    rival_score = rival.score or 0.0
    closed = rival.is_layered and rival.rim >= 0.7 and not given.is_complete
    if score <= -STRONG or (closed and score < STRONG):
        raise LabelError(
            f"The arrangement of the labels contradicts the convention {given.convention.name}.",
            file=segmentation.path,
            expected=f"oedema outside, necrosis inside: {given.convention}",
            found=f"layers as in {rival.convention} (scores {score:+.2f} against {rival_score:+.2f})",
            remedy=_suggest([rival]),
        )
    if closed or score < 0 or (score < STRONG and rival_score >= score + 0.15):
        return (f"{_doubt(given)}; it looks like {rival.convention}",)
    return ()


def _doubt(given: Reading) -> str:
    return f"labels: their arrangement is unusual for {given.convention} (score {given.score or 0.0:+.2f})"


def _readings(segmentation: Volume, counts: dict[int, int]) -> list[Reading]:
    """Return the readings of all conventions the labels may follow but for specks, most plausible first."""
    total = sum(counts.values())
    common = _common(counts)
    known = [
        convention
        for convention in CONVENTIONS.values()
        if set(convention.recognised_by) <= set(common) <= convention.labels
        and sum(n for label, n in counts.items() if label not in convention.labels) < SPECK_FRACTION * total
    ]
    if not known:
        return []
    surfaces = contacts(segmentation.data, common)
    readings = [read_as(convention, common, surfaces) for convention in known]
    return sorted(readings, key=lambda r: (not r.is_layered, -(r.score or 0.0)))


def _common(counts: dict[int, int]) -> tuple[int, ...]:
    """Labels that are more than specks."""
    total = sum(counts.values())
    return tuple(sorted(label for label, n in counts.items() if n >= SPECK_FRACTION * total))


def _suggest(readings: list[Reading]) -> str:
    """Name the most plausible reading (the first with a core) and those that mean the same."""
    best = next((r for r in readings if r.has_core), readings[0])
    same = [r.convention.name for r in readings if dict(r.roles) == dict(best.roles)]
    return f"the labels look like {best.convention}: pass --labels {' or --labels '.join(same)}"


def _names(labels: Iterable[int]) -> str:
    return ", ".join(str(label) for label in sorted(labels))


def _inventory(segmentation: Volume, counts: dict[int, int]) -> str:
    """Return the labels with their volumes, the largest ten at most."""
    shown = sorted(sorted(counts, key=lambda label: -counts[label])[:10])
    parts = [f"label {label}: {counts[label] * segmentation.voxel_volume_ml:.3g} mL" for label in shown]
    return ", ".join(parts) + (f" and {len(counts) - 10} more labels" if len(counts) > 10 else "")
