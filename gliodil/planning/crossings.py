"""Where targets cross the midline or the tentorium, and by which way the model CTV got there.

    midline     plane through the falx by least squares: n · (x − c) = 0, c the mean of the falx's voxels, n the
                direction of their smallest spread, pointing to the patient's right; world mm
    tentorium   height z = h(x, y) over the sheet's columns, linear in between and so across the notch; nothing
                lies below it outside the sheet's outline (convex hull) seen from above
    beyond      voxels whose centre lies on the other side than the larger part of the GTV

Why does the model CTV lie beyond? Let s(x) be the straight distance from the GTV's part on its own side, p(x) the
shortest path from there within the brain, around falx, tentorium and CSF, and m the rule's margin:

    around      p <= m          through tissue around the sheet's edge
    between     s <= m < p      only straight: a barrier lies between
    farther     s > m           no margin reaches it, the density put it there; `joined` if it still hangs together
                                with the GTV within the model CTV, around the barriers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.barriers import FALX, TENTORIUM
from gliodil.data.volume import Volume
from gliodil.planning.barriers import csf_barrier
from gliodil.planning.distance import TOLERANCE_MM, Box, Mask, bounding_box, distance_from
from gliodil.planning.geodesic import geodesic_distance

if TYPE_CHECKING:
    from gliodil.data.patient import Patient

BOTH_SIDES_FRACTION = 0.01
"""Share of the GTV beyond a sheet from which it lies on both sides: sheets are known to a few millimetres."""

FLATNESS = 2.0
"""How many times wider than thick a falx must be (root mean square) to define a plane."""

MAX_TILT_DEGREES = 45.0
"""Largest angle between the plane's normal and the patient's left-right axis."""

COLUMN_MM = 2.0
"""Width of the columns over which the tentorium's height is averaged: it is a few voxels thick."""

Points = NDArray[np.float64]


@dataclass(frozen=True)
class MidlinePlane:
    """The midsagittal plane, world mm (RAS+): a point, the unit normal to the right, the falx's RMS distance."""

    point_mm: tuple[float, ...]
    normal: tuple[float, ...]
    residual_mm: float


@dataclass(frozen=True)
class Why:
    """By which way the model CTV, outside the GTV, got beyond; definitions at the head of the file.

    Attributes
    ----------
    margin_mm
        The rule's margin [mm].
    straight_mm, path_mm
        Shortest straight distance and shortest path to the part beyond [mm]; the path is None if longer than the
        margin.
    around_ml, between_ml, farther_ml
        Its parts [mL]; they sum to it.
    farther_joined_ml
        What of `farther_ml` hangs together with the GTV around the barriers [mL].
    """

    margin_mm: float
    straight_mm: float
    path_mm: float | None
    around_ml: float
    between_ml: float
    farther_ml: float
    farther_joined_ml: float


@dataclass(frozen=True)
class Crossing:
    """What lies beyond one sheet.

    Attributes
    ----------
    gtv_side, beyond
        Side of the GTV's larger part, and the other one: `left` and `right`, `above` and `below`.
    gtv_on_both_sides
        Whether more than 1 % of the GTV lies beyond.
    beyond_ml
        What of `gtv`, `ctv_standard`, `ctv_trimmed` and `ctv_model` lies beyond [mL].
    why
        Of the model CTV; None if it has nothing beyond outside the GTV, or the GTV lies on both sides.
    """

    gtv_side: str
    beyond: str
    gtv_on_both_sides: bool
    beyond_ml: Mapping[str, float]
    why: Why | None


@dataclass(frozen=True)
class Crossings:
    """Crossings of midline and tentorium; None where the barriers do not show that sheet."""

    plane: MidlinePlane | None
    midline: Crossing | None
    tentorium: Crossing | None

    def to_dict(self) -> dict[str, Any]:
        """Return what `metrics.json` holds."""
        return asdict(self)


