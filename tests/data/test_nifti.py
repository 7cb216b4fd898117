"""NIfTI in and out: header traps, damaged files, deterministic and atomic writing."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data import Volume, read_nifti, write_nifti
from gliodil.errors import GeometryError, ImageFileError, InputError, LabelError, OutputError

AFFINE = np.array([[-1.5, 0, 0, 30], [0, -2, 0.1, 40], [0, 0.1, 2.5, -20], [0, 0, 0, 1.0]])


def image(data: np.ndarray, affine: np.ndarray | None = AFFINE) -> nib.Nifti1Image:
    return nib.Nifti1Image(data, affine)


def ramp(dtype: type = np.float32, shape: tuple[int, ...] = (5, 6, 7)) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("kind", ["scalar", "label"])
def test_round_trip(tmp_path: Path, name: str, kind: str) -> None:
    volume = Volume(ramp(np.float32 if kind == "scalar" else np.int16), AFFINE, kind=kind)
    again = read_nifti(write_nifti(volume, tmp_path / name), kind=kind)
    assert again.same_grid(volume)
    assert again.notes == ()
    assert again.data.flags.c_contiguous
    np.testing.assert_array_equal(again.data, volume.data)


def test_written_header(tmp_path: Path) -> None:
    straight = np.diag([-1.0, -1, 1, 1])
    header = nib.load(
        write_nifti(Volume(ramp() / 300, straight, kind="scalar"), tmp_path / "a.nii.gz")
    ).header
    assert int(header["sform_code"]) > 0
    assert int(header["qform_code"]) > 0
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_data_dtype() == np.float32
    assert float(header["cal_max"]) == pytest.approx(209 / 300)


def test_sheared_grid_is_written_without_a_contradicting_qform(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    path = write_nifti(Volume(ramp(), sheared, kind="scalar"), tmp_path / "a.nii")
    again = read_nifti(path, kind="scalar")
    assert again.notes == ()
    np.testing.assert_allclose(again.affine, sheared)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], np.uint8), ([-1, 1], np.int8), ([-1, 300], np.int16), ([0, 70000], np.int32)],
)
def test_labels_take_the_smallest_type(tmp_path: Path, values: list[int], dtype: type) -> None:
    data = np.resize(values, (2, 2, 2))
    path = write_nifti(Volume(data, np.eye(4), kind="label"), tmp_path / "a.nii")
    assert nib.load(path).get_data_dtype() == dtype
    np.testing.assert_array_equal(read_nifti(path, kind="label").data, data)


def test_types_that_would_lose_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        write_nifti(
            Volume(np.full((2, 2, 2), 300), np.eye(4), kind="label"), tmp_path / "a.nii", dtype=np.uint8
        )
    with pytest.raises(ValueError, match="floats"):
        write_nifti(Volume(np.ones((2, 2, 2)), np.eye(4), kind="scalar"), tmp_path / "a.nii", dtype=np.uint8)
    with pytest.raises(ValueError, match=r"\.nii"):
        write_nifti(Volume(np.ones((2, 2, 2)), np.eye(4), kind="scalar"), tmp_path / "a.mha")
    assert list(tmp_path.iterdir()) == []


def test_equal_content_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = Volume(ramp(), AFFINE, kind="scalar")
    first = write_nifti(volume, tmp_path / "a.nii.gz").read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert write_nifti(volume, tmp_path / "b.nii.gz").read_bytes() == first
    assert first[4:8] == bytes(4)  # the time in the gzip header


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Volume(ramp(), AFFINE, kind="scalar")
    path = write_nifti(volume, tmp_path / "a.nii.gz")
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_nifti(volume.with_data(ramp() + 1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def test_unwritable_places(tmp_path: Path) -> None:
    volume = Volume(ramp(), AFFINE, kind="scalar")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        write_nifti(volume, tmp_path / "file" / "a.nii.gz")
    if os.geteuid() != 0:  # root may write everywhere
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(OutputError, match="could not be written"):
            write_nifti(volume, locked / "a.nii.gz")


def test_reading_is_lazy(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    nib.save(image(ramp()), path)
    volume = read_nifti(path, kind="scalar")
    assert not volume.is_loaded
    assert volume.shape == (5, 6, 7)
    assert volume.path == path
    assert volume.data.max() == 209
    assert volume.is_loaded


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int16, np.uint16, np.float64, np.dtype(">i2"), np.dtype(">f4")]
)
def test_stored_types(tmp_path: Path, dtype: type) -> None:
    data = ramp(dtype)
    nib.save(image(data), tmp_path / "a.nii")
    for kind in ("scalar", "label"):
        read = read_nifti(tmp_path / "a.nii", kind=kind).data
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, data)


def test_int16_with_slope(tmp_path: Path) -> None:
    content = bytearray(image(ramp(np.int16)).to_bytes())
    content[112:120] = np.array([0.004, -0.2], "<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    read = read_nifti(tmp_path / "a.nii", kind="scalar").data
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, ramp() * 0.004 - 0.2, atol=1e-6)


def test_labels_stored_as_floats(tmp_path: Path) -> None:
    labels = (ramp(np.int64) % 5).astype(np.float32)
    nib.save(image(labels), tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii", kind="label").data
    assert np.issubdtype(read.dtype, np.integer)
    np.testing.assert_array_equal(read, labels)
    nib.save(image(labels * 0.7), tmp_path / "b.nii")
    with pytest.raises(LabelError, match="resampled linearly"):
        read_nifti(tmp_path / "b.nii", kind="label").data  # noqa: B018


def test_labels_scaled_by_almost_one(tmp_path: Path) -> None:
    """As some tools store a mask: 32-bit integers and a slope of .99999997."""
    labels = ramp(np.int32) % 2
    content = bytearray(image(labels).to_bytes())
    content[112:120] = np.array([np.nextafter(np.float32(1), np.float32(0)), 0], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii", kind="label").data, labels)


def test_nan_is_counted(tmp_path: Path) -> None:
    data = ramp()
    data[0, 0, :3] = np.nan
    data[1, 1, 1] = np.inf
    nib.save(image(data), tmp_path / "a.nii")
    with pytest.raises(InputError, match="4 of 210") as error:
        read_nifti(tmp_path / "a.nii", kind="scalar").data  # noqa: B018
    assert error.value.remedy
    with pytest.raises(LabelError, match="4 voxels"):
        read_nifti(tmp_path / "a.nii", kind="label").data  # noqa: B018


def test_trailing_singletons_are_dropped(tmp_path: Path) -> None:
    nib.save(image(ramp(shape=(5, 6, 7, 1, 1))), tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii", kind="scalar")
    assert volume.shape == volume.data.shape == (5, 6, 7)


@pytest.mark.parametrize("shape", [(5, 6, 7, 2), (5, 6, 7, 1, 3)])
def test_real_fourth_dimension_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(image(ramp(shape=shape)), tmp_path / "a.nii")
    with pytest.raises(GeometryError, match="dimensions"):
        read_nifti(tmp_path / "a.nii", kind="scalar")


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (1, 6, 7)])
def test_slices_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(image(ramp(shape=shape)), tmp_path / "a.nii")
    with pytest.raises(GeometryError, match="not a volume"):
        read_nifti(tmp_path / "a.nii", kind="scalar")


def with_forms(
    path: Path, sform: tuple[np.ndarray | None, int], qform: tuple[np.ndarray | None, int]
) -> Path:
    picture = image(ramp(), None)
    picture.set_qform(*qform)
    picture.set_sform(*sform)
    nib.save(picture, path)
    return path


A, B = np.diag([-1.0, -1, 2, 1]), np.diag([1.0, 1, 2, 1])


def test_sform_and_qform(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    both = read_nifti(with_forms(path, (A, 2), (A, 1)), kind="scalar")
    assert both.notes == ()
    conflict = read_nifti(with_forms(path, (A, 2), (B, 1)), kind="scalar")
    np.testing.assert_array_equal(conflict.affine, A)
    assert len(conflict.notes) == 1
    assert "sform and qform disagree by up to 12.8 mm" in conflict.notes[0]
    qform = read_nifti(with_forms(path, (A, 0), (B, 1)), kind="scalar")
    np.testing.assert_allclose(qform.affine, B)
    assert qform.notes == ()
    zero = read_nifti(with_forms(path, (np.zeros((4, 4)), 1), (B, 1)), kind="scalar")
    np.testing.assert_allclose(zero.affine, B)
    assert "unusable sform" in zero.notes[0]


@pytest.mark.parametrize("sform", [(A, 0), (np.zeros((4, 4)), 1)], ids=["no codes", "zero sform"])
def test_no_valid_form_is_refused(tmp_path: Path, sform: tuple[np.ndarray, int]) -> None:
    with pytest.raises(GeometryError, match="does not place") as error:
        read_nifti(with_forms(tmp_path / "a.nii", sform, (A, 0)), kind="scalar")
    assert error.value.remedy


def test_float_noise_between_forms_passes(tmp_path: Path) -> None:
    noisy = A + 1e-5
    noisy[3] = A[3]
    assert read_nifti(with_forms(tmp_path / "a.nii", (noisy, 1), (A, 1)), kind="scalar").notes == ()


def test_other_units_are_refused(tmp_path: Path) -> None:
    picture = image(ramp())
    picture.header.set_xyzt_units("micron")
    nib.save(picture, tmp_path / "a.nii")
    with pytest.raises(GeometryError, match="micron"):
        read_nifti(tmp_path / "a.nii", kind="scalar")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", b"not an image at all"),
        ("a.nii.gz", b"not gzip"),
        ("a.nii.gz", gzip.compress(b"text" * 500, mtime=0)),
        ("a.nii", b""),
        ("a.nii.gz", b""),
        ("a.nii", bytes(400)),
    ],
)
def test_not_an_image(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFileError) as error:
        read_nifti(tmp_path / name, kind="scalar")
    assert error.value.file == tmp_path / name
    assert error.value.remedy


def test_other_formats_and_colours_are_refused(tmp_path: Path) -> None:
    nib.save(nib.MGHImage(ramp(), np.eye(4)), tmp_path / "a.mgz")
    with pytest.raises(ImageFileError, match="no NIfTI header"):
        read_nifti(tmp_path / "a.mgz", kind="scalar")
    colours = np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(image(colours), tmp_path / "a.nii")
    with pytest.raises(ImageFileError, match="colours"):
        read_nifti(tmp_path / "a.nii", kind="scalar")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match="does not exist"):
        read_nifti(tmp_path / "a.nii", kind="scalar")
    with pytest.raises(ImageFileError, match="folder"):
        read_nifti(tmp_path, kind="scalar")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_files(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    path = tmp_path / name
    nib.save(image(noise), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(ImageFileError, match=r"damaged|promised"):
        read_nifti(path, kind="scalar").data  # noqa: B018


def test_corrupt_gzip(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    path = tmp_path / "a.nii.gz"
    nib.save(image(noise), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match="damaged"):
        read_nifti(path, kind="scalar").data  # noqa: B018
