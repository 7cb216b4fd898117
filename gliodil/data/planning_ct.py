"""The planning CT: which series it is, and how the MR lies to it.

    same frame   MR and CT share a frame of reference
    REG          the clinic's registration objects join the two frames
    registered   the product's own rigid registration (``data.registration.rigid``)

in this order. Where the clinic's registration is used, the product's own is made too and the difference stated: the
largest distance between the two places of any point of the brain. The CT is the reference of what is exported;
the model runs on the MR.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.inputs import ambiguous, series_at
from gliodil.data.dicom.objects import stable_uid
from gliodil.data.dicom.registration_object import read_registration
from gliodil.data.dicom.series import Series
from gliodil.data.frames import FrameGraph, Link
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, GliodilError

logger = logging.getLogger(__name__)

NO_CT = "none"
"""Given in the place of a CT: series of that kind in the folder are not used."""
NOTABLE_MM = 3.0
"""Difference between the clinic's registration and the product's own that deserves a warning."""
HEAD_RADIUS_MM = 70.0
"""Points within this of the middle stand for the brain where two registrations are compared and none is known."""

Progress = Callable[[str, int, float], None]


@dataclass(frozen=True, eq=False)
class PlanningCT:
    """The planning CT of a patient.

    Attributes
    ----------
    series
        The CT.
    graph
        Links of the clinic's registration objects.
    registrations
        Their files.
    drawn
        The segmentation as it was drawn on the CT, on its grid; None if it was drawn on the MR.
    link
        MR to CT; None until `related`.
    own
        The product's own registration, where the clinic's is used and both are there.
    difference_mm
        How far the two put any point of the head apart at most.
    problems
        Why registration objects of the folder cannot be used.
    notes
        What to know.
    """

    series: Series
    graph: FrameGraph = field(default_factory=FrameGraph)
    registrations: tuple[Path, ...] = ()
    drawn: Volume | None = None
    link: Link | None = None
    own: Link | None = None
    difference_mm: float | None = None
    problems: tuple[GliodilError, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def frame(self) -> str:
        """Frame of reference of the CT."""
        return self.series.frame_of_reference

    @property
    def places(self) -> tuple[Path, ...]:
        """Files that nothing may be written over."""
        return (*self.series.files[:1], *self.registrations)

    @property
    def links(self) -> FrameGraph:
        """All links, the registered one included."""
        if self.link is None or self.link.origin != "registered":
            return self.graph
        return self.graph.with_link(self.link)

    def to_record(self, point: NDArray[np.float64]) -> dict[str, Any]:
        """Return how MR and CT lie to each other, as it stands in `metrics.json`; `point`: target on the MR, mm."""
        link = self.related_link
        return {
            "series": self.series.name,
            "origin": link.origin,
            "shift_mm": link.shift_mm(point),
            "angle_deg": link.angle_deg,
            "spread_mm": link.residual_mm if self.own is None else self.own.residual_mm,
            "difference_mm": self.difference_mm,
            "drawn_on_ct": self.drawn is not None,
        }

    @property
    def related_link(self) -> Link:
        """The link MR to CT of a CT that was related."""
        if self.link is None:
            raise ValueError("the CT was not related to the MR yet")
        return self.link


@dataclass(frozen=True)
class Registrations:
    """The clinic's registration objects.

    Attributes
    ----------
    graph
        Their links.
    files
        Those that could be read.
    problems
        Why others cannot be used: deformable, scaling, damaged.
    """

    graph: FrameGraph = field(default_factory=FrameGraph)
    files: tuple[Path, ...] = ()
    problems: tuple[GliodilError, ...] = ()

    def unused(self, frames: Iterable[str]) -> tuple[str, ...]:
        """Return sentences on objects that cannot be used, and on links that join none of the patient's frames."""
        known = sorted({frame for frame in frames if frame})
        joined = any(self.graph.path(a, b) is not None for a, b in combinations(known, 2))
        texts = [
            f"registration object not used: {problem.problem.rstrip('.')} ({Path(problem.file or '').name})"
            for problem in self.problems
        ]
        if self.files and not joined:
            names = ", ".join(path.name for path in self.files)
            texts.append(f"registration object not used: {names} relates none of the images to each other")
        return tuple(texts)


def registrations(given: Iterable[Path], found: Iterable[Series]) -> Registrations:
    """Return what the clinic's registration objects say; one that was given must be rigid, others may be anything.

    Raises
    ------
    ImageFileError, GeometryError
        If one that was given is none, or not rigid.
    """
    links: list[Link] = []
    files: list[Path] = []
    problems: list[GliodilError] = []
    for path in given:
        links += read_registration(path)
        files.append(Path(path))
    for one in found:
        try:
            links += read_registration(one.files[0])
        except GliodilError as problem:
            problems.append(problem)
        else:
            files.append(one.files[0])
    return Registrations(FrameGraph(tuple(links)), tuple(files), tuple(problems))


