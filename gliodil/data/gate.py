"""The gate every file passes before memory or time is spent on it.

    is it a file that can be read?   no folder, device, pipe or link to nothing; permission; not larger than its kind is
    what does it promise?            a compressed stream is read to the length its header states, and no further
    does a parser choke on it?       whatever it raises becomes a typed error with file, expected, found and remedy

Readers of NIfTI, DICOM, JSON, TSV and TOML go through it; none of them opens a path of the user's by itself.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from gliodil.errors import GliodilError, InputError

LARGEST_IMAGE = 1 << 32
"""Bytes of an image file, compressed or not."""
LARGEST_TABLE = 1 << 24
"""Bytes of a JSON file or a table."""
LARGEST_RULES = 1 << 20
"""Bytes of a TOML file."""
DEEPEST = 32
"""How far objects and lists may be nested in JSON and TOML."""
LARGEST_EXCESS = 1 << 20
"""Bytes that may follow in a file (as they are stored) after the last one its header promises."""
BLOCK = 1 << 20


def obstacle(path: Path | str) -> str | None:
    """Return why a path is no file that can be read, None if it is one. Nothing is opened."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link to a file that is not there" if os.path.islink(path) else "nothing of that name"
    except (OSError, ValueError) as error:  # too long, a NUL in it, a folder without permission
        return getattr(error, "strerror", None) or str(error)
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(mode):
        return kinds.get(stat.S_IFMT(mode), "a device")
    return None if os.access(path, os.R_OK) else "a file without permission to read it"


def check_file(
    path: Path | str,
    *,
    expected: str,
    largest: int = LARGEST_IMAGE,
    error: type[GliodilError] = InputError,
) -> int:
    """Return the size in bytes of a file that can be read.

    Parameters
    ----------
    path
        File to look at.
    expected
        What should be there, for the message.
    largest
        Size in bytes above which it is refused.
    error
        Class of the error.

    Raises
    ------
    GliodilError
        Of the class `error`, if it is no regular file, cannot be read, or is too large.
    """
    path = Path(path)
    if found := obstacle(path):
        raise error(_problem(found), file=path, expected=expected, found=found, remedy=_remedy(found))
    size = path.stat().st_size
    if size > largest:
        raise error(
            "The file is too large.",
            file=path,
            expected=f"{expected}, at most {largest / 2**20:.4g} MiB",
            found=f"{size / 2**20:.4g} MiB",
            remedy="check that it is the file you mean",
        )
    return size


def _problem(found: str) -> str:
    if found.startswith("nothing"):
        return "The file does not exist."
    if found.startswith("a link"):
        return "The file is a link to nothing: its content is not there."
    return f"This is {found}." if found.startswith("a ") else "The file cannot be read."


def _remedy(found: str) -> str:
    if found.startswith("a link"):
        return "get the content (git annex get, datalad get), or remove the link"
    return "give yourself permission to read it" if "permission" in found.lower() else "check the path"


@contextmanager
def parsing(
    problem: str,
    *,
    file: Path | str | None = None,
    expected: str | None = None,
    remedy: str | None = "check the file, or export it again",
    quote: bool = True,
    error: type[GliodilError] = InputError,
) -> Iterator[None]:
    """Turn whatever a parser raises in the block into a typed error; typed errors pass.

    Parameters
    ----------
    problem, file, expected, remedy
        Of the error.
    quote
        Whether the message may repeat what the parser says (not where that can name the patient).
    error
        Class of the error.
    """
    try:
        yield
    except GliodilError:
        raise
    except MemoryError as cause:
        raise error(
            problem, file=file, expected=expected, found="more than fits into memory", remedy=remedy
        ) from cause
    except Exception as cause:  # damaged input makes parsers raise anything
        raise error(
            problem, file=file, expected=expected, found=_reason(cause, quote=quote), remedy=remedy
        ) from cause


def _reason(cause: Exception, *, quote: bool) -> str:
    if isinstance(cause, RecursionError):
        return "more levels inside each other than can be read"
    said = getattr(cause, "strerror", None) or str(cause)
    return said.splitlines()[0][:200] if quote and said.strip() else type(cause).__name__


