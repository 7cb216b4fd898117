"""Segmentations as NIfTI, DICOM SEG and RTSTRUCT give the same patient, on the grid they were drawn on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from gliodil.data import Volume, load_patient, write_nifti
from gliodil.data.dicom.compartments import compartment_of
from gliodil.data.dicom.scan import find_series
from gliodil.errors import GeometryError, ImageFileError, InputError, LabelError

rtstruct = pytest.importorskip("gliodil.data.dicom.rtstruct")
seg = pytest.importorskip("gliodil.data.dicom.seg")


@pytest.mark.parametrize(
    ("name", "compartment"),
    [
        ("GTV", "core"),
        ("GTV_T1c", "core"),
        ("Tumor Core", "core"),
        ("Enhancing tumour", "enhancing"),
        ("ET", "enhancing"),
        ("Non-enhancing tumour", "necrotic"),
        ("NCR", "necrotic"),
        ("GTV necrosis", "necrotic"),
        ("Peritumoral Edema", "oedema"),
        ("whole tumor", "oedema"),
        ("FLAIR hyperintensity", "oedema"),
        ("Resection cavity", "cavity"),
        ("CTV_60", None),
        ("PTV GTV+20", None),
        ("Brainstem", None),
        ("Optic chiasm", None),
    ],
)
def test_names_of_compartments(name: str, compartment: str | None) -> None:
    assert compartment_of(name) == compartment


@pytest.fixture
def scanned(tmp_path: Path, head: dict[str, Volume]) -> Path:
    """Two contrasts on grids of their own, without a segmentation."""
    folder = tmp_path / "patient_007"
    write_series(folder / "t1c", 10 * head["t1c"].data, head["t1c"].affine, description="t1 +c", number=1)
    thick = head["t1c"].affine @ np.diag([1, 1, 2, 1])
    write_series(folder / "t2", head["t1c"].data[:, :, ::2], thick, description="t2", number=2)
    return folder


def masks(head: Mapping[str, Volume]) -> dict[str, Volume]:
    """The layers of the tumour as a clinic draws them: each contains the next."""
    labels = head["seg"].data
    layers = {"Oedema": (1, 2, 4), "GTV": (1, 4), "Necrosis": (1,)}
    drawn = {name: head["seg"].with_data(np.isin(labels, values)) for name, values in layers.items()}
    return drawn | {"Brain": head["brain"]}


def expected(labels: np.ndarray) -> np.ndarray:
    """Labels of brats-2017 as those of brats-2024-post."""
    return np.where(labels == 4, 3, labels)


def draw(kind: str, path: Path, structures: Mapping[str, Volume], series: Path) -> Path:
    write = rtstruct.write_rtstruct if kind == "rtstruct" else seg.write_seg
    (one,) = find_series(series)
    data = pydicom.dcmread(write(path, structures, one.files))
    data.Manufacturer = "another"  # results of our own are not read again
    data.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
@pytest.mark.parametrize("inside", [True, False], ids=["in the folder", "named"])
def test_drawn_compartments(scanned: Path, head: Mapping[str, Volume], kind: str, inside: bool) -> None:
    path = (scanned if inside else scanned.parent) / f"{kind}.dcm"
    draw(kind, path, masks(head), scanned / "t1c")
    patient = load_patient(scanned, files={} if inside else {"seg": path})
    assert patient.convention.name == "brats-2024-post"
    assert patient.segmentation.same_grid(head["seg"])
    np.testing.assert_array_equal(patient.segmentation.data, expected(head["seg"].data))
    assert patient.volumes["t2"].same_grid(head["seg"])
    note = f"{kind}.dcm: read Oedema as oedema, GTV as core, Necrosis as necrotic; not used: Brain"
    assert note in patient.warnings


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_drawn_on_another_series_than_the_reference(
    scanned: Path, head: Mapping[str, Volume], kind: str
) -> None:
    draw(kind, scanned / "s.dcm", masks(head), scanned / "t2")
    patient = load_patient(scanned)
    assert patient.shape == (40, 44, 18)
    np.testing.assert_array_equal(patient.segmentation.data, expected(head["seg"].data[:, :, ::2]))


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
def test_exported_plans_are_no_input(scanned: Path, head: Mapping[str, Volume], kind: str) -> None:
    path = draw(kind, scanned / "own.dcm", masks(head), scanned / "t1c")
    data = pydicom.dcmread(path)
    data.Manufacturer = "gliodil"
    data.save_as(path)
    with pytest.raises(InputError, match="segmentation is missing"):
        load_patient(scanned)
    write_nifti(head["seg"], scanned / "seg.nii.gz")
    assert any("made by gliodil" in warning for warning in load_patient(scanned).warnings)


def test_a_segmentation_in_a_folder_of_its_own(scanned: Path, head: Mapping[str, Volume]) -> None:
    folder = scanned.parent / "contours"
    folder.mkdir()
    with pytest.raises(InputError, match="no segmentation"):
        load_patient(scanned, files={"seg": folder})
    draw("rtstruct", folder / "RS0001", masks(head), scanned / "t1c")
    assert load_patient(scanned, files={"seg": folder}).files["seg"].name == "RS0001"


def test_a_convention_turns_segment_numbers_into_labels(scanned: Path, head: Mapping[str, Volume]) -> None:
    labels = head["seg"].data
    parts = {f"Segment {n}": head["seg"].with_data(labels == value) for n, value in ((1, 1), (2, 2), (3, 4))}
    draw("seg", scanned / "s.dcm", parts, scanned / "t1c")
    patient = load_patient(scanned, labels="brats-2023")
    assert patient.convention.name == "brats-2023"
    np.testing.assert_array_equal(patient.segmentation.data, expected(labels))


def test_a_recurrence_as_seg(scanned: Path, head: Mapping[str, Volume]) -> None:
    write_nifti(head["seg"], scanned / "seg.nii.gz")
    path = draw("seg", scanned.parent / "later.dcm", {"Relapse": head["recurrence"]}, scanned / "t1c")
    patient = load_patient(scanned, files={"recurrence": path})
    assert patient.recurrence is not None
    np.testing.assert_array_equal(patient.recurrence.data != 0, head["recurrence"].data != 0)


def test_structures_that_cannot_be_used(scanned: Path, head: Mapping[str, Volume]) -> None:
    drawn = masks(head)
    draw("rtstruct", scanned / "a.dcm", {"CTV": drawn["GTV"]}, scanned / "t1c")
    with pytest.raises(LabelError, match="tumour core") as raised:
        load_patient(scanned)
    assert raised.value.found == "CTV"
    draw("seg", scanned / "b.dcm", drawn, scanned / "t1c")
    with pytest.raises(InputError, match="Several segmentations") as several:
        load_patient(scanned)
    assert "a.dcm" in str(several.value)
    assert "--seg PATH" in str(several.value)
    other = scanned.parent / "other"
    write_series(other, head["t1c"].data, head["t1c"].affine, description="t1", frame_of_reference="1.2.9")
    path = draw("rtstruct", scanned.parent / "c.dcm", drawn, other)
    with pytest.raises(GeometryError, match="none of the series"):
        load_patient(scanned, files={"seg": path})
    with pytest.raises(ImageFileError, match="no segmentation"):
        load_patient(scanned, files={"seg": scanned / "t1c" / "IM0001.dcm"})


def test_structures_without_any_image(tmp_path: Path, scanned: Path, head: Mapping[str, Volume]) -> None:
    path = draw("rtstruct", tmp_path / "a.dcm", masks(head), scanned / "t1c")
    with pytest.raises(GeometryError, match="needs the images"):
        load_patient(files={"seg": path})
    image = write_nifti(head["t1c"], tmp_path / "t1c.nii.gz")
    patient = load_patient(files={"seg": path, "t1c": image})
    np.testing.assert_array_equal(patient.segmentation.data, expected(head["seg"].data))


@pytest.mark.parametrize(
    ("name", "compartment"),
    [
        ("GTV_Oedem", "oedema"),
        ("GTV_Ödem", "oedema"),
        ("œdème péritumoral", "oedema"),
        ("Edema", "oedema"),
        ("Tumeur", "core"),
        ("tumore", "core"),
        ("Läsion 1", "core"),
        ("Nekrose", "necrotic"),
        ("nécrose", "necrotic"),
        ("Tumorhöhle", "cavity"),
        ("Resektionshöhle", "cavity"),
        ("Tumor Bed", "cavity"),
        ("lit tumoral", "cavity"),
        ("KM-Aufnahme", "enhancing"),
        ("GTV+10mm", None),
        ("GTV 1 cm", None),
        ("NonTumor", None),
        ("non tumor brain tissue", None),
        ("kein Tumor", None),
        ("GTV_old", None),
        ("Gehirn", None),
        ("Tumorists", None),
        ("", None),
    ],
)
def test_names_are_read_as_words_in_several_languages(name: str, compartment: str | None) -> None:
    assert compartment_of(name) == compartment


def changed(path: Path, edit: Callable[[pydicom.Dataset], None]) -> None:
    data = pydicom.dcmread(path)
    edit(data)
    data.save_as(path)


def contours(data: pydicom.Dataset, name: str) -> pydicom.Dataset:
    """The item of a structure's contours."""
    (number,) = [roi.ROINumber for roi in data.StructureSetROISequence if roi.ROIName == name]
    (item,) = [entry for entry in data.ROIContourSequence if entry.ReferencedROINumber == number]
    return item


