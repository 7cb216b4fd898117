"""Labels of a follow-up in whatever file: NIfTI, DICOM SEG or RTSTRUCT, for a plan that is there already.

A NIfTI label map is taken as it is. Of the structures of a DICOM file those count that are named like a recurrence or
like parts of a tumour; they become labels of the plan's convention, or one binary map where that has none for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.compartments import Meanings, NamedMask, label_map
from gliodil.data.dicom.headers import is_dicom, quietly, require_pydicom
from gliodil.data.frames import FrameGraph
from gliodil.data.labels import LabelConvention, get_convention
from gliodil.data.nifti import read_nifti
from gliodil.data.segmentation import segmentation_header
from gliodil.data.volume import Volume
from gliodil.errors import GliodilError, LabelError

_LATER = re.compile(
    r"\b(recurren\w*|recidiv\w*|recidief\w*|rezidiv\w*|relaps\w*|progress\w*|recaida\w*|recrudescen\w*|nawrot\w*)"
)


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Labels of a follow-up and what was made of the file, in words."""

    labels: Volume
    notes: tuple[str, ...] = ()


def read_follow_up(
    path: Path,
    grid: Volume,
    *,
    frame: str = "",
    graph: FrameGraph | None = None,
    convention: str | None = None,
    parts: Mapping[str, str] | None = None,
) -> FollowUp:
    """Return the labels of a follow-up, not resampled unless drawn as contours.

    Parameters
    ----------
    path
        The file.
    grid
        Grid of the plan; contours must lie on its slices.
    frame
        Frame of reference of the plan, "" if it is not known.
    graph
        Registrations between frames of reference; a SEG of another frame is carried by them.
    convention
        Label convention of the plan.
    parts
        What structures and segments are, by name, where the user says it.

    Raises
    ------
    ImageFileError
        If the file is damaged, or is no segmentation.
    GeometryError
        If it lies in another frame of reference, or its contours on no slices of the plan.
    LabelError
        If none of its structures can be told to be the recurrence.
    """
    if not is_dicom(path):
        volume = read_nifti(path, kind="label")
        return FollowUp(volume, volume.notes)
    require_pydicom()
    with quietly():
        header, modality = segmentation_header(path)
        meanings = Meanings(parts or {})
        if modality == "SEG":
            found = _segments(path, frame, graph or FrameGraph(), meanings)
        else:
            found = _structures(path, header, grid, frame, meanings)
        return _labelled(*found, path=path, convention=convention)


def _segments(
    path: Path, frame: str, graph: FrameGraph, meanings: Meanings
) -> tuple[list[NamedMask], Meanings, tuple[str, ...]]:
    from gliodil.data.dicom.seg_reader import read_segments

    segments = read_segments(path)
    matrix = _to_frame(segments.frame_of_reference, frame, graph, path)
    names = list(segments.names.values())
    meanings = _of_recurrence(names, meanings, path)
    masks = [
        NamedMask(segments.names[number], mask.carried(matrix, frame or mask.frame))
        for number, mask in segments.masks.items()
    ]
    return masks, meanings, (meanings.said(path, names),)


def _structures(
    path: Path, header: Any, grid: Volume, frame: str, meanings: Meanings
) -> tuple[list[NamedMask], Meanings, tuple[str, ...]]:
    from gliodil.data.dicom.rtstruct_reader import read_structures, structure_frames

    frames, _ = structure_frames(header)
    meanings = _of_recurrence(list(frames), meanings, path)
    wanted = [name for name in frames if meanings.of(name) is not None]
    for name in wanted:  # contours lie on slices of their own, and are not carried
        _to_frame(frames[name], frame, FrameGraph(), path)
    read = read_structures(path, grid, names=wanted)
    masks = [NamedMask(name, mask) for name, mask in read.masks.items()]
    return masks, meanings, (*read.notes, meanings.said(path, list(frames)))


def _to_frame(found: str, frame: str, graph: FrameGraph, path: Path) -> NDArray[np.float64]:
    """Return the matrix from one frame to another, that of no motion where one of them is not stated."""
    if not found or not frame:
        return np.eye(4)
    try:
        return graph.require(found, frame, what=f"follow-up {path.name!r}", file=path).matrix
    except GliodilError as error:
        error.remedy = "register the follow-up to the planning scan, and export its labels there"
        raise


def _of_recurrence(names: Sequence[str], meanings: Meanings, path: Path) -> Meanings:
    """Return what structures are, those named like a recurrence, or the only one there is, being core."""
    stated = dict(meanings.stated)
    spare = [name for name in names if name not in stated]
    stated |= {name: "core" for name in spare if _LATER.search(re.sub(r"[\W_]+", " ", name.lower()))}
    told = Meanings(stated)
    if any(told.of(name) is not None for name in names):
        return told
    if len(set(names)) == 1 and not stated:
        return Meanings({names[0]: "core"})
    raise LabelError(
        "None of the structures is named like a recurrence or a tumour.",
        file=path,
        expected="a name like recurrence, GTV, enhancing",
        found=", ".join(dict.fromkeys(name or "(no name)" for name in names)) or "no structures",
        remedy='say which one it is, as in --roi "Volume 1=core"',
    )


def _labelled(
    masks: Sequence[NamedMask],
    meanings: Meanings,
    notes: tuple[str, ...],
    *,
    path: Path,
    convention: str | None,
) -> FollowUp:
    wanted = [mask for mask in masks if meanings.of(mask.name) is not None]
    if not any(mask.volume.data.any() for mask in wanted):
        raise LabelError(
            "The recurrence is empty.",
            file=path,
            expected="contours or voxels",
            found="; ".join(notes),
            remedy="export the structures with their contours",
        )
    known = None if convention is None else get_convention(convention)
    try:
        if known is not None:
            return FollowUp(label_map(wanted, known, meanings), notes)
    except LabelError:
        notes = (*notes, f"{path.name}: read as one; {known} has no labels for its parts")
    grid = wanted[0].volume
    inside = np.zeros(grid.shape, bool)
    for mask in wanted:
        if meanings.of(mask.name) != "cavity":
            inside |= mask.volume.data != 0
    labels = inside.astype(np.uint8) * _enhancing(known)
    return FollowUp(Volume(labels, grid.affine, kind="label", path=path, frame=grid.frame), notes)


def _enhancing(convention: LabelConvention | None) -> int:
    return convention.enhancing[0] if convention is not None and convention.enhancing else 1
