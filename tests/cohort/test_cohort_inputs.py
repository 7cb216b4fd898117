"""What makes a cohort: folders and tables to rows, and what is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gliodil.cohort.inputs import find_rows
from gliodil.errors import InputError


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "cohort.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_folder_but_hidden_ones_and_the_output_is_a_patient(tmp_path):
    for name in ("b", "a", ".hidden", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    rows = find_rows(tmp_path, tmp_path / "results", labels="brats-2023")
    assert [(row.identity, row.place, row.labels) for row in rows] == [
        ("a", "a", "brats-2023"),
        ("b", "b", "brats-2023"),
    ]
    assert rows[0].folder == tmp_path / "a"


def test_a_table_names_files_relative_to_itself(tmp_path):
    path = table(
        tmp_path,
        "patient_id\tseg\twm\tgm\tpet\tlabel_convention",
        "002\timages/s.nii.gz\tw.nii\tg.nii\tn/a\tbrats-2023",
        "001\ts.nii.gz\tw.nii\tg.nii\tp.nii\t",
    )
    first, second = find_rows(path, tmp_path / "out", labels="decathlon")
    assert (first.identity, first.labels) == ("001", "decathlon")
    assert first.files["pet"] == tmp_path / "p.nii"
    assert (second.identity, second.labels) == ("002", "brats-2023")
    assert second.files == {
        "seg": tmp_path / "images/s.nii.gz",
        "wm": tmp_path / "w.nii",
        "gm": tmp_path / "g.nii",
    }


def test_a_table_can_name_folders_and_single_files_in_them(tmp_path):
    path = table(tmp_path, "patient_id\tfolder\tseg", "1\tone\tone/better.nii.gz")
    (row,) = find_rows(path, tmp_path / "out")
    assert row.folder == tmp_path / "one"
    assert row.files == {"seg": tmp_path / "one/better.nii.gz"}


def test_what_is_wrong_with_one_row_is_that_rows_error(tmp_path):
    path = table(tmp_path, "patient_id\tseg", "1\t", "2\ts.nii\textra", "3\ts.nii")
    first, second, third = find_rows(path, tmp_path / "out")
    assert "names no images" in str(first.problem)
    assert "more cells" in str(second.problem)
    assert third.problem is None


def test_bad_names_are_those_patients_failures(tmp_path):
    lines = (
        "patient_id\tfolder",
        "../1\tx",
        "\tx",
        "A\tx",
        "a\tx",
        "good\tx",
        "C d\tx",
        "nul\tp\0q",
        '"q\tx',
    )
    rows = {row.identity: row for row in find_rows(table(tmp_path, *lines), tmp_path / "out")}
    problems = {name: row.problem.problem for name, row in rows.items() if row.problem}
    assert {problem.split(".")[0] for problem in problems.values()} == {
        "The row does not name its patient",
        "A patient is named twice",
        "The row holds characters that no path has",
    }
    assert set(rows) - set(problems) == {"good", "C_d", "q"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_tables_of_any_usual_encoding_and_line_end(tmp_path, encoding):
    path = tmp_path / "t.tsv"
    path.write_bytes("patient_id\tfolder\r\nÄnne B\tpats\\Änne\r\n".encode(encoding))
    (tmp_path / "pats/Änne").mkdir(parents=True)
    (row,) = find_rows(path, tmp_path / "out")
    assert (row.identity, row.named, row.folder) == ("Anne_B", "Änne B", tmp_path / "pats/Änne")


ODD = (
    "patient 02",
    "Müller",
    "小东",
    "a[1]",
    "a{1}*",
    "-rf",
    "two\nlines",
    "p1",
    "P1 ",
    "x" * 200,
    "._p1",
    "@eaDir",
    "__MACOSX",
)


def test_folders_of_any_name_are_patients_and_clutter_is_none(tmp_path):
    for name in ODD:
        (tmp_path / "in" / name).mkdir(parents=True)
    os.symlink("/nowhere/p9", tmp_path / "in/p9")
    rows = find_rows(tmp_path / "in", tmp_path / "out")
    assert {row.folder.name for row in rows} == {*ODD[:-3], "p9"}
    assert len({row.identity.lower() for row in rows}) == len(rows)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", row.identity) for row in rows)
    assert [row.identity for row in rows if row.problem] == ["p9"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["patient_id\tt3", "1\tx"], "unknown columns t3"),
        (["patient_id,seg", "1,x"], "unknown columns"),
        (["seg", "x"], "patient table"),
        (["patient_id\tseg"], "no rows"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_as_a_whole(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        find_rows(table(tmp_path, *lines), tmp_path / "out")


def test_only_chooses_by_name_and_refuses_names_that_are_not_there(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    rows = find_rows(tmp_path, tmp_path / "out", only=["c", "a"])
    assert [row.identity for row in rows] == ["a", "c"]
    with pytest.raises(InputError, match="no such patient"):
        find_rows(tmp_path, tmp_path / "out", only=["a", "d"])


def test_a_folder_of_one_patient_and_an_empty_one_are_no_cohort(tmp_path):
    with pytest.raises(InputError, match="no patient folders"):
        find_rows(tmp_path, tmp_path / "out")
    (tmp_path / "seg.nii.gz").touch()
    with pytest.raises(InputError, match="gliodil plan"):
        find_rows(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        find_rows(tmp_path / "nowhere", tmp_path / "out")
