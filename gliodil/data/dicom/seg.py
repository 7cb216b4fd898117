"""Masks and the density as DICOM segmentations (SEG), pixel for pixel on the grid of a series.

A binary SEG keeps each mask as a segment of its own; they may overlap, as plans do. A fractional SEG keeps a
map in [0, 1] as occupancy in steps of 1/255.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.atomic import atomic_path
from gliodil.data.dicom.objects import (
    DESCRIPTION,
    UNFIT,
    encode,
    header_access,
    image_source,
    moment,
    stable_uid,
)
from gliodil.data.dicom.reference import Reference, read_reference
from gliodil.data.dicom.structures import interpreted_type, place
from gliodil.data.volume import Volume
from gliodil.errors import InputError, MissingExtraError

FRACTION_STEP = 1 / 255
"""Distance between neighbouring values of a fractional SEG."""


def write_seg(
    path: Path | str,
    structures: Mapping[str, Volume],
    files: Sequence[Path | str] | Reference,
    *,
    created: datetime | None = None,
) -> Path:
    """Write masks as the segments of one binary SEG; the file appears complete or not at all.

    Parameters
    ----------
    structures
        Segment label (1 to 64 ASCII characters) to label volume, as for `write_rtstruct`. Numbers follow the order.
    files
        The series: its DICOM files, or what `read_reference` made of them.
    created
        Date and time in the file. By default those of the study, so that the file does not depend on the clock.

    Raises
    ------
    InputError
        If a structure is empty on the series, or its name does not fit.
    ImageFileError, GeometryError
        If the series cannot be referred to.
    OutputError
        If the file cannot be written.
    MissingExtraError
        If pydicom or highdicom is not installed.
    """
    reference = files if isinstance(files, Reference) else read_reference(files)
    encoded = encode_seg(place(structures, reference), reference, created=created)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    return Path(path)


def encode_seg(
    placed: Mapping[str, Volume], reference: Reference, *, created: datetime | None = None
) -> bytes:
    """Return what `write_seg` writes, of masks that are on the grid of the series."""
    frames = np.stack([volume.data.transpose(2, 1, 0) for volume in placed.values()], axis=-1)
    segments = [_segment(number, name) for number, name in enumerate(placed, start=1)]
    return _encode(frames, segments, reference, "BINARY", created)


def write_fractional_seg(
    path: Path | str,
    fraction: Volume,
    files: Sequence[Path | str] | Reference,
    *,
    label: str = "Tumour-cell density",
    created: datetime | None = None,
) -> Path:
    """Write a map in [0, 1] as one segment of a fractional SEG (occupancy, 8 bits).

    Parameters
    ----------
    fraction
        Scalar volume in [0, 1]; interpolated linearly if it lies on another grid.
    files, created
        As for `write_seg`.
    label
        Name of the segment.

    Raises
    ------
    InputError
        If a value is outside [0, 1] or not a number, or the map is zero on the series.
    ImageFileError, GeometryError
        If the series cannot be referred to.
    OutputError
        If the file cannot be written.
    MissingExtraError
        If pydicom or highdicom is not installed.
    """
    reference = files if isinstance(files, Reference) else read_reference(files)
    low, high = float(fraction.data.min()), float(fraction.data.max())
    if not (low >= 0 and high <= 1):
        raise InputError(
            "A fractional segmentation holds values from 0 to 1 only.",
            file=fraction.path,
            expected="values in [0, 1]",
            found=f"{low:.4g} to {high:.4g}",
        )
    # Bits are spread over [0, 1]; rounding to them here makes what is written what is meant.
    placed = np.rint(fraction.resample_to(reference.grid).data.astype(np.float64) * 255) / 255
    if not placed.any():
        raise InputError(
            f"{label} is zero on the slices of the series.",
            file=fraction.path,
            expected=f"a value of at least {FRACTION_STEP / 2:.3g}",
            found="none",
        )
    frames = placed.transpose(2, 1, 0)[..., None]
    encoded = _encode(frames, [_density_segment(label)], reference, "FRACTIONAL", created)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded)
    return Path(path)


def _encode(
    frames: NDArray[Any],
    segments: list[Any],
    reference: Reference,
    kind: str,
    created: datetime | None,
) -> bytes:
    """Return the file of frames of shape (slices, rows, columns, segments)."""
    from gliodil import __version__

    date, time = moment(reference.headers[0], created)
    labels = [str(segment.SegmentLabel) for segment in segments]
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    content = (*reference.instances, digest, repr((kind, labels, date, time, __version__)))
    with header_access(UNFIT, expected="a complete DICOM image series"):
        data = _segmentation(frames, segments, reference, kind, (date, time), content)
        # What highdicom takes from the clock and from chance, so that equal input gives an equal file.
        data.InstanceCreationDate, data.InstanceCreationTime = date, time
        for item in data.get("ContributingEquipmentSequence", ()):
            item.ContributionDateTime = date + time
        organization = stable_uid("dimensions", *content)
        for item in (*data.DimensionOrganizationSequence, *data.DimensionIndexSequence):
            item.DimensionOrganizationUID = organization
        return encode(data)


def _segmentation(
    frames: NDArray[Any],
    segments: list[Any],
    reference: Reference,
    kind: str,
    made: tuple[str, str],
    content: tuple[str, ...],
) -> Any:
    from highdicom import UID
    from highdicom.seg import Segmentation

    from gliodil import __version__

    if reference.frames is not None:  # highdicom wants them in the order of the frames, not of the slices
        frames = frames[np.argsort(reference.frames)]
    return Segmentation(
        source_images=[image_source(header) for header in reference.headers],
        pixel_array=frames,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=UID(stable_uid("seg series", *content)),
        series_number=1,
        sop_instance_uid=UID(stable_uid("seg", *content)),
        instance_number=1,
        manufacturer="gliodil",
        manufacturer_model_name="gliodil",
        software_versions=__version__,
        device_serial_number="0",
        fractional_type="OCCUPANCY",
        content_label="RESEARCH_USE",
        content_description="Research use only. Not a medical device.",
        series_description=DESCRIPTION,
        content_date=made[0],
        content_time=made[1],
    )


def _segment(number: int, name: str) -> Any:
    from pydicom.sr.codedict import codes

    targets = {"GTV": codes.cid9534.GTV, "CTV": codes.cid9534.CTV, "PTV": codes.cid9534.PTV}
    target = targets.get(interpreted_type(name))
    category = codes.cid9580.RTTarget if target else codes.cid7150.Tissue
    return _description(number, name, category, target or codes.cid7150.Tissue, _margin_algorithm())


def _density_segment(label: str) -> Any:
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    growth = Code("TUMOUR-GROWTH", "99GLIODIL", "Tumour growth model")
    category = codes.cid7150.MorphologicallyAbnormalStructure
    return _description(1, label, category, codes.cid7159.NeoplasmPrimary, growth)


def _margin_algorithm() -> Any:
    from pydicom.sr.codedict import codes

    return codes.cid7162.MorphologicalOperations


def _description(number: int, label: str, category: Any, kind: Any, family: Any) -> Any:
    try:
        from highdicom import AlgorithmIdentificationSequence
        from highdicom.seg import SegmentDescription
    except ImportError as error:
        raise MissingExtraError("highdicom", "dicom") from error

    from gliodil import __version__

    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence("gliodil", family, __version__),
    )
