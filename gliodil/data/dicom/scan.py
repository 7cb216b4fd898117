"""What DICOM series a folder holds, whatever its files are called; only headers are read.

A series that is not a regular volume is listed all the same, with the reason; asking for its grid raises it. So a
localizer or a broken scan that nobody needs does no harm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gliodil.data.dicom.description import description
from gliodil.data.dicom.directory import missing_of
from gliodil.data.dicom.frames import frames_of
from gliodil.data.dicom.geometry import separate, stack
from gliodil.data.dicom.headers import (
    is_dicom,
    number,
    quietly,
    read_header,
    require_pydicom,
    text,
    value,
)
from gliodil.data.dicom.modality import MODALITY_ROLES, is_diffusion, is_localizer, is_reformat, role_of
from gliodil.data.dicom.person import person_of
from gliodil.data.dicom.pet import uptake_factor
from gliodil.data.dicom.series import Series, series_name
from gliodil.data.tree import EMPTY, look_through
from gliodil.errors import GeometryError, ImageFileError, InputError


@dataclass(frozen=True)
class Scan:
    """What a folder holds."""

    series: tuple[Series, ...]
    skipped: int
    """Number of files that are not DICOM."""
    other: int
    """Number of DICOM files that are neither images, segmentations, structure sets, registrations nor doses."""
    unread: Mapping[Path, str] = field(default_factory=dict)
    """Files and folders that cannot be read, with the reason."""


def find_series(folder: Path | str) -> tuple[Series, ...]:
    """Return the DICOM series in a folder and its subfolders, ordered by series number; see `scan_folder`."""
    return scan_folder(folder).series


def scan_folder(folder: Path | str, *, deep: bool = True) -> Scan:
    """Look through a folder for DICOM files, whatever their names; only headers are read.

    What cannot be read is listed. A series that such a file may be a slice of is no volume: half a series would
    look complete.

    Parameters
    ----------
    folder
        Folder to search.
    deep
        Whether to search subfolders too.

    Raises
    ------
    InputError
        If there is no such folder.
    MissingExtraError
        If there are DICOM files and pydicom is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("There is no such folder.", file=folder, expected="a folder of DICOM files")
    tree = look_through(folder, deep=deep)
    marked = [path for path in tree.files if is_dicom(path)]
    skipped = len(tree.files) + sum(why == EMPTY for why in tree.unread.values()) - len(marked)
    if not marked:
        return Scan((), skipped, 0, _of_note(tree.unread))
    require_pydicom()
    with quietly():
        found, other, damaged = _read(marked)
    unread = {**tree.unread, **damaged}
    found = [_whole(series, unread) for series in found]
    order = sorted(found, key=lambda s: (s.number is None, s.number or 0, s.files[0]))
    return Scan(tuple(order), skipped, other, _of_note(unread))


def has_dicom(folder: Path | str) -> bool:
    """Whether there is a DICOM file in a folder or its subfolders."""
    return any(is_dicom(path) for path in look_through(folder).files)


def _of_note(unread: Mapping[Path, str]) -> dict[Path, str]:
    """Leave out empty files that are named like no image."""
    images = ("", ".dcm", ".ima", ".img", ".nii", ".gz")
    return {
        path: why
        for path, why in unread.items()
        if why != EMPTY or path.suffix.lower() in images or path.suffix[1:].isdigit()
    }


