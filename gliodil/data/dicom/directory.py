"""The list of files that comes with a medium (DICOMDIR): which of them are not there.

A copy that broke off, or took only part of a series, is told by it even where the slices left form a regular stack.
"""

from __future__ import annotations

from pathlib import Path

from gliodil.data.dicom.headers import items, open_dicom, quietly, text

MOST_LISTED = 100_000


def missing_of(directory: Path) -> list[Path]:
    """Return the listed files that are not there, in folders in which others of the list are.

    A damaged list says nothing, nor does one that was copied without its files.
    """
    try:
        with quietly():
            listed = [
                text(record, "ReferencedFileID").split()
                for record in items(open_dicom(directory), "DirectoryRecordSequence")[:MOST_LISTED]
            ]
    except Exception:  # whatever damage leads pydicom to raise
        return []
    there: dict[Path, set[str]] = {}
    lost: list[Path] = []
    for parts in listed:
        path = directory.parent.joinpath(*parts)
        if not parts or ".." in parts or not path.is_relative_to(directory.parent):
            continue
        if path.parent not in there:
            there[path.parent] = _names(path.parent)
        if path.name.lower() not in there[path.parent]:
            lost.append(path)
    kept = {
        directory.parent.joinpath(*parts).parent
        for parts in listed
        if parts and parts[-1].lower() in there.get(directory.parent.joinpath(*parts).parent, ())
    }
    return [path for path in lost if path.parent in kept]


def _names(folder: Path) -> set[str]:
    """Return the names in a folder in lower case, without the suffix some programs add; none if it cannot be read."""
    try:
        names = [entry.name.lower() for entry in folder.iterdir()]
    except OSError:
        return set()
    return {*names, *(name.removesuffix(".dcm") for name in names)}
