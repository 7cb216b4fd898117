"""The files below a folder: links followed once, what systems and archives leave behind passed over, obstacles said."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.gate import obstacle
from gliodil.errors import InputError

MOST_FILES = 200_000
EMPTY = "an empty file"
_CLUTTER = frozenset(
    (
        "__macosx",
        "@eadir",
        "thumbs.db",
        "desktop.ini",
        "#recycle",
        "$recycle.bin",
        "lost+found",
        "ehthumbs.db",
    )
)


@dataclass(frozen=True)
class Tree:
    """The files below a folder that can be read, and what is there and cannot be."""

    files: tuple[Path, ...]
    unread: Mapping[Path, str]
    """Path to the reason."""


def look_through(folder: Path | str, *, deep: bool = True, skip: Path | None = None) -> Tree:
    """Return the files of a folder and, if `deep`, of its subfolders, in order of their names.

    Links are followed, but no folder is visited twice. What operating systems and archives leave behind (`._x`,
    `__MACOSX`, `@eaDir`, hidden files and folders) is passed over.

    Parameters
    ----------
    folder
        Folder to look through.
    deep
        Whether to go into subfolders.
    skip
        A folder not to go into.

    Raises
    ------
    InputError
        If there are more than `MOST_FILES`.
    """
    files: list[Path] = []
    unread: dict[Path, str] = {}
    seen = {_place(skip)} if skip is not None else set()
    waiting = [Path(folder)]
    while waiting:
        here = waiting.pop()
        if (place := _place(here)) in seen:
            continue
        seen.add(place)
        try:
            entries = sorted(here.iterdir())
        except OSError as error:
            unread[here] = error.strerror or str(error)
            continue
        for path in entries:
            if is_clutter(path.name):
                continue
            found = obstacle(path)
            if found == "a folder":
                waiting += [path] if deep else []
            elif found:
                unread[path] = found
            elif path.stat().st_size == 0:
                unread[path] = EMPTY
            else:
                files.append(path)
        if len(files) > MOST_FILES:
            raise InputError(
                "The folder holds too many files.",
                file=folder,
                expected=f"at most {MOST_FILES}",
                found="more",
                remedy="give the folder of one patient",
            )
    return Tree(tuple(sorted(files)), unread)


def is_clutter(name: str) -> bool:
    """Whether a file or folder of that name is left behind by an operating system, an archive or a tool."""
    return name.startswith(".") or name.lower() in _CLUTTER


def _place(folder: Path) -> tuple[int, int] | str:
    try:
        found = os.stat(folder)
    except OSError:
        return str(folder)
    return found.st_dev, found.st_ino
