"""Tumour segmentations in whatever file they come: NIfTI, DICOM SEG, or RTSTRUCT.

A NIfTI label map has a grid of its own. A SEG ends with its last slice and an RTSTRUCT has no grid, so both are put on
the grid of the series they were drawn on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil.data.dicom.compartments import Meanings, NamedMask, label_map
from gliodil.data.dicom.headers import is_dicom, items, quietly, read_header, require_pydicom, text
from gliodil.data.frames import FrameGraph
from gliodil.data.labels import CONVENTIONS, LabelConvention, get_convention
from gliodil.data.nifti import read_nifti
from gliodil.data.shapes import carry_labels
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, LabelError

if TYPE_CHECKING:
    from gliodil.data.dicom.series import Series

NAMED_COMPARTMENTS = CONVENTIONS["brats-2024-post"]
"""Labels given to compartments known by name."""


@dataclass(frozen=True)
class ReadSegmentation:
    """A label volume, the convention of its labels where the file settles it, and what was noticed."""

    volume: Volume
    convention: LabelConvention | None = None
    notes: tuple[str, ...] = ()


def read_segmentation(
    path: Path,
    *,
    labels: str | None,
    series: Sequence[Series],
    image: Path | None = None,
    graph: FrameGraph | None = None,
    parts: Mapping[str, str] | None = None,
) -> ReadSegmentation:
    """Return the tumour segmentation in a NIfTI, DICOM SEG or RTSTRUCT file, told apart by content.

    Parameters
    ----------
    path
        The file.
    labels
        Convention named by the user. Segment numbers of a SEG are then labels of it.
    series
        The patient's series, the reference first; one of them must be what a DICOM segmentation was drawn on.
    image
        NIfTI image whose grid serves if there are no series.
    graph
        Registrations between frames of reference, for structures drawn in several.
    parts
        What structures and segments are, by name, where the user says it: a compartment or `ignore`.

    Raises
    ------
    ImageFileError
        If the file is damaged, or is no segmentation.
    GeometryError
        If a DICOM segmentation belongs to none of the series, or lies in several frames that nothing relates.
    LabelError
        If no structure or segment is a part of the tumour.
    """
    if not is_dicom(path):
        volume = read_nifti(path, kind="label")
        return ReadSegmentation(volume, notes=volume.notes)
    require_pydicom()
    with quietly():
        header, modality = segmentation_header(path)
        meanings = Meanings(parts or {})
        if modality == "SEG":
            return _from_seg(path, header, labels, series, image, meanings)
        return _from_structures(path, header, labels, series, image, graph or FrameGraph(), meanings)


def segmentation_header(path: Path) -> tuple[Any, str]:
    """Return the header of a DICOM SEG or RTSTRUCT and which of the two it is.

    Raises
    ------
    ImageFileError
        If it is neither.
    """
    header = read_header(path)
    modality = "" if header is None else text(header, "Modality").upper()
    if modality not in ("SEG", "RTSTRUCT"):
        raise ImageFileError(
            "The DICOM file is no segmentation.",
            file=path,
            expected="modality SEG or RTSTRUCT",
            found=modality or "none",
            remedy="give the labels, not the images",
        )
    return header, modality


def read_mask(path: Path) -> Volume:
    """Return a label volume from NIfTI, or the union of all segments of a DICOM SEG but the background as one mask."""
    if not is_dicom(path):
        return read_nifti(path, kind="label")
    from gliodil.data.dicom.seg_reader import read_segments

    require_pydicom()
    with quietly():
        return read_segments(path).union()


def _from_seg(
    path: Path,
    header: Any,
    labels: str | None,
    series: Sequence[Series],
    image: Path | None,
    meanings: Meanings,
) -> ReadSegmentation:
    from gliodil.data.dicom.seg_reader import read_segments

    named = {text(entry, "SeriesInstanceUID") for entry in items(header, "ReferencedSeriesSequence")}
    grid, notes = _grid(path, named, text(header, "FrameOfReferenceUID"), series, image)
    segments = read_segments(path)
    if grid is None:
        grid = next(iter(segments.masks.values()))
        notes.append(
            f"{path.name}: no image shows how far the head reaches; plans end with the slices of the file"
        )
    if labels is not None or not meanings.state_a_tumour(segments.names.values()):
        return ReadSegmentation(segments.labels().resample_to(grid), None, tuple(notes))
    masks = [
        NamedMask(segments.names[number], mask.resample_to(grid)) for number, mask in segments.masks.items()
    ]
    notes.append(meanings.said(path, [mask.name for mask in masks]))
    return ReadSegmentation(label_map(masks, NAMED_COMPARTMENTS, meanings), NAMED_COMPARTMENTS, tuple(notes))


def _from_structures(
    path: Path,
    header: Any,
    labels: str | None,
    series: Sequence[Series],
    image: Path | None,
    graph: FrameGraph,
    meanings: Meanings,
) -> ReadSegmentation:
    from gliodil.data.dicom.rtstruct_reader import read_structures, structure_frames

    frames, named = structure_frames(header)
    names = list(frames)
    if not meanings.state_a_tumour(names):
        raise LabelError(
            "No structure is named like the tumour core or a cavity.",
            file=path,
            expected="structures named like GTV, enhancing, necrosis, oedema, cavity",
            found=", ".join(name or "without name" for name in names) or "no structures",
            remedy='say which structure is what, as in --roi "Boost volume=core"',
        )
    wanted = [name for name in names if meanings.of(name) is not None]
    groups: dict[str, list[str]] = {}
    for name in wanted:
        groups.setdefault(frames[name], []).append(name)
    masks: list[NamedMask] = []
    notes: list[str] = []
    for frame, members in groups.items():
        grid, more = _grid(path, named, frame, series, image)
        if grid is None:
            raise GeometryError(
                "An RTSTRUCT needs the images it was drawn on.",
                file=path,
                expected="the series it refers to, in the patient's folder",
                found="no image",
                remedy="add the series to the folder, or name an image with --t1c",
            )
        read = read_structures(path, grid, names=members)
        notes += [*more, *read.notes]
        for name, mask in read.masks.items():
            if masks and mask.frame and masks[0].volume.frame and mask.frame != masks[0].volume.frame:
                first = masks[0].volume
                link = graph.require(mask.frame, first.frame, what=f"structure {name!r}", file=path)
                mask = carry_labels(mask, first, link.matrix)
                notes.append(
                    f"{path.name}: {name} carried to the frame of {masks[0].name} by the clinic's registration"
                )
            masks.append(NamedMask(name, mask))
    if not meanings.state_a_tumour(mask.name for mask in masks):
        raise LabelError(
            "The structures of the tumour core are empty.",
            file=path,
            expected="closed contours",
            found="; ".join(notes) or "none",
            remedy="export the contours with the structures",
        )
    grid = masks[0].volume
    masks = [
        mask if mask.volume.same_grid(grid) else NamedMask(mask.name, mask.volume.resample_to(grid))
        for mask in masks
    ]
    convention = NAMED_COMPARTMENTS if labels is None else get_convention(labels)
    read_names = {mask.name for mask in masks}
    told = [name for name in names if name in read_names or meanings.of(name) is None]
    notes.append(meanings.said(path, told))
    return ReadSegmentation(label_map(masks, convention, meanings), convention, tuple(notes))


def _grid(
    path: Path, named: Collection[str], frame: str, series: Sequence[Series], image: Path | None
) -> tuple[Volume | None, list[str]]:
    """Return the grid a DICOM segmentation was drawn on: of a series it names, in its frame of reference.

    Where the series it names is not there, another one of the same frame serves. A series of another frame never does.
    """
    if not series:
        return (None if image is None else read_nifti(image, kind="scalar")), []
    fitting = [
        entry
        for entry in series
        if not frame or not entry.frame_of_reference or entry.frame_of_reference == frame
    ]
    for entry in series:
        if entry.uid in named and entry.problem is not None:
            raise entry.problem
    for entry in fitting:
        if entry.uid in named and entry.stack is not None:
            return entry.volume(), []
    known = [
        entry for entry in fitting if entry.stack is not None and entry.frame_of_reference == frame and frame
    ]
    if known:
        return known[0].volume(), [
            f"{path.name}: the series it was drawn on is missing; placed on {known[0].name}"
        ]
    raise GeometryError(
        "The segmentation belongs to none of the series.",
        file=path,
        expected="the series it was drawn on, or one in its frame of reference",
        found=f"frame {frame or 'not stated'}; the series are "
        + ", ".join(f"{entry.name} in frame {entry.frame_of_reference or 'not stated'}" for entry in series),
        remedy="add the series it was drawn on to the folder, with the clinic's registration object (--reg FILE) if it "
        "lies in another frame than the images",
    )
