"""The one way a folder of results is written: locked from the first check to the end, made aside, exchanged as one.

    with output_folder(out) as output:           refused here if it cannot be written; nobody else may write there now
        output.claim(owner)                      refused if anything in it is somebody else's
        ...                                      the long computation
        with output.new() as folder:             an empty folder, hidden, in the file system of `out`
            ...                                  write everything
                                                 manifest.json is written, and both folders are exchanged

Hidden things lie in `.gliodil-<digits>` beside `out`, or in `out` itself where that is a mount point or its parent takes
no files. The lock is the operating system's and goes with its process. What a killed process left is completed or
removed by whoever writes there, or beside it, next. A reader sees the old folder or the new one; between two renames,
for an instant, none. A folder that this process stands in, or a mount point, is exchanged entry by entry, the manifest
last.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.data.exchange import JOURNAL_FILE, Exchange, clear, recover
from gliodil.data.lock import held
from gliodil.data.manifest import (
    MANIFEST_FILE,
    Manifest,
    Owner,
    file_hash,
    listed,
    read_manifest,
    walk,
    write_manifest,
)
from gliodil.errors import BusyError, GliodilError, InputError, OutputError

STATUS_FILE, LOG_FILE = "status.json", "run.log"
STATUS_DRAFT = ".status.json.new"
KEPT = frozenset({STATUS_FILE, STATUS_DRAFT, LOG_FILE, ".DS_Store", "Thumbs.db", "desktop.ini"})
"""Entries of a folder of results that stay when it is exchanged: a cohort's records, and what systems put everywhere."""
LONGEST = "preprocess/transforms/template/displacement_of_the_inverse.nii.gz"
"""No name in a folder of results is longer than this."""
SPACE_MB = 32.0
"""What a result takes at least."""
_HIDDEN, _LOCK, _WHOLE = ".gliodil-", "lock", "whole"
_STAGE = re.compile(re.escape(_HIDDEN) + r"[0-9a-f]{12}(\.run)?")
_WAIT_S = 0.5
"""For somebody who only looks after what dead processes left."""


