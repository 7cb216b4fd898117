"""The gate: what is no file, too large, too deep, or promises more than it holds is refused before it costs anything."""

import gzip
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data import gate
from gliodil.data.nifti import read_nifti
from gliodil.errors import GliodilError, ImageFileError, InputError
from gliodil.planning.rules import get_rule


def small(path: Path) -> Path:
    data = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    image = nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / ".git/annex/objects/x")


def read_rule(path: Path, *, expected: str) -> object:
    """What reads TOML."""
    return get_rule(str(path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (os.mkfifo, "a pipe"),
        (Path.mkdir, "a folder"),
        (dangling, "link to nothing"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: None, "does not exist"),
    ],
    ids=["fifo", "folder", "dangling link", "endless device", "missing"],
)
@pytest.mark.parametrize("read", [gate.read_json, gate.read_text, gate.read_table, read_nifti])
def test_what_is_no_file_is_refused_unopened(
    tmp_path: Path, make: Callable[[Path], None], said: str, read: Callable[..., object]
) -> None:
    path = tmp_path / "input"
    make(path)
    keywords = {"kind": "scalar"} if read is read_nifti else {"expected": "something"}
    with pytest.raises(InputError, match=said) as error:
        read(path, **keywords)
    assert error.value.file == path
    assert error.value.remedy


@pytest.mark.parametrize("name", ["b" * 300, "p\0q"])
def test_impossible_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        gate.read_json(tmp_path / name, expected="JSON")


def test_a_file_above_its_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + "1, " * 100 + "1]")
    assert len(gate.read_json(path, expected="a list")) == 101
    with pytest.raises(InputError, match="too large"):
        gate.read_json(path, expected="a list", largest=100)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (gate.read_json, "[" * 5000 + "]" * 5000),
        (gate.read_json, "[" * 50 + "]" * 50),
        (gate.read_json, '{"a": ' * 20000),
        (gate.read_json, "9" * 5000),
        (gate.read_json, "{"),
        (read_rule, "a = " + "[" * 3000 + "]" * 3000),
        (read_rule, "a = " + "{a=" * 2000 + "1" + "}" * 2000),
        (read_rule, "a" + ".a" * 3000 + " = 1"),
        (read_rule, "a = " + "9" * 5000),
        (gate.read_table, 'a\tb\n"' + "x" * 200_000),
    ],
)
def test_what_parsers_choke_on_is_a_typed_error(
    tmp_path: Path, read: Callable[..., object], text: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"not valid|cannot be read") as error:
        read(path, expected="something else")
    assert error.value.found
    assert len(error.value.found) <= 200


def test_depth_up_to_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * gate.DEEPEST + "]" * gate.DEEPEST)
    assert isinstance(gate.read_json(path, expected="lists"), list)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings_of_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"name": "Müller"}'.encode(encoding))
    assert gate.read_json(path, expected="a name") == {"name": "Müller"}
    path.write_bytes("id\tfolder\r\nA\tMü\r\n\t\r\n".encode(encoding))
    assert gate.read_table(path, expected="a table") == (["id", "folder"], [{"id": "A", "folder": "Mü"}])


def test_binary_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"{}\0\0\0\0\1\2")
    with pytest.raises(InputError, match="cannot be read"):
        gate.read_json(tmp_path / "a", expected="JSON")


def test_no_more_is_unpacked_than_the_header_promises(tmp_path: Path) -> None:
    path = small(tmp_path / "a.nii.gz")
    with path.open("ab") as file:
        for _ in range(2):
            file.write(gzip.compress(bytes(80 << 20), 6))
    tracemalloc.start()
    with pytest.raises(ImageFileError, match="unpacks to over"):
        read_nifti(path, kind="label").data  # noqa: B018
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_a_little_more_than_promised_is_no_harm(tmp_path: Path) -> None:
    path = small(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes() + bytes(1000))
    assert read_nifti(path, kind="label").data.sum() == np.arange(60).sum()


def changed(path: Path, offset: int, value: bytes) -> Path:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (40, struct.pack("<4h", 3, 32767, 32767, 32767)),
        (40, struct.pack("<4h", 3, 600, 600, 600)),
        (40, struct.pack("<4h", 3, -3, 4, 5)),
        (108, struct.pack("<f", 1e9)),
        (108, struct.pack("<f", float("nan"))),
        (70, struct.pack("<h", 1536)),
        (70, struct.pack("<h", 999)),
        (123, b"\x07"),
        (344, b"ni1\0"),
    ],
    ids=["dim", "dim of 216 MB", "dim < 0", "offset", "offset nan", "float128", "type", "unit", "pair"],
)
def test_a_damaged_header_field_is_a_typed_error(tmp_path: Path, offset: int, value: bytes) -> None:
    path = changed(small(tmp_path / "a.nii.gz"), offset, value)
    with pytest.raises(GliodilError) as error:
        read_nifti(path, kind="scalar").data  # noqa: B018
    assert error.value.file == path
    assert error.value.found
    assert error.value.remedy


def test_the_content_tells_whether_a_file_is_compressed(tmp_path: Path) -> None:
    small(tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    small(tmp_path / "b.nii.gz").rename(tmp_path / "b.nii")
    for name in ("a.nii.gz", "b.nii"):
        assert read_nifti(tmp_path / name, kind="label").data[2, 3, 4] == 59


def test_out_of_memory_while_parsing_is_a_typed_error() -> None:
    with pytest.raises(InputError, match="memory"), gate.parsing("It broke.", file="a"):
        raise MemoryError


def test_a_parser_is_not_quoted_where_it_could_name_the_patient() -> None:
    with pytest.raises(InputError) as error, gate.parsing("It broke.", file="a", quote=False):
        raise ValueError("Doe^Jane")
    assert "Doe" not in str(error.value)
    assert error.value.found == "ValueError"
