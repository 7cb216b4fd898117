"""An edit of any file that a kernel is made of changes what the kernel answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gliodil


def run(root: Path, code: str) -> tuple[float, int]:
    """Return what a kernel answers in a process of its own, and how many signatures were compiled for it."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    value, misses = done.stdout.split()
    return float(value), int(misses)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package with nothing compiled, and one kernel more whose piece stands in another file."""
    source = Path(gliodil.__file__).parent
    shutil.copytree(source, tmp_path / "gliodil", ignore=shutil.ignore_patterns("__pycache__"))
    pde = tmp_path / "gliodil" / "pde"
    (pde / "piece.py").write_text("import numba as nb\n\n\n@nb.njit\ndef piece(x):\n    return 2.0 * x\n")
    (pde / "outer.py").write_text(
        "import numba as nb\n\nfrom gliodil.pde.compiled_cache import kept\n"
        "from gliodil.pde.piece import piece\n\n\n"
        "@kept\n@nb.njit\ndef outer(x):\n    return piece(x)\n"
    )
    return tmp_path


def test_an_edited_piece_is_compiled_anew(checkout: Path) -> None:
    ask = "from gliodil.pde.outer import outer; print(outer(3.0), sum(outer.stats.cache_misses.values()))"
    assert run(checkout, ask) == (6.0, 1)
    assert run(checkout, ask) == (6.0, 0)  # what was compiled is kept
    piece = checkout / "gliodil/pde/piece.py"
    times = piece.stat()
    piece.write_text(piece.read_text().replace("2.0", "5.0"))
    os.utime(
        piece, ns=(times.st_atime_ns, times.st_mtime_ns)
    )  # a checkout may keep times, and the size is equal
    assert run(checkout, ask) == (15.0, 1)


def test_every_kept_kernel_of_the_package_goes_by_all_sources() -> None:
    from gliodil.pde import eikonal, fused, prolongation
    from gliodil.pde.compiled_cache import sources
    from gliodil.pde.odil import field_sweeps, sweeps

    modules = (eikonal, fused, prolongation, field_sweeps, sweeps)
    caches = [
        value._cache
        for module in modules
        for value in vars(module).values()
        if hasattr(value, "enable_caching") and hasattr(value._cache, "_cache_file")
    ]
    assert len(caches) >= 11
    assert {cache._cache_file._source_stamp for cache in caches} == {sources()}


def test_no_kernel_is_kept_by_the_time_of_one_file() -> None:
    files = Path(gliodil.__file__).parent.rglob("*.py")
    assert [path.name for path in files if "cache=True" in path.read_text()] == []
