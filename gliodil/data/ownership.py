"""Whose is what lies in a folder of results: the product's is what a manifest lists, unchanged; the rest is somebody's.

nothing of somebody's is replaced or removed
a result of another patient is replaced on request alone, one of another command never
inputs and results do not lie in each other
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from gliodil.data.manifest import MANIFEST_FILE, Manifest, Owner, file_hash, read_manifest, walk
from gliodil.data.place import resolved
from gliodil.errors import InputError, OutputError

COHORT = "cohort"
STATUS_FILE, LOG_FILE = "status.json", "run.log"
STATUS_DRAFT, STATUS_DAMAGED = ".status.json.new", "status.damaged.json"
_EVERYWHERE = (".DS_Store", "Thumbs.db", "desktop.ini")
KEPT = frozenset({STATUS_FILE, STATUS_DRAFT, STATUS_DAMAGED, LOG_FILE, *_EVERYWHERE})
"""Entries of a folder of results that stay when it is exchanged: a cohort's records, and what systems put everywhere."""


def check_same(folder: Path, manifest: Manifest, owner: Owner, *, overwrite: bool) -> None:
    """Refuse the result of another patient, unless it may be overwritten, and that of another command.

    Raises
    ------
    OutputError
        Then.
    """
    former = manifest.owner
    if former.is_same(owner):
        return
    same_kind = former.kind == owner.kind
    if same_kind and overwrite:
        return
    raise OutputError(
        f"The output folder holds the result of another {'patient' if same_kind else 'command'}.",
        file=folder,
        expected=f"a {owner.kind}"
        + (f" of {owner.patient}, read from the same place" if owner.patient else ""),
        found=f"a {former.kind} of {former.patient}"
        + (", read from another place" if former.patient == owner.patient else ""),
        remedy="choose another one with --out" + (", or replace it with --overwrite" if same_kind else ""),
    )


def check_own(folder: Path, stays: Callable[[Path], bool]) -> Manifest | None:
    """Refuse a folder with anything in it but an earlier result as it was written; return its manifest.

    Parameters
    ----------
    stays
        Whether something in the folder is no part of the result, and stays where it is.

    Raises
    ------
    OutputError
        If there is anything else.
    """
    manifest, found = _strangers(folder, stays)
    if found:
        raise OutputError(
            "The output folder holds files that are not those of an earlier result.",
            file=folder,
            expected="a new or empty folder, or one that gliodil wrote and nobody changed since",
            found=", ".join(found[:5]) + (" and more" if len(found) > 5 else ""),
            remedy="choose another one with --out, or move these files away",
        )
    return manifest


def check_place(folder: Path) -> None:
    """Refuse a folder within a result: that is kept as it was written.

    Raises
    ------
    OutputError
        Then.
    """
    if (above := result_above(folder)) is not None:
        raise OutputError(
            "The output folder lies in another result.",
            file=folder,
            expected="a folder apart from other results",
            found=f"one in {above.name}",
            remedy="choose another one with --out",
        )


def result_above(path: Path) -> Path | None:
    """Return the folder of a result in which a path lies, None if in none; a cohort's is one of many results."""
    for folder in path.parents:
        manifest, _ = own_manifest(folder)
        if manifest is not None and manifest.owner.kind != COHORT:
            return folder
    return None


def own_manifest(folder: Path) -> tuple[Manifest | None, bool]:
    """Return the folder's manifest, and whether there is something else of that name."""
    try:
        return (None, True) if (folder / MANIFEST_FILE).is_symlink() else (read_manifest(folder), False)
    except InputError:
        return None, True


def _strangers(folder: Path, stays: Callable[[Path], bool]) -> tuple[Manifest | None, list[str]]:
    """Return the manifest, and what in the folder is not, or not any more, as it says; some of it."""
    manifest, other = own_manifest(folder)
    found = [MANIFEST_FILE] if other else []
    if not folder.exists():
        return None, found
    files = dict(manifest.files) if manifest is not None else {}
    folders = {str(parent) for name in files for parent in Path(name).parents}
    for path in walk(folder):
        name = path.relative_to(folder).as_posix()
        if stays(path) or name == MANIFEST_FILE:
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            found.append(name)
        elif path.is_dir():
            found += [] if name in folders else [f"{name}/"]
        elif name not in files:
            found.append(name)
        elif not is_as(path, files[name]):
            found.append(f"{name} (changed)")
        if len(found) > 5:
            break
    return manifest, found


def keep_apart(out: Path | str, inputs: Iterable[Path | str]) -> None:
    """Refuse a folder of results that lies in a folder of inputs, is one, or holds an input.

    Raises
    ------
    OutputError
        Then.
    """
    place = resolved(out)
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


def is_as(path: Path, entry: tuple[int, str]) -> bool:
    """Whether a file has a size and a hash."""
    return path.is_file() and path.stat().st_size == entry[0] and file_hash(path) == entry[1]


def strange(folder: Path, name: str) -> OutputError:
    """Return the error that a file of somebody else has the name of one to be written."""
    return OutputError(
        "A file of somebody else would be replaced.",
        file=folder / name,
        expected="a file that gliodil wrote and nobody changed since, or none",
        found="another one",
        remedy="move it away, or choose another folder",
    )
