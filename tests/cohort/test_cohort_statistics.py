"""The statistics of coverage against numbers worked out by hand, and against the published patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gliodil.cohort.coverages import Coverages, analyse, is_coverage_table, read_coverage_table
from gliodil.cohort.statistics import paired, recurrence_class, strata
from gliodil.errors import InputError
from gliodil.planning.bootstrap import bootstrap_interval

STANDARD = {"a": 0.50, "b": 0.80, "c": 1.00, "d": 0.90, "e": None, "f": 0.20}
MODEL = {"a": 0.70, "b": 0.75, "c": 1.00, "d": 0.95, "e": None, "f": 0.90}
# Differences: +0.20 −0.05 0 +0.05 – +0.70; sum 0.90; without f: 0.20 / 4 = 0.05


@pytest.fixture
def analysis():
    return analyse(Coverages("six", "any recurrence", {"Standard CTV": STANDARD, "Model CTV": MODEL}))


def test_means_medians_and_counts_are_those_worked_out_by_hand(analysis):
    found = analysis.primary["Model CTV"]
    assert (analysis.patients, analysis.empty, analysis.reference_full) == (6, 1, 1)
    assert found.n == 5
    assert found.mean == pytest.approx((0.70 + 0.75 + 1 + 0.95 + 0.90) / 5)
    assert found.median == pytest.approx(0.90)
    assert found.mean_difference == pytest.approx(0.18)
    assert found.median_difference == pytest.approx(0.05)
    assert (found.better, found.equal, found.worse) == (3, 1, 1)
    assert analysis.primary["Standard CTV"].mean == pytest.approx(3.4 / 5)


def test_an_empty_recurrence_counted_as_covered_adds_a_difference_of_nothing(analysis):
    found = analysis.with_empty["Model CTV"]
    assert found.n == 6
    assert found.mean == pytest.approx((4.30 + 1) / 6)
    assert found.mean_difference == pytest.approx(0.90 / 6)
    assert (found.better, found.equal, found.worse) == (3, 2, 1)
    assert found.p_wilcoxon == analysis.primary["Model CTV"].p_wilcoxon  # zeros have no part in it


def test_wilcoxon_leaves_out_the_equal_patient():
    """d = +0.20, −0.05, +0.05, +0.70: the two of 0.05 share ranks 1 and 2, so W− = 1.5 of 1.5 + 8.5."""
    d = np.array([0.20, -0.05, 0.0, 0.05, 0.70])
    found = paired(0.25 + d, np.full(5, 0.25), list("abcde"))
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(d[d != 0]).pvalue)
    # Without ties the distribution is exact: all of n = 5 positive has p = 2 / 2⁵.
    assert paired([0.1, 0.2, 0.3, 0.4, 0.5], [0.0] * 5, list("abcde")).p_wilcoxon == pytest.approx(2 / 32)


def test_the_most_influential_patient_is_left_out_and_named(analysis):
    found = analysis.primary["Model CTV"].influence
    assert found.patient == "f"
    assert found.difference == pytest.approx(0.70)
    assert found.mean_without == pytest.approx(0.05)
    assert found.low_without <= 0.05 <= found.high_without


def test_patients_are_divided_by_what_the_standard_plan_covers(analysis):
    found = analysis.strata["Model CTV"]
    assert [(s.low, s.high, s.n) for s in found] == [(0, 0.5, 1), (0.5, 0.8, 1), (0.8, 0.95, 2), (0.95, 1, 1)]
    assert [s.mean_difference for s in found] == pytest.approx([0.70, 0.20, 0.0, 0.0])
    assert strata([0.5], [0.4])[3].mean_difference is None


def test_recurrences_are_sorted_by_where_they_lie(analysis):
    shares = (0.96, 0.95, 0.81, 0.80, 0.20, 0.19, 0.0)
    words = ["central", "in-field", "in-field", "marginal", "marginal", "distant", "distant"]
    assert [recurrence_class(share) for share in shares] == words
    assert analysis.classes["Standard CTV"] == {"central": 1, "in-field": 1, "marginal": 3, "distant": 0}


def test_the_bootstrap_interval_of_two_values_is_known():
    """Means of two draws from {0, 1} are 0, ½, 1 with probabilities ¼, ½, ¼: the 95 % interval is [0, 1]."""
    assert bootstrap_interval(np.array([0.0, 1.0])) == (0.0, 1.0)
    assert bootstrap_interval(np.array([0.3])) == (None, None)
    assert bootstrap_interval(np.full(4, 0.3)) == (0.3, 0.3)


def test_the_bootstrap_interval_approaches_the_normal_one():
    values = np.random.default_rng(1).normal(0.1, 0.2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=12), st.randoms())
def test_the_order_of_patients_does_not_matter_and_swapping_the_plans_changes_signs(pairs, random):
    names = [str(i) for i in range(len(pairs))]
    one, two = np.asarray(pairs, float).T / 100
    found, swapped = (paired(a, b, names, resamples=50) for a, b in ((one, two), (two, one)))
    assert swapped.mean_difference == pytest.approx(-found.mean_difference)
    assert (swapped.better, swapped.worse) == (found.worse, found.better)
    assert found.better + found.equal + found.worse == found.n == len(pairs)
    if found.low is not None:
        assert found.low <= found.mean_difference + 1e-12
        assert found.high >= found.mean_difference - 1e-12
    order = random.sample(range(len(pairs)), len(pairs))
    mixed = paired(one[order], two[order], [names[i] for i in order], resamples=50)
    assert mixed.mean_difference == pytest.approx(found.mean_difference)
    assert mixed.p_wilcoxon == pytest.approx(found.p_wilcoxon)


HEADER = "Patient_Code\tModel_Name\tCoverage[%]\tIoU\n"
TABLE = (
    "three patients, enhancing core recurrence:\n"
    + HEADER
    + "1\tStandard Plan\t50.00\t0.1\n1\tNew Plan\t60.00\t0.1\n"
    + "2\tStandard Plan\t100.00\t0.0000\n2\tNew Plan\t100.00\t0.0000\n"
    + "3\tStandard Plan\t100.00\t0.2\n3\tNew Plan\t90.00\t0.1\n"
)


def test_a_published_table_is_read_with_its_empties(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text(TABLE)
    assert is_coverage_table(path)
    (found,) = read_coverage_table(path)
    assert (found.title, found.definition) == ("three patients", "enhancing core recurrence")
    assert found.plans["Standard Plan"] == {"1": 0.5, "2": None, "3": 1.0}
    analysis = analyse(found)
    assert (analysis.empty, analysis.primary["New Plan"].n) == (1, 2)
    assert analysis.primary["New Plan"].mean_difference == pytest.approx(0.0)


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "1\tStandard Plan\tmuch\t0.1\n",
        HEADER + "1\tStandard Plan\t50\n",
        HEADER + "1\tStandard Plan\t150\t0.1\n",
        HEADER + "1\tStandard Plan\t50\t0.1\n1\tStandard Plan\t60\t0.1\n",
        HEADER + "1\tNew Plan\t50\t0.1\n",
    ],
)
def test_a_damaged_table_is_refused(tmp_path, text):
    path = tmp_path / "table.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"table"):
        read_coverage_table(path)


@pytest.fixture(scope="module")
def published(shared_data: Path):
    path = shared_data / "gliodil_published" / "coverage_per_patient.txt"
    if not path.is_file():
        pytest.skip("needs the published table of coverages")
    return {(c.title, c.definition): c for c in read_coverage_table(path)}


# mean, median, difference, low, high, better/equal/worse; in per cent, as published or computed from it elsewhere.
PUBLISHED = {
    ("152 patients, no FET-PET", "enhancing core recurrence"): {
        "GliODIL Plan": (84.42, 99.81, 1.99, 0.35, 3.95, 43, 77, 32),
        "fGliODIL Plan": (79.04, 96.62, -3.39, -7.35, 0.25, 28, 46, 78),
        "LMI": (75.25, 94.04, -7.17, -11.07, -3.41, 31, 39, 82),
        "new nn Plan": (69.02, 84.05, -13.41, -18.58, -8.23, 23, 43, 86),
    },
    ("152 patients, no FET-PET", "any recurrence"): {
        "GliODIL Plan": (67.80, 73.31, 4.20, 2.92, 5.56, 97, 13, 42),
        "fGliODIL Plan": (64.68, 70.72, 1.09, -2.24, 4.08, 94, 10, 48),
        "LMI": (62.06, 65.83, -1.53, -4.14, 0.95, 69, 8, 75),
        "new nn Plan": (65.38, 71.16, 1.79, -2.18, 5.58, 87, 8, 57),
    },
    ("58 patients, FET-PET", "enhancing core recurrence"): {
        "GliODIL Plan": (89.02, 100.00, 1.74, 0.49, 3.55, 17, 35, 6),
        "LMI": (84.31, 98.30, -2.97, -7.25, 0.84, 12, 21, 25),
    },
    ("58 patients, FET-PET", "any recurrence"): {
        "GliODIL Plan": (72.89, 77.25, 2.84, 0.17, 5.55, 31, 11, 16),
        "LMI": (70.44, 75.95, 0.40, -2.81, 3.51, 31, 5, 22),
    },
}


@pytest.mark.parametrize("key", PUBLISHED, ids=", ".join)
def test_published_patients_give_the_published_statistics(published, key):
    found = analyse(published[key]).with_empty
    for plan, (mean, median, difference, low, high, *counts) in PUBLISHED[key].items():
        r = found[plan]
        # Medians of rounded coverages may fall on a half of the last digit.
        assert [100 * r.mean, 100 * r.median] == pytest.approx([mean, median], abs=0.0051), plan
        assert 100 * r.mean_difference == pytest.approx(difference, abs=0.0051), plan
        # Ends of 20,000 resamples scatter by about 1 % of the width, in theirs and in ours.
        assert [100 * r.low, 100 * r.high] == pytest.approx([low, high], abs=0.025 * (high - low)), plan
        assert [r.better, r.equal, r.worse] == counts, plan


def test_published_patients_without_empties(published):
    found = analyse(published["152 patients, no FET-PET", "enhancing core recurrence"])
    assert (found.patients, found.empty, found.reference_full) == (152, 20, 51)
    means = {plan: (r.n, round(100 * r.mean_difference, 2)) for plan, r in found.primary.items()}
    assert means["GliODIL Plan"] == (132, 2.30)
    assert means["LMI"] == (132, -8.26)
    assert means["fGliODIL Plan"] == (132, -3.90)
    assert means["new nn Plan"] == (132, -15.44)
    assert 100 * found.primary["Standard Plan (1.5cm)"].mean == pytest.approx(79.76, abs=0.0051)
    hard = found.strata["GliODIL Plan"][0]
    assert (hard.n, round(100 * hard.mean_difference, 1)) == (24, 10.2)


def test_one_published_patient_carries_much_of_the_mean(published):
    found = analyse(published["152 patients, no FET-PET", "enhancing core recurrence"]).with_empty[
        "GliODIL Plan"
    ]
    assert found.influence.patient == "497"
    assert 100 * found.influence.difference == pytest.approx(94.14, abs=0.05)
    assert 100 * found.influence.mean_without == pytest.approx(1.38, abs=0.0051)
    assert 100 * found.trimmed_difference == pytest.approx(0.48, abs=0.0051)
    assert found.p_wilcoxon == pytest.approx(0.055, abs=5e-4)
    assert found.p_t == pytest.approx(0.033, abs=5e-4)
    any_recurrence = analyse(published["152 patients, no FET-PET", "any recurrence"]).primary["GliODIL Plan"]
    assert 100 * any_recurrence.influence.mean_without == pytest.approx(3.92, abs=0.0051)
    assert 100 * any_recurrence.trimmed_difference == pytest.approx(3.73, abs=0.0051)
    assert any_recurrence.p_wilcoxon < 1e-4


def test_published_models_compared_with_each_other(published):
    plans = published["152 patients, no FET-PET", "enhancing core recurrence"].plans
    for other, expected in (("LMI", 9.16), ("fGliODIL Plan", 5.38)):
        names = list(plans[other])
        one, two = (
            [1.0 if (v := plans[p][n]) is None else v for n in names] for p in ("GliODIL Plan", other)
        )
        assert 100 * paired(one, two, names).mean_difference == pytest.approx(expected, abs=0.0051)