@dataclass
class Output:
    """A folder of results while its lock is held."""

    path: Path
    """Resolved: absolute, without links."""
    home: Path
    """Folder of the hidden things: the parent, or the folder itself."""
    stage: Path
    claimed: Owner | None = field(default=None, init=False)

    def hidden(self, suffix: str) -> Path:
        """Return a hidden name beside the folder (or in it) for what outlives this process."""
        name = f".{self.path.name}.{suffix}"
        if len(os.fsencode(name)) > 200:
            name = f"{self.stage.name}.{suffix}"
        return self.home / name

    def claim(self, owner: Owner, *, overwrite: bool = False) -> None:
        """Refuse a folder in which anything would be replaced or removed that is somebody else's.

        Parameters
        ----------
        owner
            Whose result will be written.
        overwrite
            Replace the result of another patient.

        Raises
        ------
        OutputError
            If the folder holds what no manifest lists, listed files that were changed, something of another kind, or the
            result of another patient.
        """
        manifest = self.check_own()
        if manifest is not None and not manifest.owner.is_same(owner):
            former = manifest.owner
            same_kind = former.kind == owner.kind
            if not (same_kind and overwrite):
                raise OutputError(
                    f"The output folder holds the result of another {'patient' if same_kind else 'command'}.",
                    file=self.path,
                    expected=f"a {owner.kind} of {owner.patient}, read from the same place",
                    found=f"a {former.kind} of {former.patient}"
                    + (", read from another place" if former.patient == owner.patient else ""),
                    remedy="choose another one with --out"
                    + (", or replace it with --overwrite" if same_kind else ""),
                )
        self.claimed = owner

    def check_own(self) -> Manifest | None:
        """Refuse a folder with anything in it but an earlier result as it was written; return its manifest.

        Raises
        ------
        OutputError
            If there is anything else.
        """
        manifest, found = self._strangers()
        if found:
            raise OutputError(
                "The output folder holds files that are not those of an earlier result.",
                file=self.path,
                expected="a new or empty folder, or one that gliodil wrote and nobody changed since",
                found=", ".join(found[:5]) + (" and more" if len(found) > 5 else ""),
                remedy="choose another one with --out, or move these files away",
            )
        return manifest

    @contextmanager
    def new(self) -> Iterator[Path]:
        """Yield an empty folder; it takes the place of the old one if the block ends well.

        Raises
        ------
        OutputError
            If it cannot be written; the old one is as it was.
        """
        assert self.claimed is not None, "claim the folder first"
        with self._made() as folder:
            yield folder
            self.claim(self.claimed, overwrite=True)  # nobody may have put anything there meanwhile
            write_manifest(folder, self.claimed, listed(folder))
            self._exchange(folder)

    @contextmanager
    def revised(self) -> Iterator[Path]:
        """Yield a copy of the folder, to be changed; it takes its place if the block ends well.

        Files must be replaced in it, not written into: it shares them with the folder where the file system can. What is
        somebody else's stays as it is.

        Raises
        ------
        OutputError
            If it cannot be written, or a file of somebody else would be replaced; the old one is as it was.
        """
        manifest = read_manifest(self.path)
        assert manifest is not None, "verify the folder first"
        with self._made() as folder:
            before = {}
            for source in walk(self.path):
                target = folder / source.relative_to(self.path)
                if self._stays(source):
                    continue
                if source.is_dir() and not source.is_symlink():
                    target.mkdir()
                else:
                    _link(source, target)
                    before[target] = _state(target)
            yield folder
            known, foreign = {}, set()
            for path, state in before.items():
                name = path.relative_to(folder).as_posix()
                unchanged = os.path.lexists(path) and _state(path) == state
                if name in manifest.files:
                    if unchanged:
                        known[path] = manifest.files[name]
                elif unchanged or name == MANIFEST_FILE:
                    foreign.add(name)
                else:
                    raise _strange(self.path, name)
            (folder / MANIFEST_FILE).unlink()
            files = {n: entry for n, entry in listed(folder, known=known).items() if n not in foreign}
            write_manifest(folder, manifest.owner, files)
            self._exchange(folder)

    @contextmanager
    def part(self, kind: str) -> Iterator[Path]:
        """Yield an empty folder; its files are put beside what else is in `path` if the block ends well.

        Raises
        ------
        OutputError
            If they cannot be written, or a file of somebody else has the name of one of them.
        """
        with self._made() as folder:
            yield folder
            files = listed(folder)
            manifest, _ = self._manifest()
            known = dict(manifest.files) if manifest is not None else {}
            for name in (*files, *([MANIFEST_FILE] if manifest is None else [])):
                place = self.path / name
                if os.path.lexists(place) and (
                    name not in known or place.is_symlink() or not _is_as(place, known[name])
                ):
                    raise _strange(self.path, name)
            left = {name: entry for name, entry in known.items() if (self.path / name).is_file()}
            write_manifest(folder, Owner(kind), {**left, **files})
            self.path.mkdir(exist_ok=True)
            self._by_entries(folder, {name.partition("/")[0] for name in files} | {MANIFEST_FILE})

    @contextmanager
    def _made(self) -> Iterator[Path]:
        folder = self.stage / "new"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            yield folder
        except OSError as error:
            raise _unwritable(self.path, error.strerror or str(error)) from error
        finally:
            if not _is_begun(self.stage):
                shutil.rmtree(folder, ignore_errors=True)

    def _exchange(self, folder: Path) -> None:
        """Put the folder in its place."""
        exists = self.path.exists()
        kept = [name for name in KEPT if exists and os.path.lexists(self.path / name)]
        if self.home == self.path or (exists and not self._is_free()) or not self._carry(folder, kept):
            own = {path.name for path in folder.iterdir()} - KEPT
            former, _ = self._manifest()
            listed_before = {name.partition("/")[0] for name in (former.files if former else ())}
            self._by_entries(folder, own | listed_before | {MANIFEST_FILE})
            return
        if exists:
            with suppress(OSError):
                folder.chmod(stat.S_IMODE(self.path.stat().st_mode))
        name = self.path.name
        aside = self.stage / _WHOLE
        shutil.rmtree(aside, ignore_errors=True)
        (aside / "new").mkdir(parents=True)
        os.rename(folder, aside / "new" / name)
        Exchange(aside, self.home, (name,) if exists else (), (name,)).run()

    def _by_entries(self, folder: Path, names: Iterable[str]) -> None:
        old = tuple(name for name in names if os.path.lexists(self.path / name))
        new = tuple(name for name in names if os.path.lexists(folder / name))
        Exchange(self.stage, self.path, old, new).run()

    def _carry(self, folder: Path, names: Iterable[str]) -> bool:
        """Whether what is kept could be put into the new folder too, still the same files."""
        try:
            for name in names:
                os.link(self.path / name, folder / name)
        except OSError:
            return False
        return True

    def _is_free(self) -> bool:
        """Whether nobody of this process stands in the folder, so that it can be moved."""
        try:
            here = Path.cwd()
        except OSError:
            return True
        return here != self.path and self.path not in here.parents

    def _manifest(self) -> tuple[Manifest | None, bool]:
        """Return the folder's manifest, and whether there is something else of that name."""
        try:
            return read_manifest(self.path), False
        except InputError:
            return None, True

    def _strangers(self) -> tuple[Manifest | None, list[str]]:
        """Return the manifest, and what in the folder is not, or not any more, as it says; some of it."""
        manifest, other = self._manifest()
        found = [MANIFEST_FILE] if other else []
        if not self.path.exists():
            return None, found
        files = dict(manifest.files) if manifest is not None else {}
        folders = {str(parent) for name in files for parent in Path(name).parents}
        for path in walk(self.path):
            name = path.relative_to(self.path).as_posix()
            if self._stays(path) or name == MANIFEST_FILE:
                continue
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                found.append(name)
            elif path.is_dir():
                found += [] if name in folders else [f"{name}/"]
            elif name not in files:
                found.append(name)
            elif not _is_as(path, files[name]):
                found.append(f"{name} (changed)")
            if len(found) > 5:
                break
        return manifest, found

    def _stays(self, path: Path) -> bool:
        """Whether something in the folder is no part of the result, and stays where it is."""
        first = path.relative_to(self.path).parts[0]
        own = self.home == self.path and (first.startswith(self.stage.name) or ".checkpoint.npz" in first)
        return own or first in KEPT