def height(contour: pydicom.Dataset) -> float:
    return float(contour.ContourData[2])


def test_contours_stored_twice_are_one(scanned: Path, head: Mapping[str, Volume]) -> None:
    path = draw("rtstruct", scanned / "s.dcm", masks(head), scanned / "t1c")

    def twice(data: pydicom.Dataset) -> None:
        item = contours(data, "GTV")
        item.ContourSequence = [*item.ContourSequence, *deepcopy(list(item.ContourSequence))]

    changed(path, twice)
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, expected(head["seg"].data))


@pytest.mark.parametrize("kind", ["one slice", "no points"])
def test_a_slice_without_contour_is_interpolated_and_said(
    scanned: Path, head: Mapping[str, Volume], kind: str
) -> None:
    path = draw("rtstruct", scanned / "s.dcm", masks(head), scanned / "t1c")

    def lose(data: pydicom.Dataset) -> None:
        item = contours(data, "Oedema")
        heights = sorted({height(contour) for contour in item.ContourSequence})
        middle = heights[len(heights) // 2]
        if kind == "one slice":
            item.ContourSequence = [c for c in item.ContourSequence if height(c) != middle]
        else:
            for contour in item.ContourSequence:
                if height(contour) == middle:
                    contour.ContourData = None

    changed(path, lose)
    patient = load_patient(scanned)
    whole = expected(head["seg"].data) != 0
    found = patient.segmentation.data != 0
    assert np.count_nonzero(whole != found) < 0.01 * np.count_nonzero(whole)
    assert any(
        "Oedema has no contour on 1 slices between others" in w and "interpolated" in w
        for w in patient.warnings
    )
    assert (kind == "no points") == any("of Oedema have no points" in w for w in patient.warnings)


def test_two_lesions_one_above_the_other_are_not_joined(scanned: Path, head: Mapping[str, Volume]) -> None:
    drawn = masks(head)
    apart = drawn["GTV"].data.copy()
    slices = np.flatnonzero(apart.any(axis=(0, 1)))
    gone = slices[2:-2]
    assert len(gone) == 4
    apart[:, :, gone] = 0
    drawn["GTV"] = drawn["GTV"].with_data(apart)
    del drawn["Necrosis"]
    draw("rtstruct", scanned / "s.dcm", drawn, scanned / "t1c")
    patient = load_patient(scanned)
    assert not patient.core[:, :, gone].any()
    assert any(f"GTV has no contour on {len(gone)} slices in a row" in w for w in patient.warnings)


def test_an_empty_structure_is_said_and_the_others_are_read(
    scanned: Path, head: Mapping[str, Volume]
) -> None:
    path = draw("rtstruct", scanned / "s.dcm", masks(head), scanned / "t1c")
    changed(path, lambda data: delattr(contours(data, "Necrosis"), "ContourSequence"))
    patient = load_patient(scanned)
    assert any("Necrosis is empty" in w for w in patient.warnings)
    assert patient.core.sum() == np.isin(head["seg"].data, (1, 4)).sum()
    changed(path, lambda data: delattr(contours(data, "GTV"), "ContourSequence"))
    with pytest.raises(LabelError, match="are empty"):
        load_patient(scanned)


def test_a_structure_without_name_is_nobodys(scanned: Path, head: Mapping[str, Volume]) -> None:
    path = draw("rtstruct", scanned / "s.dcm", masks(head), scanned / "t1c")
    changed(path, lambda data: delattr(data.StructureSetROISequence[3], "ROIName"))
    assert any("not used: (no name)" in w for w in load_patient(scanned).warnings)


def test_the_user_says_what_a_structure_is(scanned: Path, head: Mapping[str, Volume]) -> None:
    drawn = {{"GTV": "Boost volume", "Necrosis": "tumor x"}.get(n, n): m for n, m in masks(head).items()}
    draw("rtstruct", scanned / "s.dcm", drawn, scanned / "t1c")
    patient = load_patient(scanned, parts={"Boost volume": "core", "tumor x": "ignore"})
    assert patient.core.sum() == np.isin(head["seg"].data, (1, 4)).sum()
    assert any("Boost volume as core" in w and "not used: tumor x" in w for w in patient.warnings)
    with pytest.raises(InputError, match="no part of a tumour") as refused:
        load_patient(scanned, parts={"Boost volume": "gtv"})
    assert "core" in str(refused.value.expected)


def test_a_core_beside_its_enhancing_part_is_necrotic_in_between(
    scanned: Path, head: Mapping[str, Volume]
) -> None:
    labels = head["seg"].data
    layers = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
    drawn = {name: head["seg"].with_data(np.isin(labels, values)) for name, values in layers.items()}
    draw("rtstruct", scanned / "s.dcm", drawn, scanned / "t1c")
    np.testing.assert_array_equal(load_patient(scanned).segmentation.data, expected(labels))


def test_segments_of_one_meaning_are_one(scanned: Path, head: Mapping[str, Volume]) -> None:
    drawn = masks(head)
    half = drawn["GTV"].data.copy()
    half[: np.flatnonzero(half.any(axis=(1, 2)))[2]] = 0
    rest = drawn["GTV"].data - half
    assert half.any()
    assert rest.any()
    parts = {
        "Oedema": drawn["Oedema"],
        "Tumor": drawn["GTV"].with_data(half),
        "Lesion": drawn["GTV"].with_data(rest),
    }
    path = draw("seg", scanned / "s.dcm", parts, scanned / "t1c")

    def rename(data: pydicom.Dataset) -> None:
        data.SegmentSequence[2].SegmentLabel = "Tumor"

    changed(path, rename)
    assert load_patient(scanned).core.sum() == np.isin(head["seg"].data, (1, 4)).sum()


def test_kinds_of_contour_that_are_odd_are_said(scanned: Path, head: Mapping[str, Volume]) -> None:
    path = draw("rtstruct", scanned / "s.dcm", masks(head), scanned / "t1c")

    def relabel(data: pydicom.Dataset) -> None:
        for contour in contours(data, "GTV").ContourSequence:
            contour.ContourGeometricType = "Interpolated_Planar "
        for contour in contours(data, "Necrosis").ContourSequence:
            contour.ContourGeometricType = "OPEN_NONPLANAR"

    changed(path, relabel)
    patient = load_patient(scanned)
    assert patient.core.sum() == np.isin(head["seg"].data, (1, 4)).sum()
    assert any("of GTV are of the kind INTERPOLATED_PLANAR" in w for w in patient.warnings)
    assert any("OPEN_NONPLANAR" in w and "Necrosis" in w for w in patient.warnings)


def test_the_middle_of_a_rim_inside_a_whole_tumour_is_its_middle(
    scanned: Path, head: Mapping[str, Volume]
) -> None:
    drawn = masks(head)
    rim = drawn["GTV"].with_data((drawn["GTV"].data != 0) & (drawn["Necrosis"].data == 0))
    draw("rtstruct", scanned / "s.dcm", {"Oedema": drawn["Oedema"], "GTV": rim}, scanned / "t1c")
    patient = load_patient(scanned)
    np.testing.assert_array_equal(patient.segmentation.data, expected(head["seg"].data))
    assert any("read as its middle" in warning for warning in patient.warnings)