def crossings(
    patient: Patient, gtv: Mask, ctvs: Mapping[str, Mask], *, brain: Mask, margin_mm: float
) -> Crossings | None:
    """Return what of the targets lies beyond midline and tentorium; None without `barriers`.

    Parameters
    ----------
    patient
        Sheets in the volume `barriers`; tissue maps, if there are any, tell the CSF.
    gtv, ctvs
        Not empty; `ctvs` are `standard`, `trimmed` and `model`.
    brain
        Where tissue is.
    margin_mm
        The rule's margin [mm].
    """
    if "barriers" not in patient.volumes:
        return None
    sheets = patient.volumes["barriers"]
    maps = {name: v.data if (v := patient.volumes.get(name)) else None for name in ("wm", "gm", "csf")}
    csf = csf_barrier(**maps)
    passable = brain & (sheets.data == 0) & (True if csf is None else ~csf)
    box = bounding_box(np.any([gtv, *ctvs.values()], axis=0))
    targets = {"gtv": gtv[box], **{f"ctv_{name}": mask[box] for name, mask in ctvs.items()}}
    index = np.argwhere(np.any(list(targets.values()), axis=0))
    world = sheets.to_world(index + [side.start for side in box])

    def crossing(offset_mm: Points, negative: str, positive: str) -> Crossing:
        offset = np.zeros(targets["gtv"].shape)
        offset[tuple(index.T)] = offset_mm
        return _crossing(offset, (negative, positive), targets, passable[box], sheets, box, margin_mm)

    plane, heights = midline_plane(sheets), above_tentorium(sheets, world)
    return Crossings(
        plane=plane,
        midline=crossing((world - plane.point_mm) @ plane.normal, "left", "right") if plane else None,
        tentorium=crossing(heights, "below", "above") if heights is not None else None,
    )


def midline_plane(sheets: Volume) -> MidlinePlane | None:
    """Return the plane of the falx; None if it spans none between left and right."""
    points = sheets.to_world(np.argwhere(sheets.data == FALX))
    if len(points) < 3:
        return None
    centre = points.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov((points - centre).T, bias=True))  # ascending
    thick, wide, _ = np.sqrt(np.maximum(variance, 0.0))
    normal = axes[:, 0] * (1.0 if axes[0, 0] > 0 else -1.0)
    if wide <= max(FLATNESS * thick, TOLERANCE_MM) or normal[0] < np.cos(np.radians(MAX_TILT_DEGREES)):
        return None
    return MidlinePlane(tuple(map(float, centre)), tuple(map(float, normal)), float(thick))


def above_tentorium(sheets: Volume, world: Points) -> Points | None:
    """Return heights [mm] of points (n, 3) over the tentorium, infinite outside its outline; None if there is none."""
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import QhullError

    points = sheets.to_world(np.argwhere(sheets.data == TENTORIUM))
    # Rounded first, so that the same sheet on a flipped grid falls into the same columns.
    columns = np.floor(np.round(points[:, :2], 6) / COLUMN_MM).astype(int)
    _, column = np.unique(columns, axis=0, return_inverse=True)
    count = np.bincount(column.ravel())
    mean = np.stack([np.bincount(column.ravel(), axis) / count for axis in points.T], axis=1)
    if len(mean) < 3:
        return None
    try:
        height = LinearNDInterpolator(mean[:, :2], mean[:, 2])
    except QhullError:  # all columns on one line
        return None
    return np.asarray(np.nan_to_num(world[:, 2] - height(world[:, :2]), nan=np.inf))


def _crossing(
    offset: Points,
    names: tuple[str, str],
    targets: Mapping[str, Mask],
    passable: Mask,
    sheets: Volume,
    box: Box,
    margin_mm: float,
) -> Crossing:
    """Return what lies beyond a sheet, given the signed distance from it in the box of the targets."""

    def ml(mask: Mask) -> float:
        return int(np.count_nonzero(mask)) * sheets.voxel_volume_ml

    sides = offset < -TOLERANCE_MM, offset > TOLERANCE_MM
    gtv, model = targets["gtv"], targets["ctv_model"]
    own = int(np.count_nonzero(gtv & sides[1]) >= np.count_nonzero(gtv & sides[0]))
    beyond = sides[1 - own]
    both = bool(np.count_nonzero(gtv & beyond) > BOTH_SIDES_FRACTION * np.count_nonzero(gtv))
    part = model & beyond & ~gtv
    why = None
    if part.any() and not both:
        # Paths of the margin's length stay in the box: they run within the standard CTV. What of the GTV lies in a
        # sheet would open it.
        start = gtv & ~beyond & (sheets.data[box] == 0)
        start = start if start.any() else gtv & ~beyond
        straight = distance_from(start, sheets.spacing)
        path = geodesic_distance(start, passable, sheets.spacing, limit_mm=margin_mm)
        around = part & (path <= margin_mm + TOLERANCE_MM)
        farther = part & (straight > margin_mm + TOLERANCE_MM)
        pieces, _ = ndimage.label((model & passable) | start)
        why = Why(
            margin_mm=margin_mm,
            straight_mm=float(straight[part].min()),
            path_mm=float(path[around].min()) if around.any() else None,
            around_ml=ml(around),
            between_ml=ml(part & ~around & ~farther),
            farther_ml=ml(farther),
            farther_joined_ml=ml(farther & np.isin(pieces, np.unique(pieces[start]))),
        )
    return Crossing(
        gtv_side=names[own],
        beyond=names[1 - own],
        gtv_on_both_sides=both,
        beyond_ml={name: ml(mask & beyond) for name, mask in targets.items()},
        why=why,
    )