@contextmanager
def output_folder(
    out: Path | str, *, wait_s: float = _WAIT_S, space_mb: float = SPACE_MB
) -> Iterator[Output]:
    """Hold a folder of results: whatever would keep it from being written comes to light here, before any computation.

    Nothing is left there but what `Output` publishes.

    Parameters
    ----------
    out
        The folder; it need not exist.
    wait_s
        How long to wait for another process that writes there [s].
    space_mb
        What must be free on its file system [MB].

    Raises
    ------
    OutputError
        If it cannot be written, or another process writes there.
    """
    with ExitStack() as stack:
        made: list[Path] = []
        stack.callback(_remove_empty, made)
        try:
            path = _resolved(out)
            home = _home(path)
            _make(home, made)
            stage = home / _stage_name(path)
            _enter(stack, stage, path, wait_s)
            look_after(home, stage)
            output = Output(path, home, stage)
            _rehearse(output, space_mb)
        except OSError as error:
            raise _unwritable(Path(out), error.strerror or str(error)) from error
        yield output


def _resolved(out: Path | str) -> Path:
    """Return the folder without links; refuse what can be no path."""
    try:
        path = Path(out).resolve()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:  # too long, links in a circle, NUL
        raise _unwritable(Path(out), getattr(error, "strerror", None) or str(error)) from error
    return path


def _home(path: Path) -> Path:
    """Return where the hidden things of a folder lie: in its file system, where renaming into it works."""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise _unwritable(path, f"{existing.name} is a file")
    if existing != path:
        return path.parent
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unwritable(path, "no permission to write into it")
    parent = path.parent
    movable = (
        parent != path
        and not _is_mount(path)
        and parent.stat().st_dev == path.stat().st_dev
        and os.access(parent, os.W_OK | os.X_OK)
        and not _is_bound(path)
    )
    return parent if movable else path


def _is_bound(path: Path) -> bool:
    """Whether the folder's parent lets only owners move what is in it (as /tmp does), and we are none."""
    if not hasattr(os, "geteuid") or not path.parent.stat().st_mode & stat.S_ISVTX:
        return False
    return os.geteuid() not in (0, path.stat().st_uid, path.parent.stat().st_uid)


def _is_mount(path: Path) -> bool:
    if os.path.ismount(path):
        return True
    try:  # a folder bound to another place of one file system looks like any other
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return False
    return os.fsencode(path) in {re.sub(rb"\\(\d{3})", _octal, line.split()[4]) for line in lines}


