"""From chosen files to checked volumes on one grid: the steps behind `load_patient`.

choose files (``choose``) -> read segmentation -> labels -> read the others -> onto the segmentation's grid -> checks
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gliodil.data import checks
from gliodil.data.barriers import resample_sheets
from gliodil.data.choose import ChosenInputs
from gliodil.data.dicom.inputs import IMAGE_ROLES
from gliodil.data.dicom.series import Series
from gliodil.data.follow_up import read_follow_up
from gliodil.data.frames import FrameGraph, Link
from gliodil.data.identity import carried
from gliodil.data.label_check import check_labels, detect_convention
from gliodil.data.labels import LabelConvention, get_convention
from gliodil.data.nifti import read_nifti
from gliodil.data.planning_ct import PlanningCT, related
from gliodil.data.rim_filling import fill_rims
from gliodil.data.segmentation import read_mask, read_segmentation
from gliodil.data.shapes import carry_labels
from gliodil.data.volume import Volume

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
class LoadedVolumes:
    """What `load_volumes` found; every volume lies on the segmentation's grid."""

    segmentation: Volume
    convention: LabelConvention
    volumes: Mapping[str, Volume]
    sources: tuple[Source, ...]
    warnings: tuple[str, ...]
    planning: PlanningCT | None = None


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
    image = _mr_image(inputs)
    drawn_here = segmentation.frame == planning.frame if segmentation.frame else segmentation.same_grid(ct)
    if image is None or not drawn_here or segmentation.same_grid(image):
        return segmentation, planning
    planning = replace(related(planning, image), drawn=segmentation)
    return carry_labels(segmentation, image, planning.related_link.inverse.matrix), planning


def _mr_image(inputs: ChosenInputs) -> Volume | None:
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
    graph = _near(inputs, frame)
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


def _near(inputs: ChosenInputs, frame: str) -> FrameGraph:
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