def choose_ct(
    named: Path | None, found: Sequence[Series], folder: Path | None, clinics: Registrations
) -> PlanningCT | None:
    """Return the planning CT among what was named and what a folder holds.

    Parameters
    ----------
    named
        Folder or file given by the user; `none` to plan without one.
    found
        CTs of the patient's folder.
    clinics
        The clinic's registration objects.

    Raises
    ------
    InputError
        If several CTs could be meant.
    GeometryError
        If the CT is no regular volume, or states no frame of reference.
    """
    if named is not None and str(named) == NO_CT:
        return None
    series = series_at(named, "ct") if named is not None else _only(found, folder)
    if series is None:
        return None
    if series.problem is not None:
        old = series.problem.remedy
        without = f"plan without it (--ct {NO_CT})"
        series.problem.remedy = f"{old}; or {without}" if old else without
        raise series.problem
    if not series.frame_of_reference:
        raise GeometryError(
            f"The planning CT, {series.name}, states no frame of reference.",
            file=series.files[0],
            expected="a FrameOfReferenceUID",
            found="none",
            remedy="export the series again with its identifiers",
        )
    return PlanningCT(series, clinics.graph, clinics.files, problems=clinics.problems)


def _only(found: Sequence[Series], folder: Path | None) -> Series | None:
    sound = [series for series in found if series.problem is None] or list(found)
    if len(sound) > 1:
        raise ambiguous("ct", sound, folder or Path(), more=f", or --ct {NO_CT} to plan without a CT")
    return sound[0] if sound else None


def frame_of(image: Volume) -> str:
    """Return the frame of an image, or a name for that of a NIfTI image."""
    if image.frame:
        return image.frame
    return stable_uid("frame", repr(image.shape), image.affine.tobytes())


def related(
    planning: PlanningCT,
    image: Volume,
    *,
    target: NDArray[np.float64] | None = None,
    progress: Progress | None = None,
) -> PlanningCT:
    """Return the CT with its link from the MR; a CT that has one comes back as it is.

    Parameters
    ----------
    image
        The MR image that is registered, in the frame that the model runs in.
    target
        Points that must be right, world mm of the MR, shape (n, 3): the brain. Without, the middle of the image.

    Raises
    ------
    InputError, GeometryError, NumericsError
        If the two cannot be related: the registration's gates.
    """
    if planning.link is not None:
        return planning
    source = frame_of(image)
    given, notes = _clinics(planning, image, source)
    if given is not None and given.origin == "same frame":
        return replace(planning, link=given, notes=(*planning.notes, *notes))
    (progress or (lambda *_: None))("MR to planning CT", 0, float("nan"))
    try:
        own = _registered(planning, image, source, target)
    except GliodilError as refused:
        if given is None:
            if planning.problems:
                raise planning.problems[0] from refused
            refused.remedy = (
                f"{refused.remedy or 'check that both show the same head'}; or give the clinic's registration object "
                f"(--reg FILE), or plan without the CT (--ct {NO_CT})"
            )
            raise
        notes.append(
            "the clinic's registration of MR and CT could not be checked: the product's own gives no answer "
            f"({refused.problem.rstrip('.')})"
        )
        return replace(planning, link=given, notes=(*planning.notes, *notes))
    if given is None:
        return replace(planning, link=own, notes=(*planning.notes, *notes))
    points = _middle(image) if target is None else target
    apart = difference_mm(given, own, points)
    if apart > NOTABLE_MM:
        notes.append(
            f"the clinic's registration of MR and CT and the product's own differ by up to {apart:.1f} mm in the brain; "
            "the clinic's is used: look at the figure of it"
        )
    return replace(planning, link=given, own=own, difference_mm=apart, notes=(*planning.notes, *notes))


def difference_mm(one: Link, other: Link, points: NDArray[np.float64]) -> float:
    """Return the largest distance [mm] between the places that two links give points of their source."""
    change = one.matrix - other.matrix
    return float(np.linalg.norm(points @ change[:3, :3].T + change[:3, 3], axis=1).max())


def _middle(image: Volume) -> NDArray[np.float64]:
    """Return the six ends and the centre of a ball that stands for the brain, world mm of the image."""
    middle = image.to_world((np.asarray(image.shape) - 1) / 2)
    arms = HEAD_RADIUS_MM * np.concatenate([np.eye(3), -np.eye(3), np.zeros((1, 3))])
    return np.asarray(middle + arms)


def _clinics(planning: PlanningCT, image: Volume, source: str) -> tuple[Link | None, list[str]]:
    """Return what the frames and the clinic's registrations say, if anything, and notes."""
    if image.frame:
        return planning.graph.path(image.frame, planning.frame), []
    others = {
        frame
        for link in planning.graph.links
        for frame in (link.source, link.target)
        if frame != planning.frame
    }
    joined = [
        link for frame in sorted(others) if (link := planning.graph.path(frame, planning.frame)) is not None
    ]
    if len(joined) != 1:
        return None, []
    return replace(joined[0], source=source), [
        "the MR (NIfTI) states no frame of reference: it is taken to lie in the one that the registration object "
        "relates to the CT"
    ]


def _registered(planning: PlanningCT, image: Volume, source: str, target: NDArray[np.float64] | None) -> Link:
    from gliodil.data.registration.rigid import align_rigidly

    found = align_rigidly(planning.series.volume(), image, "MR", target=target)
    link = found.link(source, planning.frame)
    logger.info("MR to planning CT: %s", link)
    return link
