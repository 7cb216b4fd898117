"""Masks from an RT Structure Set, on a given grid.

Contours are brought into voxel coordinates through world millimetres. Those of one plane are filled together at voxel
centres (``filling``): loops within loops are holes, overlapping loops are united, one that is there twice counts once.
Nothing rests on the images a contour names: any grid with slices in the contours' planes will do. Slices left out
between others are filled on request (``bridging``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.bridging import bridge
from gliodil.data.dicom.filling import fill_together
from gliodil.data.dicom.headers import items, text
from gliodil.data.dicom.objects import MisplacedError, header_access, read_dataset
from gliodil.data.dicom.reference import LPS_RAS
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, LabelError

PLANE_TOLERANCE = 0.1
"""Fraction of the slice distance by which a contour may be off the middle of its slice."""
INTERPOLATED = "INTERPOLATED_PLANAR"
AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", INTERPOLATED)
"""Types of contours that enclose something; the last is a closed contour that software put between drawn ones."""
BRIDGED_MM = 10.0
"""Height of slices left out between others of one body up to which they are interpolated."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Loop:
    """A contour and its kind; those of CLOSEDPLANAR_XOR are combined with the others of their slice by parity."""

    points: Points
    kind: str = AREAS[0]

    @property
    def parity(self) -> bool:
        """Whether it takes away what another one of its slice holds."""
        return self.kind == "CLOSEDPLANAR_XOR"

    @property
    def encloses(self) -> bool:
        """Whether it is of a kind that encloses something, and has points enough to."""
        return self.kind in AREAS and len(self.points) >= 3


@dataclass(frozen=True)
class Structures:
    """The structures of a file that enclose something, as label volumes (0 or 1), and what was noticed."""

    masks: Mapping[str, Volume]
    notes: tuple[str, ...] = ()


def structure_frames(header: Any) -> tuple[dict[str, str], set[str]]:
    """Return the frame of reference of every structure, by name, and the series the file says it was drawn on."""
    frame, named = text(header, "FrameOfReferenceUID"), set()
    for reference in items(header, "ReferencedFrameOfReferenceSequence"):
        frame = frame or text(reference, "FrameOfReferenceUID")
        for study in items(reference, "RTReferencedStudySequence"):
            named |= {
                text(entry, "SeriesInstanceUID") for entry in items(study, "RTReferencedSeriesSequence")
            }
    frames = {
        text(roi, "ROIName"): text(roi, "ReferencedFrameOfReferenceUID") or frame
        for roi in items(header, "StructureSetROISequence")
    }
    return frames, named


def read_structures(
    path: Path | str, grid: Volume, *, names: Collection[str], bridged_mm: float = BRIDGED_MM
) -> Structures:
    """Return the named structures that enclose something; what is odd about them is said, not refused.

    Gaps of up to `bridged_mm` between slices of one body are filled. Errors as for `read_rtstruct`.
    """
    path = Path(path)
    contours = _contours(path, None, names)
    wanted, notes = {}, []
    for name, loops in contours.items():
        drawn = [one for one in loops if one.encloses]
        notes += [f"{path.name}: {said}" for said in _kinds_said(name, loops)]
        if not drawn:
            notes.append(f"{path.name}: {name} is empty")
            continue
        wanted[name] = drawn
    if not wanted:
        return Structures({}, tuple(notes))
    index = {
        name: [Loop(_to_index(one.points, grid), one.kind) for one in loops] for name, loops in wanted.items()
    }
    axis = _slice_axis([one.points for loops in index.values() for one in loops], grid, path)
    planes = {name: _by_plane(loops, axis, grid, name, path) for name, loops in index.items()}
    _check_thickness({plane for found in planes.values() for plane in found}, grid, path)
    masks = {}
    for name, found in planes.items():
        masks[name], said = _filled(found, axis, grid, path, bridged_mm)
        notes += [f"{path.name}: {name} {what}" for what in said]
    return Structures(masks, tuple(notes))


