"""Model targets that can be contoured: smooth, without specks and pin-holes, and still of the exact equal volume.

A ranking alone cuts ragged targets. They are cleaned by threshold dynamics that keep the volume (Merriman, Bence,
Osher 1994), then by size::

    M0    = the k voxels of the brain that the ranking puts first,   k = |standard|
    f     = (G_s * 1_M0) / (G_s * 1_brain)       G_s: Gaussian of standard deviation s [mm]
    M     = the k voxels of the brain with the largest f; ties as the ranking orders them
    then  islands of M below the smallest island come last, holes below the smallest hole first, M is cut again,
          until none is left (or `ROUNDS` are over: what is left is counted)

Voxels that must stay (GTV, or targets that must be contained) are put first throughout, and an island that holds one
is kept. Islands and holes are connected by faces. A hole is what the target leaves of the brain between itself and
whatever else is there: it need not be closed by the target alone. Sizes in mm³.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.planning.ctv import model_ctv
from gliodil.planning.distance import Mask, bounding_box
from gliodil.planning.rules import PlanRule

ROUNDS = 20
"""Cuts after which islands and holes that keep coming back are left."""
TRUNCATE = 4.0
"""Standard deviations at which the Gaussian ends."""
LAST_FRACTION = 0.01
"""Share of a target's voxels whose density is given as that of its last ones."""


@dataclass(frozen=True)
class Cleaning:
    """What a target is cleaned of.

    Attributes
    ----------
    smoothing_mm
        Standard deviation of the Gaussian [mm]; 0: none.
    min_island_mm3, min_hole_mm3
        Smallest island that stays and smallest hole that is left [mm³]; 0: any.
    """

    smoothing_mm: float = 0.0
    min_island_mm3: float = 0.0
    min_hole_mm3: float = 0.0

    @classmethod
    def of(cls, rule: PlanRule) -> Cleaning:
        """Return what a rule says."""
        return cls(rule.smoothing_mm, rule.min_island_mm3, rule.min_hole_mm3)

    @classmethod
    def recorded(cls, rule: Mapping[str, Any]) -> Cleaning:
        """Return what `rule` in `metrics.json` says; plan folders of old were not cleaned."""
        return cls(*(rule.get(field.name, 0.0) for field in fields(cls)))

    @property
    def nothing(self) -> bool:
        """Whether targets are left as the ranking cuts them."""
        return not (self.smoothing_mm or self.min_island_mm3 or self.min_hole_mm3)


@dataclass(frozen=True)
class Cleanliness:
    """Islands and holes of a target.

    Attributes
    ----------
    islands, holes
        How many there are, all sizes.
    smallest_island_mm3, smallest_hole_mm3
        The smallest of them [mm³]; None where there is none.
    """

    islands: int
    holes: int
    smallest_island_mm3: float | None
    smallest_hole_mm3: float | None


def clean_ctv(
    order: NDArray[np.floating],
    brain: Mask,
    distance: NDArray[np.floating],
    voxels: int,
    *,
    spacing: Sequence[float],
    cleaning: Cleaning,
    keep: Mask | None = None,
) -> Mask:
    """Return exactly `voxels` voxels of the brain: those that a ranking puts first, cleaned.

    Parameters
    ----------
    order, brain, distance, voxels
        As for `model_ctv`.
    spacing
        Voxel spacing [mm] per array axis.
    cleaning
        What to clean the target of.
    keep
        Voxels that stay in the target as far as the ranking takes them.

    Raises
    ------
    InputError, NumericsError
        As `model_ctv`.
    """
    cut = model_ctv(order, brain, distance, voxels)
    if cleaning.nothing:
        return cut
    kept = np.zeros_like(cut) if keep is None else keep & cut
    pad = [int(np.ceil(TRUNCATE * cleaning.smoothing_mm / h)) + 2 for h in spacing]
    box = bounding_box(cut, pad=(pad[0], pad[1], pad[2]))
    inside = brain[box]
    rank = _ranks(order[box], inside)
    if cleaning.smoothing_mm:
        rank = _ranks(_smoothed(cut[box], inside, spacing, cleaning.smoothing_mm), inside, ties=rank)
    clean = np.zeros_like(cut)
    clean[box] = _without_specks(
        rank, inside, distance[box], voxels, kept[box], cleaning, float(np.prod(spacing))
    )
    return clean


