"""DICOM SEG: masks and the density, as an independent reading of the file finds them, and the way back."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from gliodil.data.dicom.reference import read_reference
from gliodil.data.dicom.seg import FRACTION_STEP, write_fractional_seg, write_seg
from gliodil.data.dicom.seg_reader import read_fractional_seg, read_seg, read_segments
from gliodil.data.volume import Volume
from gliodil.errors import GliodilError, ImageFileError, InputError, LabelError


def random_masks(geometry, seed=0):
    """Two overlapping masks, one of them on two slices with a gap, none on the first slice."""
    rng = np.random.default_rng(seed)
    dense = rng.random(geometry.shape) < 0.6
    dense[:, :, 0] = False
    sparse = np.zeros(geometry.shape, bool)
    sparse[3, 4, 1] = sparse[5:7, 2, 4] = True
    return {"GTV": dense, "CTV model": sparse}


def random_density(geometry):
    density = np.random.default_rng(1).random(geometry.shape).astype(np.float32)
    density[:, :, :2] = 0
    return density


def read_independently(path, files, dtype):
    """Return segment number to array on the series; frames are placed by their own position with pydicom alone."""
    data = pydicom.dcmread(path)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    places = np.array([header.ImagePositionPatient for header in headers], float)
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    shape = (data.Columns, data.Rows, len(files))
    found = {item.SegmentNumber: np.zeros(shape, dtype) for item in data.SegmentSequence}
    for frame, groups in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        away = np.linalg.norm(places - place, axis=1)
        assert away.min() < 1e-3
        if "SegmentIdentificationSequence" not in groups:  # one for all
            groups = data.SharedFunctionalGroupsSequence[0]
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[number][:, :, away.argmin()] = frame.T
    return found


def test_masks_come_back_voxel_for_voxel(series, tmp_path):
    geometry, files = series
    masks = random_masks(geometry)
    path = write_seg(tmp_path / "s.dcm", {n: geometry.volume(m) for n, m in masks.items()}, files)
    segments = read_segments(path)
    assert segments.names == {1: "GTV", 2: "CTV model"}
    assert segments.frame_of_reference == "1.2.826.0.1.3680043.8.498.8"
    found = read_independently(path, files, bool)
    for number, mask in enumerate(masks.values(), start=1):
        back = segments.masks[number].resample_to(geometry.volume(mask))
        assert np.array_equal(back.data, mask)
        assert np.array_equal(found[number], mask)
        assert np.linalg.det(segments.masks[number].affine[:3, :3]) > 0


def test_the_density_comes_back_to_half_a_step(series, tmp_path):
    geometry, files = series
    density = geometry.volume(random_density(geometry), kind="scalar")
    path = write_fractional_seg(tmp_path / "f.dcm", density, files)
    back = read_fractional_seg(path).resample_to(density)
    assert back.kind == "scalar"
    assert np.abs(back.data - density.data).max() <= 0.501 * FRACTION_STEP
    found = read_independently(path, files, np.uint8)[1]
    assert np.abs(found / 255 - density.data).max() <= 0.501 * FRACTION_STEP


@pytest.mark.parametrize("multiframe", [False, True], ids=["single", "multi-frame"])
def test_a_single_voxel_and_a_multi_frame_reference(geometries, new_series, tmp_path, multiframe):
    geometry = geometries["anisotropic"]
    files = new_series(tmp_path / "series", geometry, multiframe=multiframe)
    mask = np.zeros(geometry.shape, bool)
    mask[7, 5, 3] = True
    path = write_seg(tmp_path / "s.dcm", {"GTV": geometry.volume(mask)}, files)
    assert np.array_equal(read_seg(path).resample_to(geometry.volume(mask)).data, mask)
    if multiframe:
        (item,) = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
        source = item.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedFrameNumber == geometry.shape[2] - 3


def test_other_programs_open_the_files_and_find_what_they_are(series, tmp_path):
    geometry, files = series
    masks = {n: geometry.volume(m) for n, m in random_masks(geometry).items()}
    data = highdicom.seg.segread(write_seg(tmp_path / "s.dcm", masks, files))
    assert data.segmentation_type.value == "BINARY"
    assert data.get_segment_description(1).segmented_property_type == codes.cid9534.GTV
    assert data.get_segment_description(2).segmented_property_type == codes.cid9534.CTV
    image = pydicom.dcmread(files[0])
    assert data.PatientID == image.PatientID
    assert str(data.PatientName) == "Zöllner^Erika"
    assert data.StudyInstanceUID == image.StudyInstanceUID
    assert data.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert "RESEARCH" in data.SeriesDescription
    density = geometry.volume(random_density(geometry), kind="scalar")
    fraction = highdicom.seg.segread(write_fractional_seg(tmp_path / "f.dcm", density, files))
    assert fraction.SegmentationFractionalType == "OCCUPANCY"


def test_equal_input_gives_equal_files(series, tmp_path):
    geometry, files = series
    masks = {n: geometry.volume(m) for n, m in random_masks(geometry).items()}
    density = geometry.volume(random_density(geometry), kind="scalar")
    pairs = [
        (
            write_seg(tmp_path / f"s{n}", masks, files),
            write_fractional_seg(tmp_path / f"f{n}", density, files),
        )
        for n in range(2)
    ]
    assert [path.read_bytes() for path in pairs[0]] == [path.read_bytes() for path in pairs[1]]


def test_poor_headers_are_good_enough(geometries, new_series, tmp_path):
    """What is nonsense in the study is left empty; what is required but missing too."""
    geometry = geometries["axial"]
    files = new_series(tmp_path / "series", geometry)
    for file in files:
        data = pydicom.dcmread(file)
        del data.PatientBirthDate, data.AccessionNumber, data.StudyID, data.ReferringPhysicianName
        data.PatientSex, data.StudyTime = "X", ""
        data["StudyDate"] = pydicom.DataElement("StudyDate", "LO", "March")
        data.save_as(file)
    mask = geometry.volume(random_masks(geometry)["GTV"])
    reference = read_reference(files)
    path = write_seg(tmp_path / "s.dcm", {"GTV": mask}, reference)
    assert np.array_equal(read_seg(path).resample_to(mask).data, mask.data)
    assert reference.headers[0].PatientSex == "X"  # emptied in the copy only


def compartments(geometry, files, path, kind):
    """A segmentation as others write it: three compartments without overlap, in one of the two types."""
    labels = np.random.default_rng(3).integers(0, 4, geometry.shape).astype(np.uint8)
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.cid7150.Tissue,
            segmented_property_type=codes.cid7150.Tissue,
            algorithm_type="MANUAL",
        )
        for number, name in enumerate(("necrosis", "oedema", "enhancing"), start=1)
    ]
    data = highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(file) for file in files],
        pixel_array=labels.transpose(2, 1, 0),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Other",
        manufacturer_model_name="Other",
        software_versions="1",
        device_serial_number="1",
    )
    data.save_as(path)
    return labels


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segmentations_of_others_become_labels(series, tmp_path, kind):
    geometry, files = series
    labels = compartments(geometry, files, tmp_path / "other.dcm", kind)
    back = read_seg(tmp_path / "other.dcm")
    assert back.kind == "label"
    assert back.path.name == "other.dcm"
    assert np.array_equal(back.resample_to(geometry.volume(labels)).data, labels)
    assert read_segments(tmp_path / "other.dcm").names == {1: "necrosis", 2: "oedema", 3: "enhancing"}


@pytest.fixture
def small(geometries, new_series, tmp_path):
    geometry = geometries["axial"]
    return geometry, new_series(tmp_path / "series", geometry)


def test_overlapping_segments_are_no_labels(small, tmp_path):
    geometry, files = small
    masks = {n: geometry.volume(m) for n, m in random_masks(geometry).items()}
    masks["CTV model"] = masks["GTV"]
    path = write_seg(tmp_path / "s.dcm", masks, files)
    with pytest.raises(LabelError, match="overlap") as caught:
        read_seg(path)
    assert "'GTV' and 'CTV model'" in str(caught.value)


def test_the_wrong_kind_of_file_is_refused(small, tmp_path):
    geometry, files = small
    density = geometry.volume(random_density(geometry), kind="scalar")
    fraction = write_fractional_seg(tmp_path / "f.dcm", density, files)
    with pytest.raises(LabelError, match="does not hold masks"):
        read_seg(fraction)
    masks = write_seg(tmp_path / "s.dcm", {"GTV": geometry.volume(random_masks(geometry)["GTV"])}, files)
    with pytest.raises(LabelError, match="not fractional"):
        read_fractional_seg(masks)
    with pytest.raises(ImageFileError, match="no DICOM segmentation"):
        read_seg(files[0])
    with pytest.raises(ImageFileError, match="does not exist"):
        read_seg(tmp_path / "none.dcm")


def test_what_is_no_fraction_is_refused(small, tmp_path):
    geometry, files = small
    values = random_density(geometry)
    for spoilt in (2 * values, values - 0.1, np.where(values > 0.9, np.nan, values)):
        with pytest.raises(InputError, match="from 0 to 1"):
            write_fractional_seg(tmp_path / "f.dcm", geometry.volume(spoilt, kind="scalar"), files)
    with pytest.raises(InputError, match="is zero"):
        write_fractional_seg(tmp_path / "f.dcm", geometry.volume(0 * values, kind="scalar"), files)
    assert not (tmp_path / "f.dcm").exists()


def test_a_frame_far_away_is_refused_before_it_takes_all_memory(small, tmp_path):
    geometry, files = small
    path = write_seg(tmp_path / "s.dcm", {"GTV": geometry.volume(random_masks(geometry)["GTV"])}, files)
    data = pydicom.dcmread(path)
    place = data.PerFrameFunctionalGroupsSequence[-1].PlanePositionSequence[0]
    place.ImagePositionPatient = [-31.25, -42.5, 5e9 + 0.75]
    data.save_as(path)
    with pytest.raises(GliodilError):
        read_seg(path)


def test_mutated_files_never_raise_anything_but_typed_errors(small, tmp_path):
    geometry, files = small
    path = write_seg(tmp_path / "s.dcm", {"GTV": geometry.volume(random_masks(geometry)["GTV"])}, files)
    whole, rng, messages = path.read_bytes(), np.random.default_rng(0), []
    target = tmp_path / "mutated.dcm"
    for _ in range(100):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), rng.integers(1, 20)):
            content[position] = rng.integers(256)
        target.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
        try:
            read_seg(target)
        except GliodilError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not any(word in message for message in messages for word in ("SECRET", "Erika", "4711"))


def test_a_reference_can_be_read_once_and_used_often(small, tmp_path):
    geometry, files = small
    reference = read_reference(files)
    assert np.allclose(reference.affine, geometry.affine, atol=1e-6)
    assert reference.grid.same_grid(Volume(np.zeros(geometry.shape), geometry.affine, kind="scalar"))
    mask = {"GTV": geometry.volume(random_masks(geometry)["GTV"])}
    assert (
        write_seg(tmp_path / "a.dcm", mask, reference).read_bytes()
        == write_seg(tmp_path / "b.dcm", mask, files).read_bytes()
    )
