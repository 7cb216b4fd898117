"""Whether two things belong together: the one place that decides it.

    one patient    not told to be two by PatientID, birth date or name (``dicom.person``); or the user says that they are
                   one person's
    one frame      equal frames of reference, where both are stated; or a chain of registrations (``frames``)
    one place      fields of view that meet in world coordinates

A NIfTI file states neither patient nor frame: it is taken to be what the user says it is. PatientIDs are compared and
never shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.dicom.headers import is_dicom, item, read_header, text
from gliodil.data.dicom.person import Person, person_of
from gliodil.data.dicom.series import Series
from gliodil.data.frames import FrameGraph, Link
from gliodil.data.volume import Volume
from gliodil.errors import InputError

SAME_PATIENT = "--same-patient"
"""The option that states one person's identity where identifiers differ."""


@dataclass(frozen=True)
class Owned:
    """Something of somebody: what it is called, its file, whose it says it is, and its frame of reference ("": none)."""

    name: str
    file: Path
    person: Person
    frame: str = ""

    @classmethod
    def of_series(cls, role: str, series: Series) -> Owned:
        """Return what a series says."""
        return cls(f"{role} ({series.name})", series.files[0], series.person, series.frame_of_reference)

    @classmethod
    def of_file(cls, role: str, path: Path) -> Owned:
        """Return what a file says: nothing, if it is no DICOM."""
        header = read_header(path) if is_dicom(path) else None
        if header is None:
            return cls(f"{role} ({path.name})", path, Person())
        referenced = item(header, "ReferencedFrameOfReferenceSequence")
        frame = text(header, "FrameOfReferenceUID") or text(referenced, "FrameOfReferenceUID")
        return cls(f"{role} ({path.name})", path, person_of(header), frame)


def require_one_patient(things: Iterable[Owned], *, stated: bool = False) -> None:
    """Refuse things of two persons.

    Parameters
    ----------
    things
        Everything that is to be used together, what the others are compared with first.
    stated
        Whether the user said that they are one person's.

    Raises
    ------
    InputError
        If two of them are of two persons.
    """
    if stated:
        return
    seen: list[Owned] = []
    for thing in things:
        for first in seen:
            if thing.person.is_another_than(first.person):
                raise InputError(
                    f"The {thing.name} is of another patient than the {first.name}.",
                    file=thing.file,
                    expected=f"the patient of {first.file.name}",
                    found="another PatientID"
                    if thing.person.identifier and first.person.identifier
                    else "another birth date or name",
                    remedy="take it out of the folder, or give the right one; if both are one person under two numbers, "
                    f"say so with {SAME_PATIENT}",
                )
        seen.append(thing)


def carried(
    image: Volume, frame: str, graph: FrameGraph, *, what: str, file: Path | None = None
) -> tuple[Volume, Link | None]:
    """Return an image in a frame of reference, and the link it was carried by; None if it was there, or states none.

    Raises
    ------
    GeometryError
        If nothing relates the two frames.
    """
    if not image.frame or not frame or image.frame == frame:
        return image, None
    link = graph.require(image.frame, frame, what=what, file=file or image.path)
    return image.carried(link.matrix, frame), link
