"""Notebooks of `examples/`: the text in NN_name.py (jupytext, py:percent) is the source, NN_name.ipynb what it shows.

    python tests/helpers/notebooks.py [NAME ...]        execute and rewrite all, or those whose name contains NAME

Cells get the same identifiers every time and no time stamps, so that a notebook changes only where its source or its
results do.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples"
LARGEST_BYTES = 1_000_000


def sources() -> list[Path]:
    """Return the sources of all notebooks, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.py"))


def parse(source: Path) -> Any:
    """Return the notebook that a source describes, without outputs."""
    import jupytext

    notebook = jupytext.read(source, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)
    return notebook


def execute(source: Path, folder: Path) -> Any:
    """Run a notebook from top to bottom, in a fresh kernel that starts in `folder`, and return it with its outputs."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = parse(source)
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    environment = {**threads, **os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as sockets:
        # Not ports of the machine: nobody listens in, and nothing else can have taken them.
        transport = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        client = NotebookClient(notebook, config=transport, timeout=300, record_timing=False)
        client.execute(cwd=str(folder), env=environment)
    return notebook


def problems(notebook: Any) -> list[str]:
    """Return what a reader should not find in an executed notebook: warnings, paths of a machine, too many bytes."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error" or output.get("name") == "stderr":
                found.append(f"cell {number}: {output.get('text', output.get('evalue'))}")
            text = re.sub(r'"image/png": "[^"]*"|base64,[^\'" ]*', "", json.dumps(output))
            if path := re.search(r"(/tmp|/home|/root|/work|/Users|[A-Z]:\\\\)[/\\]?[^\s\"']*", text):
                found.append(f"cell {number} shows the path {path[0]}")
    if (size := len(text_of(notebook).encode())) >= LARGEST_BYTES:
        found.append(f"{size} bytes, {LARGEST_BYTES} allowed")
    return found


def text_of(notebook: Any) -> str:
    """Return the content of the file."""
    import nbformat

    return str(nbformat.writes(notebook)) + "\n"


def main(names: list[str]) -> int:
    """Execute and write the notebooks whose name contains one of `names`; all without any."""
    bad = 0
    for source in sources():
        if names and not any(name in source.stem for name in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            notebook = execute(source, Path(folder))
        found = problems(notebook)
        bad += bool(found)
        print(f"{source.stem}: {len(text_of(notebook)) / 1000:.0f} kB", *found, sep="\n  ")
        if not found:
            source.with_suffix(".ipynb").write_text(text_of(notebook), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
