"""A tumour segmentation from DICOM SEG or RTSTRUCT: named structures become the labels of one map.

| structure is | names | becomes |
|---|---|---|
| whole tumour | whole tumor, WT | oedema, where nothing below lies |
| oedema | edema, oedema, peritumoral, ED, SNFH | oedema |
| core | tumor core, TC, GTV | necrotic where enhancing tumour has a structure of its own, else enhancing |
| necrotic | necrosis, necrotic, non-enhancing, NCR, NET | necrotic |
| enhancing | enhancing, enhancement, ET | enhancing |
| cavity | cavity, resection, RC | cavity |

Later rows lie on top of earlier ones, so that nested structures (whole, core, enhancing) and separate ones
both work. Names are compared word by word.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gliodil.data.dicom.objects import header_access, read_dataset
from gliodil.data.dicom.rtstruct_reader import read_rtstruct
from gliodil.data.dicom.seg_reader import read_segments
from gliodil.data.labels import CONVENTIONS
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, LabelError

NAMES: Mapping[str, tuple[str, ...]] = {
    "necrotic": ("necrosis", "necrotic", "nonenhancing", "non enhancing", "ncr", "net"),
    "cavity": ("cavity", "resection", "rc"),
    "whole": ("whole tumor", "whole tumour", "wt"),
    "oedema": ("edema", "oedema", "peritumoral", "peritumoural", "ed", "snfh"),
    "core": ("tumor core", "tumour core", "tc", "gtv"),
    "enhancing": ("enhancing", "enhancement", "et"),
}
"""Words that say what a structure is; the first row that matches decides."""

_LAYERS = ("whole", "oedema", "core", "necrotic", "enhancing", "cavity")


@dataclass(frozen=True)
class Tumour:
    """A segmentation with what its labels mean.

    Attributes
    ----------
    segmentation
        Label volume.
    convention
        Name of the label convention; None if the names of the segments say nothing, and labels are their numbers.
    notes
        How names were read, and which structures were not used.
    """

    segmentation: Volume
    convention: str | None
    notes: tuple[str, ...]


def role_of_structure(name: str) -> str | None:
    """Return which compartment a structure of this name is, a key of `NAMES`, or None."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = f" {' '.join(re.findall('[a-z]+', split.lower()))} "
    return next((role for role, known in NAMES.items() if any(f" {word} " in words for word in known)), None)


def read_tumour(path: Path | str, grid: Volume, *, frame_of_reference: str | None = None) -> Tumour:
    """Return the tumour segmentation in a DICOM SEG or RTSTRUCT.

    Parameters
    ----------
    path
        A SEG (binary or label map), or an RT Structure Set.
    grid
        The series the structures were drawn on. Contours are read on it; a SEG is brought onto it.
    frame_of_reference
        UID of the coordinate system of that series, if known.

    Raises
    ------
    ImageFileError
        If the file is missing, damaged or neither.
    LabelError
        If no structure is named as part of a tumour, or the file is empty.
    GeometryError
        If the structures lie elsewhere, or refer to another frame of reference.
    MissingExtraError
        If pydicom or highdicom is not installed.
    """
    path = Path(path)
    header = read_dataset(path)
    with header_access("The file is damaged.", file=path, expected="DICOM SEG or RTSTRUCT"):
        modality = str(header.get("Modality", "none"))
    if modality == "RTSTRUCT":
        return _composed(read_rtstruct(path, grid, frame_of_reference=frame_of_reference), path)
    if modality != "SEG":
        raise ImageFileError(
            "The file holds no segmentation.",
            file=path,
            expected="DICOM SEG or RTSTRUCT",
            found=modality[:16],
        )
    segments = read_segments(path)
    if frame_of_reference and segments.frame_of_reference != frame_of_reference:
        raise GeometryError(
            "The segmentation refers to another coordinate system than the images.",
            file=path,
            expected="the frame of reference of the series",
            found="another one",
            remedy="export it on this series, or plan on the series it was drawn on",
        )
    if not any(map(role_of_structure, segments.names.values())):
        note = "segments have no known names: their numbers are taken as labels"
        return Tumour(segments.labels().resample_to(grid), None, (note,))
    named: dict[str, Volume] = {}
    for number, mask in segments.masks.items():
        moved = mask.resample_to(grid)
        name = segments.names[number]
        named[name] = moved if name not in named else moved.with_data(moved.data | named[name].data)
    return _composed(named, path)


def _composed(masks: Mapping[str, Volume], path: Path) -> Tumour:
    """Lay the structures over each other, as the table at the top says."""
    roles = {name: role for name in masks if (role := role_of_structure(name)) is not None}
    if not roles:
        known = "; ".join(f"{role}: {', '.join(words)}" for role, words in NAMES.items())
        raise LabelError(
            "No structure is named as part of a tumour.",
            file=path,
            expected=f"names with one of these words: {known}",
            found=", ".join(masks),
            remedy="rename the structures, or convert them to a label map",
        )
    convention = CONVENTIONS["brats-2024-post" if "cavity" in roles.values() else "brats-2023"]
    core = convention.necrotic if "enhancing" in roles.values() else convention.enhancing
    values = {
        "whole": convention.oedema,
        "oedema": convention.oedema,
        "core": core,
        "necrotic": convention.necrotic,
        "enhancing": convention.enhancing,
        "cavity": convention.cavity,
    }
    first = next(iter(masks.values()))
    labels = np.zeros(first.shape, np.uint8)
    for layer in _LAYERS:
        for name, role in roles.items():
            if role == layer:
                labels[masks[name].data != 0] = values[layer][0]
    notes = [f"structures read as tumour: {', '.join(f'{name} ({role})' for name, role in roles.items())}"]
    if unused := [name for name in masks if name not in roles]:
        notes.append(f"structures not used: {', '.join(unused)}")
    return Tumour(Volume(labels, first.affine, kind="label", path=path), convention.name, tuple(notes))