def read_rtstruct(
    path: Path | str,
    grid: Volume,
    *,
    names: Collection[str] | None = None,
    frame_of_reference: str | None = None,
) -> Mapping[str, Volume]:
    """Return the structures of a file as label volumes (0 or 1) on `grid`, by name, as they were drawn.

    Parameters
    ----------
    path
        An RT Structure Set.
    grid
        Volume whose slices lie in the planes of the contours, along any of its axes: the series they were drawn
        on. Its voxels do not matter.
    names
        Structures wanted; by default all that enclose something.
    frame_of_reference
        UID the contours must refer to, if known.

    Raises
    ------
    ImageFileError
        If the file is missing, damaged or no RT Structure Set.
    LabelError
        If a wanted structure is not there or has no contour, or two have the same name.
    GeometryError
        If contours lie between or beyond the slices of the grid, or refer to another frame of reference.
    MissingExtraError
        If pydicom is not installed.
    """
    path = Path(path)
    contours = {
        name: [one for one in loops if one.encloses]
        for name, loops in _contours(path, frame_of_reference, names).items()
    }
    wanted = [name for name, loops in contours.items() if loops or names is not None]
    if not wanted:
        raise LabelError(
            "The structure set holds no closed contour.",
            file=path,
            expected="at least one structure with contours",
            found=", ".join(contours) or "no structure",
        )
    for name in wanted:
        if not contours[name]:
            raise LabelError(
                f"The structure {name} is empty.", file=path, expected="closed contours", found="none"
            )
    return read_structures(path, grid, names=wanted, bridged_mm=0).masks


def enclosed_areas(path: Path | str) -> Mapping[str, tuple[int, float]]:
    """Return, per structure, the number of closed contours and the area they enclose, summed over planes [mm²].

    Half the sum of p x q over the edges p → q of a loop is its area along its normal. Loops that run the other
    way count as holes, as `write_rtstruct` writes them; contours of other origin may not keep to that.
    Errors as for `read_rtstruct`.
    """
    areas = {}
    for name, loops in _contours(Path(path), None, None).items():
        vectors = [
            np.cross(p := one.points - one.points[0], np.roll(p, -1, axis=0)).sum(axis=0) / 2
            for one in loops
            if one.encloses
        ]
        areas[name] = (len(vectors), float(np.linalg.norm(np.sum(vectors, axis=0))) if vectors else 0.0)
    return areas


def _contours(
    path: Path, frame_of_reference: str | None, names: Collection[str] | None
) -> dict[str, list[Loop]]:
    """Return the closed contours of each structure, or of those named, LPS [mm]."""
    data = read_dataset(path)
    expected = "structures with closed contours of whole points"
    with header_access("The structure set is damaged.", file=path, expected=expected):
        modality = str(data.get("Modality", "none"))
        rois = _structures(data, names) if modality == "RTSTRUCT" else []
    if modality != "RTSTRUCT":
        raise ImageFileError(
            "The file is no RT Structure Set.", file=path, expected="modality RTSTRUCT", found=modality[:16]
        )
    listed = [name for name, _, _ in rois]
    wanted = listed if names is None else list(names)
    if missing := sorted(set(wanted) - set(listed)):
        raise LabelError(
            "The structure set does not hold what was asked for.",
            file=path,
            expected=", ".join(missing),
            found=", ".join(listed) or "no structure",
            remedy="name one of those found",
        )
    if double := sorted({name for name in wanted if listed.count(name) > 1}):
        raise LabelError(
            "Two structures have the same name.",
            file=path,
            expected="one of each",
            found=", ".join(double),
            remedy="rename one of them",
        )
    for name, frame, _ in rois:
        if name in wanted and frame_of_reference and frame and frame != frame_of_reference:
            raise GeometryError(
                f"The structure {name} refers to another coordinate system than the images.",
                file=path,
                expected="the frame of reference of the series",
                found="another one",
                remedy="export the structures on this series, or plan on the series they were drawn on",
            )
    return {name: loops for name, _, loops in rois if name in wanted}


def _structures(data: Any, names: Collection[str] | None) -> list[tuple[str, str, list[Loop]]]:
    """Return name, frame of reference and contours of every structure; contours only where wanted."""
    contours = {int(entry.ReferencedROINumber): entry for entry in data.get("ROIContourSequence") or ()}
    found = []
    for roi in data.StructureSetROISequence:
        name, entry = text(roi, "ROIName"), contours.pop(int(roi.ROINumber), None)
        loops = _loops(entry) if entry is not None and (names is None or name in names) else []
        found.append((name, str(roi.get("ReferencedFrameOfReferenceUID", "")), loops))
    if names is None and contours:
        raise MisplacedError("contours of a structure that is not listed")
    return found


def _loops(entry: Any) -> list[Loop]:
    loops = []
    for contour in entry.get("ContourSequence") or ():
        kind = str(contour.ContourGeometricType).strip().upper()
        if kind not in AREAS:
            loops.append(Loop(np.zeros((0, 3)), kind))
            continue
        points = np.array(contour.get("ContourData") or [], np.float64).reshape(-1, 3)
        if not np.isfinite(points).all() or np.abs(points).max(initial=0) > 1e6:
            raise MisplacedError("a contour with a point that is nowhere")
        loops.append(Loop(points, kind))
    return loops


