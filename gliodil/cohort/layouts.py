"""The patients of a data set that is laid out as a recipe says: in folders, or listed in a JSON file.

Nothing is read but names and the JSON file. What one patient lacks is that patient's problem.
"""

from __future__ import annotations

import glob
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliodil.cohort.recipes import Patterns, Recipe, packaged
from gliodil.data.tree import is_clutter
from gliodil.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One patient of a data set."""

    identity: str
    files: Mapping[str, Path]
    problem: InputError | None = None


def recognise(source: Path, out: Path) -> Recipe | None:
    """Return the packaged recipe a folder follows; None if it follows none.

    It follows a recipe if that finds patients, at least one with a segmentation, and no other folders beside them.

    Raises
    ------
    InputError
        If it follows several.
    """
    found = []
    for recipe in packaged().values():
        folders, others = _folders(recipe, source, out)
        if folders and not others and any("seg" in _files(recipe, *item)[0] for item in folders.items()):
            found.append(recipe)
    if len(found) > 1:
        raise InputError(
            "The folder follows several recipes.",
            file=source,
            expected="one layout",
            found=", ".join(recipe.name for recipe in found),
            remedy="name one with --recipe",
        )
    return found[0] if found else None


def find_entries(recipe: Recipe, source: Path, out: Path) -> list[Entry]:
    """Return the patients that a recipe finds in a folder.

    Raises
    ------
    InputError
        If there are none.
    """
    folders, others = _folders(recipe, source, out)
    if not folders:
        raise InputError(
            f"The recipe {recipe.name!r} finds no patients.",
            file=source,
            expected=f"folders {' or '.join(recipe.patients) or 'of no kind: it reads a JSON file'}"
            + (f", named like {recipe.named}" if recipe.named else ""),
            found=", ".join(sorted(path.name for path in source.iterdir())[:10]) or "an empty folder",
            remedy="check the path, or choose another recipe",
        )
    if others:
        logger.warning("%s: left out, not named like patients: %s", recipe.name, ", ".join(others[:10]))
    entries = []
    for name, folder in folders.items():
        files, several = _files(recipe, name, folder)
        entries.append(make_entry(recipe, name, files, recipe.files, several))
    return entries


def make_entry(
    recipe: Recipe, name: str, files: Mapping[str, Path], patterns: Patterns, problem: InputError | None
) -> Entry:
    """Return a patient with the files found; one that lacks what the recipe needs has a problem."""
    missing = [role for role in recipe.needed if role not in files]
    if problem or not missing:
        return Entry(name, files, problem)
    wanted = "; ".join(f"{role}: {' or '.join(patterns.get(role, ('-',)))}" for role in missing)
    what = "tumour segmentation is" if missing == ["seg"] else f"{', '.join(missing)} of the patient are"
    problem = InputError(
        f"The {what} missing.",
        patient=name,
        expected=f"{wanted} (recipe {recipe.name})",
        found=", ".join(path.name for path in files.values()) or "no file of the recipe",
        remedy="add the file, or correct the pattern in a recipe of your own",
    )
    return Entry(name, files, problem)


def _folders(recipe: Recipe, source: Path, out: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the patients' folders by name, under the first pattern that finds any, and the names of other folders."""
    for pattern in recipe.patients:
        expression = _expression(pattern)
        folders, others = {}, []
        for place in sorted(glob.glob(pattern.replace("{patient}", "*"), root_dir=source)):
            path = source / place
            match = expression.fullmatch(Path(place).as_posix())
            if match is None or not path.is_dir() or is_clutter(path.name) or path.resolve() == out:
                continue
            name = match["patient"]
            if re.fullmatch(recipe.named or ".*", name):
                folders[name] = path
            elif not (recipe.skipped and re.fullmatch(recipe.skipped, name)):
                others.append(name)
        if folders:
            return folders, others
    return {}, []


def _expression(pattern: str) -> re.Pattern[str]:
    """Return a pattern with `{patient}` and `*` as a regular expression; the name may stand in it more than once."""
    first, rest = r"(?P<patient>[^/]+)", r"(?P=patient)"
    head, *tail = pattern.split("{patient}")
    parts = [re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]") for part in (head, *tail)]
    return re.compile(parts[0] + first + rest.join(parts[1:]) if tail else parts[0])


def _files(recipe: Recipe, name: str, folder: Path) -> tuple[dict[str, Path], InputError | None]:
    """Return the files of a patient by role, and what is wrong where a pattern finds several."""
    names = {"{patient}": glob.escape(name), **dict(_visits(recipe, folder))}
    found: dict[str, Path] = {}
    problem = None
    for role, patterns in recipe.files.items():
        for pattern in patterns:
            paths = _matches(pattern, names, folder)
            if len(paths) > 1:
                problem = InputError(
                    f"Several files could be the {role} image.",
                    patient=name,
                    file=folder,
                    expected=f"one file {pattern} (recipe {recipe.name})",
                    found=", ".join(path.name for path in paths),
                    remedy="keep one of them, or correct the pattern in a recipe of your own",
                )
            if paths:
                found[role] = paths[0]
                break
    return found, problem


def _matches(pattern: str, names: Mapping[str, str], folder: Path) -> Sequence[Path]:
    """Return the files a pattern finds in a patient's folder, in order of their names; none without its visit."""
    for key, value in names.items():
        pattern = pattern.replace(key, value)
    if "{" in pattern:
        return ()
    return [
        folder / place
        for place in sorted(glob.glob(pattern, root_dir=folder))
        if not is_clutter(Path(place).name) and not (folder / place).is_dir()
    ]


def _visits(recipe: Recipe, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the folders of the first and the last visit, the last if there are two."""
    if not recipe.visits:
        return
    visits = sorted({Path(place).parts[0] for place in glob.glob(recipe.visits, root_dir=folder)})
    if visits:
        yield "{first}", glob.escape(visits[0])
    if len(visits) > 1:
        yield "{last}", glob.escape(visits[-1])
