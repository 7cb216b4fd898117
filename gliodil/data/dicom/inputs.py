"""Which DICOM series of a patient is which image: recognised from headers, or named by the user."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.data.dicom.headers import is_dicom, require_pydicom
from gliodil.data.dicom.modality import MODALITY_OF, MODALITY_ROLES
from gliodil.data.dicom.scan import has_dicom, scan_folder
from gliodil.data.dicom.series import Series
from gliodil.data.tree import look_through
from gliodil.errors import ImageFileError, InputError, MissingExtraError

logger = logging.getLogger(__name__)

IMAGE_ROLES = ("t1c", "t1", "flair", "t2", "pet")
"""Inputs that can be DICOM series; the first one present is the reference."""


PLANNING_ROLES = ("ct", "reg", "dose")
"""What a clinic's own plan brings: planning CT, registration objects, doses."""


@dataclass(frozen=True)
class FoundSeries:
    """The series of a folder by role, and what else it holds."""

    roles: Mapping[str, Series]
    """Images, and under `"seg"` a segmentation or structure set."""
    planning: Mapping[str, tuple[Series, ...]] = field(default_factory=dict)
    """All planning CTs (`"ct"`), registration objects (`"reg"`) and doses (`"dose"`)."""
    unused: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()


def find_inputs(folder: Path, *, given: Collection[str], taken: Iterable[Series]) -> FoundSeries:
    """Return the series in a patient's folder that fill the inputs not given yet.

    An odd series (no regular volume, or part of it cannot be read) is left out, and said, where another one fits or
    where it would only be shown. It is kept, to be refused by name, where the plan would rest on it: the reference
    (the first of `IMAGE_ROLES` present) and PET.

    Parameters
    ----------
    folder
        Patient folder; subfolders are searched too.
    given
        Inputs that are there already: named, or found as NIfTI.
    taken
        Series named by the user, for whatever input: not to be chosen for another one.

    Raises
    ------
    InputError
        If several series, segmentations or structure sets could be one input.
    MissingExtraError
        If pydicom is not installed, there are DICOM files, and no segmentation of another kind.
    """
    if not has_dicom(folder):
        return FoundSeries({}, notes=unread_notes(look_through(folder).unread, folder))
    try:
        require_pydicom()
    except MissingExtraError as error:
        if "seg" not in given:
            raise
        return FoundSeries({}, notes=(f"DICOM files in the folder are not read: {error.remedy}",))
    scan = scan_folder(folder)
    counts = f"{len(scan.series)} DICOM series, {scan.other} other DICOM files, {scan.skipped} other files"
    logger.info("%s: %s", folder.name, counts)
    busy = {_key(series) for series in taken}
    free = [series for series in scan.series if _key(series) not in busy]
    roles: dict[str, Series] = {}
    unused: list[Series] = []
    for role in (*IMAGE_ROLES, "seg"):
        fitting = [series for series in free if _input_of(series) == role]
        sound = [series for series in fitting if series.problem is None]
        needed = role == "pet" or not (roles or set(IMAGE_ROLES) & set(given))
        original = [series for series in sound if not series.reformat]
        candidates = original or sound or (fitting if needed else [])
        if role in given:
            unused += fitting
            continue
        unused += [series for series in fitting if series not in candidates]
        if len(candidates) > 1:
            raise ambiguous(role, candidates, folder)
        if candidates:
            roles[role] = candidates[0]
    planning = {role: tuple(s for s in free if s.role == role) for role in PLANNING_ROLES}
    unused += [series for series in free if series.role is None]
    notes = unread_notes(scan.unread, folder)
    if recognised := [f"{s.name} as {role}" for role, found in planning.items() for s in found]:
        notes += (f"recognised: {'; '.join(recognised)}",)
    if unused:
        shown = "; ".join(f"{series.name} ({standing(series)})" for series in unused[:10])
        more = f"; and {len(unused) - 10} more" if len(unused) > 10 else ""
        notes += (f"DICOM series that are not used: {shown}{more}",)
    return FoundSeries(
        roles, {role: found for role, found in planning.items() if found}, tuple(unused), notes
    )


