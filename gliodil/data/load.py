"""From file names to checked volumes on one grid: the steps behind `load_patient`.

choose files -> read segmentation -> labels -> read the others -> onto the segmentation's grid -> checks
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gliodil.data import checks
from gliodil.data.barriers import resample_sheets
from gliodil.data.dicom.headers import is_dicom, item, read_header, text
from gliodil.data.dicom.inputs import IMAGE_ROLES, find_inputs, is_series, series_at, standing
from gliodil.data.dicom.series import Series
from gliodil.data.discover import FILE_ROLES, FoundFiles, find_files
from gliodil.data.follow_up import read_follow_up
from gliodil.data.frames import FrameGraph, Link
from gliodil.data.identity import Owned, carried, require_one_patient
from gliodil.data.label_check import check_labels, detect_convention
from gliodil.data.labels import LabelConvention, get_convention
from gliodil.data.nifti import read_nifti
from gliodil.data.planning_ct import PlanningCT, choose_ct, registrations, related
from gliodil.data.rim_filling import fill_rims
from gliodil.data.segmentation import read_mask, read_segmentation
from gliodil.data.shapes import carry_labels
from gliodil.data.volume import Volume
from gliodil.errors import InputError

TISSUES = ("wm", "gm", "csf")

_LABEL_ROLES = ("seg", "brain", "barriers")


@dataclass(frozen=True)
class Source:
    """An input file or DICOM series as it is on disk, before anything was resampled."""

    role: str
    path: Path
    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    orientation: str
    resampled: bool
    unit: str = ""


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


@dataclass(frozen=True)
class LoadedVolumes:
    """What `load_volumes` found; every volume lies on the segmentation's grid."""

    segmentation: Volume
    convention: LabelConvention
    volumes: Mapping[str, Volume]
    sources: tuple[Source, ...]
    warnings: tuple[str, ...]
    planning: PlanningCT | None = None


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
    require_one_patient(owned, stated=same_patient)
    graph = clinics.graph
    seen_series = (*used.values(), *others, *(() if planning is None else (planning.series,)))
    warnings += clinics.unused(
        [one.frame_of_reference for one in seen_series] + [_stated_frame(path) for path in chosen.values()]
    )
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


def load_volumes(inputs: ChosenInputs, *, labels: str | None) -> LoadedVolumes:
    """Read and check the inputs of a patient, and bring all volumes onto the segmentation's grid."""
    files = inputs.files
    image = next((files[role] for role in IMAGE_ROLES if role in files), None)
    planning = inputs.planning
    cts = () if planning is None else (planning.series,)
    candidates = (*inputs.series.values(), *cts, *inputs.others)
    read = read_segmentation(
        files["seg"], labels=labels, series=candidates, image=image, graph=inputs.graph, parts=inputs.parts
    )
    segmentation, warnings = read.volume, list(read.notes)
    if read.convention is None and labels is None:
        convention, notes = detect_convention(segmentation)
    else:
        convention = read.convention or get_convention(labels or "")
        notes = check_labels(segmentation, convention, by_name=read.convention is not None)
    segmentation, filled = fill_rims(segmentation, convention)
    if planning is not None:
        segmentation, planning = _onto_mr(segmentation, planning, inputs)
        if planning.drawn is not None:
            warnings.append(
                f"{files['seg'].name}: drawn on the planning CT, {planning.series.name}; carried to the MR for the model"
            )
    segmentation, carried_notes = _into_frame(segmentation, inputs)
    warnings += carried_notes
    warnings += [*notes, *filled, *checks.check_resolution(segmentation)]
    tumour = segmentation.mask(convention.necrotic + convention.enhancing + convention.oedema)
    if not tumour.any():  # all that could be seen was resected
        tumour = segmentation.mask(convention.cavity)
    volumes: dict[str, Volume] = {}
    sources = [_source("seg", files["seg"], segmentation, resampled=False)]
    for role, path in files.items():
        if role == "seg":
            continue
        volume, source, notes = _load(role, path, inputs, segmentation, tumour, convention)
        volumes[role] = volume
        sources.append(source)
        warnings += notes
    tissue = {role: volumes[role] for role in TISSUES if role in volumes}
    checks.check_tissue_at_tumour(tissue, segmentation, tumour)
    warnings += checks.check_tissue_sum(tissue, volumes.get("brain"), tumour)
    if "brain" in volumes:
        checks.check_tissue_at_tumour({"brain": volumes["brain"]}, segmentation, tumour)
    brain = brain_mask(volumes)
    warnings += checks.check_tumour_position(tumour, brain, segmentation.voxel_volume_ml)
    if "t1c" in volumes:
        oedema = segmentation.mask(convention.oedema)
        warnings += checks.check_enhancement(volumes["t1c"], segmentation.mask(convention.enhancing), oedema)
    if planning is not None:
        one = planning.series
        sources.append(_source("ct", one.files[0], one.volume(), one, resampled=False))
    return LoadedVolumes(segmentation, convention, volumes, tuple(sources), tuple(warnings), planning)


