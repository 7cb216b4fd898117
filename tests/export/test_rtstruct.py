"""RTSTRUCT: what an independent reading of the file finds, and the way back."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from datetime import datetime

import numpy as np
import pydicom
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from scipy import ndimage
from skimage.measure import euler_number

from gliodil.data.dicom.reference import read_reference
from gliodil.data.dicom.rtstruct import write_rtstruct
from gliodil.data.dicom.rtstruct_reader import enclosed_areas, read_rtstruct
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, GliodilError, ImageFileError, InputError, LabelError, OutputError

FRAME = "1.2.826.0.1.3680043.8.498.8"


def rough_mask(shape, seed):
    """Blobs with holes and slits, specks, single voxels, and something at the border."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), rng.uniform(0, 2, 3))
    mask = noise > np.quantile(noise, rng.uniform(0.2, 0.95))
    mask ^= rng.random(shape) < rng.choice([0, 0.03])  # specks and pin-holes
    mask[rng.integers(shape[0]), :, :] &= rng.random() < 0.5  # a slit one voxel wide
    mask[0, rng.integers(shape[1]), rng.integers(shape[2])] = True
    return mask


def read_independently(path, files):
    """Per ROI and image, masks and loops in pixel coordinates, read with pydicom and shapely alone.

    A contour is placed on the image it names, by that image's own header.
    """
    images = {}
    for number, file in enumerate(files):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        axes = np.array(header.ImageOrientationPatient, float)
        matrix = np.stack([axes[:3] * header.PixelSpacing[1], axes[3:] * header.PixelSpacing[0]], axis=1)
        normal = np.cross(axes[:3], axes[3:])
        place = np.array(header.ImagePositionPatient, float)
        images[header.SOPInstanceUID] = (number, place, matrix, normal, (header.Columns, header.Rows))
    data = pydicom.dcmread(path)
    names = {roi.ROINumber: roi.ROIName for roi in data.StructureSetROISequence}
    found = {}
    for item in data.ROIContourSequence:
        loops = found.setdefault(names[item.ReferencedROINumber], [])
        for contour in item.ContourSequence:
            (image,) = contour.ContourImageSequence
            number, place, matrix, normal, _ = images[image.ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, float).reshape(-1, 3) - place
            assert len(points) == contour.NumberOfContourPoints >= 3
            assert np.abs(points @ normal).max() < 1e-3  # mm from the plane of the image
            pixels = np.linalg.lstsq(matrix, points.T, rcond=None)[0].T
            loops.append((number, pixels))
    return found


def paint(loops, shape, inside):
    mask = np.zeros(shape, bool)
    centres = np.stack(np.indices(shape[:2]), axis=-1).reshape(-1, 2).astype(float)
    for number, loop in loops:
        mask[:, :, number] ^= inside(loop, centres).reshape(shape[:2])
    return mask


PAINTERS = {
    "shapely": lambda loop, centres: shapely.contains_xy(shapely.Polygon(loop), centres),
    "matplotlib": lambda loop, centres: Outline([*loop, loop[0]], closed=True).contains_points(centres),
}


def pixel_outline(mask):
    """Boundary of the union of a mask's pixel squares."""
    squares = [shapely.box(i - 0.5, j - 0.5, i + 0.5, j + 0.5) for i, j in np.argwhere(mask)]
    return shapely.union_all(squares).boundary


@pytest.mark.parametrize("keyholes", [False, True], ids=["loops", "key-holes"])
def test_masks_come_back_voxel_for_voxel(series, tmp_path_factory, keyholes):
    geometry, files = series
    path = tmp_path_factory.mktemp("rt") / "rtstruct.dcm"
    reference = read_reference(files)

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.integers(0, 2**32))
    def holds(seed):
        masks = {f"CTV {n}": rough_mask(geometry.shape, [seed, n]) for n in range(2)}
        volumes = {name: geometry.volume(mask) for name, mask in masks.items()}
        write_rtstruct(path, volumes, reference, keyholes=keyholes)
        back = read_rtstruct(path, reference.grid, frame_of_reference=FRAME)
        assert back.keys() == masks.keys()
        for name, mask in masks.items():
            assert back[name].kind == "label"
            assert np.array_equal(back[name].data, mask)
            assert back[name].same_grid(volumes[name])

    holds()


