"""What is known about each patient of a run: `status.json` in its folder, and the lock beside it.

    running -> done | failed        left "running" without a lock: interrupted, and run again

The lock is the operating system's, so it goes with the process that held it, however that ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gliodil.data.lock import held
from gliodil.data.manifest import read_manifest
from gliodil.data.ownership import KEPT, LOG_FILE, STATUS_DAMAGED, STATUS_DRAFT, STATUS_FILE
from gliodil.data.stage import run_lock
from gliodil.errors import GliodilError, InputError, OutputError
from gliodil.logs import is_log
from gliodil.reporting.jsonable import read_json, write_json


def read_status(folder: Path) -> dict[str, Any] | None:
    """Return what `status.json` says; None where there is none that can be read."""
    try:
        return read_json(folder / STATUS_FILE)
    except InputError:
        return None


def write_status(folder: Path, status: Mapping[str, Any]) -> None:
    """Write `status.json`, whole or not at all.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    write_json({"schema_version": 1, **status}, folder / STATUS_FILE, draft=folder / STATUS_DRAFT)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold a patient's folder for a run; yields False, at once, if another process does.

    Raises
    ------
    OutputError
        If the folder above cannot be written to, or its file system knows no locks.
    """
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            mine = stack.enter_context(held(run_lock(folder)))
        except (OSError, NotImplementedError) as error:
            raise OutputError(
                "The patient's folder cannot be locked.",
                file=folder,
                expected="a folder that can be written to, on a file system with locks",
                found=str(error),
                remedy="choose another output folder",
            ) from error
        yield mine


def set_aside_damaged(folder: Path) -> list[str]:
    """Rename a damaged `status.json` in a folder of ours; return that in a sentence, for whoever begins again.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    path = folder / STATUS_FILE
    try:
        if not os.path.lexists(path) or read_status(folder) is not None or not _is_ours(folder):
            return []
        os.replace(path, folder / STATUS_DAMAGED)
    except OSError as error:
        raise OutputError(
            "The damaged record of a patient cannot be set aside.",
            file=path,
            expected="a folder that can be written to",
            found=str(error.strerror or error),
            remedy="remove it, or choose another output folder",
        ) from error
    return [f"{STATUS_FILE} was damaged: it is kept as {STATUS_DAMAGED}, and the patient was planned again."]


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a result or a log of ours."""
    try:
        log = folder / LOG_FILE
        return read_manifest(folder) is not None or (log.is_file() and log.stat().st_size > 0 and is_log(log))
    except GliodilError:
        return False


def may_record(folder: Path) -> bool:
    """Whether status and log can be written into a patient's folder: it holds nothing that we did not write."""
    try:
        if not folder.exists():
            return True
        if (folder / STATUS_FILE).exists() and read_status(folder) is None:
            return False
        if (folder / LOG_FILE).exists() and not is_log(folder / LOG_FILE):
            return False
        names = {entry.name for entry in folder.iterdir()}
        return names <= KEPT or read_manifest(folder) is not None
    except (OSError, GliodilError):
        return False


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return an error in words: class, particulars, and where it was raised (frames of code, no data)."""
    known = error if isinstance(error, GliodilError) else None
    return {
        "type": type(error).__name__,
        "problem": known.problem if known else f"{type(error).__name__}: {error}",
        "file": known.file.name if known and known.file else None,
        "expected": known.expected if known else None,
        "found": known.found if known else None,
        "remedy": known.remedy if known else "see the traceback and the log",
        "traceback": "".join(traceback.format_tb(error.__traceback__)),
    }


def configuration_hash(settings: Mapping[str, Any]) -> str:
    """Return a hash of the settings of a run."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def input_hashes(files: Mapping[str, Path]) -> dict[str, dict[str, str | None]]:
    """Return name and SHA-256 of each file; null where it cannot be read."""
    return {role: {"name": path.name, "sha256": _sha256(path)} for role, path in files.items()}


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None
