"""What the accuracy benchmark prints of its rows, above all against another version's."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from accuracy_tables import MARGINS_MM, REALISTIC_SCORES, against, common, table


def row(patient: int, method: str, **scores: float) -> dict[str, Any]:
    """A row with every score at .5, except those given."""
    covers = {
        f"{name}_{mm}mm{plan}": 0.5
        for name in ("cover", "later")
        for mm in MARGINS_MM
        for plan in ("", "_standard", "_trimmed")
    }
    fixed = {
        "cohort": "realistic",
        "patient": str(patient),
        "method": method,
        "physics": "exact",
        "seconds": 1.0,
    }
    return {**fixed, **dict.fromkeys(REALISTIC_SCORES, 0.5), **covers, **scores}


def test_against_pairs_by_patient_and_method() -> None:
    mine = [row(k, m, dice_10=0.6 + 0.1 * k) for k in range(3) for m in ("default", "static")]
    theirs = [row(k, "default", dice_10=0.5 + 0.1 * k) for k in (2, 1, 7)]
    lines = {line.split()[0]: line for line in against(mine, theirs, ["default", "static"]).splitlines()[2:]}
    assert set(lines) == set(REALISTIC_SCORES)
    assert re.search(r"\+0\.100 \[\+0\.100, \+0\.100\]\s+2\s+-\s+0$", lines["dice_10"])
    assert re.search(r"\+0\.000 \[\+0\.000, \+0\.000\]\s+2", lines["misfit_mm"])


def test_a_score_that_one_side_lacks_is_no_pair() -> None:
    a, b = {"0": {"dice_10": 0.5}, "1": {"dice_10": None}}, {"0": {}, "1": {"dice_10": 0.5}}
    assert common(a, b, "dice_10") == []


@pytest.mark.parametrize(("cohort", "shown"), [("realistic", True), ("wrong", False)])
def test_all_later_tumour_is_a_score_of_realistic_patients(cohort: str, shown: bool) -> None:
    rows = [{**row(k, "default", later_3mm=0.75), "cohort": cohort} for k in range(2)]
    text = table(cohort, rows, ["default"])
    assert ("later_3mm" in text) is shown
    assert ("0.750" in text) is shown
    assert ("length_error" in text) is not shown