def test_an_independent_reader_finds_the_mask_and_every_point_within_half_a_pixel(series, tmp_path):
    geometry, files = series
    for seed in range(2):
        mask = rough_mask(geometry.shape, seed)
        write_rtstruct(tmp_path / "rt.dcm", {"GTV": geometry.volume(mask)}, files)
        loops = read_independently(tmp_path / "rt.dcm", files)["GTV"]
        for painter in PAINTERS.values():
            assert np.array_equal(paint(loops, mask.shape, painter), mask)
        edges = {k: pixel_outline(mask[:, :, k]) for k, _ in loops}
        for k, loop in loops:
            # Along the whole contour, not at its vertices only.
            dense = shapely.LineString([*loop, loop[0]]).segmentize(0.25)
            assert shapely.distance(shapely.points(dense.coords), edges[k]).max() <= 0.5


def smooth_target(geometry, scale=1.0):
    """A lobed target of about 150 mL with a ventricle cut out, sampled on a grid around it."""
    shape = tuple(int(np.ceil(90 * scale / step)) for step in geometry.spacing)
    index = np.moveaxis(np.indices(shape), 0, -1) * geometry.spacing
    middle = np.asarray(shape) * geometry.spacing / 2
    away = [np.linalg.norm(index - middle - shift, axis=-1) for shift in ([-8, 0, 2], [10, 6, -3])]
    ventricle = np.linalg.norm((index - middle - [0, 18, 0]) / [7, 12, 9], axis=-1) < 1
    return (away[0] < 30) | (away[1] < 26), ventricle


@pytest.mark.parametrize("name", ["axial", "sagittal", "oblique", "non-square", "anisotropic"])
def test_polygons_of_smooth_targets_have_the_volume_of_the_voxels(geometries, new_series, tmp_path, name):
    whole, ventricle = smooth_target(geometries[name])
    mask, geometry = whole & ~ventricle, dataclasses.replace(geometries[name], shape=whole.shape)
    files = new_series(tmp_path / name, geometry)
    path = write_rtstruct(tmp_path / "rt.dcm", {"CTV": geometry.volume(mask)}, files)
    voxel_ml = mask.sum() * np.prod(geometry.spacing) / 1000
    assert 100 < voxel_ml < 200
    polygon_ml = enclosed_areas(path)["CTV"][1] * geometry.spacing[2] / 1000
    assert polygon_ml == pytest.approx(voxel_ml, rel=1e-3)
    planes = defaultdict(list)
    for plane, loop in read_independently(path, files)["CTV"]:
        planes[plane].append(loop)
    shapely_ml = sum(map(net_area, planes.values())) * np.prod(geometry.spacing) / 1000
    assert shapely_ml == pytest.approx(voxel_ml, rel=1e-3)
    assert shapely_ml == pytest.approx(polygon_ml, rel=1e-5)


def net_area(loops):
    region = shapely.Polygon()
    for loop in loops:
        region = region.symmetric_difference(shapely.Polygon(loop))
    return region.area


def test_polygons_of_rough_targets_differ_by_half_a_pixel_per_island_and_hole(series, tmp_path):
    geometry, files = series
    for seed in range(5):
        mask = rough_mask(geometry.shape, seed)
        write_rtstruct(tmp_path / "rt.dcm", {"GTV": geometry.volume(mask)}, files)
        count, area = enclosed_areas(tmp_path / "rt.dcm")["GTV"]
        topology = sum(euler_number(mask[:, :, k], connectivity=1) for k in range(mask.shape[2]))
        pixel = geometry.spacing[0] * geometry.spacing[1]
        assert area == pytest.approx((mask.sum() - topology / 2) * pixel, rel=1e-4)
        assert abs(area / pixel - mask.sum()) <= count / 2 + 1e-3 * mask.sum()


