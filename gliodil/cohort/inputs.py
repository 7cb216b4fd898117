"""What a cohort is made of: a BIDS dataset, a folder of patient folders, a table (TSV), or a data set with a recipe.

Each becomes one row per patient.

Nothing is read here but names and the table itself; whether a patient can be planned is for `validate` to say.
"""

from __future__ import annotations

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from gliodil.cohort.bids import DESCRIPTION, find_subjects, is_bids
from gliodil.cohort.dataset_json import read_dataset
from gliodil.cohort.layouts import find_entries, recognise
from gliodil.cohort.patient_table import read_patients
from gliodil.cohort.recipes import Recipe, get_recipe
from gliodil.cohort.rows import Row, safe_name, short_hash
from gliodil.data.gate import obstacle
from gliodil.data.nifti import is_nifti_name
from gliodil.data.tree import is_clutter
from gliodil.errors import InputError, visible
from gliodil.planning.maps import check_map_name

logger = logging.getLogger(__name__)

JSON_RECIPE = "predict-gbm"
"""The recipe a JSON file is read with unless another is named."""


def find_rows(
    source: Path | str,
    out: Path | str,
    *,
    only: Sequence[str] = (),
    labels: str | None = None,
    validate_bids: bool = True,
    recipe: str | None = None,
    densities: Mapping[str, str] | None = None,
) -> list[Row]:
    """Return the patients of a cohort in order of their names.

    Parameters
    ----------
    source
        BIDS dataset, folder of patient folders, TSV, or what a recipe reads (a folder, or a JSON file).
    out
        Output folder, left out of the search if it lies inside `source`.
    only
        Names of the patients wanted (in BIDS with or without ``sub-``); empty: all.
    labels
        Label convention of rows that name none.
    validate_bids
        Whether a BIDS dataset has to carry a valid ``dataset_description.json``.
    recipe
        Name or file of the recipe the source is laid out as; by default the packaged one it follows, if any.
    densities
        Maps made elsewhere: name to path, in which ``{patient}`` stands for the patient's name, ``*`` for anything.

    Raises
    ------
    InputError
        If `source` is none of these, names a patient twice, or does not have a patient in `only`.
    """
    source, out = Path(source).resolve(), Path(out).resolve()
    if source.is_file() and (recipe is not None or source.suffix.lower() == ".json"):
        rows = _from_recipe(get_recipe(recipe or JSON_RECIPE), source, out, labels)
    elif source.is_file():
        rows = read_patients(source, labels)
    elif not source.is_dir():
        raise InputError(
            "The cohort does not exist.",
            file=source,
            expected="a BIDS dataset, a folder of patient folders, a TSV, or a data set's JSON",
            found="nothing of that name",
            remedy="check the path",
        )
    elif recipe is not None:
        rows = _from_recipe(get_recipe(recipe), source, out, labels)
    elif not (source / DESCRIPTION).is_file() and (known := recognise(source, out)) is not None:
        logger.info("%s is read with the recipe %s: %s", source.name, known.name, known.description)
        rows = _from_recipe(known, source, out, labels)
    elif is_bids(source):
        rows = _from_bids(source, out, labels, validate=validate_bids)
    else:
        rows = _from_folders(source, out, labels)
    rows = _selected(sorted(_apart(rows), key=lambda row: row.identity), only, source)
    return [replace(row, densities={**_maps(row, densities or {}), **row.densities}) for row in rows]


def _maps(row: Row, densities: Mapping[str, str]) -> dict[str, Path]:
    """Return the maps of a patient; a pattern that finds none stands as a file that is not there."""
    found = {}
    for name, pattern in densities.items():
        wanted = pattern.replace("{patient}", glob.escape(row.identity))
        matches = sorted(glob.glob(wanted))
        plain = pattern.replace("{patient}", row.identity)
        found[check_map_name(name)] = Path(matches[0] if len(matches) == 1 else plain).absolute()
    return found


