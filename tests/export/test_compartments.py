"""Tumour segmentations from DICOM: names become labels, nested or apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gliodil.data.dicom.compartments import read_tumour, role_of_structure
from gliodil.data.dicom.rtstruct import write_rtstruct
from gliodil.data.dicom.seg import write_seg
from gliodil.errors import GeometryError, ImageFileError, LabelError

FRAME = "1.2.826.0.1.3680043.8.498.8"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("GTV", "core"),
        ("GTV_T1c", "core"),
        ("Tumor Core", "core"),
        ("TC", "core"),
        ("WholeTumor", "whole"),
        ("WT", "whole"),
        ("Enhancing Lesion", "enhancing"),
        ("ET", "enhancing"),
        ("contrast enhancement", "enhancing"),
        ("Non-Enhancing Lesion", "necrotic"),
        ("NonEnhancing tumour", "necrotic"),
        ("Necrosis", "necrotic"),
        ("NCR", "necrotic"),
        ("Edema", "oedema"),
        ("peritumoral oedema", "oedema"),
        ("Resection cavity", "cavity"),
        ("Tumor", None),
        ("CTV 60", None),
        ("Brainstem", None),
        ("Retina", None),  # not "et"
        ("Edge", None),
    ],
)
def test_names_are_read_word_by_word(name, role):
    assert role_of_structure(name) == role


@pytest.fixture(scope="module")
def drawn(geometries, new_series, tmp_path_factory):
    geometry = dataclasses.replace(geometries["oblique"], shape=(30, 32, 12))
    files = new_series(tmp_path_factory.mktemp("drawn") / "t1c", geometry)
    index = np.moveaxis(np.indices(geometry.shape), 0, -1)
    away = np.linalg.norm((index - [15, 16, 6]) * [1, 1, 1.5], axis=-1)
    balls = {name: geometry.volume(away < radius) for name, radius in (("in", 3), ("core", 6), ("all", 9))}
    labels = np.select([away < 3, away < 6, away < 9], [1, 3, 2], 0)
    return geometry, files, balls, labels


def shell(outer, inner):
    return outer.with_data(outer.data * (1 - inner.data))


@pytest.mark.parametrize("write", [write_seg, write_rtstruct], ids=["seg", "rtstruct"])
def test_nested_and_separate_structures_give_the_same_labels(drawn, tmp_path, write):
    geometry, files, balls, labels = drawn
    grid = geometry.volume(labels)
    enhancing = shell(balls["core"], balls["in"])
    separate = {"Necrosis": balls["in"], "Enhancing": enhancing, "Edema": shell(balls["all"], balls["core"])}
    nested = {"ET": enhancing, "TC": balls["core"], "WT": balls["all"], "Chiasm": balls["in"]}
    for structures in (separate, nested):
        tumour = read_tumour(write(tmp_path / "x.dcm", structures, files), grid, frame_of_reference=FRAME)
        assert np.array_equal(tumour.segmentation.data, labels)
        assert tumour.convention == "brats-2023"
        assert tumour.segmentation.path.name == "x.dcm"
    assert any("not used: Chiasm" in note for note in tumour.notes)


def test_a_gtv_alone_is_enhancing_tumour_and_a_cavity_needs_the_convention_that_has_one(drawn, tmp_path):
    geometry, files, balls, labels = drawn
    grid = geometry.volume(labels)
    gtv = read_tumour(write_rtstruct(tmp_path / "a.dcm", {"GTV": balls["core"]}, files), grid)
    assert np.array_equal(gtv.segmentation.data, 3 * balls["core"].data)
    after = {"GTV": balls["core"], "Cavity": balls["in"]}
    tumour = read_tumour(write_rtstruct(tmp_path / "b.dcm", after, files), grid)
    assert tumour.convention == "brats-2024-post"
    assert np.array_equal(tumour.segmentation.data == 4, balls["in"].data)


def test_segments_without_known_names_keep_their_numbers(drawn, tmp_path):
    geometry, files, balls, labels = drawn
    parts = {"Segment_1": balls["in"], "Segment_2": shell(balls["core"], balls["in"])}
    tumour = read_tumour(write_seg(tmp_path / "s.dcm", parts, files), geometry.volume(labels))
    assert tumour.convention is None
    expected = parts["Segment_1"].data + 2 * parts["Segment_2"].data
    assert np.array_equal(tumour.segmentation.data, expected)


def test_what_is_no_tumour_on_these_images_is_refused(drawn, tmp_path):
    geometry, files, balls, labels = drawn
    grid = geometry.volume(labels)
    organs = write_rtstruct(tmp_path / "o.dcm", {"Brainstem": balls["in"]}, files)
    with pytest.raises(LabelError, match="No structure is named") as caught:
        read_tumour(organs, grid)
    assert "Brainstem" in str(caught.value)
    for write in (write_seg, write_rtstruct):
        with pytest.raises(GeometryError, match="another coordinate system"):
            read_tumour(
                write(tmp_path / "g.dcm", {"GTV": balls["in"]}, files), grid, frame_of_reference="1.2"
            )
    with pytest.raises(ImageFileError, match="no segmentation"):
        read_tumour(files[0], grid)
