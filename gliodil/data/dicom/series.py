"""One DICOM series: what it is, and its voxels on a grid in RAS millimetres."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.geometry import Stack
from gliodil.data.dicom.headers import open_dicom, quietly, require_pydicom
from gliodil.data.dicom.person import Person
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
    """What it was recognised as: `t1 t1c t2 flair pet ct seg rtstruct reg dose`, or None."""
    files: tuple[Path, ...]
    """Sorted along the slice normal, ascending; by name if the series is no volume."""
    frame_of_reference: str = ""
    """FrameOfReferenceUID, "" if there is none."""
    stack: Stack | None = None
    problem: InputError | None = None
    """Why the series is no volume."""
    factor: float = 1.0
    """What stored values are multiplied with after rescaling: to SUV for PET."""
    unit: str = ""
    """Unit of the voxels, where the header states it (PET)."""
    notes: tuple[str, ...] = ()
    reformat: bool = False
    """Whether it was computed from another series, on other planes."""
    person: Person = field(default_factory=Person)
    """Whose it is; compared, never shown."""

    @property
    def name(self) -> str:
        """What messages call it: `series 4 "t1 mprage"`."""
        return series_name(self.number, self.description)

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4, array index to world mm (RAS+); raises `problem` if the series is no volume."""
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
        with quietly():
            return tuple(open_dicom(path, stop_before_pixels=True) for path in self.files)

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


def series_name(series_number: int | None, called: str) -> str:
    """Return what messages call a series: its number and its description."""
    shown = "" if series_number is None else f" {series_number}"
    quoted = f' "{called}"' if called else " without description" if series_number is None else ""
    return f"series{shown}{quoted}"