def test_a_multi_frame_image_is_referred_to_by_frame(geometries, new_series, tmp_path):
    geometry = geometries["oblique"]
    files = new_series(tmp_path / "series", geometry, multiframe=True)
    mask = rough_mask(geometry.shape, 3)
    path = write_rtstruct(tmp_path / "rt.dcm", {"GTV": geometry.volume(mask)}, files)
    back = read_rtstruct(path, geometry.volume(mask))["GTV"]
    assert np.array_equal(back.data, mask)
    header = pydicom.dcmread(files[0])
    for contour in pydicom.dcmread(path).ROIContourSequence[0].ContourSequence:
        (image,) = contour.ContourImageSequence
        assert image.ReferencedSOPInstanceUID == header.SOPInstanceUID
        frame = header.PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        offset = points - np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        assert np.abs(offset @ geometry.normal).max() < 1e-3


@pytest.fixture
def written(geometries, new_series, tmp_path):
    geometry = geometries["oblique"]
    files = new_series(tmp_path / "series", geometry)
    masks = {name: rough_mask(geometry.shape, n) for n, name in enumerate(("GTV", "CTV model", "Brainstem"))}
    volumes = {name: geometry.volume(mask) for name, mask in masks.items()}
    return write_rtstruct(tmp_path / "rt.dcm", volumes, files), geometry, files, volumes


def test_the_file_holds_what_planning_systems_look_for(written):
    path, _, files, volumes = written
    data, image = pydicom.dcmread(path), pydicom.dcmread(files[0])
    for keyword in (
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyInstanceUID",
        "StudyDate",
    ):
        assert data[keyword].value == image[keyword].value
    assert str(data.PatientName) == "Zöllner^Erika"
    assert data.SeriesInstanceUID != image.SeriesInstanceUID
    assert data.FrameOfReferenceUID == FRAME
    assert data.ApprovalStatus == "UNAPPROVED"
    assert "RESEARCH" in data.StructureSetLabel
    assert "RESEARCH" in data.SeriesDescription
    rois, contours = data.StructureSetROISequence, data.ROIContourSequence
    observations = data.RTROIObservationsSequence
    assert [roi.ROIName for roi in rois] == list(volumes)
    numbers = [roi.ROINumber for roi in rois]
    assert [item.ReferencedROINumber for item in contours] == numbers
    assert [item.ReferencedROINumber for item in observations] == numbers
    assert [item.RTROIInterpretedType for item in observations] == ["GTV", "CTV", ""]
    assert {roi.ReferencedFrameOfReferenceUID for roi in rois} == {FRAME}
    assert len({tuple(item.ROIDisplayColor) for item in contours}) == len(rois)
    frame = data.ReferencedFrameOfReferenceSequence[0]
    listed = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0].ContourImageSequence
    instances = [pydicom.dcmread(file).SOPInstanceUID for file in files]
    assert [item.ReferencedSOPInstanceUID for item in listed] == instances
    assert {c.ContourGeometricType for item in contours for c in item.ContourSequence} == {"CLOSED_PLANAR"}


def test_values_keep_to_the_limits_of_the_standard(written):
    path, *_ = written
    data = pydicom.dcmread(path)
    for item in data.ROIContourSequence:
        for contour in item.ContourSequence:
            for value in contour.ContourData:
                assert len(str(value)) <= 16
                assert re.fullmatch(r"-?\d+\.\d{3,}", value.original_string)

    def check(dataset):
        for element in dataset:
            if element.VR == "SQ":
                for entry in element.value:
                    check(entry)
            elif element.VR == "UI":
                assert re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*", element.value), element
                assert len(element.value) <= 64
            elif element.VR in ("SH", "CS"):
                assert len(str(element.value)) <= 16, element

    check(data)
    check(data.file_meta)


def test_long_contours_survive(geometries, new_series, tmp_path):
    """More than 64 kB of coordinates in one contour, which explicit VR could not hold."""
    geometry = dataclasses.replace(geometries["axial"], shape=(200, 200, 1))
    files = new_series(tmp_path / "series", geometry)
    mask = np.zeros(geometry.shape, bool)
    mask[::2] = True
    mask[:, 0] = True  # a comb of a hundred teeth, frayed
    mask[1::4, 1::2] = True
    path = write_rtstruct(tmp_path / "rt.dcm", {"GTV": geometry.volume(mask)}, files, keyholes=True)
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    assert max(contour.NumberOfContourPoints for contour in contours) > 5000
    assert np.array_equal(read_rtstruct(path, geometry.volume(mask))["GTV"].data, mask)


