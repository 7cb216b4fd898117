"""Series to volumes: every voxel at its place in the world, and what is no volume refused by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import GEOMETRIES, SHAPE, make_affine, ramp, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gliodil.data.dicom.geometry import POSITION_TOLERANCE_MM
from gliodil.data.dicom.scan import find_series, scan_folder
from gliodil.data.dicom.series import Series
from gliodil.errors import GeometryError, ImageFileError, InputError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def only(folder: Path) -> Series:
    (series,) = find_series(folder)
    return series


def place(path: Path, column: int, row: int) -> np.ndarray:
    """World position (RAS) of a pixel, from the header alone (DICOM PS3.3 C.7.6.2.1.1)."""
    header = pydicom.dcmread(path)
    cosines, spacing = np.array(header.ImageOrientationPatient, float), np.array(header.PixelSpacing, float)
    lps = np.array(header.ImagePositionPatient, float)
    lps = lps + cosines[:3] * spacing[1] * column + cosines[3:] * spacing[0] * row
    return lps * (-1, -1, 1)


@pytest.mark.parametrize("enhanced", [False, True], ids=["files", "multi-frame"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_voxel_lands_where_the_header_has_it(tmp_path: Path, geometry: str, enhanced: bool) -> None:
    written = write_series(tmp_path, affine=GEOMETRIES[geometry], enhanced=enhanced)
    series = only(tmp_path)
    volume = series.volume()
    assert not volume.is_loaded
    assert series.shape == volume.shape == SHAPE
    np.testing.assert_array_equal(volume.data, ramp())
    # Probes at the corners and inside: index -> world -> index of the grid that was written.
    probes = np.array([(0, 0, 0), (13, 0, 0), (0, 10, 0), (0, 0, 5), (13, 10, 5), (4, 7, 2)])
    world = volume.to_world(probes)
    truth = np.linalg.inv(GEOMETRIES[geometry])
    np.testing.assert_allclose(world @ truth[:3, :3].T + truth[:3, 3], probes, atol=1e-4)
    if not enhanced:
        assert series.files == tuple(written)
        for (i, j, k), point in zip(probes, world, strict=True):
            np.testing.assert_allclose(place(series.files[k], i, j), point, atol=1e-4)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_agrees_with_an_independent_reader(tmp_path: Path, geometry: str) -> None:
    highdicom = pytest.importorskip("highdicom")
    write_series(tmp_path, affine=GEOMETRIES[geometry], RescaleSlope=2, RescaleIntercept=-7)
    theirs = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in tmp_path.iterdir()])
    ours = only(tmp_path).volume()
    index = np.stack(np.meshgrid(*map(np.arange, theirs.array.shape), indexing="ij"), -1).reshape(-1, 3)
    world = (index @ theirs.affine[:3, :3].T + theirs.affine[:3, 3]) * (-1, -1, 1)
    found = ours.to_index(world)
    np.testing.assert_allclose(found, np.rint(found), atol=1e-4)
    i, j, k = np.rint(found).astype(int).T
    np.testing.assert_array_equal(ours.data[i, j, k], theirs.array.ravel())


direction = st.floats(-1, 1)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(direction, direction, direction),
    st.tuples(direction, direction, direction),
    st.tuples(*[st.floats(0.3, 6)] * 3),
)
def test_any_orientation(
    tmp_path_factory: pytest.TempPathFactory, r: tuple, c: tuple, spacing: tuple
) -> None:
    if np.linalg.norm(np.cross(r, c)) < 0.05 or np.linalg.norm(r) < 0.05:
        r, c = (1, 0, 0), (0, 1, 0)
    folder, affine = tmp_path_factory.mktemp("any"), make_affine(r, c, spacing)
    write_series(folder, affine=affine)
    volume = only(folder).volume()
    ends = np.array([(0, 0, 0), (13, 10, 5)])
    truth = ends @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(volume.to_world(ends), truth, atol=1e-4 * min(spacing))
    np.testing.assert_array_equal(volume.data, ramp())


def test_slope_and_intercept_of_each_slice(tmp_path: Path) -> None:
    def scale(dataset: Dataset, k: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 + k, -3

    write_series(tmp_path, edit=scale)
    data = only(tmp_path).volume().data
    assert data.dtype == np.float32
    np.testing.assert_allclose(data, ramp() * (0.5 + np.arange(6)) - 3)


def test_rounded_positions_are_tolerated(tmp_path: Path) -> None:
    def jitter(dataset: Dataset, k: int) -> None:
        noise = (-1) ** k * 0.4 * POSITION_TOLERANCE_MM
        dataset.ImagePositionPatient = [round(v, 3) + noise for v in dataset.ImagePositionPatient]
        dataset.ImageOrientationPatient = [round(v, 5) for v in dataset.ImageOrientationPatient]

    write_series(tmp_path, affine=GEOMETRIES["oblique"], edit=jitter)
    index = [(13, 10, 5), (0, 0, 3)]
    world = only(tmp_path).volume().to_world(index)
    truth = np.array(index) @ GEOMETRIES["oblique"][:3, :3].T + GEOMETRIES["oblique"][:3, 3]
    np.testing.assert_allclose(world, truth, atol=2 * POSITION_TOLERANCE_MM)


def _copy(folder: Path) -> None:
    paths = write_series(folder)
    (folder / "copy.dcm").write_bytes(paths[2].read_bytes())


def _gap(folder: Path) -> None:
    write_series(folder)[3].unlink()


def _shear(folder: Path) -> None:
    affine = GEOMETRIES["axial"].copy()
    affine[1, 2] = 0.4
    write_series(folder, affine=affine)


def _sizes(folder: Path) -> None:
    write_series(folder, ramp((9, 11, 4)), SeriesInstanceUID="1.2.3", names="A{}.dcm")
    write_series(folder, SeriesInstanceUID="1.2.3")


def _edited(change: Callable[[Dataset], None]) -> Callable[[Path], None]:
    def edit(dataset: Dataset, k: int) -> None:
        if k == 2:
            change(dataset)

    return lambda folder: write_series(folder, edit=edit)  # type: ignore[return-value]


def _turned(dataset: Dataset) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 0.9998476952, 0.0174524064]


def _shifted(dataset: Dataset) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y, float(z) + 0.6]


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (_copy, "several images at one position"),
        (_gap, "gaps"),
        (_shear, "sheared"),
        (_sizes, "mixes"),
        (_edited(_turned), "mixes"),
        (_edited(lambda d: setattr(d, "PixelSpacing", [1, 1.1])), "mixes"),
        (_edited(lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3.4")), "mixes"),
        (_edited(_shifted), "unequal distances"),
        (_edited(lambda d: delattr(d, "ImagePositionPatient")), "incomplete"),
        (_edited(lambda d: delattr(d, "PixelSpacing")), "incomplete"),
        (_edited(lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0])), "incomplete"),
        (_edited(lambda d: setattr(d, "RescaleSlope", 0)), "incomplete"),
        (lambda folder: write_series(folder, ramp((14, 11, 1))), "single slice"),
        (lambda folder: write_series(folder, enhanced=True, PerFrameFunctionalGroupsSequence=None,
                                     edit=lambda d, _: delattr(d, "PerFrameFunctionalGroupsSequence")), "incomplete"),
    ],
    ids=["copy", "gap", "shear", "sizes", "turned", "spacing", "reference", "shifted", "position", "pixels",
         "cosines", "slope", "single", "frames"],
)  # fmt: skip
def test_what_is_no_volume_is_refused_by_name(
    tmp_path: Path, write: Callable[[Path], None], says: str
) -> None:
    write(tmp_path / "s")
    series = only(tmp_path)
    for use in (series.volume, lambda: series.affine, lambda: series.shape):
        with pytest.raises(GeometryError, match='eries 1 "t1 mprage"') as raised:
            use()
    message = str(raised.value)
    assert says in raised.value.problem
    assert all(word in message for word in ("expected:", "found:", "remedy:"))


def test_a_tilted_gantry_stays_in_the_affine(tmp_path: Path) -> None:
    tilt = np.radians(-18.5)
    affine = make_affine((1, 0, 0), (0, np.cos(tilt), np.sin(tilt)), (1.0, 1.2, 1.0))
    affine[:3, 2] = 0, 0, 2.5  # the table moves along z, whatever the gantry does
    write_series(tmp_path, affine=affine, modality="CT", description="head")
    series = only(tmp_path)
    assert (series.role, series.problem) == ("ct", None)
    volume = series.volume()
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    np.testing.assert_array_equal(volume.data, ramp())
    for k in (0, 3, 5):
        np.testing.assert_allclose(volume.to_world((4, 7, k)), place(series.files[k], 4, 7), atol=1e-4)


def test_unequal_slice_distances_are_no_gap(tmp_path: Path) -> None:
    heights = np.cumsum([0, 1.1, 7.0, 2.5, 2.5, 2.5])

    def uneven(dataset: Dataset, k: int) -> None:
        x, y, _ = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, float(heights[k])]

    write_series(tmp_path, modality="CT", edit=uneven)
    with pytest.raises(GeometryError, match="unequal distances"):
        only(tmp_path).volume()


def test_a_scout_filed_with_its_series_is_no_part_of_it(tmp_path: Path) -> None:
    write_series(tmp_path, modality="CT", SeriesInstanceUID="1.2.3", description="head")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3"}
    write_series(tmp_path, ramp((30, 40, 2)), GEOMETRIES["sagittal"], modality="CT", names="S{}", **scout)
    head = [series for series in find_series(tmp_path) if series.role == "ct"]
    assert [series.shape for series in head] == [SHAPE]


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _annexed(path: Path) -> None:
    path.unlink()
    path.symlink_to(".git/annex/objects/x")


@pytest.mark.parametrize("spoil", [_empty, _torn, _annexed])
def test_half_a_series_is_not_a_series(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    for path in write_series(tmp_path, names="IM{:04d}")[3:]:
        spoil(path)
    scan = scan_folder(tmp_path)
    (series,) = scan.series
    assert len(scan.unread) == 3
    with pytest.raises(ImageFileError, match=r"Part of series 1 .* cannot be read") as raised:
        series.volume()
    assert "3 files that can be read, beside them 3 that cannot" in str(raised.value)


def test_what_cannot_be_read_elsewhere_does_not_spoil_a_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    (tmp_path / "a/README").write_bytes(b"")
    (tmp_path / "a/DICOMDIR").write_bytes(bytes(128) + b"DICMjunk")
    _annexed(write_series(tmp_path / "b", number=2)[0])
    first, second = find_series(tmp_path)
    assert first.problem is None
    assert second.problem is not None


def test_without_preamble_and_meta_header(tmp_path: Path) -> None:
    for implicit in (True, False):
        folder = tmp_path / str(implicit)
        for path in write_series(folder):
            _bare(path, implicit=implicit)
        np.testing.assert_array_equal(only(folder).volume().data, ramp())


def _bare(path: Path, *, implicit: bool) -> None:
    data = pydicom.dcmread(path)
    data.file_meta.clear()
    data.preamble = None
    pydicom.dcmwrite(path, data, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM"


def test_clutter_is_passed_over_and_links_are_followed(tmp_path: Path) -> None:
    write_series(tmp_path / "elsewhere")
    patient = tmp_path / "patient"
    for name in ("__MACOSX", "@eaDir", ".git/annex/objects"):
        write_series(patient / name, number=9)
    (patient / "t1").symlink_to(tmp_path / "elsewhere")
    (patient / "t1/._IM0000.dcm").write_bytes(b"\0\5\x16\7" + bytes(200))
    (patient / "round").symlink_to(patient)
    scan = scan_folder(patient)
    assert [len(series.files) for series in scan.series] == [6]
    assert not scan.unread


def test_the_gap_is_described(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    paths[2].unlink(), paths[3].unlink()
    with pytest.raises(GeometryError) as raised:
        only(tmp_path).volume()
    assert raised.value.expected == "a slice every 3 mm"
    assert raised.value.found == "4 slices; about 2 missing, the first 3 mm from the first slice"


def test_two_echoes_are_two_stacks(tmp_path: Path) -> None:
    for echo, names in ((2.5, "A{}"), (80.0, "B{}")):
        array = ramp() + int(echo)
        write_series(tmp_path, array, SeriesInstanceUID="1.2.3", EchoTime=echo, names=names)
    first, second = find_series(tmp_path)
    assert {first.description, second.description} == {
        "t1 mprage (echo time 2.5)",
        "t1 mprage (echo time 80.0)",
    }
    for series in (first, second):
        offset = 2 if "2.5" in series.description else 80
        np.testing.assert_array_equal(series.volume().data, ramp() + offset)


def test_a_localizer_is_three_stacks_without_a_role(tmp_path: Path) -> None:
    for view in ("axial", "sagittal", "coronal"):
        names = view + "{}"
        write_series(
            tmp_path,
            ramp((14, 14, 3)),
            GEOMETRIES[view],
            SeriesInstanceUID="1.2",
            names=names,
            description="localizer",
        )
    found = find_series(tmp_path)
    assert sorted(s.description for s in found) == [
        f"localizer ({v} planes)" for v in ("axial", "coronal", "sagittal")
    ]
    assert all(series.role is None and series.problem is None for series in found)


def test_a_folder_of_many_things(tmp_path: Path) -> None:
    write_series(tmp_path / "DICOM" / "0001", names="{:08d}", number=7, description="t2 tse")
    write_series(tmp_path / "DICOM" / "0002", number=3, GEOMETRIES=None, description="flair")
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "DICOM" / "empty").write_bytes(b"")
    write_series(
        tmp_path / "sr", ramp((14, 11, 2)), modality="MR", description="report", Modality="SR", Rows=None
    )
    scan = scan_folder(tmp_path)
    assert [(s.number, s.role, len(s.files)) for s in scan.series] == [(3, "flair", 6), (7, "t2", 6)]
    assert (scan.skipped, scan.other) == (2, 2)
    assert scan_folder(tmp_path, deep=False).series == ()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        find_series(tmp_path / "none")


def test_series_and_volumes_go_to_other_processes(tmp_path: Path) -> None:
    write_series(tmp_path)
    series, volume = pickle.loads(pickle.dumps((only(tmp_path), only(tmp_path).volume())))
    np.testing.assert_array_equal(series.volume().data, ramp())
    np.testing.assert_array_equal(volume.data, ramp())


def test_missing_pixels(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-40])
    volume = only(tmp_path).volume()
    with pytest.raises(ImageFileError, match="cannot be read") as raised:
        volume.data  # noqa: B018
    assert raised.value.file == paths[1]


def test_headers_are_complete_and_have_no_pixels(tmp_path: Path) -> None:
    write_series(tmp_path)
    series = only(tmp_path)
    assert [str(h.PatientName) for h in series.headers] == ["Plantedname^Quirin"] * 6
    assert not any("PixelData" in header for header in series.headers)
    heights = [float(header.ImagePositionPatient[2]) for header in series.headers]
    assert heights == sorted(heights)


@pytest.mark.parametrize(
    ("folder", "role", "shape", "spacing"),
    [
        ("t1_slab32", "t1", (274, 384, 32), (0.699988, 0.666667, 0.666667)),
        ("vendors/tests/data/ge", "t1", (256, 256, 4), (1, 1, 1)),
        ("vendors/tests/data/philips", "flair", (240, 240, 4), (1.041667, 1.041667, 0.6)),
        ("vendors/tests/data/siemens", "flair", (256, 256, 4), (1, 1, 1)),
    ],
)
def test_series_of_real_scanners(
    shared_data: Path, folder: str, role: str, shape: tuple, spacing: tuple
) -> None:
    series = only(shared_data / "dicom_mr" / folder)
    volume = series.volume()
    assert (series.role, volume.shape) == (role, shape)
    np.testing.assert_allclose(volume.spacing, spacing, rtol=1e-5)
    for k in (0, shape[2] // 2, shape[2] - 1):
        pixels = pydicom.dcmread(series.files[k]).pixel_array
        for i, j in ((0, 0), (shape[0] - 1, 0), (0, shape[1] - 1), (shape[0] // 2, shape[1] // 3)):
            # To 1e-4 voxel, or to what the header's digits are worth (6 at 160 mm).
            np.testing.assert_allclose(volume.to_world((i, j, k)), place(series.files[k], i, j), atol=1e-4)
            assert volume.data[i, j, k] == pixels[j, i]


@pytest.mark.parametrize("lost", [(0, 1), (2, 3), (4, 5), ()], ids=["first", "middle", "last", "none"])
def test_half_a_series_is_told_by_its_dicomdir(tmp_path: Path, lost: tuple[int, ...]) -> None:
    from pydicom.fileset import FileSet

    files = FileSet()
    for path in write_series(tmp_path / "from", StudyID="1", StudyTime="101112", InstanceNumber=None,
                             edit=lambda d, k: setattr(d, "InstanceNumber", k + 1)):  # fmt: skip
        files.add(path)
    files.write(tmp_path / "medium")
    copied = sorted(path for path in (tmp_path / "medium").rglob("*") if path.is_file())
    images = [path for path in copied if path.name != "DICOMDIR"]
    by_slice = sorted(images, key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))
    for k in lost:
        by_slice[k].unlink()
    series = only(tmp_path / "medium")
    if not lost:
        assert series.shape == SHAPE
        return
    with pytest.raises(InputError, match=r"cannot be read|gaps"):
        series.volume()
