"""Every notebook runs, and what is committed is what its source says."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks import FOLDER, LARGEST_BYTES, execute, parse, problems, sources

nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra notebook")
pytest.importorskip("jupytext", reason="notebooks need the extra notebook")
pytest.importorskip("nbclient", reason="notebooks need the extra notebook")
pytest.importorskip("ipykernel", reason="notebooks need the extra notebook")

by_name = pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)


def test_every_notebook_has_a_source() -> None:
    stems = {path.stem for path in sources()}
    assert stems
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == stems


@by_name
def test_a_notebook_runs(source: Path, tmp_path: Path) -> None:
    notebook = execute(source, tmp_path)
    assert problems(notebook) == []
    assert list(tmp_path.iterdir()) == [], "a notebook leaves files where it was started"


@by_name
def test_what_is_committed_is_the_source_with_its_outputs(source: Path) -> None:
    path = source.with_suffix(".ipynb")
    committed = nbformat.read(path, as_version=4)
    wanted = parse(source)
    assert [(c.cell_type, c.source) for c in committed.cells] == [
        (c.cell_type, c.source) for c in wanted.cells
    ], "make notebooks"
    assert path.stat().st_size < LARGEST_BYTES
    assert problems(committed) == []
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {kind for cell in code for output in cell.outputs for kind in output.get("data", ())}
    assert "image/png" in kinds or "text/html" in kinds
