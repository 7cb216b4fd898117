"""What stops tumour cells, on the patient's voxels: CSF, ventricles, the brain's surface, falx and tentorium.

    csf          where CSF prevails in the tissue maps
    ventricles   of that, what is wide and deep: within 5 mm of places at least 2.5 mm from its edge that lie
                 25 mm or more below the brain's convex hull, in pieces of at least 0.5 mL
    falx, tentorium   sheets from the template, in the volume `barriers` (`gliodil.data.barriers`)

A rule that names `ventricles` treats them apart from the rest of `csf`. Wide cisterns in the middle of the base
count as ventricles; narrow horns count as other CSF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from gliodil.data.barriers import FALX, TENTORIUM
from gliodil.planning.distance import Mask, boundary, bounding_box, distance_from
from gliodil.planning.rules import PlanRule

if TYPE_CHECKING:
    from gliodil.data.patient import Patient

DEEP_MM = 25.0
"""Depth below the brain's convex hull from which wide CSF is a ventricle [mm]."""

WIDE_MM = 2.5
"""Distance from the edge of the CSF that only wide spaces have [mm]."""

AROUND_MM = 5.0
"""How far CSF around such a place belongs to the ventricle [mm]."""

SMALLEST_ML = 0.5
"""Volume of the smallest wide and deep piece that is taken for a ventricle [mL]."""

SHEETS = {"falx": FALX, "tentorium": TENTORIUM}


@dataclass(frozen=True)
class Domain:
    """Where paths may lead.

    Attributes
    ----------
    passable
        Where cells spread.
    entered
        Per barrier that the CTV may enter: the voxels passable where it alone is open, and its reach [mm].
    """

    passable: Mask
    entered: tuple[tuple[Mask, float], ...] = ()


def domain(patient: Patient, rule: PlanRule, excluded: Mask, warnings: list[str]) -> Domain:
    """Return where cells can spread under the barriers of a rule; what is missing for one is a warning.

    Parameters
    ----------
    excluded
        Organs that no plan may enter; they are impassable too.
    warnings
        Is added to.
    """
    base = patient.brain if "brain-surface" in rule.barriers else np.ones(patient.shape, bool)
    base = base & ~excluded
    closed = _closed(patient, rule, warnings)

    def open_but(name: str | None) -> Mask:
        others = (mask for barrier, mask in closed.items() if barrier != name)
        return np.asarray(base & ~np.any([np.zeros_like(base), *others], axis=0))

    reaches = {name: rule.reach_mm.get(name, 0.0) for name in closed}
    return Domain(open_but(None), tuple((open_but(name), mm) for name, mm in reaches.items() if mm > 0))


def csf_barrier(
    *,
    wm: NDArray[np.floating] | None,
    gm: NDArray[np.floating] | None,
    csf: NDArray[np.floating] | None,
) -> Mask | None:
    """Return where CSF stops the spread, from tissue probabilities in [0, 1]; None if they do not tell.

    With a CSF map: CSF > 0.5 and CSF > WM + GM. Without: WM + GM < 0.1, which needs both.
    """
    if csf is not None:
        tissue = sum((t for t in (wm, gm) if t is not None), np.zeros(()))
        return np.asarray((csf > 0.5) & (csf > tissue))
    if wm is not None and gm is not None:
        return np.asarray(wm + gm < 0.1)
    return None


def ventricles(csf: Mask, brain: Mask, spacing: Sequence[float]) -> Mask:
    """Return the voxels of `csf` that are ventricles, as defined at the head of the file.

    Parameters
    ----------
    csf, brain
        3-D masks of one shape; `brain` not empty.
    spacing
        Voxel spacing [mm] per array axis.
    """
    found = np.zeros_like(csf)
    box = bounding_box(brain)
    if min(side.stop - side.start for side in box) < 2:  # a single slice has no depth
        return found
    inner, h = csf[box] & brain[box], np.asarray(spacing)
    core = ndimage.distance_transform_edt(inner, sampling=spacing) >= WIDE_MM
    places = np.argwhere(core) * h
    depth = np.full(len(places), np.inf)
    for a, b, c, offset in ConvexHull(np.argwhere(boundary(brain[box])) * h).equations:
        np.minimum(depth, -(places @ (a, b, c) + offset), out=depth)
    core[core] = depth >= DEEP_MM
    pieces, _ = ndimage.label(core)
    large = np.bincount(pieces.ravel()) * h.prod() / 1000 >= SMALLEST_ML
    large[0] = False
    if large.any():
        found[box] = inner & (distance_from(large[pieces], spacing) <= AROUND_MM)
    return found


def _closed(patient: Patient, rule: PlanRule, warnings: list[str]) -> dict[str, Mask]:
    """Return the barriers of the rule that the patient has, the brain's surface aside."""
    closed: dict[str, Mask] = {}
    if {"csf", "ventricles"} & set(rule.barriers):
        maps = {name: v.data if (v := patient.volumes.get(name)) else None for name in ("wm", "gm", "csf")}
        csf = csf_barrier(**maps)
        if csf is None:
            warnings.append("no tissue maps: the trimmed plan stops at the brain surface only, not at CSF")
        else:
            inner = (
                ventricles(csf, patient.brain, patient.spacing)
                if "ventricles" in rule.barriers
                else csf & False
            )
            if "csf" in rule.barriers:
                closed["csf"] = csf & ~inner
            if "ventricles" in rule.barriers:
                closed["ventricles"] = inner
    wanted = [name for name in SHEETS if name in rule.barriers]
    if wanted and "barriers" in patient.volumes:
        closed |= {name: patient.volumes["barriers"].mask(SHEETS[name]) for name in wanted}
    elif wanted:
        warnings.append(
            f"rule {rule.name} stops at {' and '.join(wanted)}, but there is no map of them (--barriers): the "
            "trimmed plan crosses them"
        )
    return closed
