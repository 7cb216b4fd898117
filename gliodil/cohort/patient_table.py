"""A table of patients (TSV) to one row per patient: files or a folder each, paths relative to the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gliodil.cohort.rows import Row, safe_name
from gliodil.data.discover import FILE_ROLES
from gliodil.data.gate import obstacle, read_table
from gliodil.errors import InputError
from gliodil.planning.maps import check_map_name

COLUMNS = ("patient_id", "folder", *(role for role in FILE_ROLES if role != "truth"), "label_convention")
"""Columns of a patient table; only `patient_id` and one of `folder` and `seg` have to be there."""
DENSITY = "density:"
"""Beginning of a column with maps made elsewhere: `density:NAME`."""
ABSENT = ("", "n/a", "NA")


def read_patients(source: Path, labels: str | None) -> list[Row]:
    """Return the rows of a table; `labels` is the label convention of those that name none.

    Raises
    ------
    InputError
        If the file is not such a table.
    """
    header, lines = read_table(source, expected="a tab-separated table")
    unknown = [name for name in header if name not in COLUMNS and not name.startswith(DENSITY)]
    if unknown or "patient_id" not in header or not lines:
        raise InputError(
            "This is not a patient table.",
            file=source,
            expected=f"tab-separated columns among {', '.join(COLUMNS)} and {DENSITY}NAME; patient_id in any case",
            found=f"unknown columns {', '.join(unknown)}"
            if unknown
            else f"columns {', '.join(header) or 'none'}"
            if "patient_id" not in header
            else "no rows",
            remedy="rename or remove columns, and separate them with tabs",
        )
    return [_row(line, source, labels, number) for number, line in enumerate(lines, 1)]


def _row(
    line: Mapping[str | None, str | list[str] | None], source: Path, labels: str | None, number: int
) -> Row:
    cells = {
        key: value.strip()
        for key, value in line.items()
        if key is not None and isinstance(value, str) and value.strip() not in ABSENT
    }
    name = cells.pop("patient_id", "")
    identity = safe_name(name) if name else f"row-{number}"
    convention = cells.pop("label_convention", labels)
    paths = {key: _path(source.parent, value) for key, value in cells.items()}
    folder = paths.pop("folder", None)
    named = [column for column in paths if column.startswith(DENSITY)]
    densities = {check_map_name(column.removeprefix(DENSITY)): paths.pop(column) for column in named}
    problem = None
    if not name or "/" in name or "\\" in name:
        problem = InputError(
            "The row does not name its patient.",
            file=source,
            expected="a name in the column patient_id, without slashes",
            found=f"{name!r} in row {number}",
            remedy="fill in the name",
        )
    elif odd := [key for key, value in cells.items() if not value.isprintable()]:
        paths, folder, densities = {}, None, {}
        problem = InputError(
            "The row holds characters that no path has.",
            file=source,
            expected="plain text in every cell",
            found=f"control characters in {', '.join(odd)}",
            remedy="write these cells again",
        )
    elif None in line:
        problem = InputError(
            "The row has more cells than the table has columns.",
            file=source,
            expected=f"{len(line) - 1} cells",
            remedy="check the tabs of this row",
        )
    elif folder is None and "seg" not in paths:
        problem = InputError(
            "The row names no images.",
            file=source,
            expected="a folder, or at least seg, wm and gm",
            found=", ".join(paths) or "neither",
            remedy="fill in the columns folder or seg",
        )
    row = Row(identity, identity, folder, paths, convention, densities, problem=problem)
    return row if identity == name else replace(row, named=name)


def _path(beside: Path, cell: str) -> Path:
    """Return a path of the table; written with backslashes, as Windows does, it is found all the same."""
    path = beside / cell
    if (
        "\\" in cell
        and obstacle(path) is not None
        and obstacle(turned := beside / cell.replace("\\", "/")) in (None, "a folder")
    ):
        return turned
    return path
