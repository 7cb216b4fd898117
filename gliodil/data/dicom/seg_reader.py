"""Masks and maps from DICOM segmentations (SEG), placed in world millimetres."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.objects import MisplacedError, header_access, read_dataset
from gliodil.data.dicom.reference import LPS_RAS
from gliodil.data.dicom.roi_names import compartment_of
from gliodil.data.dicom.seg_sheared import sheared_voxels
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, LabelError, MissingExtraError

DAMAGED = "The segmentation is damaged, or of a kind that is not read here."
READABLE = "a binary, label-map or fractional DICOM segmentation"
UNSTATED = "2.25.0"
"""Stands for a frame of reference that a file does not state, where highdicom needs one."""
_USUAL = {
    "StudyInstanceUID": "2.25.0",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 0,
}
"""What a header that leaves it out means, or may as well say."""
_BACKGROUND = re.compile(
    r"(back ?ground|hintergrund|fond|fondo|sfondo|achtergrond|arriere[- ]plan|clear label|unlabel+ed|outside)",
    re.IGNORECASE,
)
LARGEST = 2**28
"""Voxels a file may ask for. Damaged positions would otherwise ask for more than any machine has."""


@dataclass(frozen=True)
class Segments:
    """The segments of a SEG but the background, each a mask of its own.

    Attributes
    ----------
    masks
        Segment number to label volume (0 or 1). The volumes hold the slices between the first and the last one
        in the file, indexed (column, row, slice), slices ascending along row direction x column direction.
    names
        Segment number to segment label.
    frame_of_reference
        UID of the coordinate system, "" if the file states none.
    """

    masks: Mapping[int, Volume]
    names: Mapping[int, str]
    frame_of_reference: str

    def labels(self) -> Volume:
        """Return one label volume that holds segment numbers.

        Raises
        ------
        LabelError
            If segments overlap.
        """
        first = next(iter(self.masks.values()))
        labels = np.zeros(first.shape, np.uint16)
        for number, mask in self.masks.items():
            inside = mask.data != 0
            if (taken := labels[inside]).any():
                other = int(taken[taken > 0][0])
                raise LabelError(
                    "Two segments overlap, so that they cannot be the labels of one map.",
                    file=first.path,
                    expected="segments without common voxels",
                    found=f"{np.count_nonzero(taken)} voxels in both {self.names[other]!r} and "
                    f"{self.names[number]!r}",
                    remedy="export the compartments without overlap",
                )
            labels[inside] = number
        return Volume(labels, first.affine, kind="label", path=first.path, frame=first.frame)

    def union(self) -> Volume:
        """Return all segments as one mask."""
        first = next(iter(self.masks.values()))
        inside = np.zeros(first.shape, bool)
        for mask in self.masks.values():
            inside |= mask.data != 0
        return first.with_data(inside, kind="label")


def read_seg(path: Path | str) -> Volume:
    """Return a binary SEG or label map as label volume: voxels hold segment numbers.

    `read_segments` gives the names, and segments that overlap.

    Raises
    ------
    ImageFileError
        If the file is missing, damaged or no segmentation.
    LabelError
        If the segmentation is empty or fractional, or segments overlap.
    GeometryError
        If its frames do not form one stack.
    MissingExtraError
        If pydicom or highdicom is not installed.
    """
    return read_segments(path).labels()


def read_segments(path: Path | str) -> Segments:
    """Return every segment of a binary SEG or label map; see `read_seg` for the errors."""
    path = Path(path)
    data, kind = _open(path)
    if kind not in ("BINARY", "LABELMAP"):
        raise LabelError(
            "The segmentation does not hold masks.",
            file=path,
            expected="BINARY or LABELMAP",
            found=kind[:16] or "no segmentation type",
            remedy="threshold it first, and write it as binary segmentation",
        )
    with header_access(DAMAGED, file=path, expected=READABLE):
        padding = data.get("PixelPaddingValue")
        described = {int(item.SegmentNumber): str(item.SegmentLabel) for item in data.SegmentSequence}
        names = {
            number: name
            for number, name in described.items()
            if number != padding
            and (number or padding is not None)
            and not _BACKGROUND.fullmatch(name.strip())
        }
        frame_of_reference = str(data.FrameOfReferenceUID)
    if frame_of_reference == UNSTATED:
        frame_of_reference = ""
    masks = {}
    for number in names:
        mask, affine = _voxels(data, number, path)
        inside = (mask != 0).astype(np.uint8)
        masks[number] = Volume(inside, affine, kind="label", path=path, frame=frame_of_reference)
    if not any(mask.data.any() for mask in masks.values()):
        raise LabelError("The segmentation is empty.", file=path, expected="at least one voxel")
    return Segments(masks, names, frame_of_reference)


def read_fractional_seg(path: Path | str) -> Volume:
    """Return the first segment of a fractional SEG as scalar volume in [0, 1]; errors as for `read_seg`."""
    path = Path(path)
    data, kind = _open(path)
    if kind != "FRACTIONAL":
        raise LabelError("The segmentation is not fractional.", file=path, expected="FRACTIONAL")
    with header_access(DAMAGED, file=path, expected=READABLE):
        number = int(next(iter(data.segment_numbers)))
    fraction, affine = _voxels(data, number, path)
    return Volume(fraction.astype(np.float32), affine, kind="scalar", path=path)


def _open(path: Path) -> tuple[Any, str]:
    """Return a file as highdicom Segmentation, and its segmentation type."""
    header = read_dataset(path)
    with header_access(DAMAGED, file=path, expected=READABLE):
        found = str(header.get("Modality", "none"))
    if found != "SEG":
        raise ImageFileError(
            "The file is no DICOM segmentation.", file=path, expected="modality SEG", found=found[:16]
        )
    try:
        from highdicom.seg import Segmentation
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom") from error
    with header_access(DAMAGED, file=path, expected=READABLE):
        _complete(header)
        return Segmentation.from_dataset(header, copy=False), str(header.get("SegmentationType", ""))


def _complete(header: Any) -> None:
    """Fill in what highdicom asks of a header and nothing here rests on."""
    if not header.get("FrameOfReferenceUID"):
        header.FrameOfReferenceUID = UNSTATED
    for keyword, usual in _USUAL.items():
        if header.get(keyword) in (None, ""):
            setattr(header, keyword, usual)
    for number, item in enumerate(header.get("SegmentSequence") or (), start=1):
        if item.get("SegmentNumber") is None:
            item.SegmentNumber = number
        item.SegmentLabel = _called(item)
        # Of how it was made, and of what it is beyond its label, nothing is used.
        item.SegmentAlgorithmType = "MANUAL"
        for keyword in ("SegmentAlgorithmName", "SegmentationAlgorithmIdentificationSequence"):
            if keyword in item:
                del item[keyword]
        for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
            setattr(item, keyword, [_tissue()])
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or ()),
        *(header.get("PerFrameFunctionalGroupsSequence") or ()),
    ]
    for measures in (measures for group in groups for measures in group.get("PixelMeasuresSequence") or ()):
        if not all(float(step) > 0 for step in measures.get("PixelSpacing") or (0,)):
            raise MisplacedError("a PixelSpacing that is not above 0 mm")
        if not measures.get("SliceThickness"):
            measures.SliceThickness = measures.get("SpacingBetweenSlices") or 1


def _tissue() -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "85756007", "SCT", "Tissue"
    return item


def _called(item: Any) -> str:
    """Return the label of a segment; with the name of its type, where only that says what part of a tumour it is."""
    label = str(item.get("SegmentLabel") or f"Segment {item.SegmentNumber}").strip()
    for kind in item.get("SegmentedPropertyTypeCodeSequence") or ():
        meaning = str(kind.get("CodeMeaning") or "")
        if _BACKGROUND.fullmatch(meaning):
            return meaning
        if compartment_of(label) is None and compartment_of(f"{label} ({meaning})") is not None:
            return f"{label} ({meaning})"
    return label


def _voxels(data: Any, number: int, path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the voxels (column, row, slice) of a segment and their affine to RAS."""
    volume = None
    with header_access(DAMAGED, file=path, expected=READABLE):
        geometry = data.get_volume_geometry(allow_missing_positions=True)
        size = None if geometry is None else int(np.prod([float(n) for n in geometry.spatial_shape]))
        if geometry is None and (sheared := sheared_voxels(data, number, LARGEST)) is not None:
            return sheared[0], LPS_RAS @ sheared[1]
        if size is not None and size <= LARGEST:
            volume = data.get_volume(segment_numbers=[number], allow_missing_positions=True)
    if volume is None:
        raise GeometryError(
            "The frames of the segmentation do not form one stack.",
            file=path,
            expected="parallel slices at equal distances",
            found="no regular volume" if size is None else f"{size} voxels",
            remedy="export it on the slices of one series",
        )
    voxels = np.asarray(volume.array)[..., 0].transpose(2, 1, 0)
    affine = np.asarray(volume.affine, np.float64)[:, [2, 1, 0, 3]]
    if np.linalg.det(affine[:3, :3]) < 0:  # slices against the normal
        affine[:3, 3] += affine[:3, 2] * (voxels.shape[2] - 1)
        affine[:3, 2] *= -1
        voxels = voxels[:, :, ::-1]
    return voxels, LPS_RAS @ affine
