"""DICOM series: what a folder holds, what each series is, and its voxels on a grid in RAS millimetres.

A series that is not a regular volume is listed all the same, with the reason; asking for its grid raises it. So a
localizer or a broken scan that nobody needs does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.frames import frames_of
from gliodil.data.dicom.geometry import Stack, separate, stack
from gliodil.data.dicom.headers import (
    description,
    is_dicom,
    number,
    quietly,
    read_header,
    require_pydicom,
    text,
    value,
)
from gliodil.data.dicom.modality import MODALITY_ROLES, role_of
from gliodil.data.dicom.pet import uptake_factor
from gliodil.data.dicom.pixels import read_voxels
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError


@dataclass(frozen=True, eq=False, repr=False)
class Series:
    """One DICOM series, or one of several stacks in it.

    Array convention: `array[i, j, k]` is the pixel in column i and row j of slice k, slices in the order of
    `files` (of the frames, in an enhanced image), ascending along the normal.
    """

    uid: str
    """SeriesInstanceUID."""
    number: int | None
    """SeriesNumber, as scanners show it."""
    description: str
    """What the series is called, without anything that identifies the patient."""
    modality: str
    """`"MR"`, `"PT"`, `"SEG"`, `"RTSTRUCT"`, ..."""
    role: str | None
    """What it was recognised as: `t1 t1c t2 flair pet seg rtstruct`, or None."""
    files: tuple[Path, ...]
    """Sorted along the slice normal, ascending; by name if the series is no volume."""
    frame_of_reference: str = ""
    """FrameOfReferenceUID, "" if there is none."""
    stack: Stack | None = None
    problem: GeometryError | None = None
    """Why the series is no volume."""
    factor: float = 1.0
    """What stored values are multiplied with after rescaling: to SUV for PET."""
    unit: str = ""
    """Unit of the voxels, where the header states it (PET)."""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it: `series 4 "t1 mprage"`."""
        return _name(self.number, self.description)

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, array index to world mm (RAS+); raises GeometryError if the series is no volume."""
        return self._placed.affine

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices; raises GeometryError if the series is no volume."""
        return self._placed.shape

    @property
    def _placed(self) -> Stack:
        if self.problem is not None:
            raise self.problem
        if self.stack is None:
            raise GeometryError(
                f"There are no images in {self.name}.",
                file=self.files[0],
                expected="a series of images",
                found=f"modality {self.modality or 'not stated'}",
                remedy="give a series of images",
            )
        return self.stack

    @cached_property
    def headers(self) -> tuple[Any, ...]:
        """Complete headers (pydicom data sets without pixels), one per file; they hold the patient's identity."""
        require_pydicom()
        from pydicom import dcmread

        with quietly():
            return tuple(dcmread(path, stop_before_pixels=True) for path in self.files)

    def volume(self) -> Volume:
        """Return the images as a scalar volume; voxels are read on first access.

        Raises
        ------
        GeometryError
            If the series is no regular volume.
        ImageFileError
            If pixels are missing, damaged or compressed in a way that cannot be read (on first access).
        """
        placed = self._placed
        return Volume.lazy(
            partial(read_voxels, placed.frames, self.factor, self.name),
            shape=placed.shape,
            affine=placed.affine,
            kind="scalar",
            path=self.files[0],
            notes=self.notes,
            frame=self.frame_of_reference,
        )

    def __repr__(self) -> str:
        what = self.role or "no role"
        if self.stack is None:
            return f"Series({self.name}, {self.modality}, {what}, {len(self.files)} files, no volume)"
        return f"Series({self.name}, {self.modality}, {what}, {len(self.files)} files, {self.volume()!r})"


@dataclass(frozen=True)
class Scan:
    """What a folder holds."""

    series: tuple[Series, ...]
    skipped: int
    """Number of files that are not DICOM."""
    other: int
    """Number of DICOM files that are neither images, segmentations nor structure sets."""


def find_series(folder: Path | str) -> tuple[Series, ...]:
    """Return the DICOM series in a folder and its subfolders, ordered by series number; see `scan_folder`."""
    return scan_folder(folder).series


def scan_folder(folder: Path | str, *, deep: bool = True) -> Scan:
    """Look through a folder for DICOM files, whatever their names; only headers are read.

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
    ImageFileError
        If a DICOM file is damaged (it may be a slice of a series that would then look complete).
    MissingExtraError
        If there are DICOM files and pydicom is not installed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("There is no such folder.", file=folder, expected="a folder of DICOM files")
    paths = sorted(_files(folder, deep=deep))
    marked = [path for path in paths if is_dicom(path)]
    skipped = len(paths) - len(marked)
    if not marked:
        return Scan((), skipped, 0)
    require_pydicom()
    with quietly():
        found, other = _read(marked)
    order = sorted(found, key=lambda s: (s.number is None, s.number or 0, s.files[0]))
    return Scan(tuple(order), skipped, other)


def has_dicom(folder: Path | str) -> bool:
    """Whether there is a DICOM file in a folder or its subfolders."""
    return any(is_dicom(path) for path in _files(Path(folder), deep=True))


def _read(paths: Sequence[Path]) -> tuple[list[Series], int]:
    """Return the series of DICOM files, and how many files are in none."""
    groups: dict[str, list[tuple[Path, Any]]] = {}
    for path in paths:
        if (header := read_header(path)) is not None:
            groups.setdefault(text(header, "SeriesInstanceUID"), []).append((path, header))
    members = {uid: group for uid, group in groups.items() if _of_interest([header for _, header in group])}
    found = [series for uid, group in members.items() for series in _series(uid, group)]
    return found, len(paths) - sum(map(len, members.values()))


def _files(folder: Path, *, deep: bool) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        yield from (Path(root, name) for name in names)
        if not deep:
            folders.clear()


def _of_interest(headers: Sequence[Any]) -> bool:
    """Whether a series holds images, segmentations or structure sets, rather than reports or presentations."""
    return any(
        text(header, "Modality").upper() in MODALITY_ROLES
        or (value(header, "Rows") is not None and text(header, "Modality").upper() != "RTDOSE")
        for header in headers
    )


def _series(uid: str, members: list[tuple[Path, Any]]) -> Iterator[Series]:
    """Yield the stacks of one series; if it is no volume, the series with its problem."""
    by_path = dict(members)
    header, files = members[0][1], tuple(by_path)
    stated, called = number(header, "SeriesNumber"), description([h for _, h in members])
    shown = None if stated is None else int(stated)

    def make(called: str, files: tuple[Path, ...], **more: Any) -> Series:
        header = by_path[files[0]]
        return Series(uid, shown, called, text(header, "Modality").upper(), role_of(header), files, **more)

    if text(header, "Modality").upper() in MODALITY_ROLES:
        # Each file is a segmentation or structure set of its own.
        yield from (make(called, (path,)) for path in files)
        return
    name = _name(shown, called)
    try:
        frames = [frame for path, header in members for frame in frames_of(header, path, name)]
        parts = separate(frames)
    except GeometryError as problem:
        yield make(called, files, problem=problem)
        return
    for label, part in parts:
        title = f"{called} ({label})".strip() if label else called
        name = _name(shown, title)
        try:
            placed = stack(part, name)
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


def _name(series_number: int | None, called: str) -> str:
    shown = "" if series_number is None else f" {series_number}"
    quoted = f' "{called}"' if called else " without description" if series_number is None else ""
    return f"series{shown}{quoted}"
