from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from gliodil.errors import InputError
from gliodil.planning.compare import compare
from gliodil.reporting.figures import FIGURES
from gliodil.reporting.jsonable import read_json, write_json
from gliodil.reporting.metrics import build_metrics
from gliodil.reporting.provenance import build_provenance
from gliodil.reporting.report import render_report, report_html
from gliodil.reporting.wording import fixed, number, seconds

VOID = {"meta", "link", "img", "br", "hr"}

SHOWN = {name: text for name, text in FIGURES.items() if not name.startswith("ct_")}
"""Figures of a patient without a planning CT."""


class Page(HTMLParser):
    """Collects tags, checks nesting, and keeps the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text)


@pytest.fixture
def folder(case, tmp_path):
    patient, fit, plans = case
    comparison = compare(fit, plans, fit, plans, visible=patient.tumour)
    metrics = build_metrics(patient, fit, plans, wall_s=64.0, peak_memory_mb=321.0, comparison=comparison)
    write_json(metrics, tmp_path / "metrics.json")
    write_json(build_provenance(patient, fit, config={"seed": 3}), tmp_path / "provenance.json")
    (tmp_path / "figures").mkdir()
    for name in SHOWN:  # any bytes will do: the report does not look inside
        (tmp_path / "figures" / f"{name}.png").write_bytes(name.encode())
    return tmp_path


@pytest.fixture
def render(folder):
    """Render with some metrics changed."""

    def run(**changes) -> Page:
        metrics = {**read_json(folder / "metrics.json"), **changes}
        provenance = read_json(folder / "provenance.json")
        return Page(report_html(metrics, provenance, folder / "figures"))

    return run


def test_every_section_is_one_click_away(folder):
    page = Page(render_report(folder).read_text(encoding="utf-8"))
    targets = [attrs["id"] for tag, attrs in page.tags if tag == "section" and "id" in attrs]
    links = [
        attrs["href"] for tag, attrs in page.tags if tag == "a" and (attrs["href"] or "").startswith("#")
    ]
    assert links == [f"#{target}" for target in targets]
    assert {"target-volumes", "gained-and-given-up", "parameters", "provenance"} <= set(targets)


def test_a_fit_compared_with_itself_agrees(folder, render):
    metrics = read_json(folder / "metrics.json")
    assert metrics["comparison"]["ctv_model_dice"] == 1
    assert metrics["comparison"]["agreement"]["relative_l2"] == 0
    assert "Dice coefficient of 1.000" in render().words
    assert "discrete loss (ODIL), the method of reference" not in render(comparison=None).words


def test_margins_are_shown_with_their_range(folder, render):
    margins = read_json(folder / "metrics.json")["margin_mm"]
    words = "({} to {})".format(*(fixed(margins[f"superior_{end}"]) for end in ("min", "max")))
    shown = render().words.count(words)
    assert shown
    # A folder written by an earlier version does not know the range. (All around may have the same.)
    assert render(margin_mm={k: v for k, v in margins.items() if "_" not in k}).words.count(words) < shown


def test_nothing_is_loaded_from_anywhere(folder):
    html = render_report(folder).read_text(encoding="utf-8")
    for tag, attributes in Page(html).tags:
        assert tag not in {"script", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data", "action"):
            assert str(attributes.get(name, "data:")).startswith(("data:", "#")), (tag, attributes)
    assert "@import" not in html
    assert "url(" not in html


def test_every_figure_is_embedded_with_a_description(folder):
    images = [attributes for tag, attributes in Page(render_report(folder).read_text()).tags if tag == "img"]
    assert len(images) == len(SHOWN)
    assert {image["alt"] for image in images} == {text.alt for text in SHOWN.values()}
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)


def test_a_missing_figure_is_left_out(folder, render):
    (folder / "figures" / "pet.png").unlink()
    page = render()
    assert len([tag for tag, _ in page.tags if tag == "img"]) == len(SHOWN) - 1
    assert "Fit to PET" not in page.words


def test_headings_have_one_top_and_no_gaps(render):
    levels = [int(tag[1]) for tag, _ in render().tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_the_first_screen_says_what_must_not_be_missed(render):
    words = render(warnings=["labels look odd", "the PET is coarse."]).words
    _, heading, *_ = (m.start() for m in re.finditer("Tumour-cell density", words))  # a link, the section
    top = words[:heading]
    for phrase in (
        "Patient sub-01",
        "Research use only. Not a medical device.",
        "Rule benchmark-15mm, version 1.1.",
        "grown by 15 mm",
        "Accepted.",
        "At the standard CTV",
        "2 warnings",
        "Labels look odd.",
        "The PET is coarse.",
        "Trimmed CTV",
        "gives up",
    ):
        assert phrase in top


def test_a_fit_that_converged_says_so_and_why(render):
    page = render(status="converged", status_message="the loss would fall by less than 0.01")
    assert "The optimizer converged. The loss would fall by less than 0.01." in page.words


@pytest.mark.parametrize("status", ["iteration_limit", "stalled", "diverged", "interrupted"])
def test_a_fit_that_did_not_converge_says_so_prominently(render, status):
    reason = f"the optimizer did not converge ({status.replace('_', ' ')})"
    page = render(status=status, status_message="", acceptance={"accepted": False, "reasons": [reason]})
    assert ("div", {"class": "status bad", "role": "alert"}) in page.tags
    assert "Not accepted." in page.words
    assert "do not draw conclusions" in page.words
    assert status.replace("_", " ") in page.words


def test_a_folder_of_the_first_version_is_judged_by_its_optimizer(render, folder):
    metrics = read_json(folder / "metrics.json")
    older = {key: None for key in ("acceptance", "summary")}
    assert "Accepted." in render(**older).words
    assert "Not accepted." in render(**older, status="stalled").words
    assert metrics["acceptance"]["accepted"]
    assert metrics["summary"].startswith("At the standard CTV's volume")


def test_a_converged_fit_is_not_alarmed_about(render):
    page = render(warnings=[])
    assert "do not draw conclusions" not in page.words
    assert "No warnings." in page.words


def test_coverage_is_shown_in_per_cent_and_nothing_seen_is_not_perfect(render):
    shares = {"standard": 0.5, "trimmed": 0.25, "model": 0.875}
    words = render(coverage={"enhancing": None, "any": shares}).words
    assert "none seen" in words
    assert all(share in words for share in ("50.0 %", "25.0 %", "87.5 %"))
    assert "100.0 %" not in words
    assert "gliodil evaluate" in render(coverage=None).words


def test_parameters_have_units_and_the_note_on_what_one_time_point_fixes(render):
    words = render().words
    assert "Infiltration length √(D/ρ)1.22–mm" in words.replace(" –", "–").replace("– ", "–")
    assert "0.05 to 0.11" in words
    assert "One time point fixes ratios, not rates." in words


def test_truth_appears_only_where_it_is_known(folder, render):
    assert "Dice of the regions above 10 %" in render(truth={"dice_at_0.1": 0.93}).words
    (folder / "figures" / "truth.png").unlink()
    assert "truth" not in render(truth=None).words.lower()


def test_text_from_outside_is_escaped(render):
    page = render(patient="<b onload=x>&", warnings=["<script>alert(1)</script>"])
    assert "script" not in {tag for tag, _ in page.tags}
    assert "Patient <b onload=x>&" in page.words


def test_citations_and_methods_are_there_and_no_p_values(render):
    words = render().words
    for phrase in ("Balcerak", "Karnakov", "2312.05063", "PNAS Nexus", "Fisher–Kolmogorov", "16 × 16 × 16"):
        assert phrase in words
    assert not re.search(r"\bp\s*[=<]\s*0|p-value", words, re.IGNORECASE)


def test_the_report_is_made_from_the_folder_alone(folder):
    first = render_report(folder).read_text()
    (folder / "report.html").unlink()
    assert render_report(folder).read_text() == first


def test_incomplete_metrics_are_refused(folder):
    metrics = read_json(folder / "metrics.json")
    del metrics["volumes_ml"]
    write_json(metrics, folder / "metrics.json")
    with pytest.raises(InputError, match="volumes_ml"):
        render_report(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0, "0"),
        (1.2345, "1.23"),
        (-0.5, "−0.5"),
        (1.2e-7, "1.2×10⁻⁷"),
        ([1, -2.25, 3], "(1.0, −2.2, 3.0)"),
    ],
)
def test_numbers(value, words):
    assert number(value) == words


def test_rounding_to_zero_has_no_sign():
    assert fixed(-0.04) == "0.0"
    assert fixed(-0.06) == "−0.1"


def test_durations():
    assert [seconds(value) for value in (None, 12.4, 119.6, 179.7)] == ["–", "12 s", "2 min 0 s", "3 min 0 s"]
