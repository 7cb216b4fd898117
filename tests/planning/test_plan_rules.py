"""Plan rules: what is packaged, and what a rule file may not say."""

from __future__ import annotations

from dataclasses import fields

import pytest

from gliodil.errors import InputError
from gliodil.planning import rules
from gliodil.planning.rules import Phase, PlanRule, get_rule, parse_rule

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
    assert set(rules.RULES) == {"benchmark-15mm", "estro-eano-2023", "eortc-2016", "rtog"}
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
        ("margin_mm = 10", "margin_mm = true", "a number"),
        ("margin_mm = 10", 'margin_mm = "10"', "a number"),
        ('["enhancing"]', '"enhancing"', "a list of texts"),
        ('["enhancing"]', "[1]", "a list of texts"),
        ('source = "s"', "source = 3", "a text"),
        ('source = "s"', 'source = "s"\nptv_mm = -1', "ptv_mm"),
        ('source = "s"', 'source = "s"\nscan = "later"', "scan"),
        ('source = "s"', 'source = "s"\nverify = ["margins"]', "verify"),
        ('source = "s"', 'source = "s"\n[reach_mm]\nfalx = 2', "reach_mm"),
        ('source = "s"', 'source = "s"\n[reach_mm]\ncsf = -2', "reach_mm"),
        ('source = "s"', 'source = "s"\nreach_mm = 5', "a table of numbers"),
        ('source = "s"', 'source = "s"\n[reach_mm]\ncsf = "x"', "a table of numbers"),
        ('source = "s"', 'source = "s"\ninitial = "first"', "a table"),
        ('source = "s"', 'source = "s"\n[initial]\ngtv = ["enhancing"]', "initial.margin_mm"),
        ('source = "s"', 'source = "s"\n[initial]\ngtv = ["oedema"]\nmargin_mm = 12', "initial"),
        ('source = "s"', 'source = "s"\n[initial]\ngtv = ["enhancing"]\nmargin_mm = 12\nx = 1', "initial.x"),
    ],
)
def test_bad_rule_file_gets_one_clear_error(old, new, complaint):
    with pytest.raises(InputError, match=complaint):
        parse_rule(TEXT.replace(old, new))


def test_rule_file_with_everything():
    more = """
scan = "post-operative"
ptv_mm = 3
exclude_organs = ["brainstem"]
dose = "60 Gy"
verify = ["dose", "reach_mm"]

[reach_mm]
csf = 5

[initial]
gtv = ["enhancing", "oedema"]
margin_mm = 12
margin_without_oedema_mm = 14
dose = "46 Gy"
"""
    rule = parse_rule(TEXT + more)
    assert rule.initial == Phase(("enhancing", "oedema"), 12.0, 14.0, "46 Gy")
    assert (rule.reach_mm, rule.ptv_mm, rule.scan) == ({"csf": 5.0}, 3.0, "post-operative")
    assert (rule.exclude_organs, rule.dose, rule.verify) == (("brainstem",), "60 Gy", ("dose", "reach_mm"))


def test_guidelines_say_what_they_are_known_to_say():
    estro, eortc, rtog = (get_rule(name) for name in ("estro-eano-2023", "eortc-2016", "rtog"))
    for rule in (estro, eortc, rtog):
        assert rule.scan == "post-operative"
        assert {"cavity", "enhancing"} <= set(rule.gtv)
        assert "oedema" not in rule.gtv
        assert {"falx", "tentorium", "brain-surface"} <= set(rule.barriers)
        assert 3 <= rule.ptv_mm <= 5
    assert (estro.margin_mm, eortc.margin_mm, rtog.margin_mm) == (15.0, 20.0, 20.0)
    assert (estro.initial, eortc.initial) == (None, None)
    assert rtog.initial is not None
    assert "oedema" in rtog.initial.gtv
    assert (rtog.initial.margin_mm, rtog.initial.margin_without_oedema_mm) == (20.0, 25.0)
    assert "46 Gy" in rtog.initial.dose


def test_what_was_recalled_is_marked():
    names = {field.name for field in fields(PlanRule)}
    assert all(set(rule.verify) <= names for rule in rules.RULES.values())
    for name in ("estro-eano-2023", "eortc-2016", "rtog"):
        assert "barriers" in get_rule(name).verify
    assert get_rule("benchmark-15mm").verify == ()


def test_a_rule_of_ones_own_comes_from_a_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(TEXT, encoding="utf-8")
    assert get_rule(str(file)) == parse_rule(TEXT)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "does not exist"),
        (b"\xff\xfe\x00", "cannot be read"),
        (TEXT.replace('"x"', '"rtog"').encode(), "name of a packaged one"),
        (TEXT.replace("10", "-1").encode(), "margin_mm"),
    ],
)
def test_a_bad_rule_file_is_named(tmp_path, content, complaint):
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        get_rule(str(file))
    assert caught.value.file == file
