"""Atomic writing: a file appears complete under its name, or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gliodil.errors import OutputError


@contextmanager
def atomic_path(path: Path | str, *, draft: Path | None = None) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well.

    The temporary name keeps the suffix, so that writers which choose the format by suffix still work. Where a killed
    process must leave no name that nobody knows, `draft` is the one to use; nobody else may write there meanwhile.
    The folder is created if need be. If the block raises, the temporary file is removed and an existing
    `path` stays as it was.

    Raises
    ------
    OutputError
        If the folder cannot be created or written to.
    """
    target = Path(path)
    temporary = draft or target.with_name(f".{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(
            "The file could not be written.",
            file=target,
            expected="a folder that can be written to, with room left",
            found=str(error.strerror or error),
            remedy="choose another output folder",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
