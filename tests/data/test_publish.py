"""Folders of results are exchanged as one, whoever is killed, whatever fails, and nothing of anybody's is lost."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gliodil.data import exchange, place
from gliodil.data.manifest import MANIFEST_FILE, Owner, read_manifest, verified
from gliodil.data.ownership import keep_apart
from gliodil.data.publish import output_folder
from gliodil.errors import BusyError, InputError, OutputError

A, B = Owner("plan", "a", "1", "x"), Owner("plan", "b", "2", "y")


def write(out: Path, owner: Owner = A, *, overwrite: bool = False, text: str = "", also: str = "") -> None:
    with output_folder(out) as output:
        output.claim(owner, overwrite=overwrite)
        with output.new() as folder:
            (folder / "figures").mkdir()
            for name in ("density.nii.gz", "figures/plans.png", "metrics.json", *([also] if also else [])):
                (folder / name).write_text(f"{name} of {owner.patient} {text}")


def revise(out: Path, files: Mapping[str, str]) -> None:
    with output_folder(out) as output, output.revised() as folder:
        for name, text in files.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).write_text(text)


def write_part(out: Path, files: Mapping[str, str]) -> None:
    with output_folder(out) as output, output.part("cohort") as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def is_whole(folder: Path) -> bool:
    manifest = read_manifest(folder)
    assert manifest is not None
    return not manifest.damage(folder) and set(manifest.files) | {MANIFEST_FILE} == set(contents(folder))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The result of patient a."""
    write(tmp_path / "out")
    return tmp_path / "out"


def test_a_result_lists_its_files_and_nothing_else_is_left(out: Path) -> None:
    assert is_whole(out)
    assert list(out.parent.iterdir()) == [out]
    write(out, text="again", also="figures/pet.png")
    assert is_whole(out)
    write(out, text="once more")
    assert not (out / "figures/pet.png").exists()
    assert "once more" in (out / "metrics.json").read_text()
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    "name", ["notes.txt", "figures/mine.png", ".hidden", "scans/t1.nii.gz", "empty/", "link", "fifo"]
)
def test_a_folder_with_anything_else_in_it_is_refused(out: Path, name: str) -> None:
    place = out / name
    place.parent.mkdir(exist_ok=True)
    if name == "link":
        place.symlink_to(out / "metrics.json")
    elif name == "fifo":
        os.mkfifo(place)
    elif name.endswith("/"):
        place.mkdir()
    else:
        place.write_text("mine")
    before = sorted(out.rglob("*"))
    with pytest.raises(OutputError, match=name.strip("/").split("/")[-1]):
        write(out, overwrite=True)
    assert sorted(out.rglob("*")) == before
    assert "of a" in (out / "metrics.json").read_text()