def _read(paths: Sequence[Path]) -> tuple[list[Series], int, dict[Path, str]]:
    """Return the series of DICOM files, how many files are in none, and those that cannot be read."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    unread: dict[Path, str] = {}
    for path in paths:
        try:
            header = read_header(path)
        except ImageFileError as error:
            unread[path] = error.problem.removeprefix("The DICOM file ").rstrip(".")
            continue
        if header is None:
            unread |= dict.fromkeys(missing_of(path), "listed in the DICOMDIR and not there")
        else:
            groups.setdefault(text(header, "SeriesInstanceUID"), []).append((path, header))
    members = {uid: group for uid, group in groups.items() if _of_interest([header for _, header in group])}
    found = [series for uid, group in members.items() for series in _series(uid, group)]
    return found, len(paths) - len(unread) - sum(map(len, members.values())), unread


def _whole(series: Series, unread: Mapping[Path, str]) -> Series:
    """Return the series; with a problem if files named like its own, beside its own, cannot be read."""
    if series.stack is None:
        return series
    folders = {path.parent for path in series.files}
    names = {_pattern(path) for path in series.files}
    free = len(names) > 3  # names follow no pattern: the suffix has to do
    suffixes = {path.suffix.lower() for path in series.files}
    lost = [
        path
        for path in unread
        if path.parent in folders
        and (_pattern(path) in names or (free and path.suffix.lower() in suffixes))
        and path.name.upper() != "DICOMDIR"
    ]
    if not lost:
        return series
    shown = ", ".join(f"{path.name} ({unread[path]})" for path in lost[:3])
    problem = ImageFileError(
        f"Part of {series.name} cannot be read.",
        file=lost[0],
        expected="every file of the series",
        found=f"{len(series.files)} files that can be read, beside them {len(lost)} that cannot: "
        + shown
        + (", ..." if len(lost) > 3 else ""),
        remedy="copy the series again; remove the files if they are no part of it",
    )
    return replace(series, problem=problem, stack=None)


def _pattern(path: Path) -> str:
    """Return a file's name with `#` for every number: files of one series usually share it."""
    return re.sub(r"\d+", "#", path.name).lower()


def _of_interest(headers: Sequence[Any]) -> bool:
    """Whether a series holds images, segmentations or structure sets, rather than reports or presentations."""
    return any(
        text(header, "Modality").upper() in MODALITY_ROLES or value(header, "Rows") is not None
        for header in headers
    )


def _series(uid: str, members: list[tuple[Path, Any]]) -> Iterator[Series]:
    """Yield the stacks of one series; if it is no volume, the series with its problem."""
    by_path = dict(members)
    header, files = members[0][1], tuple(by_path)
    stated, called = number(header, "SeriesNumber"), description([h for _, h in members])
    shown = None if stated is None else int(stated)

    # The image at b = 0 belongs to the others: it is no T2 for it.
    weighted = any(is_diffusion(header) for _, header in members)

    def make(called: str, files: tuple[Path, ...], **more: Any) -> Series:
        header = by_path[files[0]]
        modality = text(header, "Modality").upper()
        role = None if weighted else role_of(header)
        return Series(
            uid,
            shown,
            called,
            modality,
            role,
            files,
            reformat=is_reformat(header),
            person=person_of(header),
            **more,
        )

    if text(header, "Modality").upper() in MODALITY_ROLES:
        # Each file is a segmentation or structure set of its own.
        yield from (make(called, (path,)) for path in files)
        return
    scouts = [member for member in members if is_localizer(member[1])]
    if scouts and len(scouts) < len(members):  # filed with the series they were taken for
        yield from _series(uid, scouts)
        yield from _series(uid, [member for member in members if not is_localizer(member[1])])
        return
    name = series_name(shown, called)
    persons = list(dict.fromkeys(person_of(header) for _, header in members))
    if any(one.is_another_than(persons[0]) for one in persons[1:]):
        problem: InputError = InputError(
            f"Files of several patients are mixed in {name}.",
            file=files[0],
            expected="one patient per series",
            found="two patients under one SeriesInstanceUID",
            remedy="keep each patient in a folder of their own, or export the series again",
        )
        yield make(called, files, problem=problem)
        return
    tilted = text(header, "Modality").upper() == "CT"
    try:
        frames = [frame for path, header in members for frame in frames_of(header, path, name)]
        parts = separate(frames)
    except GeometryError as irregular:
        yield make(called, files, problem=irregular)
        return
    for label, part in parts:
        title = f"{called} ({label})".strip() if label else called
        name = series_name(shown, title)
        try:
            placed = stack(part, name, tilted=tilted)
        except GeometryError as problem:
            yield make(title, _unique(frame.path for frame in part), problem=problem)
            continue
        paths = _unique(frame.path for frame in placed.frames)
        pet = text(header, "Modality").upper() == "PT"
        factor, unit, note = uptake_factor([by_path[path] for path in paths]) if pet else (1.0, "", "")
        yield make(
            title,
            paths,
            frame_of_reference=placed.frames[0].reference,
            stack=placed,
            factor=factor,
            unit=unit,
            notes=(f"{name}: {note}",) if note else (),
        )


def _unique(paths: Iterator[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(paths))
