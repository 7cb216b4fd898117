"""Compiled kernels are kept on disk under the hash of every source they may be made of.

Numba keeps what it compiled for as long as the file of the outermost function is unchanged. A sweep is made of pieces
from other files, too, and after an edit of one of those the old code would answer, to the last digit. Here the stamp is
the content of all kernel files together, whatever their times say.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any


def kept(kernel: Any) -> Any:
    """Return a compiled function whose machine code is kept on disk until any kernel's source changes."""
    kernel.enable_caching()
    kernel._cache._cache_file._source_stamp = sources()
    return kernel


@cache
def sources() -> str:
    """Return a hash of all files below ``gliodil/pde`` that compile something."""
    folder = Path(__file__).parent
    texts = (
        (path.relative_to(folder).as_posix(), path.read_bytes()) for path in sorted(folder.rglob("*.py"))
    )
    digest = hashlib.sha256()
    for name, text in texts:
        if b"import numba" in text:
            digest.update(f"{name} {len(text)} ".encode() + text)
    return digest.hexdigest()
