"""The hidden folder in which a folder of results is made, and its lock, which goes with its process.

It is named after the folder whose stage it is, so that whoever writes there next finds what a killed process left, and
completes or removes it; so does whoever writes beside it. Its lock says whether its process lives, not a number.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from gliodil.data.exchange import JOURNAL_FILE, clear, recover
from gliodil.data.lock import held
from gliodil.errors import BusyError

WHOLE = "whole"
"""Part of a stage from which whole folders are exchanged."""
_HIDDEN, _LOCK = ".gliodil-", "lock"
_STAGE = re.compile(re.escape(_HIDDEN) + r"[0-9a-f]{12}(\.run)?")


def stage_name(path: Path) -> str:
    """Return the name of the stage of a folder."""
    return _HIDDEN + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]


def run_lock(folder: Path) -> Path:
    """Return the file whose lock says that somebody works on a folder of results, longer than writing it takes."""
    return folder.parent / f"{stage_name(folder)}.run"


def enter(stack: ExitStack, stage: Path, path: Path, wait_s: float) -> None:
    """Take the lock of a folder; complete what a dead process left; remove the stage in the end."""
    for _ in range(100):
        with suppress(FileNotFoundError):  # the one before us removes it at this very moment
            stage.mkdir(exist_ok=True)
            if stack.enter_context(held(stage / _LOCK, wait_s=wait_s, keep=True)):
                break
            raise BusyError(
                "Another process is writing into this folder.",
                file=path,
                expected="one process at a time",
                found="its lock is held",
                remedy="wait until it has finished, or choose another folder with --out",
            )
    else:
        raise FileNotFoundError("no folder can be created there")
    stack.callback(_leave, stage)
    _complete(stage)


def look_after(home: Path, own: Path | None = None) -> None:
    """Complete or remove what dead processes left in a folder that holds folders of results."""
    with suppress(OSError):
        for entry in list(os.scandir(home)):
            if not _STAGE.fullmatch(entry.name) or (own and entry.name == own.name):
                continue
            with suppress(OSError), ExitStack() as stack:
                left = Path(entry.path)
                if not entry.is_dir(follow_symlinks=False):
                    stack.enter_context(held(left))
                elif stack.enter_context(held(left / _LOCK, keep=True)):
                    _complete(left)
                    _leave(left)


def is_begun(stage: Path) -> bool:
    """Whether an exchange was begun and is neither done nor taken back."""
    return any((place / JOURNAL_FILE).exists() for place in _places(stage))


def _complete(stage: Path) -> None:
    for place in _places(stage):
        recover(place, partial(_is_ours, stage.resolve()))
    clear(stage, keep=(_LOCK,))


def _leave(stage: Path) -> None:
    if is_begun(stage):  # neither forward nor back: the next run tries again
        return
    clear(stage, keep=(_LOCK,))
    with suppress(OSError):
        (stage / _LOCK).unlink()
        stage.rmdir()


def _is_ours(stage: Path, root: Path, names: Collection[str]) -> bool:
    """Whether a stage is that of a folder, or of all these folders in it."""
    home = stage.parent
    if root != home:
        return root.parent == home and stage_name(root) == stage.name
    return stage_name(home) == stage.name or all(stage_name(home / name) == stage.name for name in names)


def _places(stage: Path) -> tuple[Path, Path]:
    """Return where a journal can lie: that of whole folders, and that of entries."""
    return stage / WHOLE, stage
