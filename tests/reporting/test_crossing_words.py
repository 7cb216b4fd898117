"""What the report says of midline and tentorium."""

from __future__ import annotations

import re

import numpy as np
import pytest

from gliodil.planning.plan import plan
from gliodil.reporting.crossing_words import UNKNOWN, crossing_rows, crossing_sentences
from gliodil.reporting.jsonable import read_json, write_json
from gliodil.reporting.metrics import build_metrics
from gliodil.reporting.provenance import build_provenance
from gliodil.reporting.report import report_html

SHAPE = (32, 34, 30)  # of the patient in conftest, whose tumour lies left of index 16


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)).replace("&#39;", "'")


@pytest.fixture
def report(make_patient, make_fit, tmp_path):
    """Return metrics and words of the section for a patient with these sheets."""

    def run(barriers: np.ndarray | None):
        extra = {} if barriers is None else {"barriers": barriers}
        patient = make_patient(**extra)
        fit = make_fit(patient)
        plans = plan(patient, fit)
        write_json(
            build_metrics(patient, fit, plans, wall_s=1.0, peak_memory_mb=None), tmp_path / "metrics.json"
        )
        write_json(build_provenance(patient, fit, config={}), tmp_path / "provenance.json")
        metrics = read_json(tmp_path / "metrics.json")
        page = report_html(metrics, read_json(tmp_path / "provenance.json"), tmp_path / "figures")
        assert page.count('href="#midline-and-tentorium"') == 1
        section = page.split('<section id="midline-and-tentorium">')[1].split("</section>")[0]
        return metrics["crossings"], words(section), section

    return run


def sheets(plane=16) -> np.ndarray:
    found = np.zeros(SHAPE)
    found[plane, :, 6:] = 1
    found[:, :, 5] = 2
    return found


def test_without_barriers_there_is_one_quiet_line(report):
    crossings, text, section = report(None)
    assert crossings is None
    assert text.split("Midline and tentorium ", 1)[1].strip() == UNKNOWN
    assert f'<p class="quiet">{UNKNOWN}</p>' in section
    assert "<table" not in section


def test_numbers_and_reasons_are_told(report):
    crossings, text, _ = report(sheets())
    midline = crossings["midline"]
    assert midline["beyond_ml"]["ctv_model"] > 0
    assert f"Right of the midline {midline['beyond_ml']['gtv']:.1f} " in text
    assert f"{midline['beyond_ml']['ctv_model']:.1f}" in text
    assert "The GTV lies left of the midline. The model CTV crosses" in text
    assert "only by straight distance: the barrier lies between (the falx or CSF)" in text
    assert "The GTV lies above the tentorium. Nothing crosses" in text
    assert "fitted to the falx" in text


def test_a_gtv_on_both_sides_is_said_so(report):
    crossings, text, _ = report(sheets(plane=12))
    both = crossings["midline"]["beyond_ml"]["gtv"]
    assert f"The GTV itself lies on both sides: {both:.1f} of its" in text


def test_one_sheet_alone_leaves_the_other_unknown(report):
    only = sheets()
    only[only == 1] = 0
    crossings, text, _ = report(only)
    assert crossings["midline"] is None
    assert "Midline unknown" in text
    assert "Below the tentorium" in text
    assert "Right of the midline" not in text


def test_every_way_has_its_words():
    why = {
        "margin_mm": 15.0,
        "straight_mm": 4.0,
        "path_mm": 12.34,
        "around_ml": 2.0,
        "between_ml": 0.01,
        "farther_ml": 3.0,
        "farther_joined_ml": 3.0,
    }
    crossing = {
        "gtv_side": "left",
        "beyond": "right",
        "gtv_on_both_sides": False,
        "beyond_ml": {"gtv": 0.0, "ctv_standard": 1.0, "ctv_trimmed": 1.0, "ctv_model": 5.0},
        "why": why,
    }
    metrics = {
        "volumes_ml": {"gtv": 20.0},
        "crossings": {"plane": None, "midline": crossing, "tentorium": None},
    }
    text = crossing_sentences(metrics)[0][0]
    assert "2.0 mL through tissue around the falx’s edge, 12.3 mm along the shortest path" in text
    assert "less than 0.05 mL only by straight distance" in text
    assert "3.0 mL farther from the GTV than 15 mm" in text
    assert "(all of it hangs together" in text
    for joined, words_for_it in ((0.0, "none"), (1.0, "1.0 mL"), (2.98, "nearly all")):
        why["farther_joined_ml"] = joined
        assert f"({words_for_it} of it hangs together" in crossing_sentences(metrics)[0][0]
    assert [name for name, _ in crossing_rows(metrics)] == ["Right of the midline"]
    crossing["why"] = None
    assert crossing_sentences(metrics)[0][0].endswith("The model CTV does not cross.")


def test_folders_of_earlier_versions_are_unknown():
    assert crossing_sentences({"volumes_ml": {}}) == [(UNKNOWN, True)]
    assert crossing_rows({}) == []
