"""Segmentations as other programs write them: label maps, backgrounds, missing fields, names in codes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from gliodil.data import Volume, load_patient
from gliodil.data.dicom.objects import image_source
from gliodil.data.dicom.scan import find_series
from gliodil.data.dicom.seg_reader import read_segments
from gliodil.data.segmentation import read_mask
from gliodil.errors import ImageFileError, LabelError

highdicom = pytest.importorskip("highdicom")

Change = Callable[[pydicom.Dataset], None]


@pytest.fixture
def scanned(tmp_path: Path, head: dict[str, Volume]) -> Path:
    folder = tmp_path / "patient_007"
    write_series(folder / "t1c", 10 * head["t1c"].data, head["t1c"].affine, description="t1 +c", number=1)
    return folder


def write(
    folder: Path, labels: np.ndarray, names: Mapping[int, str], kind: str, change: Change | None = None
) -> Path:
    """Write labels 1, 2, ... with highdicom; the names of those that have one are put in afterwards."""
    (series,) = find_series(folder / "t1c")
    numbers = range(1, int(labels.max()) + 1)
    tissue = pydicom.sr.codedict.codes.cid7150.Tissue
    data = highdicom.seg.Segmentation(
        source_images=[image_source(header) for header in series.headers],
        pixel_array=labels.transpose(2, 1, 0).astype(np.uint8),
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                number, names.get(number, f"Segment {number}"), tissue, tissue, "MANUAL"
            )
            for number in numbers
        ],
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Other",
        manufacturer_model_name="Other",
        software_versions="1",
        device_serial_number="1",
    )
    path = folder / "seg.dcm"
    data.save_as(path)
    if change is not None:
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
    return path


NAMES = {1: "Necrosis", 2: "Edema", 3: "Enhancing"}


def drawn(head: Mapping[str, Volume]) -> np.ndarray:
    return np.where(head["seg"].data == 4, 3, head["seg"].data)


def foreground(data: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [item for item in data.SegmentSequence if item.SegmentNumber > 0]


def background(number: int, name: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.SegmentNumber, item.SegmentLabel, item.SegmentAlgorithmType = number, name, "MANUAL"
    return item


@pytest.mark.parametrize(
    ("padding", "name"), [(None, "Background"), (None, "Segment 0"), (0, "Segment 0"), (255, "Hintergrund")]
)
def test_a_label_map_that_describes_its_background(
    scanned: Path, head: Mapping[str, Volume], padding: int | None, name: str
) -> None:
    def describe(data: pydicom.Dataset) -> None:
        data.SegmentSequence = [background(0, name), *foreground(data)]
        if padding is None:
            del data.PixelPaddingValue
        else:
            data.PixelPaddingValue = padding

    path = write(scanned, drawn(head), NAMES, "LABELMAP", describe)
    assert read_segments(path).names == NAMES
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, drawn(head))
    assert np.count_nonzero(read_mask(path).data) == np.count_nonzero(head["seg"].data)


def test_a_label_map_whose_padding_is_not_zero(scanned: Path, head: Mapping[str, Volume]) -> None:
    """Labels counted from 0, and 255 where there is none."""

    def shift(data: pydicom.Dataset) -> None:
        pixels = data.pixel_array.astype(np.uint8)
        data.PixelData = np.where(pixels == 0, 255, pixels - 1).astype(np.uint8).tobytes()
        data.PixelPaddingValue = 255
        data.SegmentSequence = foreground(data)
        for item in data.SegmentSequence:
            item.SegmentNumber -= 1

    path = write(scanned, drawn(head), NAMES, "LABELMAP", shift)
    assert read_segments(path).names == {0: "Necrosis", 1: "Edema", 2: "Enhancing"}
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, drawn(head))


def test_a_background_among_the_segments_is_no_tumour(scanned: Path, head: Mapping[str, Volume]) -> None:
    labels = drawn(head)
    names = {**NAMES, 4: "background"}
    path = write(scanned, np.where(labels == 0, 4, labels), names, "BINARY")
    assert read_segments(path).names == NAMES
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, labels)
    assert np.count_nonzero(read_mask(path).data) == np.count_nonzero(labels)


def test_nothing_but_background_is_empty(scanned: Path, head: Mapping[str, Volume]) -> None:
    path = write(scanned, (drawn(head) == 0).astype(np.uint8), {1: "Background"}, "BINARY")
    with pytest.raises(LabelError, match="empty"):
        read_segments(path)


def test_several_segments_of_one_name_are_one_part(scanned: Path, head: Mapping[str, Volume]) -> None:
    labels = drawn(head)
    halved = labels.copy()
    halved[:, :, : np.flatnonzero((labels == 3).any(axis=(0, 1))).mean().astype(int)][
        labels[:, :, : np.flatnonzero((labels == 3).any(axis=(0, 1))).mean().astype(int)] == 3
    ] = 4
    names = {**NAMES, 4: "Enhancing"}
    write(scanned, halved, names, "BINARY")
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, labels)


def code(item: pydicom.Dataset, meaning: str) -> None:
    item.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = meaning


def test_what_only_the_code_says_counts_where_the_label_says_nothing(
    scanned: Path, head: Mapping[str, Volume]
) -> None:
    def describe(data: pydicom.Dataset) -> None:
        for item, meaning in zip(
            data.SegmentSequence, ("Necrosis", "Edema", "Enhancing lesion"), strict=True
        ):
            code(item, meaning)

    path = write(scanned, drawn(head), {}, "BINARY", describe)
    assert read_segments(path).names[2] == "Segment 2 (Edema)"
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, drawn(head))

    def contradict(data: pydicom.Dataset) -> None:
        code(data.SegmentSequence[1], "Neoplasm, necrosis")

    write(scanned, drawn(head), {1: "Necrosis", 2: "CTV_60", 3: "Enhancing"}, "BINARY", contradict)
    assert not load_patient(scanned).oedema.any()  # a target is none, whatever its code


def without(*keywords: str) -> Change:
    def change(data: pydicom.Dataset) -> None:
        for holder in (data, *data.SegmentSequence):
            for keyword in keywords:
                if keyword in holder:
                    del holder[keyword]

    return change


def thin(data: pydicom.Dataset) -> None:
    for groups in data.SharedFunctionalGroupsSequence:
        del groups.PixelMeasuresSequence[0].SliceThickness


NOT_NEEDED = {
    "algorithm": without("SegmentAlgorithmType"),
    "codes": without("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"),
    "frame": without("FrameOfReferenceUID"),
    "content": without("SegmentsOverlap", "ContentLabel", "ContentCreatorName", "DimensionOrganizationType"),
    "pixels": without(
        "StudyInstanceUID", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation"
    ),
    "thickness": thin,
}


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_fields_that_are_not_needed_may_lack(scanned: Path, head: Mapping[str, Volume], kind: str) -> None:
    path = write(scanned, drawn(head), NAMES, kind)
    grid = head["seg"]
    for lacking, change in NOT_NEEDED.items():
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(scanned / "less.dcm")
        masks = read_segments(scanned / "less.dcm").masks
        for number, mask in masks.items():
            found = mask.resample_to(grid).data != 0
            assert np.array_equal(found, drawn(head) == number), lacking
        assert list(masks) == [1, 2, 3]


def test_a_segmentation_without_frame_lies_in_that_of_the_series_it_names(
    scanned: Path, head: Mapping[str, Volume]
) -> None:
    write(scanned, drawn(head), NAMES, "BINARY", without("FrameOfReferenceUID"))
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, drawn(head))


def test_a_spacing_of_nothing_is_named(scanned: Path, head: Mapping[str, Volume]) -> None:
    def flatten(data: pydicom.Dataset) -> None:
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0, 0]

    path = write(scanned, drawn(head), NAMES, "BINARY", flatten)
    with pytest.raises(ImageFileError) as caught:
        read_segments(path)
    assert "PixelSpacing" in str(caught.value.found)


def test_a_recurrence_or_brain_in_another_frame_is_refused(scanned: Path, head: Mapping[str, Volume]) -> None:
    from gliodil.data import write_nifti
    from gliodil.errors import GeometryError

    write_nifti(head["seg"], scanned / "seg.nii.gz")
    outside = scanned.parent / "later"
    outside.mkdir()

    def elsewhere(data: pydicom.Dataset) -> None:
        data.FrameOfReferenceUID = "1.2.3"

    path = write(scanned, drawn(head), NAMES, "BINARY", elsewhere).rename(outside / "seg.dcm")
    for role in ("recurrence", "brain"):
        with pytest.raises(GeometryError, match="another frame of reference"):
            load_patient(scanned, files={role: path})


def test_a_recurrence_drawn_as_contours_is_read_like_a_mask(
    scanned: Path, head: Mapping[str, Volume]
) -> None:
    from gliodil.data import write_nifti
    from gliodil.data.dicom.rtstruct import write_rtstruct

    write_nifti(head["seg"], scanned / "seg.nii.gz")
    (series,) = find_series(scanned / "t1c")
    path = write_rtstruct(scanned.parent / "later.dcm", {"Rezidiv": head["recurrence"]}, series.files)
    patient = load_patient(scanned, files={"recurrence": path})
    assert patient.recurrence is not None
    np.testing.assert_array_equal(patient.recurrence.data != 0, head["recurrence"].data != 0)
    assert any("Rezidiv as core" in warning for warning in patient.warnings)
