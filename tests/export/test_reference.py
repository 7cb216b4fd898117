"""The reference series: geometry from headers alone, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pydicom
import pytest

from gliodil.data.dicom.reference import read_reference
from gliodil.errors import GeometryError, ImageFileError


@pytest.mark.parametrize("multiframe", [False, True], ids=["single", "multi-frame"])
def test_geometry_is_that_of_the_headers_in_any_order(geometries, new_series, tmp_path, multiframe):
    for name, geometry in geometries.items():
        files = new_series(tmp_path / name, geometry, multiframe=multiframe)
        reference = read_reference(files[::-1])
        assert reference.shape == geometry.shape
        assert np.allclose(reference.affine, geometry.affine, atol=1e-5)
        assert reference.slice_distance == pytest.approx(geometry.spacing[2])
        assert reference.pixel_area == pytest.approx(geometry.spacing[0] * geometry.spacing[1])
        point = reference.to_patient(np.array([[2.0, 3.0]]), 4)[0]
        assert np.allclose(point, (geometry.lps @ [2, 3, 4, 1])[:3], atol=1e-5)


def edited(files, change, which=2):
    data = pydicom.dcmread(files[which])
    change(data)
    data.save_as(files[which])
    return files


@pytest.fixture
def files(geometries, new_series, tmp_path):
    return new_series(tmp_path / "series", geometries["oblique"])


def shifted(vector):
    def change(data):
        place = np.array(data.ImagePositionPatient, float) + vector
        data.ImagePositionPatient = [f"{value:.6f}" for value in place]

    return change


def put(keyword, value):
    return lambda data: setattr(data, keyword, value)


def test_gaps_doubles_and_shear_are_refused(files, geometries):
    geometry = geometries["oblique"]
    with pytest.raises(GeometryError, match="equally far apart"):
        read_reference([*files[:2], *files[3:]])
    with pytest.raises(GeometryError, match="equally far apart"):
        read_reference([*files, files[2]])
    with pytest.raises(GeometryError, match="shifted against each other"):
        read_reference(edited(files, shifted(0.4 * np.array(geometry.row))))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (put("SeriesInstanceUID", "1.2.3"), "one series"),
        (put("FrameOfReferenceUID", "1.2.3"), "one series"),
        (put("Rows", 22), "differ"),
        (put("PixelSpacing", [2, 2]), "differ"),
        (put("ImageOrientationPatient", [1, 0, 0, 0, 1, 0]), "differ"),
    ],
)
def test_mixed_series_are_refused(files, change, match):
    with pytest.raises(GeometryError, match=match):
        read_reference(edited(files, change))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: delattr(data, "ImagePositionPatient"),
        lambda data: delattr(data, "PixelSpacing"),
        lambda data: delattr(data, "Rows"),
        put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
        put("ImageOrientationPatient", [1, 0, 0]),
        put("PixelSpacing", [0, 1]),
    ],
)
def test_headers_that_place_nothing_are_refused(files, change):
    with pytest.raises(ImageFileError, match="does not place"):
        read_reference(edited(files, change))


def test_a_series_without_frame_of_reference_is_refused(files):
    for which in range(len(files)):
        edited(files, lambda data: delattr(data, "FrameOfReferenceUID"), which)
    with pytest.raises(GeometryError, match="FrameOfReferenceUID"):
        read_reference(files)


def test_no_file_is_no_series():
    with pytest.raises(ImageFileError, match="no series"):
        read_reference([])


def test_one_slice_takes_its_thickness_from_the_header(geometries, new_series, tmp_path):
    geometry = dataclasses.replace(geometries["anisotropic"], shape=(20, 27, 1))
    reference = read_reference(new_series(tmp_path / "series", geometry))
    assert np.allclose(reference.affine, geometry.affine, atol=1e-5)


def test_series_from_scanners_are_understood(shared_data):
    """A real slab of 384 x 274 pixels agrees with the position of its pixels by the standard's formula."""
    files = sorted((shared_data / "dicom_mr" / "t1_slab32").glob("*.dcm"))
    reference = read_reference(files)
    headers = {header.SOPInstanceUID: header for header in (pydicom.dcmread(file) for file in files)}
    assert reference.shape == (
        headers[reference.instances[0]].Columns,
        headers[reference.instances[0]].Rows,
        32,
    )
    index = np.array([100.0, 50.0])
    for k in (0, 15, 31):
        header = headers[reference.instances[k]]
        axes = np.array(header.ImageOrientationPatient, float)
        rows, columns = map(float, header.PixelSpacing)
        expected = np.array(header.ImagePositionPatient, float) + (
            index[0] * columns * axes[:3] + index[1] * rows * axes[3:]
        )
        ras = reference.affine @ [*index, k, 1]
        assert np.allclose(ras[:3] * [-1, -1, 1], expected, atol=1e-2)