def cleanliness(target: Mask, brain: Mask, spacing: Sequence[float]) -> Cleanliness:
    """Return the islands of a target and the holes it leaves in the brain, sizes in mm³.

    What it leaves of the brain as a whole, the largest part of the rest, is no hole.
    """
    voxel_mm3 = float(np.prod(spacing))
    islands = np.sort(_sizes(target)[1])
    labels, sizes = _sizes(brain & ~target)
    near = np.unique(labels[ndimage.binary_dilation(target)])
    rest = np.sort(sizes[near[near > 0] - 1])
    if rest.size and rest[-1] == sizes.max():
        rest = rest[:-1]
    return Cleanliness(
        int(islands.size),
        int(rest.size),
        float(islands[0]) * voxel_mm3 if islands.size else None,
        float(rest[0]) * voxel_mm3 if rest.size else None,
    )


def islands_and_holes(
    targets: Mapping[str, Mask], brain: Mask, spacing: Sequence[float]
) -> dict[str, dict[str, float | None]]:
    """Return the cleanliness of targets by name, those without a voxel left out."""
    return {
        name: asdict(cleanliness(target, brain, spacing)) for name, target in targets.items() if target.any()
    }


def last_density(
    order: NDArray[np.floating], target: Mask, density: NDArray[np.floating]
) -> dict[str, float]:
    """Return lowest, median and highest density of the voxels of a target that its ranking puts last (1 %)."""
    inside = np.flatnonzero(target)
    count = max(1, round(LAST_FRACTION * inside.size))
    last = inside[np.argsort(order.ravel()[inside], kind="stable")[:count]]
    values = density.ravel()[last]
    return {"low": float(values.min()), "median": float(np.median(values)), "high": float(values.max())}


def _without_specks(
    rank: NDArray[np.float64],
    brain: Mask,
    distance: NDArray[np.floating],
    voxels: int,
    kept: Mask,
    cleaning: Cleaning,
    voxel_mm3: float,
) -> Mask:
    rank = rank.copy()
    beyond = rank.max() + 1
    rank[kept] = beyond
    rim = _rim(brain)
    mask = model_ctv(rank, brain, distance, voxels)
    for _ in range(ROUNDS):
        islands = _small(mask, cleaning.min_island_mm3 / voxel_mm3, spare=kept)
        # Parts of the brain that the target does not touch are specks of the brain mask, not holes.
        holes = _small(brain & ~mask, cleaning.min_hole_mm3 / voxel_mm3, spare=rim, touching=mask)
        if not (islands.any() or holes.any()):
            break
        rank[islands] = -1
        rank[holes] = beyond
        mask = model_ctv(rank, brain, distance, voxels)
    return mask


def _small(mask: Mask, voxels: float, *, spare: Mask, touching: Mask | None = None) -> Mask:
    """Return the parts of a mask with fewer voxels than that, apart from those that hold a spared one.

    With `touching`, those only that touch it.
    """
    labels, sizes = _sizes(mask)
    small = np.concatenate([[False], sizes < voxels])
    small[np.unique(labels[spare])] = False
    if touching is not None:
        near = np.zeros_like(small)
        near[np.unique(labels[ndimage.binary_dilation(touching)])] = True
        small &= near
    return np.asarray(small[labels])


def _sizes(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    labels, count = ndimage.label(mask)
    return np.asarray(labels, np.int32), np.bincount(labels.ravel(), minlength=count + 1)[1:]


def _rim(brain: Mask) -> Mask:
    """Return the faces of the box: what reaches them goes on outside."""
    rim = np.ones_like(brain)
    rim[1:-1, 1:-1, 1:-1] = False
    return rim


def _smoothed(mask: Mask, brain: Mask, spacing: Sequence[float], sigma_mm: float) -> NDArray[np.float32]:
    sigma = [sigma_mm / h for h in spacing]

    def blurred(values: Mask) -> NDArray[np.float32]:
        return np.asarray(
            ndimage.gaussian_filter(values.astype(np.float32), sigma, mode="nearest", truncate=TRUNCATE)
        )

    share = blurred(mask) / np.maximum(blurred(brain), np.float32(1e-6))
    return np.where(brain, np.round(share, 5), np.float32(0))  # rounded: equal shares stay equal


def _ranks(
    values: NDArray[np.floating], brain: Mask, *, ties: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the places of the brain's values, the largest last, from 1; equal ones in the order of `ties`."""
    inside = values[brain]
    keys = [inside] if ties is None else [ties[brain], inside]
    sequence = np.lexsort(keys)
    steps = np.any([np.diff(key[sequence]) != 0 for key in keys], axis=0)
    places = np.empty(inside.size, np.int64)
    # Equal values share a place: `model_ctv` settles them by distance.
    places[sequence] = 1 + np.concatenate([[0], np.cumsum(steps)])
    ranks = np.zeros(values.shape, np.float64)
    ranks[brain] = places
    return ranks
