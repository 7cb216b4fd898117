"""Strict JSON: what is unknown or not finite is null, arrays are lists, paths are file names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gliodil.data import gate
from gliodil.data.atomic import atomic_path
from gliodil.errors import InputError
from gliodil.reporting.schemas import SCHEMAS, faults

LARGEST = 1 << 30
"""Bytes of a JSON file of ours; that of the viewer holds volumes."""


def jsonable(value: Any) -> Any:
    """Return `value` with only JSON types in it; NaN and infinities become None, paths their file name.

    Raises
    ------
    TypeError
        If something cannot be told in JSON.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_json(value: Mapping[str, Any], path: Path | str, *, draft: Path | None = None) -> Path:
    """Write a mapping as indented JSON without NaN; `draft` as in `gliodil.data.atomic`.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    target = Path(path)
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_path(target, draft=draft) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return target


def read_json(path: Path | str) -> dict[str, Any]:
    """Return the object in a JSON file of a folder of results, checked against its schema (`gliodil.reporting.schemas`).

    Raises
    ------
    InputError
        If the file is missing, is not a JSON object, or does not hold what a file of its name must.
    """
    path = Path(path)
    try:
        value = gate.read_json(path, expected="JSON", largest=LARGEST)
        found = None if isinstance(value, dict) else f"a {type(value).__name__}"
    except InputError as error:
        value, found = None, error.found
    if found is None:
        found = "; ".join(islice(faults(value, SCHEMAS.get(path.name, {})), 3))
        if not found:
            read: dict[str, Any] = value
            return read
    raise InputError(
        "This is not a finished plan folder.",
        file=path,
        expected="a JSON file written by `gliodil plan`",
        found=found,
        remedy="run `gliodil plan` first, or name another folder",
    )
