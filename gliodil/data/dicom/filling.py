"""The mask of several outlines on one slice, whoever drew them.

Files hold outlines twice, and outlines that cross. The even-odd rule would take what is covered twice for a hole, so
outlines are told apart first:

    the same     nowhere farther apart than half a pixel, or all vertices of one lie on the other    counts once
    crossing     each has a pixel centre that the other has not                                      union
    nested       all pixel centres of one lie inside the other         hole in it, then island in the hole, ...

A key-hole (a hole tied to its outline by a cut of no width) is one loop and is filled by the even-odd rule, as each loop
is. Coordinates are pixels (column, row), a centre has integer ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.contours import Loop, fill

SAME_PIXELS = 0.5
"""Distance below which two outlines are one."""
ON_PIXELS = 0.05
"""Distance below which a vertex lies on an outline."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Filled:
    """A slice's mask, how many outlines were there twice, and how many crossed another one."""

    mask: Mask
    doubled: int = 0
    crossing: int = 0


@dataclass(frozen=True, eq=False)
class _Part:
    """The pixels inside a loop, in the smallest box around them, which begins at `low` (column, row)."""

    low: tuple[int, int]
    inside: Mask

    @property
    def high(self) -> tuple[int, int]:
        return self.low[0] + self.inside.shape[0], self.low[1] + self.inside.shape[1]

    @cached_property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.inside))

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.low[0], self.high[0]), slice(self.low[1], self.high[1])

    def within(self, other: _Part) -> tuple[slice, slice]:
        """Return where this one lies in the box of one that holds it."""
        x, y = other.low
        return slice(self.low[0] - x, self.high[0] - x), slice(self.low[1] - y, self.high[1] - y)


def fill_together(loops: Sequence[Loop], shape: tuple[int, ...], *, exclusive: bool = False) -> Filled:
    """Return the mask [column, row] of outlines on one slice.

    Parameters
    ----------
    loops
        Closed outlines.
    shape
        Columns and rows.
    exclusive
        Fill all of them by the even-odd rule (contours that say so: CLOSEDPLANAR_XOR).
    """
    columns, rows = shape
    single = _once(loops)
    doubled = len(loops) - len(single)
    if exclusive or len(single) < 2:
        return Filled(fill(single, (columns, rows)), doubled)
    parts = [part for loop in single if (part := _part(loop, (columns, rows))) is not None]
    parts.sort(key=lambda part: -part.size)
    holders, crossing = _related(parts)
    depth: list[int] = []
    for around in holders:
        depth.append(1 + max((depth[k] for k in around), default=-1))
    mask = np.zeros((columns, rows), bool)
    for outer, part in enumerate(parts):
        if depth[outer] % 2:
            continue
        own = part.inside.copy()
        for inner in range(outer + 1, len(parts)):
            if depth[inner] == depth[outer] + 1 and outer in holders[inner]:
                hole = parts[inner]
                own[hole.within(part)][hole.inside] = False
        mask[part.slices] |= own
    return Filled(mask, doubled, len(crossing))


def _once(loops: Sequence[Loop]) -> list[Loop]:
    """Return the loops without those that another one repeats, in whatever direction and from whatever vertex."""
    kept: list[Loop] = []
    boxes: list[NDArray[np.float64]] = []
    for loop in loops:
        box = np.concatenate([loop.min(axis=0), loop.max(axis=0)])
        alike = [n for n, other in enumerate(boxes) if np.abs(box - other).max() < 4 * SAME_PIXELS]
        if not any(_same(loop, kept[n]) for n in alike):
            kept.append(loop)
            boxes.append(box)
    return kept


def _same(one: Loop, other: Loop) -> bool:
    apart = sorted((_apart(one, other), _apart(other, one)))
    return apart[1] < SAME_PIXELS or apart[0] < ON_PIXELS  # the second: with fewer vertices


def _apart(points: Loop, loop: Loop) -> float:
    """Return the largest distance of points from a loop [pixels]."""
    start, edge = loop, np.roll(loop, -1, axis=0) - loop
    lengths = np.maximum((edge**2).sum(axis=1), 1e-12)
    farthest = 0.0
    for part in np.array_split(points, max(1, len(points) * len(loop) // 500_000)):  # bounds the memory
        along = np.clip(((part[:, None] - start) * edge).sum(axis=2) / lengths, 0, 1)
        gaps = part[:, None] - start - along[..., None] * edge
        farthest = max(farthest, float(np.sqrt((gaps**2).sum(axis=2).min(axis=1).max(initial=0))))
    return farthest


def _part(loop: Loop, shape: tuple[int, int]) -> _Part | None:
    low = np.clip(np.floor(loop.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(loop.max(axis=0)).astype(int) + 1, 0, shape)
    if (high <= low).any():
        return None
    inside = fill([loop - low], (int(high[0] - low[0]), int(high[1] - low[1])))
    if not inside.any():
        return None
    used = [np.flatnonzero(inside.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    tight = inside[tuple(slice(first, last + 1) for first, last in used)]
    return _Part((int(low[0] + used[0][0]), int(low[1] + used[1][0])), tight)


def _related(parts: Sequence[_Part]) -> tuple[list[set[int]], set[int]]:
    """Return, per part, the larger ones that hold all of it; and the parts that cross another one.

    Parts come from the largest to the smallest.
    """
    holders: list[set[int]] = [set() for _ in parts]
    crossing: set[int] = set()
    lows, highs = np.array([part.low for part in parts]), np.array([part.high for part in parts])
    for small in range(1, len(parts)):
        meets = (np.minimum(highs[:small], highs[small]) > np.maximum(lows[:small], lows[small])).all(axis=1)
        for large in map(int, np.flatnonzero(meets)):
            common = _shared(parts[large], parts[small])
            if common == parts[small].size and common < parts[large].size:
                holders[small].add(large)
            elif common:
                crossing |= {large, small}
    return holders, crossing


def _shared(one: _Part, other: _Part) -> int:
    """Return how many pixels two parts have in common."""
    low, high = np.maximum(one.low, other.low), np.minimum(one.high, other.high)
    a, b = (
        part.inside[
            low[0] - part.low[0] : high[0] - part.low[0], low[1] - part.low[1] : high[1] - part.low[1]
        ]
        for part in (one, other)
    )
    return int(np.count_nonzero(a & b))