def _from_folders(source: Path, out: Path, labels: str | None) -> list[Row]:
    folders = [
        path
        for path in sorted(source.iterdir())
        if not is_clutter(path.name)
        and path.resolve() != out
        and (path.is_dir() or (path.is_symlink() and obstacle(path) is not None))
    ]
    if not folders:
        single = any(is_nifti_name(path.name) for path in source.iterdir())
        raise InputError(
            "The folder holds no patient folders.",
            file=source,
            expected="one folder per patient, a BIDS dataset, or a TSV",
            found="images of one patient" if single else "no folders",
            remedy=f"gliodil plan {source.name}" if single else "check the path",
        )
    return [_row(path.name, folder=path, labels=labels, problem=_lost(path)) for path in folders]


def _row(name: str, **more: Any) -> Row:
    identity = safe_name(name)
    return Row(identity, identity, named="" if identity == name else name, **more)


def _lost(folder: Path) -> InputError | None:
    """Return the error for a patient's folder that is a link to nothing."""
    if folder.is_dir():
        return None
    return InputError(
        "The patient's folder is a link to nothing.",
        file=folder,
        expected="a folder",
        found=obstacle(folder),
        remedy="get the content (git annex get, datalad get), or remove the link",
    )


def _apart(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows; names that were changed to what another patient is called get a hash of their own."""
    given = Counter(row.identity.lower() for row in rows)
    for row in rows:
        if not row.named:
            yield row
            continue
        identity = row.identity
        if given[identity.lower()] > 1:
            identity = f"{identity}-{short_hash(row.named)}"
        logger.warning("patient %s is called %s in the results", visible(row.named), identity)
        yield replace(row, identity=identity, place=identity)


def _from_recipe(recipe: Recipe, source: Path, out: Path, labels: str | None) -> list[Row]:
    entries = read_dataset(recipe, source) if source.is_file() else find_entries(recipe, source, out)
    if recipe.note:
        logger.warning("%s: %s", recipe.name, recipe.note)
    convention = labels or recipe.labels or None
    return [
        _row(entry.identity, files=entry.files, labels=convention, problem=entry.problem) for entry in entries
    ]


def _from_bids(source: Path, out: Path, labels: str | None, *, validate: bool) -> list[Row]:
    subjects = find_subjects(source, out, validate=validate)
    return [
        Row(
            subject.identity,
            str(PurePosixPath(*subject.identity.split("_"))),
            files=subject.files,
            labels=labels,
            problem=subject.problem,
        )
        for subject in subjects
    ]


def _selected(rows: Iterable[Row], only: Sequence[str], source: Path) -> list[Row]:
    rows = _once(rows, source)
    if not only:
        return rows
    wanted = {name.removeprefix("sub-") for name in only}
    names = [{row.identity.removeprefix("sub-"), _subject(row.identity)} for row in rows]
    if missing := sorted(wanted - set().union(*names)):
        raise InputError(
            "There is no such patient in the cohort.",
            file=source,
            expected=", ".join(row.identity for row in rows[:10]) + (" ..." if len(rows) > 10 else ""),
            found=", ".join(missing),
            remedy="check the names after --only",
        )
    return [row for row, known in zip(rows, names, strict=True) if known & wanted]


def _once(rows: Iterable[Row], source: Path) -> list[Row]:
    """Return one row per name; patients of one name (but for upper and lower case) cannot have one folder each."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.identity.lower(), []).append(row)
    return [
        same[0]
        if len(same) == 1
        else replace(
            same[0],
            problem=InputError(
                "A patient is named twice.",
                file=source,
                expected="one row per patient, names that differ in more than upper and lower case",
                found=", ".join(row.named or row.identity for row in same),
                remedy="rename or remove one of them",
            ),
        )
        for same in by_name.values()
    ]


def _subject(identity: str) -> str:
    """Return the subject of ``sub-01_ses-preop``: ``01``; other names as they are."""
    return identity.removeprefix("sub-").partition("_ses-")[0]
