"""`cohort.html`: one self-contained page about a cohort, in the look of the patients' reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gliodil import __version__
from gliodil.cohort.coverages import Analysis, Coverages
from gliodil.cohort.figures import curve_figure, difference_figure, embedded
from gliodil.cohort.margin_table import MarginResult, by_target
from gliodil.data.atomic import atomic_path
from gliodil.errors import MissingExtraError
from gliodil.planning.bootstrap import RESAMPLES
from gliodil.reporting import wording
from gliodil.reporting.metrics import STATEMENT

if TYPE_CHECKING:
    from gliodil.cohort.group import Member

REPORT_FILE = "cohort.html"
_KINDS = {"enhancing": "enhancing recurrence", "any": "any recurrence"}


def write_cohort_report(
    out: Path,
    *,
    tables: Sequence[Coverages],
    analyses: Sequence[Analysis],
    members: Sequence[Member],
    margins: Sequence[MarginResult] = (),
) -> Path:
    """Write `cohort.html` and return its path.

    Raises
    ------
    MissingExtraError
        If matplotlib or jinja2 is not installed.
    OutputError
        If the folder cannot be written to.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("gliodil.cohort"), PackageLoader("gliodil.reporting")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        fixed=wording.fixed, number=wording.number, seconds=wording.seconds, per_cent=wording.per_cent
    )
    environment.filters.update(points=points, p_value=p_value)
    curves = [member.curves for member in members if member.curves]
    figure = curve_figure(curves, _KINDS) if curves else None
    page = environment.get_template("cohort.html.j2").render(
        version=__version__,
        statement=STATEMENT,
        resamples=RESAMPLES,
        analyses=[
            {
                "found": analysis,
                "sentence": sentence(analysis),
                "figure": embedded(difference_figure(table, analysis)) if len(analysis.primary) > 1 else None,
            }
            for table, analysis in zip(tables, analyses, strict=True)
        ],
        curves=None if figure is None else embedded(figure),
        margins=by_target(margins),
        members=members,
        counts=Counter(member.state for member in members),
        doubtful=[member for member in members if member.metrics and not member.accepted],
        unfinished=[member for member in members if member.state != "done"],
        followed=sum(m.metrics is not None and m.metrics.get("coverage") is not None for m in members),
    )
    target = out / REPORT_FILE
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def points(value: float | None, digits: int = 2) -> str:
    """Return a difference of fractions in signed percentage points; a dash for None."""
    if value is None:
        return wording.ABSENT
    text = wording.fixed(100 * value, digits)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def p_value(value: float | None) -> str:
    """Return a p-value to two digits, never smaller than < 0.0001; a dash for None."""
    if value is None:
        return wording.ABSENT
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def sentence(analysis: Analysis) -> str:
    """Return in words how many patients an analysis rests on."""
    left = analysis.patients - analysis.empty
    if analysis.empty:
        words = (
            f"{analysis.empty} of {analysis.patients} patients have no {analysis.definition}; the primary analysis "
            f"has the other {left}. "
        )
    else:
        words = f"No patient is without {analysis.definition}. "
    return words + (
        f"{analysis.reference} covers all of it in {analysis.reference_full} of {left}: those can only stay equal "
        "or get worse."
    )