def _onto_mr(segmentation: Volume, planning: PlanningCT, inputs: ChosenInputs) -> tuple[Volume, PlanningCT]:
    """Return a segmentation that was drawn on the planning CT on the grid of the MR; any other as it is."""
    ct = planning.series.volume()
    image = mr_image(inputs)
    drawn_here = segmentation.frame == planning.frame if segmentation.frame else segmentation.same_grid(ct)
    if image is None or not drawn_here or segmentation.same_grid(image):
        return segmentation, planning
    planning = replace(related(planning, image), drawn=segmentation)
    return carry_labels(segmentation, image, planning.related_link.inverse.matrix), planning


def mr_image(inputs: ChosenInputs) -> Volume | None:
    """Return the MR image that the model runs on, as it is on disk: the first there is of t1c, t1, flair, t2."""
    for role in ("t1c", "t1", "flair", "t2"):
        if role in inputs.series:
            return inputs.series[role].volume()
        if role in inputs.files:
            return read_nifti(inputs.files[role], kind="scalar")
    return None


def brain_mask(volumes: Mapping[str, Volume]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None:
    """Return the given brain mask, else where WM + GM + CSF exceed 0.1, else None (without WM and GM)."""
    if "brain" in volumes:
        return np.asarray(volumes["brain"].data != 0)
    if "wm" in volumes and "gm" in volumes:
        return np.asarray(sum(volumes[role].data for role in TISSUES if role in volumes) > 0.1)
    return None


def _load(
    role: str,
    path: Path,
    inputs: ChosenInputs,
    segmentation: Volume,
    tumour: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    convention: LabelConvention,
) -> tuple[Volume, Source, tuple[str, ...]]:
    """Read one file or series, check it, and bring it onto the grid of the segmentation."""

    series = inputs.series.get(role)
    frame = segmentation.frame or _first_frame(inputs)  # NIfTI states none: it lies on the first image
    graph = near(inputs, frame)
    said: tuple[str, ...] = ()
    later = None
    if role == "recurrence":
        parts, name = inputs.parts, convention.name
        later = read_follow_up(path, segmentation, frame=frame, graph=graph, convention=name, parts=parts)
        said = later.notes

    def read() -> Volume:
        if series is not None:
            return series.volume()
        if later is not None:
            return later.labels
        return read_mask(path) if role in _LABEL_ROLES else read_nifti(path, kind="scalar")

    original, link = carried(read(), frame, graph, what=f"{role} image", file=path)
    notes = (said or original.notes) + checks.check_field_of_view(role, original, segmentation, tumour)
    if link is not None and link.origin != "same frame":
        notes += (f"{path.name}: placed by the clinic's registration of its frame of reference",)
    resampled = not original.same_grid(segmentation)
    volume = original
    if role in TISSUES:
        volume = checks.check_tissue(role, original)
        notes += checks.check_tissue_values(role, original)
    elif role == "brain":
        checks.check_brain(original)
    elif role == "recurrence":
        notes += checks.check_recurrence(original)
    elif role == "barriers":
        checks.check_barriers(original)
    if resampled:
        notes += (_resampling_note(original, segmentation),)
        # Nearest voxels would leave holes in a thin sheet.
        volume = (resample_sheets if role == "barriers" else Volume.resample_to)(volume, segmentation)
    if role == "pet":
        volume, more = checks.check_pet(volume, tumour)
        notes += more
    elif not volume.is_loaded:
        # Read the voxels once, so that a damaged file is reported now and not after the fit; then let
        # them go, because anatomical images are only needed for pictures.
        read().data  # noqa: B018
    if series is not None:  # the file of one slice says little
        notes = tuple(note.replace(f"{path.name}:", f"{series.name}:", 1) for note in notes)
    return volume, _source(role, path, original, series, resampled=resampled), notes


def _source(
    role: str, path: Path, volume: Volume, series: Series | None = None, *, resampled: bool
) -> Source:
    name = path.name if series is None else f"{series.name}, {len(series.files)} files"
    unit = "" if series is None else series.unit
    return Source(role, path, name, volume.shape, volume.spacing, volume.orientation, resampled, unit)


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


def _stated_frame(path: Path) -> str:
    """Return the frame of reference that a DICOM file states, "" for any other file."""
    if not is_dicom(path) or (header := read_header(path)) is None:
        return ""
    referenced = item(header, "ReferencedFrameOfReferenceSequence")
    return text(header, "FrameOfReferenceUID") or text(referenced, "FrameOfReferenceUID")


def _into_frame(segmentation: Volume, inputs: ChosenInputs) -> tuple[Volume, list[str]]:
    """Return the segmentation on the images: drawn in another frame of reference, it is carried to theirs."""
    if not inputs.series or not segmentation.frame:
        return segmentation, []
    image = next(iter(inputs.series.values())).volume()
    if not image.frame or image.frame == segmentation.frame:
        return segmentation, []
    link = inputs.graph.require(
        segmentation.frame, image.frame, what="segmentation", file=inputs.files["seg"]
    )
    return carry_labels(segmentation, image, link.matrix), [
        f"{inputs.files['seg'].name}: carried to {next(iter(inputs.series.values())).name} by the clinic's registration"
    ]


def _first_frame(inputs: ChosenInputs) -> str:
    return next((series.frame_of_reference for series in inputs.series.values()), "")


def near(inputs: ChosenInputs, frame: str) -> FrameGraph:
    """Return the clinic's registrations and, where images are aligned later, frames as if they were one until then."""
    graph = inputs.graph
    if not inputs.to_align or not frame:
        return graph
    for series in inputs.series.values():
        other = series.frame_of_reference
        if other and graph.path(other, frame) is None:
            graph = graph.with_link(Link(other, frame, np.eye(4), "same frame"))
    return graph


def _resampling_note(volume: Volume, segmentation: Volume) -> str:
    def grid(v: Volume) -> str:
        shape, spacing = " x ".join(map(str, v.shape)), " x ".join(f"{s:.3g}" for s in v.spacing)
        return f"{shape} voxels of {spacing} mm ({v.orientation})"

    name = "image" if volume.path is None else volume.path.name
    how = "linearly" if volume.kind == "scalar" else "by nearest neighbour"
    return f"{name}: resampled {how} from {grid(volume)} to the segmentation's {grid(segmentation)}"


def _relative(path: Path, folder: Path | None) -> str:
    return str(path.relative_to(folder)) if folder is not None and path.is_relative_to(folder) else str(path)


def _listing(paths: Sequence[Path], folder: Path | None) -> str:
    shown = ", ".join(_relative(path, folder) for path in paths[:10])
    return shown + (f" and {len(paths) - 10} more" if len(paths) > 10 else "")
