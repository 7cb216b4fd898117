"""Maps made elsewhere compared with a plan folder: what is read from it, and the one file that is added."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliodil.errors import GliodilError
from gliodil.planning.compare_maps import compare_maps
from gliodil.reporting.folder import finished_folder
from gliodil.reporting.jsonable import read_json, write_json

COMPARISON_FILE = "compare.json"


def compare_densities(
    out: Path | str, densities: Mapping[str, Path | str], *, recurrence: Path | str | None = None
) -> dict[str, Any]:
    """Compare maps made elsewhere with a plan at equal volume; write `compare.json` and return its content.

    Nothing else in the folder is touched.

    Parameters
    ----------
    out
        Finished plan folder.
    densities
        NIfTI files by name.
    recurrence
        Labels of the follow-up, in the convention of the plan; by default those the plan was made with, if any.

    Raises
    ------
    InputError, GeometryError, LabelError
        If `out` is not a finished plan folder, or a map or the recurrence cannot be read or does not belong to it.
    OutputError
        If the folder cannot be written.
    """
    files = {name: Path(path) for name, path in densities.items()}
    later = None if recurrence is None else Path(recurrence)
    with finished_folder(out) as (output, metrics, _):
        try:
            found = compare_maps(output.path, files, metrics, recurrence=later)
        except GliodilError as error:
            error.for_patient(metrics["patient"])
            raise
        with output.revised() as folder:
            write_json(found, folder / COMPARISON_FILE)
        return read_json(output.path / COMPARISON_FILE)
