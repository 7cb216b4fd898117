"""A lock on a file that is the operating system's: it goes with the process that held it, however that ended."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
_POLL_S = 0.05


@contextmanager
def held(path: Path, *, wait_s: float = 0.0, keep: bool = False) -> Iterator[bool]:
    """Hold the lock of a file, which is made for it and removed after it; yields False if another process has it.

    Parameters
    ----------
    path
        The file; its folder must exist, unless it is another holder's that is being removed.
    wait_s
        How long to wait for another holder [s].
    keep
        Leave the file to the caller, who removes it before the block ends.

    Raises
    ------
    OSError
        If the file cannot be made, or its file system knows no locks.
    """
    until = time.monotonic() + wait_s
    while (lock := _taken(path)) is None and time.monotonic() < until:
        time.sleep(_POLL_S)
    if lock is None:
        yield False
        return
    try:
        yield True
    finally:
        # While it is held: whoever opened it meanwhile sees that it is no longer the file of that name.
        if not keep:
            path.unlink(missing_ok=True)
        os.close(lock)


def _taken(path: Path) -> int | None:
    """Return a descriptor that holds the lock; None if somebody else does."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(lock)
            if _is_at(lock, path):
                return lock
        except OSError as error:
            os.close(lock)
            if error.errno in _HELD_ELSEWHERE:
                return None
            raise
        os.close(lock)  # its holder removed it between our two steps: once more


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.lstat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