def _kinds_said(name: str, loops: list[Loop]) -> Iterator[str]:
    """Say what of a structure's contours is not read, or read although it is no kind that DICOM knows."""
    if lost := sum(one.kind in AREAS and not one.encloses for one in loops):
        yield f"{lost} contours of {name} have no points; their slices may lack a part"
    if others := sorted({one.kind[:20] for one in loops} - {*AREAS}):
        yield f"contours of {name} that enclose nothing are not read ({', '.join(others)})"
    if any(one.kind == INTERPOLATED for one in loops):
        yield f"contours of {name} are of the kind {INTERPOLATED}; they are read as closed outlines"


def _to_index(points: Points, grid: Volume) -> Points:
    return grid.to_index(points * np.diag(LPS_RAS)[:3])


def _slice_axis(loops: list[Points], grid: Volume, path: Path) -> int:
    """Return the axis of the grid along which every contour is flat."""
    thickness = np.max([np.ptp(loop, axis=0) for loop in loops], axis=0)
    flat = np.flatnonzero(thickness <= PLANE_TOLERANCE)
    if flat.size == 0:
        found = f"contours that cross {thickness.min():.3g} slices or more"
        raise _misplaced("The contours do not lie in slices of these images.", grid, found, path)
    return int(flat[thickness[flat].argmin()])


def _by_plane(loops: list[Loop], axis: int, grid: Volume, name: str, path: Path) -> dict[int, list[Loop]]:
    """Return slice number to loops in the coordinates of the two other axes."""
    planes: dict[int, list[Loop]] = defaultdict(list)
    across = [other for other in range(3) if other != axis]
    sizes = np.asarray(grid.shape)[across]
    for loop in loops:
        height = float(loop.points[:, axis].mean())
        plane = round(height)
        if np.abs(loop.points[:, axis] - plane).max() > PLANE_TOLERANCE:
            found = f"a contour of {name} at slice {height:.3f}"
            raise _misplaced("The contours lie between slices.", grid, found, path)
        flat = loop.points[:, across]
        outside = (flat < -0.5 - PLANE_TOLERANCE) | (flat > sizes - 0.5 + PLANE_TOLERANCE)
        if not 0 <= plane < grid.shape[axis] or outside.any():
            found = f"a contour of {name} at slice {plane} of {grid.shape[axis]}"
            raise _misplaced("The contours reach beyond the images.", grid, found, path)
        planes[plane].append(Loop(flat, loop.kind))
    return planes


def _check_thickness(planes: set[int], grid: Volume, path: Path) -> None:
    """Refuse three or more planes that are all the same number of slices apart: they were drawn on thicker ones."""
    gaps = np.diff(sorted(planes))
    if gaps.size >= 2 and gaps.min() >= 2 and gaps.min() == gaps.max():
        found = f"contours on every {gaps[0]}th slice only"
        raise _misplaced("The contours were drawn on thicker slices.", grid, found, path)


def _filled(
    planes: Mapping[int, list[Loop]], axis: int, grid: Volume, path: Path, bridged_mm: float
) -> tuple[Volume, list[str]]:
    """Return the mask, and what is to be said of its contours."""
    mask = np.zeros(grid.shape, np.uint8)
    view = np.moveaxis(mask, axis, 2)
    doubled = crossing = 0
    for plane, loops in planes.items():
        exclusive = any(loop.parity for loop in loops)
        found = fill_together([loop.points for loop in loops], view.shape[:2], exclusive=exclusive)
        view[:, :, plane] = found.mask
        doubled, crossing = doubled + found.doubled, crossing + found.crossing
    said = []
    if doubled:
        said.append(f"has {doubled} contours twice; each counts once")
    if crossing:
        said.append(f"has {crossing} contours that overlap; they are united")
    if bridged_mm > 0:
        x, y = (grid.spacing[other] for other in range(3) if other != axis)
        said += bridge(view, (x, y, grid.spacing[axis]), bridged_mm)
    return Volume(mask, grid.affine, kind="label", path=path, frame=grid.frame), said


def _misplaced(problem: str, grid: Volume, found: str, path: Path) -> GeometryError:
    return GeometryError(
        problem,
        file=path,
        expected=f"contours on the slices of {grid!r}",
        found=found,
        remedy="read them on the series they were drawn on",
    )