def _octal(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, and note which were not there."""
    if not folder.exists():
        _make(folder.parent, made)
        with suppress(FileExistsError):
            folder.mkdir()
            made.append(folder)


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        with suppress(OSError):
            folder.rmdir()


def _enter(stack: ExitStack, stage: Path, path: Path, wait_s: float) -> None:
    """Take the lock of a folder; complete what a dead process left; remove the stage in the end."""
    for _ in range(100):
        with suppress(FileNotFoundError):  # the one before us removes it at this very moment
            stage.mkdir(exist_ok=True)
            if stack.enter_context(held(stage / _LOCK, wait_s=wait_s, keep=True)):
                break
            raise BusyError(
                "Another process is writing into this folder.",
                file=path,
                expected="one process at a time",
                found="its lock is held",
                remedy="wait until it has finished, or choose another folder with --out",
            )
    else:
        raise FileNotFoundError("the folder keeps being removed")
    stack.callback(_leave, stage)
    _complete(stage)


def _leave(stage: Path) -> None:
    if _is_begun(stage):  # neither forward nor back: the next run tries again
        return
    clear(stage, keep=(_LOCK,))
    with suppress(OSError):
        (stage / _LOCK).unlink()
        stage.rmdir()


def _complete(stage: Path) -> None:
    for place in _places(stage):
        recover(place)
    clear(stage, keep=(_LOCK,))


def _places(stage: Path) -> tuple[Path, Path]:
    """Return where a journal can lie: that of whole folders, and that of entries."""
    return stage / _WHOLE, stage


def _is_begun(stage: Path) -> bool:
    """Whether an exchange was begun and is neither done nor taken back."""
    return any((place / JOURNAL_FILE).exists() for place in _places(stage))


def run_lock(folder: Path) -> Path:
    """Return the file whose lock says that somebody works on a folder of results, longer than writing it takes."""
    return folder.parent / f"{_stage_name(folder)}.run"


def _stage_name(path: Path) -> str:
    return _HIDDEN + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]


def look_after(home: Path, own: Path | None = None) -> None:
    """Complete or remove what dead processes left in a folder that holds folders of results."""
    with suppress(OSError):
        for entry in list(os.scandir(home)):
            if not _STAGE.fullmatch(entry.name) or (own and entry.name == own.name):
                continue
            with suppress(OSError), ExitStack() as stack:
                left = Path(entry.path)
                if not entry.is_dir(follow_symlinks=False):
                    stack.enter_context(held(left))
                elif stack.enter_context(held(left / _LOCK, keep=True)):
                    _complete(left)
                    _leave(left)


def _rehearse(output: Output, space_mb: float) -> None:
    """Do in small what publishing will do: write, make the names, rename."""
    path, probe = output.path, output.stage / "probe"
    with suppress(FileNotFoundError):
        os.lstat(path / LONGEST)
    with probe.open("wb") as stream:
        stream.write(bytes(4096))
        stream.flush()
        os.fsync(stream.fileno())
    if not path.exists():
        path.mkdir()
        path.rmdir()
    elif output.home == path:
        target = path / f"{output.stage.name}.try"
        os.rename(probe, target)
        os.rename(target, probe)
    probe.unlink()
    free = shutil.disk_usage(output.home).free / 1e6
    if free < space_mb:
        raise _unwritable(path, f"{free:.0f} MB free, a result takes about {space_mb:.0f} MB")


def keep_apart(out: Path | str, inputs: Iterable[Path | str]) -> None:
    """Refuse a folder of results that lies in a folder of inputs, is one, or holds an input.

    Raises
    ------
    OutputError
        Then.
    """
    place = _resolved(out)
    for each in inputs:
        try:
            source = Path(each).resolve()
        except (OSError, RuntimeError, ValueError):  # whoever reads it says so
            continue
        if place == source or place in source.parents or (place.is_relative_to(source) and source.is_dir()):
            inside = "lies in" if source in place.parents else "is or holds"
            raise OutputError(
                "Inputs and results must not lie in each other.",
                file=Path(out),
                expected="a folder for the results apart from the inputs",
                found=f"a folder that {inside} {Path(each).name or each}, which is read",
                remedy="choose another one with --out",
            )


def _is_as(path: Path, entry: tuple[int, str]) -> bool:
    return path.is_file() and path.stat().st_size == entry[0] and file_hash(path) == entry[1]


def _state(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _link(source: Path, target: Path) -> None:
    """Make the target the same file, or a copy where the file system has no such thing."""
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _strange(folder: Path, name: str) -> GliodilError:
    return OutputError(
        "A file of somebody else would be replaced.",
        file=folder / name,
        expected="a file that gliodil wrote and nobody changed since, or none",
        found="another one",
        remedy="move it away, or choose another folder",
    )


def _unwritable(out: Path, found: str) -> OutputError:
    return OutputError(
        "The output folder cannot be written.",
        file=out,
        expected="a folder that can be created and written to",
        found=found,
        remedy="choose another one with --out",
    )
