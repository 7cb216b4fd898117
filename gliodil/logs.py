"""What the package logs, collected for as long as a block runs."""

from __future__ import annotations

import io
import logging
import re
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gliodil.data.ownership import result_above
from gliodil.errors import GliodilError, OutputError, visible

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIRST_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")


class VisibleFormatter(logging.Formatter):
    """Escapes what is not printable: names of files can hold anything."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a text."""
        return visible(super().format(record), lines=True)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what the package warns of inside the block."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger("gliodil")
    root.addHandler(handler)
    try:
        yield found
    finally:
        root.removeHandler(handler)


@contextmanager
def logged_to(handler: logging.Handler) -> Iterator[None]:
    """Send what the package logs inside the block to a handler too, from INFO up, dated."""
    handler.setFormatter(VisibleFormatter(FORMAT))
    root = logging.getLogger("gliodil")
    level = root.level
    root.addHandler(handler)
    if root.getEffectiveLevel() > logging.INFO:
        root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


@contextmanager
def log_text() -> Iterator[Callable[[], str]]:
    """Collect what the package logs inside the block; yields a function that returns it."""
    stream = io.StringIO()
    with logged_to(logging.StreamHandler(stream)):
        yield stream.getvalue


def is_log(path: Path) -> bool:
    """Whether a file is empty or begins as a log of the package does."""
    with path.open("rb") as stream:
        start = stream.read(64)
    return not start or _FIRST_LINE.match(start) is not None


def log_file(path: Path) -> logging.Handler:
    """Return what appends to a log file: a new one, an empty one, or one that was a log before.

    Raises
    ------
    OutputError
        If the file is something else, or cannot be written.
    """
    try:
        found = path.stat() if path.exists() else None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise _no_log(path, "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file")
        if found is not None and not is_log(path):
            raise _no_log(path, "a file with other content, which is left alone")
        if result_above(path.resolve()) is not None:
            raise _no_log(path, "a place in a folder of results, which is kept as it was written")
        return logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except (OSError, ValueError) as error:
        raise _no_log(path, getattr(error, "strerror", None) or str(error)) from error


def _no_log(path: Path, found: str) -> OutputError:
    return OutputError(
        "The log file cannot be written.",
        file=path,
        expected="a new file or an earlier log, in a folder that exists and can be written to",
        found=found,
        remedy="choose another one with --log-file",
    )


def unforeseen(error: Exception, log: Path | None) -> GliodilError:
    """Return an error that was not foreseen as one that says where its traceback is.

    Parameters
    ----------
    error
        What was raised.
    log
        Where it was logged already; otherwise a file for it is made in the system's folder for temporary files.
    """
    if isinstance(error, MemoryError):
        problem, remedy = (
            "There is not enough memory.",
            "use fewer cells (--cells), or a machine with more memory",
        )
    else:
        problem, remedy = (
            "Something went wrong that was not foreseen.",
            "please report it, with that traceback",
        )
    where = log
    if where is None:
        try:
            with tempfile.NamedTemporaryFile(
                "w", prefix="gliodil-error-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
            ) as stream:
                stream.writelines(traceback.format_exception(error))
            where = Path(stream.name)
        except OSError:
            pass
    words = str(error).splitlines()
    return GliodilError(
        problem,
        found=f"{type(error).__name__}: {words[0][:200]}" if words else type(error).__name__,
        remedy=remedy + (f"; the traceback is in {where}" if where else ""),
    )
