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

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.data.exchange import Exchange
from gliodil.data.manifest import MANIFEST_FILE, Manifest, Owner, listed, read_manifest, walk, write_manifest
from gliodil.data.ownership import KEPT, check_own, check_place, check_same, is_as, own_manifest, strange
from gliodil.data.place import home_of, make_folders, rehearse, remove_empty, resolved, unwritable
from gliodil.data.stage import WHOLE, enter, is_begun, look_after, stage_name

SPACE_MB = 32.0
"""What a result takes at least."""
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
        if manifest is not None:
            check_same(self.path, manifest, owner, overwrite=overwrite)
        self.claimed = owner

    def check_own(self) -> Manifest | None:
        """Refuse a folder with anything in it but an earlier result as it was written; return its manifest."""
        return check_own(self.path, self._stays)

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
                    raise strange(self.path, name)
            (folder / MANIFEST_FILE).unlink()
            files = {n: entry for n, entry in listed(folder, known=known).items() if n not in foreign}
            write_manifest(folder, manifest.owner, files)
            self._exchange(folder)

    def check_part(self, kind: str) -> None:
        """Refuse a folder with the result of another command, to which nothing is added.

        Raises
        ------
        OutputError
            Then.
        """
        manifest, _ = own_manifest(self.path)
        if manifest is not None:
            check_same(self.path, manifest, Owner(kind), overwrite=False)

    @contextmanager
    def part(self, kind: str) -> Iterator[Path]:
        """Yield an empty folder; its files are put beside what else is in `path` if the block ends well.

        Raises
        ------
        OutputError
            If they cannot be written, or a file of somebody else has the name of one of them.
        """
        self.check_part(kind)
        with self._made() as folder:
            yield folder
            files = listed(folder)
            manifest, _ = own_manifest(self.path)
            known = dict(manifest.files) if manifest is not None else {}
            for name in (*files, *([MANIFEST_FILE] if manifest is None else [])):
                place = self.path / name
                if os.path.lexists(place) and (
                    name not in known or place.is_symlink() or not is_as(place, known[name])
                ):
                    raise strange(self.path, name)
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
            raise unwritable(self.path, error.strerror or str(error)) from error
        finally:
            if not is_begun(self.stage):
                shutil.rmtree(folder, ignore_errors=True)

    def _exchange(self, folder: Path) -> None:
        """Put the folder in its place."""
        exists = self.path.exists()
        kept = [name for name in KEPT if exists and os.path.lexists(self.path / name)]
        if self.home == self.path or (exists and not self._is_free()) or not self._carry(folder, kept):
            own = {path.name for path in folder.iterdir()} - KEPT
            former, _ = own_manifest(self.path)
            listed_before = {name.partition("/")[0] for name in (former.files if former else ())}
            self._by_entries(folder, own | listed_before | {MANIFEST_FILE})
            return
        if exists:
            with suppress(OSError):
                folder.chmod(stat.S_IMODE(self.path.stat().st_mode))
        name = self.path.name
        aside = self.stage / WHOLE
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
        stack.callback(remove_empty, made)
        try:
            path = resolved(out)
            check_place(path)
            home = home_of(path)
            make_folders(home, made)
            stage = home / stage_name(path)
            enter(stack, stage, path, wait_s)
            look_after(home, stage)
            output = Output(path, home, stage)
            rehearse(path, home, stage, space_mb=space_mb)
        except OSError as error:
            raise unwritable(Path(out), error.strerror or str(error)) from error
        yield output


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
