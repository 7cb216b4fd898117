"""Strict JSON: what is unknown or not finite is null, arrays are lists, paths are file names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gliodil.data.atomic import atomic_path
from gliodil.errors import InputError


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
    """Return the object in a JSON file that a plan folder must have.

    Raises
    ------
    InputError
        If the file is missing or is not a JSON object.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
    else:
        if isinstance(value, dict):
            return value
        found = f"a {type(value).__name__}"
    raise InputError(
        "This is not a finished plan folder.",
        file=path,
        expected="a JSON file written by `gliodil plan`",
        found=found,
        remedy="run `gliodil plan` first, or name another folder",
    )
