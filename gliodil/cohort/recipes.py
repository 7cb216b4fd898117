"""Recipes: which file of a published data set stands for what, one TOML file each in the folder `recipes`.

    patients = ["images/{patient}"]     folders, relative to the input, one per patient; the first pattern that finds any
    [files] seg = ["{patient}_seg.nii*"]   files, relative to the patient's folder; the first pattern that finds one
    [keys]  seg = ["derivatives.seg"]      the same where the data set is a JSON file: block and key

`*` and `?` stand for anything within a name, `{patient}` for the patient's name, `{first}` and `{last}` for the folder
of the first and last visit. To add a layout, add a file, or name a file of your own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gliodil.data.discover import FILE_ROLES
from gliodil.data.gate import LARGEST_RULES, parse_toml, read_text
from gliodil.data.labels import get_convention
from gliodil.errors import GliodilError, InputError

Patterns = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Recipe:
    """How a data set is laid out.

    Attributes
    ----------
    name
        That of its file.
    description, source, note
        What it is, where the names are from, and what a user should know (logged when it is used).
    labels
        Label convention; empty: told from the labels.
    patients
        Patterns of the patients' folders.
    named, skipped
        Regular expressions for names of patients (empty: any), and of folders beside them known to be none.
    visits
        Pattern of a file each visit of a patient has, beginning with the visit's folder; empty: no visits.
    files, keys
        Role (`gliodil.data.discover.FILE_ROLES`) to patterns of files, and to keys of the JSON file.
    needed
        Roles without which a patient is refused.
    """

    name: str
    description: str = ""
    source: str = ""
    note: str = ""
    labels: str = ""
    patients: tuple[str, ...] = ()
    named: str = ""
    skipped: str = ""
    visits: str = ""
    files: Patterns = field(default_factory=dict)
    keys: Patterns = field(default_factory=dict)
    needed: tuple[str, ...] = ("seg",)


def get_recipe(name: str) -> Recipe:
    """Return the packaged recipe called `name`, or the one in a file named so (ending in `.toml`).

    Raises
    ------
    InputError
        If there is no such recipe, or the file cannot be read or is no recipe.
    """
    if name.lower().endswith(".toml"):
        return _read(Path(name))
    if name not in packaged():
        raise InputError(
            f"There is no recipe {name!r}.",
            expected=f"{', '.join(packaged())}, or a file ending in .toml",
            found=name,
            remedy="choose one of these with --recipe",
        )
    return packaged()[name]


@cache
def packaged() -> Mapping[str, Recipe]:
    """Return the packaged recipes by name."""
    folder = resources.files("gliodil.cohort") / "recipes"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    recipes = [parse_recipe(f.read_text(encoding="utf-8"), Path(f.name).stem) for f in files]
    return MappingProxyType({recipe.name: recipe for recipe in recipes})


def parse_recipe(text: str, name: str) -> Recipe:
    """Return the recipe that a TOML text defines; the keys are the attributes of `Recipe`.

    Raises
    ------
    InputError
        If the text is not TOML, has an unknown key or a value of the wrong type, or finds no segmentation.
    """
    try:
        table = parse_toml(text)
        recipe = Recipe(name, **{key: _value(key, value) for key, value in table.items()})
        for pattern in filter(None, (recipe.named, recipe.skipped)):
            re.compile(pattern)
        if recipe.labels:
            get_convention(recipe.labels)
    except (ValueError, re.error, GliodilError) as error:
        raise _invalid(name, getattr(error, "found", None) or str(error)) from error
    if not (recipe.patients and "seg" in recipe.files) and "seg" not in recipe.keys:
        raise _invalid(name, "neither patients with files.seg nor keys.seg")
    unknown = sorted((recipe.files.keys() | recipe.keys.keys() | set(recipe.needed)) - set(FILE_ROLES))
    if unknown:
        raise _invalid(name, f"unknown {', '.join(unknown)}; known: {', '.join(FILE_ROLES)}")
    return recipe


def _value(key: str, value: Any) -> Any:
    """Return a TOML value as the type the field wants."""
    kinds = {f.name: str(f.type) for f in fields(Recipe) if f.name != "name"}
    kind = kinds.get(key)
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "tuple[str, ...]" and _texts(value):
        return tuple(value)
    if kind == "Patterns" and isinstance(value, dict) and all(map(_texts, value.values())):
        return {role: tuple(patterns) for role, patterns in value.items()}
    expected = {"str": "a text", "tuple[str, ...]": "a list of texts", "Patterns": "a table of lists"}
    wanted = f"{key}: {expected[kind]}" if kind else f"keys among {', '.join(kinds)}"
    raise InputError("The recipe is not valid.", expected=wanted, found=f"{key} = {value!r}")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _invalid(name: str, found: str) -> InputError:
    return InputError(
        f"The recipe {name!r} is not valid.",
        expected=f"TOML with keys among {', '.join(f.name for f in fields(Recipe) if f.name != 'name')}",
        found=found,
        remedy="compare it with a packaged recipe",
    )


def _read(file: Path) -> Recipe:
    text = read_text(file, expected="a recipe in TOML", largest=LARGEST_RULES)
    try:
        return parse_recipe(text, file.stem)
    except InputError as error:
        error.file = file
        raise