def unread_notes(unread: Mapping[Path, str], folder: Path) -> tuple[str, ...]:
    """Return the sentence that says what of a folder cannot be read; none if all can."""
    if not unread:
        return ()
    shown = ", ".join(f"{_below(path, folder)} ({why})" for path, why in list(unread.items())[:5])
    return (f"cannot be read: {shown}" + (f" and {len(unread) - 5} more" if len(unread) > 5 else ""),)


def is_series(path: Path) -> bool:
    """Whether a path given for an image means a DICOM series: a folder, or a DICOM file."""
    return path.is_dir() or is_dicom(path)


def series_at(path: Path, role: str) -> Series:
    """Return the series that a folder holds, or that a file belongs to (looked for in the file's folder).

    For the role `"seg"` that is a segmentation or structure set, for `"reg"` and `"dose"` an object of that kind,
    otherwise a series of images made with the modality of the role.

    Raises
    ------
    InputError
        If there is none, or more than one, or it was made with another modality.
    """
    folder = path if path.is_dir() else path.parent
    scan = scan_folder(folder, deep=path.is_dir())
    kind = role if role in ("seg", "reg", "dose") else "image"
    found = [series for series in scan.series if _kind(series) == kind]
    if not path.is_dir():
        found = [series for series in found if path.resolve() in {file.resolve() for file in series.files}]
    if not found:
        raise InputError(
            f"There is no {_OBJECTS.get(role, 'series of images for ' + role)}.",
            file=path,
            expected="a folder with one DICOM series of that kind, a file of one, or a NIfTI file",
            found=f"{len(scan.series)} other DICOM series, {scan.skipped + scan.other} other files"
            + "".join(f"; {note}" for note in unread_notes(scan.unread, folder)),
            remedy="check the path",
        )
    if (made_with := MODALITY_OF.get(role)) is not None:
        fitting = [series for series in found if series.modality == made_with]
        if not fitting:
            raise InputError(
                f"The series for {role} was not made with {made_with}.",
                file=path,
                expected=f"a series of modality {made_with}",
                found=", ".join(
                    f"{series.name}, modality {series.modality or 'not stated'}" for series in found[:5]
                ),
                remedy="give it to the input it is for (--ct for a planning CT), or check the path",
            )
        found = fitting
    if len(found) > 1:
        found = [series for series in found if series.problem is None] or found
    if len(found) > 1:
        found = [series for series in found if not series.reformat] or found
    if len(found) > 1:
        raise ambiguous(role, found, folder)
    return found[0]


_OBJECTS = {"seg": "segmentation", "reg": "registration object", "dose": "dose"}


def _input_of(series: Series) -> str | None:
    return "seg" if series.role in ("seg", "rtstruct") else series.role


def _kind(series: Series) -> str:
    own = MODALITY_ROLES.get(series.modality, "image")
    return "seg" if own == "rtstruct" else own


def _key(series: Series) -> tuple[str, Path]:
    return series.uid, series.files[0].resolve()


def standing(series: Series) -> str:
    """Return why a series is not used, in a few words."""
    if series.problem is not None:
        part = isinstance(series.problem, ImageFileError)
        return "part of it cannot be read" if part else "no regular volume"
    if series.modality in MODALITY_ROLES and series.role is None:
        return "made by gliodil"
    if series.role and series.reformat:
        return f"looks like {series.role}, a reformat"
    return f"looks like {series.role}" if series.role else "no known role"


def ambiguous(role: str, candidates: list[Series], folder: Path, *, more: str = "") -> InputError:
    """Return the error that lists the series that could fill one role, and how to choose."""
    kind = "segmentations" if role == "seg" else "series"
    lines = [f"{series.name}, {_size(series)}: {_below(series.files[0], folder)}" for series in candidates]
    indent = "\n" + " " * 12
    return InputError(
        f"Several {kind} could be the {role} image.",
        file=folder,
        expected=f"one {role} image",
        found=indent + indent.join(lines),
        remedy=f"choose one with --{role} PATH, PATH being any file of it as listed above{more}"
        if len({series.files[0] for series in candidates}) > 1
        else "export the images you mean as a series of their own",
    )


def _size(series: Series) -> str:
    if series.stack is None:
        return "no regular volume" if series.problem is not None else series.modality
    spacing = " x ".join(f"{s:.3g}" for s in series.volume().spacing)
    return f"{' x '.join(map(str, series.shape))} voxels of {spacing} mm"


def _below(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
