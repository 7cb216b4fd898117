"""Where a folder of results can be: its path resolved, the file system in which it is made, a rehearsal in small.

What would keep a result from being published in the end is found here in the beginning: links in a circle, names and
paths that are too long, mount points, folders without permission, file systems that know no renaming, too little space.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from gliodil.errors import OutputError

LONGEST = "preprocess/transforms/template/displacement_of_the_inverse.nii.gz"
"""No name in a folder of results is longer than this."""


def resolved(out: Path | str) -> Path:
    """Return the folder without links; refuse what can be no path."""
    try:
        path = Path(out).resolve()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, NUL
        raise unwritable(Path(out), getattr(error, "strerror", None) or str(error)) from error
    return path


def home_of(path: Path) -> Path:
    """Return where the hidden things of a folder lie: in its file system, where renaming into it works."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise unwritable(path, f"{existing.name} is a file")
    if existing != path:
        return path.parent
    if not os.access(path, os.W_OK | os.X_OK):
        raise unwritable(path, "no permission to write into it")
    parent = path.parent
    movable = (
        parent != path
        and not _is_mount(path)
        and parent.stat().st_dev == path.stat().st_dev
        and os.access(parent, os.W_OK | os.X_OK)
        and not _is_bound(path)
    )
    return parent if movable else path


def _is_bound(path: Path) -> bool:
    """Whether the folder's parent lets only owners move what is in it (as /tmp does), and we are none."""
    if not hasattr(os, "geteuid") or not path.parent.stat().st_mode & stat.S_ISVTX:
        return False
    return os.geteuid() not in (0, path.stat().st_uid, path.parent.stat().st_uid)


def _is_mount(path: Path) -> bool:
    if os.path.ismount(path):
        return True
    try:  # a folder bound to another place of one file system looks like any other
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    return os.fsencode(path) in {re.sub(rb"\\(\d{3})", _octal, line.split()[4]) for line in lines}


def _octal(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def make_folders(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, and note which were not there."""
    if not folder.exists():
        make_folders(folder.parent, made)
        with suppress(FileExistsError):
            folder.mkdir()
            made.append(folder)


def remove_empty(made: list[Path]) -> None:
    """Remove folders that were made, where nothing came into them."""
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def rehearse(path: Path, home: Path, stage: Path, *, space_mb: float) -> None:
    """Do in small what publishing will do: write, make the names, rename."""
    probe = stage / "probe"
    with suppress(FileNotFoundError):
        os.lstat(path / LONGEST)
    with probe.open("wb") as stream:
        stream.write(bytes(4096))
        stream.flush()
        os.fsync(stream.fileno())
    if not path.exists():
        path.mkdir()
        path.rmdir()
    elif home == path:
        target = path / f"{stage.name}.try"
        os.rename(probe, target)
        os.rename(target, probe)
    probe.unlink()
    free = shutil.disk_usage(home).free / 1e6
    if free < space_mb:
        raise unwritable(path, f"{free:.0f} MB free, a result takes about {space_mb:.0f} MB")


def unwritable(out: Path, found: str) -> OutputError:
    """Return the error that a folder cannot be written."""
    return OutputError(
        "The output folder cannot be written.",
        file=out,
        expected="a folder that can be created and written to",
        found=found,
        remedy="choose another one with --out",
    )
