"""What the JSON files of a folder of results must hold: one table per file, checked when it is read.

int, str, ...      a value of that type; NUMBER is an integer or a fraction, ANY anything
{"key": ...}       an object with these keys at least; "key?" may be missing, "*" are all others
Maybe(...)         or null
Each(...)          an object, every value like that
List(...)          a list, every item like that
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NUMBER = (int, float)
ANY = object


@dataclass(frozen=True)
class Maybe:
    """This, or null."""

    of: Any


@dataclass(frozen=True)
class Each:
    """An object whose values are all like this."""

    of: Any


@dataclass(frozen=True)
class List:
    """A list whose items are all like this."""

    of: Any


_PLANS = {"standard": NUMBER, "trimmed": NUMBER, "model": NUMBER, "*": NUMBER}
_COVERAGE = {"enhancing": Maybe(_PLANS), "any": Maybe(_PLANS)}
_AMOUNT = Maybe((int, float, list))
_PARAMETER = {"value": _AMOUNT, "low": _AMOUNT, "high": _AMOUNT, "unit": str}
_FIT_STATE = {"status": str, "status_message?": Maybe(str)}
_PHASE = {"gtv": List(str), "margin_mm": NUMBER, "dose": str}
_CROSSING = {
    "gtv_side": str,
    "beyond": str,
    "gtv_on_both_sides": bool,
    "beyond_ml": dict.fromkeys(("gtv", "ctv_standard", "ctv_trimmed", "ctv_model"), NUMBER),
    "why": Maybe(
        {
            **dict.fromkeys(("margin_mm", "straight_mm", "around_ml", "between_ml"), NUMBER),
            **dict.fromkeys(("farther_ml", "farther_joined_ml"), NUMBER),
            "path_mm": Maybe(NUMBER),
        }
    ),
}
_TRIP = dict.fromkeys(("dice", "voxel_ml", "polygon_ml", "difference_percent"), Maybe(NUMBER))

METRICS = {
    **_FIT_STATE,
    "schema_version": int,
    "statement": str,
    "gliodil_version": str,
    "patient": str,
    "label_convention": str,
    "inputs": List(str),
    "rule": {
        **dict.fromkeys(("name", "version", "description", "source"), str),
        "gtv": List(str),
        "margin_mm": NUMBER,
        "barriers": List(str),
        "scan?": str,
        "gtv_ml?": Each(Maybe(NUMBER)),
        "reach_mm?": Each(NUMBER),
        "ptv_mm?": NUMBER,
        "initial?": Maybe(_PHASE),
        "dose?": str,
        "verify?": List(str),
    },
    "summary?": Maybe(str),
    "acceptance?": Maybe({"accepted": bool, "reasons": List(str)}),
    "rank?": str,
    "ctv_end?": Each(Maybe(NUMBER)),
    "level_at_ctv_end?": Maybe(NUMBER),
    "contours?": Each(Each(Maybe(NUMBER))),
    "last_density?": Each(NUMBER),
    "dose?": Maybe(
        {
            "prescription_gy": Maybe(NUMBER),
            "structures": Each(Each(Maybe(NUMBER))),
            "cells": Maybe(Each(Maybe(NUMBER))),
            "missing": Each(str),
        }
    ),
    "probability?": Maybe({"patients": int, "source": str}),
    "wall_s": Maybe(NUMBER),
    "peak_memory_mb": Maybe(NUMBER),
    "warnings": List(str),
    "volumes_ml": dict.fromkeys(("gtv", "ctv_standard", "ctv_trimmed", "ctv_model", "*"), NUMBER),
    "equal_volume_voxel_difference": int,
    "difference_ml": {"gained": NUMBER, "given_up": NUMBER},
    "parameters": {"infiltration_length_mm": _PARAMETER, "*": _PARAMETER},
    "loss": {"total": Maybe(NUMBER), "terms": Each(Maybe(NUMBER)), "evaluations": Maybe(int)},
    "fit": {
        "method": str,
        "grid": List(int),
        "spacing_mm": List(NUMBER),
        **dict.fromkeys(("optimizer", "physics?", "device", "dtype"), Maybe(str)),
        "steps": Maybe(int),
        "label_misfit_mm?": Maybe(NUMBER),
        "wall_s": Maybe(NUMBER),
    },
    "margin_mm": dict.fromkeys(("mean", "min", "max", "*"), Maybe(NUMBER)),
    "coverage": Maybe(_COVERAGE),
    "coverage_history?": List(_COVERAGE),
    "organs_ml?": Each(Each(Maybe(NUMBER))),
    "organs_excluded?": List(str),
    "crossings?": Maybe(
        {
            "plane": Maybe({"residual_mm": NUMBER}),
            "midline": Maybe(_CROSSING),
            "tentorium": Maybe(_CROSSING),
        }
    ),
    "frames?": List({"source": str, "target": str, "origin": str, "matrix": List(List(NUMBER))}),
    "ct?": Maybe(
        {
            **dict.fromkeys(("series", "origin"), str),
            **dict.fromkeys(("shift_mm", "angle_deg"), NUMBER),
            **dict.fromkeys(("spread_mm", "difference_mm"), Maybe(NUMBER)),
            "drawn_on_ct": bool,
            "volumes_ml": Each(NUMBER),
            "equal_volume_voxel_difference": int,
            "dicom": {"files": List(str), "structures": Each(_TRIP)},
        }
    ),
    "dicom?": Maybe({"files": List(str), "structures": Each(_TRIP)}),
    "truth": Maybe(Each(Maybe(NUMBER))),
    "comparison?": Maybe(
        {
            **_FIT_STATE,
            "parameters": Each(Maybe(ANY)),
            "label_misfit_mm": Maybe(NUMBER),
            "wall_s": Maybe(NUMBER),
            "ctv_model_dice": NUMBER,
            "agreement": Each(Maybe(NUMBER)),
            "truth": Maybe(Each(Maybe(NUMBER))),
        }
    ),
    "preprocessing?": Maybe(Each(ANY)),
}

PROVENANCE = {
    "schema_version": int,
    "finished": str,
    "package": {"version": str, "commit": Maybe(str)},
    "python": str,
    "libraries": Each(str),
    "platform": {"system": str, "machine": str},
    "command": List(str),
    "config": Each(ANY),
    "seed": Maybe(ANY),
    "device": Maybe(str),
    "threads": {"processors": Maybe(int), "torch": Maybe(int)},
    "patient": str,
    "inputs": List(
        {
            "key": str,
            "name": str,
            "sha256": Maybe(str),
            "shape?": List(int),
            "spacing_mm?": List(NUMBER),
            "orientation?": str,
            "note?": str,
        }
    ),
}

STATUS = {
    "schema_version": int,
    "patient": str,
    "state": str,
    "stage?": Maybe(str),
    "started_s?": Maybe(NUMBER),
    "seconds?": Maybe(NUMBER),
    "peak_memory_mb?": Maybe(NUMBER),
    "warnings?": List(str),
    "error?": Maybe(Each(ANY)),
    "fingerprint?": Maybe(str),
    "inputs?": Each(Each(ANY)),
}

_CURVES = Maybe({"standard": List(NUMBER), "model": List(NUMBER)})
_RECURRENCE = {"recurrence_ml": NUMBER, "coverage": _CURVES, "area": Maybe(Each(NUMBER))}
CURVES = {
    "schema_version": int,
    "relative_volume": List(NUMBER),
    "enhancing": _RECURRENCE,
    "any": _RECURRENCE,
}

_BY_TARGET = Each(List(Maybe(NUMBER)))
MARGINS = {
    "schema_version": int,
    "margins_mm": List(NUMBER),
    "target_ml": Each(NUMBER),
    "coverage": {"standard": _BY_TARGET, "*": _BY_TARGET},
    "densities": Each(Maybe(str)),
    "warnings": List(str),
}

SCHEMAS: Mapping[str, Any] = {
    "metrics.json": METRICS,
    "provenance.json": PROVENANCE,
    "status.json": STATUS,
    "coverage_volume.json": CURVES,
    "coverage_margins.json": MARGINS,
}
"""By the name of the file."""
VERSION = 1
"""The only one there has been so far."""


def faults(value: Any, schema: Any, at: str = "") -> Iterator[str]:
    """Yield what in a value is not as its schema says, in words."""
    if isinstance(schema, Maybe):
        if value is not None:
            yield from faults(value, schema.of, at)
    elif isinstance(schema, Each):
        if not isinstance(value, dict):
            yield _wrong(at, "an object", value)
        else:
            for key, item in value.items():
                yield from faults(item, schema.of, f"{at}.{key}")
    elif isinstance(schema, List):
        if not isinstance(value, list):
            yield _wrong(at, "a list", value)
        else:
            for number, item in enumerate(value):
                yield from faults(item, schema.of, f"{at}[{number}]")
    elif isinstance(schema, dict):
        yield from _of_object(value, schema, at)
    elif schema is not ANY and (
        not isinstance(value, schema) or (isinstance(value, bool) and schema is not bool)
    ):
        kinds = schema if isinstance(schema, tuple) else (schema,)
        yield _wrong(at, " or ".join(_NAMES[kind] for kind in kinds), value)


def _of_object(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _wrong(at, "an object", value)
        return
    if (others := schema.get("*")) is not None:
        for key in value.keys() - schema.keys():
            yield from faults(value[key], others, f"{at}.{key}")
    for key, inner in schema.items():
        if key == "*":
            continue
        name = key.removesuffix("?")
        if name in value:
            yield from faults(value[name], inner, f"{at}.{name}")
        elif name == key:
            yield f"no {f'{at}.{name}'.lstrip('.')}"
    if at == "" and value.get("schema_version") not in (None, VERSION):
        yield f"schema_version {value['schema_version']!r}, not {VERSION}"


_NAMES = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def _wrong(at: str, expected: str, value: Any) -> str:
    kind = "null" if value is None else _NAMES.get(type(value), "a list")
    return f"{at.lstrip('.') or 'the file'} is {kind}, not {expected}"
