"""Exchanging what lies in a place for something new, so that a kill between two steps loses neither.

    stage/journal.json    what is to be exchanged; written before the first step
    stage/new             what comes      stage/old    what goes

    1. every old entry moves from its place to stage/old, the manifest first
    2. every new entry moves to its place, the manifest last
    3. the journal is removed, then stage/old

An error takes all steps back. After a kill the next run finds the journal and goes on (`recover`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.gate import read_json
from gliodil.data.manifest import MANIFEST_FILE
from gliodil.errors import GliodilError

JOURNAL_FILE = "journal.json"


@dataclass(frozen=True)
class Exchange:
    """Steps from `stage` to their places in `root`."""

    stage: Path
    root: Path
    old: tuple[str, ...]
    """Entries that stand there and go."""
    new: tuple[str, ...]
    """Entries that come."""

    def run(self) -> None:
        """Write the journal and go through all steps; take them back if one fails.

        Raises
        ------
        OSError
            Of the step that failed.
        """
        (self.stage / "old").mkdir()
        self._write_journal()
        try:
            self.forward()
        except BaseException:
            self._back()
            self._end()
            raise
        self._end()

    def forward(self) -> None:
        """Go through the steps that are left."""
        first, last = (_in_order(names) for names in (self.old, self.new))
        for name in first:
            if not os.path.lexists(self.stage / "old" / name):
                os.rename(self.root / name, self.stage / "old" / name)
        for name in reversed(last):
            if os.path.lexists(self.stage / "new" / name):
                os.rename(self.stage / "new" / name, self.root / name)

    def _back(self) -> None:
        for name in self.new:
            if not os.path.lexists(self.stage / "new" / name) and os.path.lexists(self.root / name):
                os.rename(self.root / name, self.stage / "new" / name)
        for name in self.old:
            if os.path.lexists(self.stage / "old" / name):
                os.rename(self.stage / "old" / name, self.root / name)

    def _write_journal(self) -> None:
        content = {"root": os.path.relpath(self.root, self.stage), "old": self.old, "new": self.new}
        draft = self.stage / f"{JOURNAL_FILE}.draft"
        with draft.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(content))
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, self.stage / JOURNAL_FILE)

    def _end(self) -> None:
        (self.stage / JOURNAL_FILE).unlink()
        shutil.rmtree(self.stage / "old", ignore_errors=True)


def recover(stage: Path, is_ours: Callable[[Path, Collection[str]], bool]) -> None:
    """Complete the exchange that a killed process began, if it began one.

    Parameters
    ----------
    is_ours
        Whether these entries of a place can be what is exchanged from this stage: a journal moves nothing else.

    Raises
    ------
    OSError
        If a step fails.
    """
    try:
        content = read_json(stage / JOURNAL_FILE, expected="a journal")
        root, old, new = (stage / content["root"]).resolve(), tuple(content["old"]), tuple(content["new"])
        if not all(map(_is_name, (*old, *new))) or not is_ours(root, {*old, *new}):
            return
        begun = Exchange(stage, root, old, new)
    except (GliodilError, KeyError, TypeError, ValueError):  # it is written whole, so this is none of ours
        return
    begun.forward()
    begun._end()


def _is_name(name: str) -> bool:
    """Whether a text names an entry of a folder, and nothing elsewhere."""
    return name not in ("", ".", "..") and name == os.path.basename(name) and "\0" not in name


def clear(stage: Path, *, keep: Collection[str] = ()) -> None:
    """Remove what is in a stage."""
    with suppress(OSError):
        for entry in list(os.scandir(stage)):
            if entry.name in keep:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


def _in_order(names: Collection[str]) -> list[str]:
    return sorted(names, key=lambda name: (name != MANIFEST_FILE, name))