def test_a_folder_without_a_manifest_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "density.nii.gz").write_text("the clinic's")
    with pytest.raises(OutputError, match=r"density\.nii\.gz"):
        write(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text('{"short_name": "a web page"}')
    with pytest.raises(OutputError, match=r"manifest\.json"):
        write(tmp_path)
    assert contents(tmp_path)["density.nii.gz"] == "the clinic's"


def test_a_manifest_elsewhere_says_nothing(out: Path) -> None:
    (out / MANIFEST_FILE).rename(out.parent / "theirs.json")
    (out / MANIFEST_FILE).symlink_to(out.parent / "theirs.json")
    with pytest.raises(OutputError, match=r"manifest\.json"):
        write(out)


def test_a_listed_file_that_was_changed_is_somebodys_and_a_missing_one_is_not(out: Path) -> None:
    (out / "density.nii.gz").unlink()
    write(out, text="again")
    (out / "metrics.json").write_text("edited by hand")
    with pytest.raises(OutputError, match=r"metrics\.json \(changed\)"):
        write(out, overwrite=True)
    assert (out / "metrics.json").read_text() == "edited by hand"


def test_another_patient_needs_overwrite_and_another_kind_is_never_replaced(out: Path) -> None:
    with pytest.raises(OutputError, match="another patient"):
        write(out, B)
    with pytest.raises(OutputError, match="read from another place"):
        write(out, Owner("plan", "a", "another", "place"))
    write(out, Owner("plan", "a", "drawn again", "x"))  # the same folder
    write(out, Owner("plan", "a", "drawn again", "moved"))  # the same segmentation
    write(out, B, overwrite=True)
    assert "of b" in (out / "metrics.json").read_text()
    with pytest.raises(OutputError, match="another command"):
        write(out, Owner("synthetic patient", "b"), overwrite=True)


def test_records_and_what_systems_put_everywhere_stay(out: Path) -> None:
    for name in ("status.json", "run.log", ".DS_Store"):
        (out / name).write_text("kept")
    with (out / "run.log").open("a") as log:
        write(out, text="again")
        log.write(", and written on")
    assert (out / "run.log").read_text() == "kept, and written on"
    assert (out / "status.json").read_text() == (out / ".DS_Store").read_text() == "kept"
    assert not read_manifest(out).damage(out)


@pytest.mark.parametrize("name", ["sub", "figures/sub"])
def test_a_result_does_not_lie_in_another(out: Path, name: str) -> None:
    before = contents(out)
    with pytest.raises(OutputError, match="lies in another result"):
        write(out / name)
    assert contents(out) == before
    assert not (out / name).exists()
    write_part(out.parent / "cohort", {"cohort.tsv": "of many"})
    write(out.parent / "cohort/patient")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_writing_leaves_the_old_result(out: Path, error: BaseException) -> None:
    before = contents(out)

    def failing() -> None:
        with output_folder(out) as output:
            output.claim(A)
            with output.new() as folder:
                (folder / "half").write_text("half")
                raise error

    with pytest.raises((OutputError, KeyboardInterrupt)):
        failing()
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("at", range(8))
def test_a_step_that_fails_takes_all_back(
    out: Path, at: int, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever rename the exchange fails, by whole folders or (standing inside) by entries."""
    before, renames, rename = contents(out), [], os.rename
    if inside:
        monkeypatch.chdir(out)

    def failing(source: str, target: str) -> None:
        renames.append(source)
        if len(renames) == at + 1:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        rename(source, target)

    monkeypatch.setattr(exchange.os, "rename", failing)
    if at < (8 if inside else 3):
        with pytest.raises(OutputError, match="not permitted"):
            write(out, text="again")
        assert contents(out) == before
    else:
        write(out, text="again")
    monkeypatch.undo()
    assert is_whole(out)
    assert list(out.parent.iterdir()) == [out]


def _killed_at(out: Path, at: int, inside: bool) -> None:
    if inside:
        os.chdir(out)
    count, rename, unlink = [], os.rename, Path.unlink

    def step(function: Callable) -> Callable:
        def counted(*of: object, **how: object) -> object:
            count.append(1)
            if len(count) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*of, **how)

        return counted

    os.rename, Path.unlink, shutil.rmtree = step(rename), step(unlink), step(shutil.rmtree)
    write(out, B, overwrite=True)


@pytest.mark.parametrize("inside", [False, True])
def test_killed_at_any_step_the_next_run_finds_it_whole(tmp_path: Path, inside: bool) -> None:
    """SIGKILL before each rename and removal there is; then somebody looks after it, or writes again."""
    start = multiprocessing.get_context("fork").Process
    ended = False
    for at in range(1, 60):
        out = tmp_path / str(at) / "out"
        write(out)
        process = start(target=_killed_at, args=(out, at, inside))
        process.start()
        process.join(30)
        if ended := process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        with output_folder(out.with_name("neighbour")):  # which looks after what is left
            pass
        assert is_whole(out), at
        owners = {text[-2] for name, text in contents(out).items() if name != MANIFEST_FILE}
        assert owners in ({"a"}, {"b"}), at
        write(out, B, overwrite=True)
        assert is_whole(out)
        assert [path.name for path in out.parent.iterdir()] == ["out"], at
    assert ended
    assert at > 8


def _hold(out: Path, ready: object, go: object) -> None:
    with output_folder(out):
        ready.set()
        go.wait(30)


def test_a_second_writer_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "out", ready, go))
    process.start()
    assert ready.wait(30)
    with pytest.raises(BusyError, match="Another process"):
        write(tmp_path / "out")
    write(tmp_path / "beside")  # nobody's business, and nothing of the other is cleared away
    process.kill()
    process.join(30)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    write(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beside", "out"]


def test_many_writers_at_once_leave_one_whole_result(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_publish import write; from pathlib import Path\n"
        "from gliodil.errors import BusyError\n"
        "for n in range(6):\n"
        "    try: write(Path(sys.argv[2]), text=sys.argv[3])\n"
        "    except BusyError: pass\n"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "out")]
    running = [subprocess.Popen([*words, f"by {n}"]) for n in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert is_whole(tmp_path / "out")
    assert (
        len({text.split()[-1] for n, text in contents(tmp_path / "out").items() if n != MANIFEST_FILE}) == 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class TestRehearsal:
    """What would fail in the end fails in the beginning."""

    @pytest.mark.parametrize("name", ["n" * 256, "a\0b"])
    def test_names_that_cannot_be(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(OutputError, match="cannot be written"), output_folder(tmp_path / name):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_paths_that_get_too_long(self, tmp_path: Path) -> None:
        deep = tmp_path
        while len(str(deep)) < 4096 - 200:
            deep = deep / ("d" * 150)
        with (
            pytest.raises(OutputError, match="too long"),
            output_folder(deep / ("d" * (4050 - len(str(deep))))),
        ):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_long_name_that_can_be(self, tmp_path: Path) -> None:
        write(tmp_path / ("n" * 255))
        assert is_whole(tmp_path / ("n" * 255))

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(OutputError), output_folder(tmp_path / "a"):
            pass

    def test_too_little_space(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="MB free"), output_folder(tmp_path / "out", space_mb=1e12):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_folders_above_are_made_and_left_only_with_a_result(self, tmp_path: Path) -> None:
        with output_folder(tmp_path / "a/b/out"):
            pass
        assert list(tmp_path.iterdir()) == []
        write(tmp_path / "a/b/out")
        assert is_whole(tmp_path / "a/b/out")

    def test_where_one_stands(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        here = tmp_path.stat().st_ino
        write(Path())
        write(Path(""), text="again")
        assert is_whole(tmp_path)
        assert tmp_path.stat().st_ino == here

    def test_a_link_to_another_file_system(self, tmp_path: Path) -> None:
        other = Path("/dev/shm")
        if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("needs a second file system in /dev/shm")
        target = other / f"gliodil-test-{os.getpid()}"
        target.mkdir()
        try:
            (tmp_path / "out").symlink_to(target)
            write(tmp_path / "out")
            assert is_whole(target)
            assert (tmp_path / "out").is_symlink()
        finally:
            shutil.rmtree(target)

    def test_a_mount_point_is_written_within(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It cannot be moved, and beside it lies another file system."""
        out, rename = tmp_path / "out", os.rename
        out.mkdir()
        number = out.stat().st_ino
        monkeypatch.setattr(place, "_is_mount", lambda path: path == out)

        def crossing(source: str, target: str) -> None:
            assert all(out in Path(each).parents for each in (source, target))
            rename(source, target)

        monkeypatch.setattr(os, "rename", crossing)
        write(out)
        write(out, text="again")
        assert is_whole(out)
        assert out.stat().st_ino == number
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        (out / ".out.odil.checkpoint.npz").write_text("a fit goes on")
        write(out, text="once more")

    def test_a_folder_that_belongs_to_the_system(self) -> None:
        if not Path("/proc").is_dir():
            pytest.skip("needs /proc, a folder in which nobody can create files")
        with pytest.raises(OutputError, match="--out"), output_folder(Path("/proc/out")):
            pass


class TestRevised:
    """A result that is added to is exchanged as a whole too."""

    def test_changes_come_together_and_others_files_stay(self, out: Path) -> None:
        (out / "notes.txt").write_text("mine")
        before = (out / "density.nii.gz").stat()
        with output_folder(out) as output, output.revised() as folder:
            (folder / "metrics.json").unlink()
            (folder / "metrics.json").write_text("with coverage")
            (folder / "recurrence.nii.gz").write_text("later")
            assert "coverage" not in (out / "metrics.json").read_text()
        assert (out / "notes.txt").read_text() == "mine"
        assert (out / "density.nii.gz").stat().st_mtime_ns == before.st_mtime_ns
        manifest = verified(out, "plan", problem="", remedy="")
        assert "recurrence.nii.gz" in manifest.files
        assert "notes.txt" not in manifest.files

    def test_a_file_of_somebody_else_is_not_replaced(self, out: Path) -> None:
        (out / "recurrence.nii.gz").write_text("mine")
        with pytest.raises(OutputError, match="somebody else"):
            revise(out, {"recurrence.nii.gz": "later"})
        assert (out / "recurrence.nii.gz").read_text() == "mine"

    def test_without_hard_links(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refused)
        (out / "run.log").write_text("kept")
        with output_folder(out) as output, output.revised() as folder:
            (folder / "metrics.json").write_text("written into, which a copy allows")
        assert (out / "run.log").read_text() == "kept"
        assert "allows" in (out / "metrics.json").read_text()
        verified(out, "plan", problem="", remedy="")


class TestPart:
    def test_files_lie_beside_others_and_only_own_ones_are_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "patient_1").mkdir()
        (tmp_path / "notes.txt").write_text("mine")
        for text in ("one", "two"):
            write_part(tmp_path, {"cohort.tsv": text})
        write_part(tmp_path, {"cohort.html": "page"})
        assert (tmp_path / "cohort.tsv").read_text() == "two"
        assert set(read_manifest(tmp_path).files) == {"cohort.tsv", "cohort.html"}
        (tmp_path / "cohort.tsv").write_text("edited by hand")
        with pytest.raises(OutputError, match="somebody else"):
            write_part(tmp_path, {"cohort.tsv": "three", "cohort.html": "three"})
        assert (tmp_path / "cohort.tsv").read_text() == "edited by hand"
        assert (tmp_path / "cohort.html").read_text() == "page"
        assert not list(tmp_path.glob(".*"))

    def test_nothing_is_added_to_the_result_of_another_command(self, out: Path) -> None:
        before = contents(out)
        with pytest.raises(OutputError, match="another command"):
            write_part(out, {"cohort.tsv": "one"})
        assert contents(out) == before


class TestVerified:
    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda out: (out / "metrics.json").write_text("metrics.json of b "), "not as it was written"),
            (lambda out: (out / "figures/plans.png").unlink(), "without figures/plans.png"),
            (lambda out: (out / MANIFEST_FILE).unlink(), "no manifest.json"),
            (lambda out: (out / MANIFEST_FILE).write_text("[" * 9999), "nest"),
            (lambda out: (out / MANIFEST_FILE).write_text('{"schema_version": 7}'), "something else"),
            (lambda out: shutil.rmtree(out), "no such folder"),
        ],
    )
    def test_what_is_not_as_it_was_written_is_told(self, out: Path, change: Callable, found: str) -> None:
        verified(out, "plan", problem="No.", remedy="")
        change(out)
        with pytest.raises(InputError, match=r"No\.") as caught:
            verified(out, "plan", problem="No.", remedy="")
        assert found in str(caught.value) or caught.value.found

    def test_a_manifest_cannot_point_elsewhere(self, out: Path) -> None:
        text = (out / MANIFEST_FILE).read_text()
        (out / MANIFEST_FILE).write_text(text.replace("metrics.json", "../metrics.json"))
        with pytest.raises(InputError):
            verified(out, "plan", problem="", remedy="")
        with pytest.raises(OutputError, match=r"manifest\.json"):
            write(out)


