"""Plan rules: what is packaged, and what a rule file may not say."""

from __future__ import annotations

import pytest

from gliodil.errors import InputError
from gliodil.planning import rules
from gliodil.planning.rules import PlanRule, get_rule, parse_rule

TEXT = """
name = "x"
version = "1"
description = "d"
gtv = ["enhancing"]
margin_mm = 10
barriers = ["csf"]
source = "s"
"""


def test_benchmark_rule_is_core_plus_15_mm():
    rule = get_rule("benchmark-15mm")
    assert (rule.name, rule.margin_mm, rule.gtv) == ("benchmark-15mm", 15.0, ("enhancing", "necrotic"))
    assert rule.version
    assert rule.source
    assert rule.description


def test_all_packaged_rules_are_listed_under_their_names():
    assert "benchmark-15mm" in rules.RULES
    assert all(name == rule.name for name, rule in rules.RULES.items())


def test_unknown_rule_names_the_known_ones():
    with pytest.raises(InputError, match="benchmark-15mm"):
        get_rule("nope")


def test_rule_file_gives_all_attributes():
    expected = PlanRule(
        "x", "1", gtv=("enhancing",), margin_mm=10.0, barriers=("csf",), source="s", description="d"
    )
    assert parse_rule(TEXT) == expected


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('["enhancing"]', '["skull"]', "gtv"),
        ('["enhancing"]', "[]", "gtv"),
        ('["csf"]', '["wall"]', "barriers"),
        ("margin_mm = 10", "margin_mm = -1", "margin_mm"),
        ("margin_mm = 10", "margin_mm = nan", "margin_mm"),
        ("margin_mm = 10", "", "keys"),
        ("margin_mm = 10", "margin_mm = 10\nmargin = 3", "keys"),
        ("margin_mm = 10", "margin_mm =", "TOML"),
    ],
)
def test_bad_rule_file_gets_one_clear_error(old, new, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_rule(TEXT.replace(old, new))