def test_equal_input_gives_an_equal_file_and_other_masks_other_identifiers(written, tmp_path):
    path, _, files, volumes = written
    again = write_rtstruct(tmp_path / "again.dcm", volumes, files[::-1])
    assert again.read_bytes() == path.read_bytes()
    other = {**volumes, "GTV": volumes["CTV model"]}
    changed = write_rtstruct(tmp_path / "changed.dcm", other, files)
    assert pydicom.dcmread(changed).SOPInstanceUID != pydicom.dcmread(path).SOPInstanceUID


def test_the_date_is_that_of_the_study_unless_given(written, tmp_path):
    path, _, files, volumes = written
    assert pydicom.dcmread(path).StructureSetDate == "20210304"
    later = write_rtstruct(tmp_path / "later.dcm", volumes, files, created=datetime(2026, 1, 2, 3, 4, 5))
    assert pydicom.dcmread(later).StructureSetDate == "20260102"
    assert pydicom.dcmread(later).StructureSetTime == "030405"


def test_a_mask_on_another_grid_takes_the_nearest_voxel(written, tmp_path):
    _, geometry, files, _ = written
    mask = rough_mask(geometry.shape, 1)
    turned = Volume(mask[::-1].transpose(1, 2, 0), geometry.affine, kind="label")
    flip = np.array([[0, 0, -1, mask.shape[0] - 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    turned = Volume(turned.data, geometry.affine @ flip, kind="label")
    path = write_rtstruct(tmp_path / "turned.dcm", {"GTV": turned}, files)
    assert np.array_equal(read_rtstruct(path, geometry.volume(mask))["GTV"].data, mask)


def test_contours_are_read_on_grids_that_are_turned(written):
    path, _, _, volumes = written
    mask = volumes["GTV"]
    turned = mask.data[:, ::-1].transpose(2, 0, 1)
    flip = np.array([[0, 1, 0, 0], [0, 0, -1, mask.shape[1] - 1], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    grid = Volume(turned, mask.affine @ flip, kind="label")
    assert np.array_equal(read_rtstruct(path, grid, names=["GTV"])["GTV"].data, turned)


def test_only_the_structures_asked_for_are_read(written):
    path, _, _, volumes = written
    assert list(read_rtstruct(path, volumes["GTV"], names=["CTV model"])) == ["CTV model"]
    with pytest.raises(LabelError, match="does not hold what was asked for"):
        read_rtstruct(path, volumes["GTV"], names=["PTV"])


def changed(path, target, change):
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(target)
    return target


def move(data, vector):
    for item in data.ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3) + vector
            contour.ContourData = [f"{value:.4f}" for value in points.ravel()]


def test_contours_between_slices_or_beyond_the_images_are_refused(written, tmp_path):
    path, geometry, _, volumes = written
    grid, up = volumes["GTV"], geometry.normal * geometry.spacing[2]
    between = changed(path, tmp_path / "a.dcm", lambda data: move(data, 0.4 * up))
    with pytest.raises(GeometryError, match="between slices"):
        read_rtstruct(between, grid)
    beyond = changed(path, tmp_path / "b.dcm", lambda data: move(data, 5 * up))
    with pytest.raises(GeometryError, match="beyond the images"):
        read_rtstruct(beyond, grid)
    aside = changed(path, tmp_path / "c.dcm", lambda data: move(data, 3 * np.array(geometry.row)))
    with pytest.raises(GeometryError, match="beyond the images"):
        read_rtstruct(aside, grid)
    nearly = changed(path, tmp_path / "d.dcm", lambda data: move(data, 0.02 * up))
    assert np.array_equal(read_rtstruct(nearly, grid)["GTV"].data, grid.data)


def test_contours_across_the_slices_are_refused(written):
    path, *_ = written
    axial = Volume(np.zeros((60, 60, 60), np.uint8), np.diag([1.0, 1, 1, 1]), kind="label")
    with pytest.raises(GeometryError, match="do not lie in slices"):
        read_rtstruct(path, axial)


def test_contours_of_thicker_slices_are_refused(written):
    path, _, _, volumes = written
    grid = volumes["GTV"]
    thin = Volume(
        np.zeros((*grid.shape[:2], 15), np.uint8), grid.affine @ np.diag([1, 1, 1 / 3, 1]), kind="label"
    )
    with pytest.raises(GeometryError, match="thicker slices"):
        read_rtstruct(path, thin)


def test_another_frame_of_reference_is_refused(written):
    path, _, _, volumes = written
    with pytest.raises(GeometryError, match="another coordinate system") as caught:
        read_rtstruct(path, volumes["GTV"], frame_of_reference="1.2.3")
    assert FRAME not in str(caught.value)


def test_empty_structures_are_refused_where_they_are_wanted(written, tmp_path):
    path, _, _, volumes = written

    def empty(data):
        del data.ROIContourSequence[0].ContourSequence

    hollow = changed(path, tmp_path / "hollow.dcm", empty)
    assert "GTV" not in read_rtstruct(hollow, volumes["GTV"])
    with pytest.raises(LabelError, match="GTV is empty"):
        read_rtstruct(hollow, volumes["GTV"], names=["GTV"])

    def clear(data):
        del data.ROIContourSequence

    with pytest.raises(LabelError, match="no closed contour"):
        read_rtstruct(changed(path, tmp_path / "clear.dcm", clear), volumes["GTV"])


def test_what_is_no_structure_set_is_refused(written, tmp_path):
    _, _, files, volumes = written
    with pytest.raises(ImageFileError, match="no RT Structure Set"):
        read_rtstruct(files[0], volumes["GTV"])
    with pytest.raises(ImageFileError, match="does not exist"):
        read_rtstruct(tmp_path / "none.dcm", volumes["GTV"])
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(ImageFileError, match="not a readable DICOM"):
        read_rtstruct(tmp_path / "text.dcm", volumes["GTV"])


@pytest.mark.parametrize("damage", ["nan", "torn", "type", "number"])
def test_damaged_contours_are_refused(written, tmp_path, damage):
    path, _, _, volumes = written

    def spoil(data):
        contour = data.ROIContourSequence[0].ContourSequence[0]
        if damage == "nan":
            contour["ContourData"] = pydicom.DataElement("ContourData", "LO", ["NaN"] * 9)
        elif damage == "torn":
            contour.ContourData = contour.ContourData[:-1]
        elif damage == "type":
            del contour.ContourGeometricType
        else:
            data.ROIContourSequence[0].ReferencedROINumber = 99

    with pytest.raises(ImageFileError, match="damaged"):
        read_rtstruct(changed(path, tmp_path / "bad.dcm", spoil), volumes["GTV"])


def test_mutated_files_never_raise_anything_but_typed_errors(written, tmp_path):
    path, _, _, volumes = written
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    target, messages = tmp_path / "mutated.dcm", []
    for _ in range(100):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), rng.integers(1, 20)):
            content[position] = rng.integers(256)
        target.write_bytes(content[: rng.integers(len(content) // 2, len(content) + 1)])
        try:
            read_rtstruct(target, volumes["GTV"])
        except GliodilError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not any(word in message for message in messages for word in ("SECRET", "Erika", "4711"))


@pytest.mark.parametrize("name", ["", "x" * 65, "a\\b", "line\nbreak", "Läsion"])
def test_names_that_do_not_fit_are_refused(written, tmp_path, name):
    _, _, files, volumes = written
    with pytest.raises(InputError, match="cannot be the name"):
        write_rtstruct(tmp_path / "rt2.dcm", {name: volumes["GTV"]}, files)


def test_empty_masks_are_refused_and_leave_no_file(written, tmp_path):
    _, geometry, files, volumes = written
    with pytest.raises(InputError, match="CTV is empty"):
        write_rtstruct(
            tmp_path / "e.dcm", {"CTV": geometry.volume(np.zeros(geometry.shape, np.uint8))}, files
        )
    with pytest.raises(InputError, match="no structure"):
        write_rtstruct(tmp_path / "e.dcm", {}, files)
    assert not (tmp_path / "e.dcm").exists()
    with pytest.raises(OutputError):
        write_rtstruct(files[0] / "e.dcm", volumes, files)
