"""What this installation can do: versions, devices, extras, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from importlib.util import find_spec

from gliodil import __version__

EXTRAS = {
    "report": ("matplotlib", "jinja2", "nilearn"),
    "dicom": ("pydicom", "highdicom"),
    "register": ("dipy", "nilearn"),
    "skullstrip": ("deepbet",),
    "cohort": ("dask", "distributed", "filelock"),
    "notebook": ("ipykernel", "jupytext", "nbclient", "nbconvert"),
}
LIBRARIES = ("torch", "numba", "numpy", "scipy", "nibabel", "scikit-image", "meshio", "rich")


def findings() -> list[tuple[str, str]]:
    """Return (name, value) rows; what is missing or broken is a finding too, not an error."""
    rows = [
        ("gliodil", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        *((name, _version(name)) for name in LIBRARIES),
    ]
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if find_spec(name) is None]
        hint = f"missing {', '.join(missing)}: pip install 'gliodil[{extra}]'"
        rows.append((f"extra {extra}", hint if missing else "present"))
    return [*rows, *_hardware()]


def _hardware() -> list[tuple[str, str]]:
    try:
        import numba
        import torch

        devices = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
        threads = f"torch {torch.get_num_threads()}, numba {numba.get_num_threads()}"
    except Exception as error:  # whatever a broken installation raises
        return [("devices", f"unknown: {type(error).__name__}: {error}"), ("processors", str(os.cpu_count()))]
    return [
        ("devices", ", ".join(["cpu", *devices])),
        ("processors", str(os.cpu_count())),
        ("threads", threads),
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"