def read_text(path: Path | str, *, expected: str, largest: int = LARGEST_TABLE, zeros: bool = False) -> str:
    """Return the text of a file, whatever usual encoding it has: UTF-8 or UTF-16, with or without mark, or Latin-1.

    With `zeros`, characters of code 0 are left for the caller to judge.

    Raises
    ------
    InputError
        If it is no file that can be read, too large, or no text.
    """
    check_file(path, expected=expected, largest=largest)
    with parsing("The file cannot be read.", file=path, expected=expected), Path(path).open("rb") as stream:
        content = stream.read(largest + 1)
        text = _decoded(content)
        if "\0" in text and not zeros:
            raise ValueError("bytes that are no text")
    return text


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if content[:4].count(0) == 2:  # UTF-16 without a mark: every other byte of plain letters is 0
        return content.decode("utf-16-be" if content[0] == 0 else "utf-16-le")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")  # as spreadsheets of old write it


def read_json(path: Path | str, *, expected: str, largest: int = LARGEST_TABLE) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    InputError
        If it cannot be read, is no JSON, or nests deeper than `DEEPEST`.
    """
    text = read_text(path, expected=expected, largest=largest)
    with parsing("The file is not valid JSON.", file=path, expected=expected):
        return _shallow(json.loads(text))


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds; ValueError if it is none, or nests deeper than `DEEPEST`."""
    try:
        table: dict[str, Any] = _shallow(tomllib.loads(text))
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    return table


def _shallow(content: Any) -> Any:
    """Return the content; ValueError if it is nested too deeply. Without recursion, which depth would break."""
    layer = [content]
    for _ in range(DEEPEST):
        inner = [list(each.values()) if isinstance(each, dict) else each for each in layer]
        layer = [item for each in inner if isinstance(each, list) for item in each]
        if not layer:
            return content
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def read_table(
    path: Path | str, *, expected: str, largest: int = LARGEST_TABLE
) -> tuple[list[str], list[dict[str | None, Any]]]:
    """Return the column names of a tab-separated table, and its rows that are not empty, as `csv.DictReader` does.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    text = read_text(path, expected=expected, largest=largest, zeros=True)
    with parsing("The table cannot be read.", file=path, expected=expected):
        quoting: Literal[0, 3] = 3 if text.count('"') % 2 else 0  # a stray one would swallow rows
        reader: csv.DictReader[str] = csv.DictReader(
            io.StringIO(text, newline=""), delimiter="\t", quoting=quoting
        )
        rows = [row for row in reader if any(row.values())]
        return [name.strip() for name in reader.fieldnames or ()], [
            {key if key is None else key.strip(): cell for key, cell in row.items()} for row in rows
        ]


@contextmanager
def open_stream(path: Path, size: int) -> Iterator[Stream]:
    """Open a file that may be compressed with gzip, told by its content; `size` is that of the file in bytes."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if packed:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield Stream(raw, unpacked, size)
        else:
            yield Stream(raw, raw, size)


class Stream:
    """Bytes of a file, unpacked where it is compressed; never more of them than were asked for.

    Parameters
    ----------
    raw, unpacked
        The file, and what to read from: the file itself, or what unpacks it.
    size
        Bytes of the file as it is stored.
    """

    MOST_UNPACKED = 1040
    """Bytes that one byte of deflated data can stand for, at most (1032, rounded up)."""

    def __init__(self, raw: BinaryIO, unpacked: Any, size: int) -> None:
        self._raw, self._unpacked, self.size = raw, unpacked, size

    @property
    def longest(self) -> int:
        """Bytes the file can hold at most."""
        return self.size if self._raw is self._unpacked else self.size * self.MOST_UNPACKED

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer where the file ends."""
        parts = []
        while count > 0 and (part := self._unpacked.read(min(count, BLOCK))):
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass over the next `count` bytes."""
        while count > 0 and (part := self._unpacked.read(min(count, BLOCK))):
            count -= len(part)

    def fill(self, target: NDArray[np.uint8]) -> int:
        """Read into an array of bytes and return how many there were."""
        place = 0
        while place < len(target) and (part := self._unpacked.read(min(len(target) - place, BLOCK))):
            target[place : place + len(part)] = np.frombuffer(part, np.uint8)
            place += len(part)
        return place

    def finish(self) -> None:
        """Read to the end, where a checksum stands; ValueError if that is far off."""
        left = self.size - self._raw.tell()
        if left > LARGEST_EXCESS:
            raise ValueError(f"the file goes on for {left} bytes after the last one its header promises")
        for _ in range(64):
            if not self._unpacked.read(BLOCK):
                return
        raise ValueError(f"it unpacks to over {64 * BLOCK} bytes more than its header promises")
