"""`manifest.json`: every file of a folder of results with its size and hash, written last.

A folder is whole if every file that its manifest lists has that size and hash. What a manifest lists, unchanged, is the
product's to replace; everything else is somebody's.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gliodil import __version__
from gliodil.data.gate import read_json
from gliodil.errors import GliodilError, InputError

MANIFEST_FILE = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Owner:
    """Whose result a folder holds.

    Two of one name are one patient if they were read from one place, or have one segmentation.
    """

    kind: str
    """What the folder is: `plan`, `synthetic patient`, `cohort`."""
    patient: str = ""
    segmentation: str = ""
    """Hash of the segmentation as it was read."""
    place: str = ""
    """A few digits of a hash of the folder it was read from, which itself is nobody's business; empty: from none."""

    def is_same(self, other: Owner) -> bool:
        """Whether both are results of one kind for one patient."""
        if (self.kind, self.patient) != (other.kind, other.patient):
            return False
        return self.segmentation == other.segmentation or self.place == other.place


@dataclass(frozen=True)
class Manifest:
    """What a folder of results holds."""

    owner: Owner
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Size [bytes] and SHA-256 of each file, by its path within the folder, with forward slashes."""

    def damage(self, folder: Path) -> list[str]:
        """Return which listed files are not as they were written, in words."""
        found = []
        for name, (size, digest) in self.files.items():
            path = folder / name
            if path.is_symlink() or not path.is_file():
                found.append(f"without {name}")
            elif path.stat().st_size != size or file_hash(path) != digest:
                found.append(f"{name} is not as it was written")
        return found


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder; None where there is none.

    Raises
    ------
    InputError
        If it cannot be read, or is not the manifest of a folder of results.
    """
    path = folder / MANIFEST_FILE
    if not os.path.lexists(path):
        return None
    expected = "the list of files that gliodil wrote"
    content = read_json(path, expected=expected)
    try:
        return _parsed(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "This is not the manifest of a folder of results.",
            file=path,
            expected=expected,
            found=f"something else ({type(error).__name__}: {error})"[:200],
            remedy="name another folder",
        ) from error


def _parsed(content: Any) -> Manifest:
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {content['schema_version']}")
    words = [content[key] for key in ("kind", "patient", "segmentation", "place")]
    files = {}
    for name, entry in content["files"].items():
        size, digest = entry["bytes"], entry["sha256"]
        if Path(name).is_absolute() or ".." in Path(name).parts or not name:
            raise ValueError("a file that is not in the folder")
        if type(size) is not int or not isinstance(digest, str):
            raise TypeError("size or hash of a file")
        files[name] = (size, digest)
    if not all(isinstance(word, str) for word in words):
        raise TypeError("the owner")
    return Manifest(Owner(*words), files)


def write_manifest(folder: Path, owner: Owner, files: Mapping[str, tuple[int, str]]) -> Manifest:
    """Write `manifest.json` and bring it to the disk."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "gliodil_version": __version__,
        "kind": owner.kind,
        "patient": owner.patient,
        "segmentation": owner.segmentation,
        "place": owner.place,
        "files": {name: {"bytes": size, "sha256": digest} for name, (size, digest) in sorted(files.items())},
    }
    with (folder / MANIFEST_FILE).open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return Manifest(owner, dict(files))


def listed(
    folder: Path, *, known: Mapping[Path, tuple[int, str]] | None = None
) -> dict[str, tuple[int, str]]:
    """Return size and hash of every file in a folder, and bring each to the disk.

    Parameters
    ----------
    known
        Size and hash of files that need not be read again.
    """
    found = {}
    for path in walk(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name == MANIFEST_FILE:
            continue
        found[name] = (known or {}).get(path) or (path.stat().st_size, file_hash(path, to_disk=True))
    return found


def walk(folder: Path) -> Iterator[Path]:
    """Yield everything in a folder, at every depth, in the order of names; links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))


def file_hash(path: Path, *, to_disk: bool = False) -> str:
    """Return the SHA-256 of a file; on request its content is on the disk, not only on its way, afterwards."""
    with path.open("rb") as stream:
        if to_disk:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def whole(folder: Path, manifest: Manifest | None) -> bool:
    """Whether a folder has a manifest and every file is as it was written."""
    return manifest is not None and not manifest.damage(folder)


def verified(folder: Path, kind: str, *, problem: str, remedy: str) -> Manifest:
    """Return the manifest of a folder all of whose files are as they were written.

    Raises
    ------
    InputError
        If it is no folder of this kind, or anything in it changed since.
    """
    expected = f"the folder of a finished {kind}, as it was written"
    try:
        manifest = read_manifest(folder)
    except GliodilError as error:
        raise InputError(
            problem, file=folder / MANIFEST_FILE, expected=expected, found=error.found, remedy=remedy
        ) from error
    if manifest is None:
        missing = f"no {MANIFEST_FILE}" if folder.is_dir() else "no such folder"
        raise InputError(problem, file=folder, expected=expected, found=missing, remedy=remedy)
    if manifest.owner.kind != kind:
        raise InputError(
            problem, file=folder, expected=expected, found=f"a {manifest.owner.kind}", remedy=remedy
        )
    if damage := manifest.damage(folder):
        more = f" and {len(damage) - 3} more" if len(damage) > 3 else ""
        raise InputError(
            problem, file=folder, expected=expected, found="; ".join(damage[:3]) + more, remedy=remedy
        )
    return manifest
