"""Damaged DICOM files: random bytes, cut files, missing fields, wrong types, nonsense values.

`survives` reads a folder to its last voxel. Whatever the damage, it may end well or with a typed error, within seconds,
without writing, printing, or repeating who the patient is.
"""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from dicom_series import IDENTIFIERS, SUV_FIELDS, ramp, suv_edit, write_series
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gliodil.data.dicom.scan import find_series
from gliodil.errors import GliodilError

LIMIT_S = 20.0
SMALL = (6, 5, 4)
SECRETS = [part.lower() for v in IDENTIFIERS.values() for part in v.split("^") if len(part) > 4]


class TooSlowError(BaseException):
    """Not an Exception, so that nothing on the way can take it for damage."""


@contextmanager
def time_limit(seconds: float = LIMIT_S) -> Iterator[None]:
    """Raise TooSlowError where the block takes longer (where the system has alarms)."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write_small(folder: Path, kind: str) -> list[Path]:
    """Write a small series: `"files"`, `"enhanced"`, `"deflated"` or `"pet"`."""
    if kind == "deflated":
        paths = write_small(folder, "files")
        for path in paths:
            data = pydicom.dcmread(path)
            data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            data.save_as(path)
        return paths
    if kind == "pet":
        return write_series(folder, ramp(SMALL), modality="PT", edit=suv_edit, **SUV_FIELDS)
    return write_series(folder, ramp(SMALL), enhanced=kind == "enhanced", description="t1")


def read_everything(folder: Path) -> None:
    """Read every series of a folder to its last voxel."""
    for series in find_series(folder):
        repr(series)
        if series.role not in ("seg", "rtstruct"):
            assert series.volume().data.shape == series.shape


def outcome(read: Callable[[], Any], target: Path, *, limit_s: float = LIMIT_S) -> str:
    """Return how reading ended: `"read"` or the name of a typed error; anything else is raised."""
    before = {path: path.read_bytes() for path in target.parent.rglob("*") if path.is_file()}
    ended, said = "read", ""
    try:
        with time_limit(limit_s):
            read()
    except GliodilError as error:
        ended, said = type(error).__name__, str(error).lower()
    assert not [secret for secret in SECRETS if secret in said], said
    assert before == {path: path.read_bytes() for path in target.parent.rglob("*") if path.is_file()}, (
        "something was written"
    )
    return ended


def mutate(
    content: bytes, random: np.random.Generator, *, first: int = 128, last: int | None = None
) -> bytes:
    """Return the content with random damage from one byte (by default after the preamble) to another."""
    data = bytearray(content)
    choice = random.integers(8)
    places = random.integers(first, min(last or len(data), len(data)), size=int(random.integers(1, 24)))
    if choice < 4:
        for place in places:
            data[place] = random.integers(256)
    elif choice == 4:
        for place in places:
            data[place] ^= 1 << int(random.integers(8))
    elif choice == 5:
        del data[int(places[0]) :]
    elif choice == 6:
        start = int(places[0])
        del data[start : start + int(random.integers(1, 64))]
    else:
        start = int(places[0])
        data[start:start] = random.bytes(int(random.integers(1, 64)))
    return bytes(data)


NONSENSE = (
    b"NaN ",
    b"inf ",
    b"-1e400",
    b"",
    b"abc ",
    b"\xff\xfe\x00\x01",
    b"1\\2 ",
    b"\\\\\\\\",
    b"0 ",
    b"9" * 40,
)
TYPES = ("DS", "LO", "UI", "US", "FD", "SQ", "OB", "PN", "UN", "AT", "TM")


def field_damage(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the file with each of its fields removed, of another type, and of nonsense values."""
    content = path.read_bytes()
    for element in pydicom.dcmread(path):
        header = _encoded(element.tag)
        place = content.find(header)
        vr = content[place + 4 : place + 6].decode("ascii", "replace")
        if place < 0 or vr in ("SQ", "OW", "OB"):
            continue
        length = struct.unpack("<H", content[place + 6 : place + 8])[0]
        before, after = content[:place], content[place + 8 + length :]
        yield f"{element.keyword} missing", before + after
        for other in TYPES:
            if other in ("SQ", "OB", "UN"):
                field = header + other.encode() + bytes(2) + struct.pack("<I", length)
            else:
                field = header + other.encode() + struct.pack("<H", length)
            yield f"{element.keyword} as {other}", before + field + content[place + 8 :]
        for value in NONSENSE:
            field = header + vr.encode() + struct.pack("<H", len(value)) + value
            yield f"{element.keyword} = {value!r}", before + field + after


def _encoded(tag: int) -> bytes:
    return struct.pack("<HH", Tag(tag).group, Tag(tag).element)