@pytest.mark.parametrize(
    ("out", "source", "apart"),
    [
        ("p", "p", False),
        ("p/result", "p", False),
        (".", "p", False),
        (".", "p/seg.nii.gz", False),
        ("p/../p/x", "p", False),
        ("link/x", "p", False),
        ("q", "p", True),
        ("p2", "p", True),
        ("result", "seg.nii.gz", True),
    ],
)
def test_inputs_and_results_do_not_lie_in_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, source: str, apart: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p").mkdir()
    Path("link").symlink_to("p")
    Path("p/seg.nii.gz").touch()
    Path("seg.nii.gz").touch()
    if apart:
        keep_apart(out, [source])
    else:
        with pytest.raises(OutputError, match="in each other"):
            keep_apart(out, [source])


def test_what_a_dead_process_left_is_told_by_its_lock_not_by_its_number(tmp_path: Path) -> None:
    """A stage as a killed process leaves it, with a journal of an exchange that was half done."""
    write(tmp_path / "out")
    write(tmp_path / "new", B)
    with output_folder(tmp_path / "out") as output:
        stage = output.stage
    (stage / "whole/new").mkdir(parents=True)
    (stage / "whole/old").mkdir()
    (tmp_path / "new").rename(stage / "whole/new/out")
    (tmp_path / "out").rename(stage / "whole/old/out")
    (stage / "lock").touch()
    (stage / "whole/journal.json").write_text('{"root": "../..", "old": ["out"], "new": ["out"]}')
    began = time.monotonic()
    with pytest.raises(OutputError, match="another patient"):
        write(tmp_path / "out", A)
    assert "of b" in (tmp_path / "out/metrics.json").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "journal",
    [
        "[" * 9999,
        '{"root": 7, "old": [1], "new": "x"}',
        '{"root": "../patient", "old": ["seg.nii.gz"], "new": []}',
        '{"root": "..", "old": ["patient"], "new": []}',
        '{"root": "../out", "old": ["../patient/seg.nii.gz"], "new": [".."]}',
        '{"root": "..", "old": ["out", "patient"], "new": ["out"]}',
        '{"root": "/", "old": ["tmp"], "new": []}',
    ],
)
def test_a_journal_moves_nothing_but_what_its_stage_is_for(out: Path, journal: str) -> None:
    (out.parent / "patient").mkdir()
    (out.parent / "patient/seg.nii.gz").write_text("the clinic's")
    before = contents(out.parent)
    with output_folder(out) as output:
        stage = output.stage
    (stage / "old").mkdir(parents=True)
    (stage / "journal.json").write_text(journal)
    with output_folder(out):
        pass
    assert contents(out.parent) == before
    assert sorted(path.name for path in out.parent.iterdir()) == ["out", "patient"]


def test_a_file_that_has_the_name_of_the_stage_stays(out: Path) -> None:
    with output_folder(out) as output:
        stage = output.stage
    stage.write_text("mine")
    with pytest.raises(OutputError):
        write(out, text="again")
    assert stage.read_text() == "mine"


def test_a_disk_that_is_full_leaves_the_old_result(out: Path) -> None:
    """Written by another process whose files may have 5000 bytes."""
    resource = pytest.importorskip("resource")
    before = contents(out)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            write(out, text="x" * 9000)
        except OutputError as error:
            os._exit(7 if "too large" in str(error) else 8)

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join(30)
    assert process.exitcode == 7
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]
