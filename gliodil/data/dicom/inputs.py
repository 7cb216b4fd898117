"""Which DICOM series of a patient is which image: recognised from headers, or named by the user."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.dicom.headers import is_dicom, require_pydicom
from gliodil.data.dicom.modality import MODALITY_ROLES
from gliodil.data.dicom.series import Series, has_dicom, scan_folder
from gliodil.errors import InputError, MissingExtraError

logger = logging.getLogger(__name__)

IMAGE_ROLES = ("t1c", "t1", "flair", "t2", "pet")
"""Inputs that can be DICOM series; the first one present is the reference."""


@dataclass(frozen=True)
class FoundSeries:
    """The series of a folder by role, and what else it holds."""

    roles: Mapping[str, Series]
    """Images, and under `"seg"` a segmentation or structure set."""
    unused: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()


def find_inputs(folder: Path, *, given: Collection[str], taken: Iterable[Series]) -> FoundSeries:
    """Return the series in a patient's folder that fill the inputs not given yet.

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
    ImageFileError
        If a DICOM file is damaged.
    MissingExtraError
        If pydicom is not installed, there are DICOM files, and no segmentation of another kind.
    """
    if not has_dicom(folder):
        return FoundSeries({})
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
        if role in given:
            unused += fitting
        elif len(fitting) > 1:
            raise _ambiguous(role, fitting, folder)
        elif fitting:
            roles[role] = fitting[0]
    unused += [series for series in free if _input_of(series) is None]
    notes: tuple[str, ...] = ()
    if unused:
        shown = "; ".join(f"{series.name} ({standing(series)})" for series in unused[:10])
        more = f"; and {len(unused) - 10} more" if len(unused) > 10 else ""
        notes = (f"DICOM series that are not used: {shown}{more}",)
    return FoundSeries(roles, tuple(unused), notes)


def is_series(path: Path) -> bool:
    """Whether a path given for an image means a DICOM series: a folder, or a DICOM file."""
    return path.is_dir() or is_dicom(path)


def series_at(path: Path, role: str) -> Series:
    """Return the series that a folder holds, or that a file belongs to (looked for in the file's folder).

    For the role `"seg"` that is a segmentation or structure set, otherwise a series of images.

    Raises
    ------
    InputError
        If there is none, or more than one.
    """
    folder = path if path.is_dir() else path.parent
    scan = scan_folder(folder, deep=path.is_dir())
    found = [series for series in scan.series if (_input_of(series) == "seg") == (role == "seg")]
    if not path.is_dir():
        found = [series for series in found if path.resolve() in {file.resolve() for file in series.files}]
    if not found:
        raise InputError(
            f"There is no {'segmentation' if role == 'seg' else 'series of images for ' + role}.",
            file=path,
            expected="a folder with one DICOM series of that kind, a file of one, or a NIfTI file",
            found=f"{len(scan.series)} other DICOM series, {scan.skipped + scan.other} other files",
            remedy="check the path",
        )
    if len(found) > 1:
        raise _ambiguous(role, found, folder)
    return found[0]


def _input_of(series: Series) -> str | None:
    return "seg" if series.role in ("seg", "rtstruct") else series.role


def _key(series: Series) -> tuple[str, Path]:
    return series.uid, series.files[0].resolve()


def standing(series: Series) -> str:
    """Return why a series is not used, in a few words."""
    if series.problem is not None:
        return "no regular volume"
    if series.modality in MODALITY_ROLES and series.role is None:
        return "made by gliodil"
    return f"looks like {series.role}" if series.role else "no known role"


def _ambiguous(role: str, candidates: list[Series], folder: Path) -> InputError:
    kind = "segmentations" if role == "seg" else "series"
    lines = [f"{series.name}, {_size(series)}: {_below(series.files[0], folder)}" for series in candidates]
    indent = "\n" + " " * 12
    return InputError(
        f"Several {kind} could be the {role} image.",
        file=folder,
        expected=f"one {role} image",
        found=indent + indent.join(lines),
        remedy=f"choose one with --{role} PATH, PATH being any file of it as listed above"
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
