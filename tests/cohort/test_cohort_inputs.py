"""What makes a cohort: folders and tables to rows, and what is refused."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["patient_id\tt3", "1\tx"], "unknown columns t3"),
        (["patient_id,seg", "1,x"], "unknown columns"),
        (["seg", "x"], "patient table"),
        (["patient_id\tseg"], "no rows"),
        (["patient_id\tseg", "../1\tx"], "name of a folder"),
        (["patient_id\tseg", "\tx"], "name of a folder"),
        (["patient_id\tseg", "A\tx", "a\tx"], "named twice"),
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
