"""What the package logs, collected for as long as a block runs."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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
