"""Plan rules: named, versioned definitions of the target, one TOML file each in the folder `rules`.

A rule states what counts as GTV (gross tumour volume: what is visible), how far the CTV (clinical target
volume: where invisible cells are presumed) reaches beyond it, what stops it, and what is added for set-up errors
(PTV, planning target volume). To add a rule, add a file, or name a file of your own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gliodil.data.gate import LARGEST_RULES, parse_toml, parsing, read_text
from gliodil.errors import InputError

RULES: Mapping[str, PlanRule]
"""All packaged rules by name; read from their files on first use."""

COMPARTMENTS = ("enhancing", "necrotic", "oedema", "cavity")
BARRIERS = ("csf", "ventricles", "brain-surface", "falx", "tentorium")
LARGEST_SMOOTHING_MM = 10.0
"""Largest standard deviation [mm] that model CTVs are smoothed with."""
LARGEST_SPECK_MM3 = 10_000.0
"""Largest island or hole [mm³] that may be asked to go: one of 27 mm across is a target of its own."""
SCANS = ("pre-operative", "post-operative")


@dataclass(frozen=True)
class Phase:
    """A phase of irradiation that comes before the one to the full dose.

    Attributes
    ----------
    gtv
        Compartments that make up its GTV.
    margin_mm
        Euclidean reach of its standard CTV beyond that [mm].
    margin_without_oedema_mm
        The reach where the segmentation shows no oedema [mm]; None: the same.
    dose
        Dose and fractions, in words.
    """

    gtv: tuple[str, ...]
    margin_mm: float
    margin_without_oedema_mm: float | None = None
    dose: str = ""


@dataclass(frozen=True)
class PlanRule:
    """Definition of the targets of a plan.

    Attributes
    ----------
    name, version
        Identify the rule in reports; the version changes whenever a target would.
    gtv
        Compartments that make up the GTV, of `"enhancing"`, `"necrotic"`, `"oedema"`, `"cavity"`; those a
        segmentation lacks are left out.
    margin_mm
        Euclidean reach of the standard CTV beyond the GTV [mm], positive.
    barriers
        What the path of the trimmed CTV may not cross, of `"csf"`, `"ventricles"` (apart from other CSF),
        `"brain-surface"`, `"falx"`, `"tentorium"`.
    source
        Where the definition comes from.
    description
        The definition in words, printed in every report.
    scan
        The scan the rule is meant for: `"pre-operative"` or `"post-operative"`.
    reach_mm
        How far the trimmed CTV may reach beyond the near wall of a barrier [mm]; 0 where it is not named.
        The brain's surface has none.
    ptv_mm
        Isotropic margin of the PTV beyond the CTV [mm]; 0: no PTV.
    smoothing_mm
        Standard deviation of the Gaussian that smooths the model CTV at its volume [mm], see `clean.py`; 0: none.
    min_island_mm3, min_hole_mm3
        Smallest island that stays in the model CTV and smallest hole that is left in it [mm³]; 0: any.
    exclude_organs
        Organs that no CTV enters, if masks of them are given and the GTV does not invade them.
    dose
        Dose and fractions, in words.
    initial
        What is irradiated first, in rules of two phases. All else describes the phase to the full dose.
    verify
        Keys whose values were recalled, not read: check them against the source before use.
    """

    name: str
    version: str
    gtv: tuple[str, ...] = ("enhancing", "necrotic")
    margin_mm: float = 15.0
    barriers: tuple[str, ...] = ("csf", "brain-surface")
    source: str = ""
    description: str = ""
    scan: str = "pre-operative"
    reach_mm: Mapping[str, float] = field(default_factory=dict)
    ptv_mm: float = 0.0
    smoothing_mm: float = 2.0
    min_island_mm3: float = 500.0
    min_hole_mm3: float = 500.0
    exclude_organs: tuple[str, ...] = ()
    dose: str = ""
    initial: Phase | None = None
    verify: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._among("gtv", self.gtv, COMPARTMENTS)
        self._length("margin_mm", self.margin_mm)
        self._among("barriers", self.barriers, BARRIERS, may_be_empty=True)
        self._among("scan", (self.scan,), SCANS)
        enterable = [barrier for barrier in self.barriers if barrier != "brain-surface"]
        self._among("reach_mm", self.reach_mm, enterable, may_be_empty=True)
        for reach in self.reach_mm.values():
            self._length("reach_mm", reach, may_be_zero=True)
        self._length("ptv_mm", self.ptv_mm, may_be_zero=True)
        if not 0 <= self.smoothing_mm <= LARGEST_SMOOTHING_MM:
            expected = f"a length between 0 and {LARGEST_SMOOTHING_MM:g} mm"
            raise self._invalid("smoothing_mm", expected, self.smoothing_mm)
        for key in ("min_island_mm3", "min_hole_mm3"):
            if not 0 <= getattr(self, key) <= LARGEST_SPECK_MM3:
                expected = f"a volume between 0 and {LARGEST_SPECK_MM3:g} mm3"
                raise self._invalid(key, expected, getattr(self, key))
        self._among("verify", self.verify, [f.name for f in fields(self)], may_be_empty=True)
        if self.initial is not None:
            self._among("initial.gtv", self.initial.gtv, COMPARTMENTS)
            self._length("initial.margin_mm", self.initial.margin_mm)
            if self.initial.margin_without_oedema_mm is not None:
                self._length("initial.margin_without_oedema_mm", self.initial.margin_without_oedema_mm)
            smallest = min(self.initial.margin_mm, self.initial.margin_without_oedema_mm or 100)
            if not set(self.gtv) <= set(self.initial.gtv) or smallest < self.margin_mm:
                raise self._invalid("initial", "a phase that contains the one to the full dose", self.initial)

    def _among(
        self, key: str, found: Collection[str], known: Collection[str], *, may_be_empty: bool = False
    ) -> None:
        if not set(found) <= set(known) or not (found or may_be_empty):
            some = "none or some" if may_be_empty else "one or more"
            raise self._invalid(key, f"{some} of {', '.join(known)}", list(found))

    def _length(self, key: str, found: float, *, may_be_zero: bool = False) -> None:
        if not 0 <= found < 100 or (found == 0 and not may_be_zero):
            raise self._invalid(key, "a length between 0 and 100 mm", found)

    def _invalid(self, key: str, expected: str, found: object) -> InputError:
        problem = f"Plan rule {self.name!r} has an invalid {key}."
        return InputError(problem, expected=expected, found=repr(found))


def get_rule(name: str) -> PlanRule:
    """Return the packaged rule called `name`, or the one in a file named so (ending in `.toml`).

    Raises
    ------
    InputError
        If there is no such rule, or the file cannot be read, is no rule, or takes the name of a packaged one.
    """
    rules = _load_rules()
    if name.lower().endswith(".toml"):
        return _read_rule(Path(name), taken=rules)
    if name not in rules:
        raise InputError(
            f"There is no plan rule {name!r}.",
            expected=f"{', '.join(rules)}, or a file ending in .toml",
            found=name,
        )
    return rules[name]


def with_ptv(rule: PlanRule, ptv_mm: float) -> PlanRule:
    """Return a rule with another PTV margin [mm], which its version then names.

    Raises
    ------
    InputError
        If it is no length.
    """
    changed = replace(rule, ptv_mm=ptv_mm)
    return rule if ptv_mm == rule.ptv_mm else replace(changed, version=f"{rule.version}, PTV {ptv_mm:g} mm")


def parse_rule(text: str) -> PlanRule:
    """Return the rule that a TOML text defines; the keys are the attributes of `PlanRule`.

    Raises
    ------
    InputError
        If the text is not TOML, lacks a key, has an unknown one, or a value makes no sense.
    """
    with parsing("The plan rule is not valid TOML.", remedy=None):
        table = parse_toml(text)
    # Python can do with defaults; a file that is read in years to come says what it means.
    needed = {"gtv", "margin_mm", "barriers", "source", "description"}
    values = _values(table, PlanRule, needed=needed)
    if "initial" in values:
        values["initial"] = Phase(**_values(values["initial"], Phase, inside="initial."))
    return PlanRule(**values)


def _values(
    table: Mapping[str, Any], kind: type, *, needed: Collection[str] = (), inside: str = ""
) -> dict[str, Any]:
    """Return the table with the types of a dataclass's fields; refuse missing and unknown keys, wrong types."""
    known = {f.name: str(f.type) for f in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    missing, unknown = (required | set(needed)) - set(table), set(table) - set(known)
    if missing or unknown:
        parts = [("without", missing), ("with the unknown", unknown)]
        raise InputError(
            "The plan rule does not have the keys of a rule.",
            expected=", ".join(inside + key for key in known),
            found="; ".join(
                f"{w} {', '.join(inside + k for k in sorted(keys))}" for w, keys in parts if keys
            ),
        )
    return {key: _value(inside + key, known[key], value) for key, value in table.items()}


def _value(key: str, wanted: str, value: Any) -> Any:
    """Return a TOML value as the type a field wants."""

    def is_number(item: Any) -> bool:
        return isinstance(item, int | float) and not isinstance(item, bool)

    if wanted == "str" and isinstance(value, str):
        return value.strip()
    if wanted.startswith("float") and is_number(value):
        return float(value)
    if wanted.startswith("tuple") and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if wanted.startswith("Mapping") and isinstance(value, dict) and all(map(is_number, value.values())):
        return {name: float(number) for name, number in value.items()}
    if wanted.startswith("Phase") and isinstance(value, dict):
        return value
    words = {"str": "a text", "float": "a number", "tuple": "a list of texts", "Phase": "a table"}
    expected = next((w for t, w in words.items() if wanted.startswith(t)), "a table of numbers")
    raise InputError(f"The plan rule has an invalid {key}.", expected=expected, found=repr(value))


def _read_rule(file: Path, *, taken: Collection[str]) -> PlanRule:
    text = read_text(file, expected="a plan rule, a text file in TOML", largest=LARGEST_RULES)
    try:
        rule = parse_rule(text)
    except InputError as error:
        error.file = file
        raise
    if rule.name in taken:
        raise InputError(
            "The plan rule has the name of a packaged one.",
            file=file,
            expected="a name of its own, so that reports tell them apart",
            found=rule.name,
            remedy="change its name",
        )
    return rule


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
