"""Which files and series of a patient are read: named ones first, NIfTI before DICOM, one of each.

What is used together must belong together (``identity``); images that nothing relates to the first one are left out, or
refused where the plan rests on them or they were named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.data.dicom.inputs import IMAGE_ROLES, find_inputs, is_series, series_at, standing
from gliodil.data.dicom.series import Series
from gliodil.data.discover import FILE_ROLES, FoundFiles, find_files
from gliodil.data.frames import FrameGraph
from gliodil.data.identity import Owned, require_one_patient
from gliodil.data.planning_ct import PlanningCT, choose_ct, registrations
from gliodil.errors import InputError


@dataclass(frozen=True)
class ChosenInputs:
    """What is read for a patient."""

    files: Mapping[str, Path]
    """Input to file; for a DICOM series the file of its first slice."""
    series: Mapping[str, Series]
    """The inputs that are DICOM series, the reference first."""
    others: tuple[Series, ...]
    """Series of the folder that are no input; a segmentation may have been drawn on one."""
    warnings: tuple[str, ...]
    planning: PlanningCT | None = None
    """The planning CT, if there is one."""
    graph: FrameGraph = field(default_factory=FrameGraph)
    """How frames of reference lie to each other, by the clinic's registration objects."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """What structures are, by name, where the user says it."""
    to_align: bool = False
    """Whether images are registered later: coordinates of other frames then only have to be near."""


def choose_inputs(
    folder: Path | None,
    files: Mapping[str, Path | str],
    *,
    ct: Path | None = None,
    reg: Sequence[Path] = (),
    register: bool = False,
    same_patient: bool = False,
    parts: Mapping[str, str] | None = None,
) -> ChosenInputs:
    """Return what to read from a folder and from named files, which take precedence.

    NIfTI files take precedence over DICOM series of the folder. `ct` and `reg` name the planning CT and the clinic's
    registration objects, see ``planning_ct.choose_ct``; `register` says that images are aligned later, `same_patient`
    that all is one person's whatever the identifiers.
    """
    if unknown := sorted(set(files) - set(FILE_ROLES)):
        raise InputError(
            "There is no input of that name.",
            expected=", ".join(FILE_ROLES),
            found=", ".join(unknown),
            remedy="use one of these names",
        )
    named = {role: Path(path) for role, path in files.items()}
    found = FoundFiles({}, (), ()) if folder is None else find_files(folder)
    series = {r: series_at(p, r) for r, p in named.items() if r in IMAGE_ROLES and is_series(p)}
    named |= {role: one.files[0] for role, one in series.items()}
    if "seg" in named and named["seg"].is_dir():
        named["seg"] = series_at(named["seg"], "seg").files[0]
    taken = {path.resolve() for path in named.values()}
    chosen = dict(named)
    for role, paths in found.roles.items():
        free = [path for path in paths if path.resolve() not in taken]
        if role in named or not free:
            continue
        if len(free) > 1:
            raise InputError(
                f"Several files could be the {role} image.",
                file=folder,
                expected=f"one {role} image",
                found=", ".join(_relative(path, folder) for path in free),
                remedy=f"choose one with --{role} FILE",
            )
        chosen[role] = free[0]
    others: tuple[Series, ...] = ()
    warnings = []
    found_ct: Mapping[str, tuple[Series, ...]] = {}
    if folder is not None:
        dicom = find_inputs(folder, given=chosen, taken=series.values())
        others, warnings, found_ct = dicom.unused, list(dicom.notes), dicom.planning
        chosen |= {role: one.files[0] for role, one in dicom.roles.items()}
        series |= {role: one for role, one in dicom.roles.items() if role != "seg"}
    clinics = registrations(reg, found_ct.get("reg", ()))
    planning = choose_ct(ct, found_ct.get("ct", ()), folder, clinics)
    if "seg" not in chosen:
        seen = [f"{r}: {series[r].name if r in series else path.name}" for r, path in chosen.items()]
        seen += [f"not used: {_relative(path, folder)}" for path in (*found.unknown, *found.outputs)]
        seen += [f"not used: {one.name} ({standing(one)})" for one in others]
        raise InputError(
            "The tumour segmentation is missing.",
            file=folder,
            expected="a file named like seg, segm or segmentation, a DICOM SEG or an RTSTRUCT",
            found="; ".join(seen) or "no files",
            remedy="name it with --seg FILE",
        )
    by_file: dict[Path, str] = {}
    for role, path in chosen.items():
        if (other := by_file.setdefault(path.resolve(), role)) != role:
            raise InputError(
                "One file is given for two inputs.",
                file=path,
                expected="a file for each",
                found=f"{other} and {role}",
                remedy=f"give --{other} and --{role} a file each",
            )
    if left := [path for path in found.unknown if path.resolve() not in by_file]:
        warnings.append("files with unknown role are not used: " + _listing(left, folder))
    if left := [path for path in found.outputs if path.resolve() not in by_file]:
        warnings.append("plans and predictions in the folder are not used: " + _listing(left, folder))
    used = {role: series[role] for role in IMAGE_ROLES if role in series}
    owned = [Owned.of_series(role, one) for role, one in used.items()]
    owned += [] if planning is None else [Owned.of_series("planning CT", planning.series)]
    owned += [Owned.of_file(role, path) for role, path in chosen.items() if role not in used]
    require_one_patient(
        [*owned, *(Owned.of_file("registration object", path) for path in clinics.files)], stated=same_patient
    )
    graph = clinics.graph
    warnings += clinics.unused([one.frame for one in owned] + [one.frame_of_reference for one in others])
    if not register:
        for role, note in _unrelated(used, graph, needed=("pet", *named)).items():
            warnings.append(note)
            others += (used.pop(role),)
            del chosen[role]
    return ChosenInputs(
        {role: chosen[role] for role in FILE_ROLES if role in chosen},
        used,
        others,
        tuple(warnings),
        planning,
        graph,
        parts or {},
        register,
    )


def _unrelated(series: Mapping[str, Series], graph: FrameGraph, *, needed: Collection[str]) -> dict[str, str]:
    """Return the images that nothing relates to the first one, with the sentence that says that they are left out.

    An image that the plan rests on, or that was named, is refused instead.
    """
    notes: dict[str, str] = {}
    if not series:
        return notes
    first, *others = series.items()
    for role, one in others:
        frame, wanted = one.frame_of_reference, first[1].frame_of_reference
        if not frame or not wanted or graph.path(frame, wanted) is not None:
            continue
        if role in needed:
            graph.require(frame, wanted, what=f"{role} image ({one.name})", file=one.files[0])
        notes[role] = (
            f"{one.name} is left out: it lies in another frame of reference than {first[1].name}, and nothing says how "
            "they lie to each other (--reg FILE would, or --register)"
        )
    return notes


def _relative(path: Path, folder: Path | None) -> str:
    return str(path.relative_to(folder)) if folder is not None and path.is_relative_to(folder) else str(path)


def _listing(paths: Sequence[Path], folder: Path | None) -> str:
    shown = ", ".join(_relative(path, folder) for path in paths[:10])
    return shown + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
