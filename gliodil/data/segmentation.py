"""Tumour segmentations in whatever file they come: NIfTI, DICOM SEG, or RTSTRUCT.

A NIfTI label map has a grid of its own. A SEG ends with its last slice and an RTSTRUCT has no grid, so both are put on
the grid of the series they were drawn on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil.data.dicom.compartments import compartment_of, label_map, states_a_tumour
from gliodil.data.dicom.headers import is_dicom, item, items, quietly, read_header, require_pydicom, text
from gliodil.data.labels import CONVENTIONS, LabelConvention, get_convention
from gliodil.data.nifti import read_nifti
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
    path: Path, *, labels: str | None, series: Sequence[Series], image: Path | None = None
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

    Raises
    ------
    ImageFileError
        If the file is damaged, or is no segmentation.
    GeometryError
        If a DICOM segmentation belongs to none of the series.
    LabelError
        If no structure or segment is a part of the tumour.
    """
    if not is_dicom(path):
        volume = read_nifti(path, kind="label")
        return ReadSegmentation(volume, notes=volume.notes)
    require_pydicom()
    with quietly():
        return _from_dicom(path, labels, series, image)


def _from_dicom(
    path: Path, labels: str | None, series: Sequence[Series], image: Path | None
) -> ReadSegmentation:
    header = read_header(path)
    modality = "" if header is None else text(header, "Modality").upper()
    if modality not in ("SEG", "RTSTRUCT"):
        raise ImageFileError(
            "The DICOM file is no segmentation.",
            file=path,
            expected="modality SEG or RTSTRUCT",
            found=modality or "none",
            remedy="name the segmentation with --seg FILE",
        )
    grid, notes = _grid(path, header, modality, series, image)
    if modality == "SEG":
        return _from_seg(path, labels, grid, notes)
    return _from_structures(path, header, labels, grid, notes)


def read_mask(path: Path) -> Volume:
    """Return a label volume from NIfTI, or the union of all segments of a DICOM SEG as one mask."""
    if not is_dicom(path):
        return read_nifti(path, kind="label")
    from gliodil.data.dicom.seg_reader import read_segments

    require_pydicom()
    with quietly():
        masks = list(read_segments(path).masks.values())
    return masks[0].with_data(sum(mask.data.astype(int) for mask in masks) > 0)


def _from_seg(path: Path, labels: str | None, grid: Volume | None, notes: list[str]) -> ReadSegmentation:
    from gliodil.data.dicom.seg_reader import read_segments

    segments = read_segments(path)
    if grid is None:
        grid = next(iter(segments.masks.values()))
        notes.append(
            f"{path.name}: no image shows how far the head reaches; plans end with the slices of the file"
        )
    if labels is not None or not states_a_tumour(segments.names.values()):
        return ReadSegmentation(segments.labels().resample_to(grid), None, tuple(notes))
    masks = {segments.names[number]: mask.resample_to(grid) for number, mask in segments.masks.items()}
    notes.append(_reading(path, {name: compartment_of(name) for name in masks}))
    return ReadSegmentation(label_map(masks, NAMED_COMPARTMENTS), NAMED_COMPARTMENTS, tuple(notes))


def _from_structures(
    path: Path, header: Any, labels: str | None, grid: Volume | None, notes: list[str]
) -> ReadSegmentation:
    from gliodil.data.dicom.rtstruct_reader import read_rtstruct

    if grid is None:
        raise GeometryError(
            "An RTSTRUCT needs the images it was drawn on.",
            file=path,
            expected="the series it refers to, in the patient's folder",
            found="no image",
            remedy="add the series to the folder, or name an image with --t1c",
        )
    names = [text(roi, "ROIName") for roi in items(header, "StructureSetROISequence")]
    reading = {name: compartment_of(name) for name in names}
    if not states_a_tumour(names):
        raise LabelError(
            "No structure is named like the tumour core or a cavity.",
            file=path,
            expected="structures named like GTV, enhancing, necrosis, oedema, cavity",
            found=", ".join(names) or "no structures",
            remedy="rename the structures",
        )
    wanted = [name for name, compartment in reading.items() if compartment is not None]
    masks = read_rtstruct(path, grid, names=wanted)
    convention = NAMED_COMPARTMENTS if labels is None else get_convention(labels)
    notes.append(_reading(path, reading))
    return ReadSegmentation(label_map(masks, convention), convention, tuple(notes))


def _reading(path: Path, reading: Mapping[str, str | None]) -> str:
    used = ", ".join(f"{name} as {compartment}" for name, compartment in reading.items() if compartment)
    left = ", ".join(name for name, compartment in reading.items() if compartment is None)
    return f"{path.name}: read {used}" + (f"; not used: {left}" if left else "")


def _grid(
    path: Path, header: Any, modality: str, series: Sequence[Series], image: Path | None
) -> tuple[Volume | None, list[str]]:
    """Return the grid a DICOM segmentation was drawn on: of the series it names, or in its frame of reference."""
    if not series:
        return (None if image is None else read_nifti(image, kind="scalar")), []
    frame = text(header, "FrameOfReferenceUID")
    if modality == "SEG":
        named = {text(entry, "SeriesInstanceUID") for entry in items(header, "ReferencedSeriesSequence")}
    else:
        named = set()
        for reference in items(header, "ReferencedFrameOfReferenceSequence"):
            frame = frame or text(reference, "FrameOfReferenceUID")
            study = item(reference, "RTReferencedStudySequence")
            named |= {
                text(entry, "SeriesInstanceUID") for entry in items(study, "RTReferencedSeriesSequence")
            }
    volumes = [entry for entry in series if entry.stack is not None]
    for entry in volumes:
        if entry.uid in named:
            return entry.volume(), []
    known = [entry for entry in volumes if entry.frame_of_reference and entry.frame_of_reference == frame]
    if known:
        return known[0].volume(), [
            f"{path.name}: the series it was drawn on is missing; placed on {known[0].name}"
        ]
    raise GeometryError(
        "The segmentation belongs to none of the series.",
        file=path,
        expected="the series it was drawn on, or one in its frame of reference",
        found=", ".join(entry.name for entry in series),
        remedy="add the series it was drawn on to the folder",
    )
