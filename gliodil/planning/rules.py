"""Plan rules: named, versioned definitions of the target, one TOML file each in the folder `rules`.

A rule states what counts as GTV (gross tumour volume: what is visible), how far the CTV (clinical target
volume: where invisible cells are presumed) reaches beyond it, and what stops it. To add a rule, add a file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from gliodil.errors import InputError

RULES: Mapping[str, PlanRule]
"""All packaged rules by name; read from their files on first use."""

COMPARTMENTS = ("enhancing", "necrotic", "oedema", "cavity")
BARRIERS = ("csf", "brain-surface")


@dataclass(frozen=True)
class PlanRule:
    """Definition of the targets of a plan.

    Attributes
    ----------
    name, version
        Identify the rule in reports; the version changes whenever a target would.
    gtv
        Compartments that make up the GTV, of `"enhancing"`, `"necrotic"`, `"oedema"`, `"cavity"`.
    margin_mm
        Euclidean reach of the standard CTV beyond the GTV [mm], positive.
    barriers
        What the path of the trimmed CTV may not cross, of `"csf"`, `"brain-surface"`.
    source
        Where the definition comes from.
    description
        The definition in words, printed in every report.
    """

    name: str
    version: str
    gtv: tuple[str, ...] = ("enhancing", "necrotic")
    margin_mm: float = 15.0
    barriers: tuple[str, ...] = BARRIERS
    source: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.gtv or not set(self.gtv) <= set(COMPARTMENTS):
            raise self._invalid("gtv", f"one or more of {', '.join(COMPARTMENTS)}", self.gtv)
        if not set(self.barriers) <= set(BARRIERS):
            raise self._invalid("barriers", f"some of {', '.join(BARRIERS)}", self.barriers)
        if not 0 < self.margin_mm < 100:
            raise self._invalid("margin_mm", "a length between 0 and 100 mm", self.margin_mm)

    def _invalid(self, key: str, expected: str, found: object) -> InputError:
        problem = f"Plan rule {self.name!r} has an invalid {key}."
        return InputError(problem, expected=expected, found=repr(found))


def get_rule(name: str) -> PlanRule:
    """Return the packaged rule called `name`.

    Raises
    ------
    InputError
        If there is no such rule.
    """
    rules = _load_rules()
    if name not in rules:
        raise InputError(f"There is no plan rule {name!r}.", expected=" or ".join(rules), found=name)
    return rules[name]


def parse_rule(text: str) -> PlanRule:
    """Return the rule that a TOML text defines; the keys are the attributes of `PlanRule`.

    Raises
    ------
    InputError
        If the text is not TOML, lacks a key, has an unknown one, or a value makes no sense.
    """
    try:
        table: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError("The plan rule is not valid TOML.", found=str(error)) from error
    keys = {field.name for field in fields(PlanRule)}
    if set(table) != keys:
        raise InputError(
            "The plan rule does not have the keys of a rule.",
            expected=", ".join(sorted(keys)),
            found=", ".join(sorted(table)),
        )
    return PlanRule(
        name=str(table["name"]),
        version=str(table["version"]),
        gtv=tuple(table["gtv"]),
        margin_mm=float(table["margin_mm"]),
        barriers=tuple(table["barriers"]),
        source=str(table["source"]).strip(),
        description=str(table["description"]).strip(),
    )


@cache
def _load_rules() -> Mapping[str, PlanRule]:
    folder = resources.files("gliodil.planning") / "rules"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    rules = [parse_rule(file.read_text(encoding="utf-8")) for file in files]
    return MappingProxyType({rule.name: rule for rule in rules})


def __getattr__(name: str) -> Mapping[str, PlanRule]:
    if name == "RULES":
        return _load_rules()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
