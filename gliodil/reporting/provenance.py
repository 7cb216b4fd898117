"""Where a result came from: versions, machine, command, configuration, input files, geometry, seeds.

Enough to run it again, and nothing about the person: inputs are named by file name and content hash,
never by folder, and of the patient only the given identity is kept.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gliodil import __version__
from gliodil.data.dicom.series import Series
from gliodil.data.nifti import read_nifti
from gliodil.data.patient import Patient
from gliodil.errors import GliodilError
from gliodil.inference.result import Fit
from gliodil.reporting.jsonable import jsonable

LIBRARIES = (
    "numpy",
    "pydicom",
    "highdicom",
    "scipy",
    "torch",
    "nibabel",
    "scikit-image",
    "meshio",
    "matplotlib",
    "jinja2",
    "dipy",
    "nilearn",
    "highdicom",
    "rich",
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def build_provenance(
    patient: Patient, fit: Fit, *, config: Mapping[str, Any], command: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the content of `provenance.json`.

    Parameters
    ----------
    config
        Every setting of the run, defaults included; a `seed` in it is repeated at the top.
    command
        The command line; by default the one this process was started with.
    """
    return {
        "schema_version": 1,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "package": {"name": "gliodil", "version": __version__, "commit": checkout_commit()},
        "python": platform.python_version(),
        "libraries": library_versions(),
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
        },
        "command": [without_folders(word) for word in (sys.argv if command is None else command)],
        "config": anonymous(config),
        "seed": jsonable(config.get("seed")),
        "device": fit.device,
        "threads": thread_counts(),
        "patient": patient.identity,
        "label_convention": patient.convention.name,
        "grid": _geometry(patient.segmentation),
        "inputs": [
            series_record(key, patient.series[key]) if key in patient.series else input_record(key, path)
            for key, path in patient.files.items()
        ]
        + _planning_records(patient),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries a result can depend on, those installed."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def checkout_commit(root: Path | None = None) -> str | None:
    """Return the commit checked out in `root` (by default around the package), read from git's own files.

    No program is started. None outside a checkout, before the first commit, or in a layout not known here.
    """
    git = (Path(__file__).parents[2] if root is None else root) / ".git"
    try:
        if git.is_file():  # a linked work tree: "gitdir: <folder>"
            git = (git.parent / git.read_text().partition("gitdir:")[2].strip()).resolve()
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head if _COMMIT.fullmatch(head) else None
        common = git / "commondir"
        store = (git / common.read_text().strip()).resolve() if common.is_file() else git
        reference = head.removeprefix("ref: ")
        loose = store / reference
        if loose.is_file():
            return loose.read_text().strip()
        packed = (store / "packed-refs").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {reference}")), None)


def thread_counts() -> dict[str, Any]:
    """Return the number of processors, torch's threads if it is in use, and what the environment asks for."""
    torch = sys.modules.get("torch")
    return {
        "processors": os.cpu_count(),
        "torch": None if torch is None else torch.get_num_threads(),
        "environment": {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
    }


def input_record(key: str, path: Path) -> dict[str, Any]:
    """Return name, hash and geometry of an input file as it lies on disk, before any resampling."""
    record: dict[str, Any] = {"key": key, "name": Path(path).name, "sha256": None}
    try:
        with Path(path).open("rb") as stream:
            record["sha256"] = hashlib.file_digest(stream, "sha256").hexdigest()
        record.update(_geometry(read_nifti(path, kind="scalar")))
    except (OSError, GliodilError):
        record["note"] = "not read as a single NIfTI file"
    return record


def _planning_records(patient: Patient) -> list[dict[str, Any]]:
    """Return the records of the planning CT and of the clinic's registration objects."""
    if patient.planning is None:
        return []
    objects = [input_record("reg", path) for path in patient.planning.registrations]
    return [series_record("ct", patient.planning.series), *objects]


def series_record(key: str, series: Series) -> dict[str, Any]:
    """Return description, hash and geometry of a DICOM series; the hash is over its files' hashes, in their order."""
    digest = hashlib.sha256()
    try:
        for path in series.files:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        hashed = digest.hexdigest()
    except OSError:
        hashed = None
    record = {
        "key": key,
        "name": series.name,
        "files": len(series.files),
        "unit": series.unit,
        "sha256": hashed,
    }
    return {**record, **_geometry(series.volume())}


def _geometry(volume: Any) -> dict[str, Any]:
    return {
        "shape": list(volume.shape),
        "spacing_mm": list(volume.spacing),
        "orientation": volume.orientation,
        "affine": volume.affine.tolist(),
    }


def without_folders(word: str) -> str:
    """Return a word of a command line with folders cut off paths: `--out=/a/b` becomes `--out=b`."""
    head, sign, tail = word.partition("=") if word.startswith("-") else ("", "", word)
    if "/" in tail or "\\" in tail:
        tail = re.split(r"[/\\]", tail.rstrip("/\\"))[-1] or tail
    return head + sign + tail


def anonymous(value: Any) -> Any:
    """Return a configuration as JSON types, with paths reduced to their names."""
    if isinstance(value, Mapping):
        return {str(key): anonymous(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [anonymous(item) for item in value]
    if isinstance(value, str) and os.path.isabs(value):
        return without_folders(value)
    return jsonable(value)
