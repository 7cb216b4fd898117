"""Outlines of a slice's mask, and the mask of outlines; pixel coordinates only, no DICOM.

A pixel centre has integer coordinates (column, row). Outlines are the level ½ of the mask: their vertices lie
halfway between a pixel inside and its neighbour outside, on pixel *edges*, never on centres. Testing centres
against the loops by the even-odd rule therefore gives back the mask exactly. The area they enclose is

    area = pixels − (islands − holes) / 2        pixels²

since every outline cuts its corners: each convex one loses 1/8 of a pixel, each concave one gains it. Pixels
that touch only at a corner belong to different islands, so that no two loops meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Loop = NDArray[np.float64]
"""Vertices (n, 2) of a closed polygon as (column, row); the last is joined to the first."""


def trace(mask: NDArray[np.bool_]) -> list[Loop]:
    """Return the outlines of a 2-D mask indexed [column, row].

    Each island and each hole is one loop; islands have positive `area`, holes negative. Vertices on straight
    stretches are left out.
    """
    from skimage.measure import find_contours

    if not mask.any():
        return []
    used = [np.flatnonzero(mask.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
    box = tuple(slice(low, high + 1) for low, high in used)
    # Padding closes the loops of masks that touch the border; zeros join diagonally, ones do not.
    padded = np.pad(mask[box].astype(np.float64), 1)
    corner = np.array([side.start - 1 for side in box], np.float64)
    loops = find_contours(padded, 0.5, fully_connected="low", positive_orientation="high")
    return [_without_straight_points(loop[:-1] + corner) for loop in loops]


def fill(loops: Iterable[Loop], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels [column, row] whose centres lie inside the loops by the even-odd rule.

    A centre exactly on an outline counts as inside if the outline lies at its lower column or row side.
    """
    crossings = np.zeros((shape[0] + 1, shape[1]), np.int64)
    for loop in loops:
        start, end = loop, np.roll(loop, -1, axis=0)
        # The same edge run the other way must cross at the same number, or key-hole cuts leave traces.
        upwards = (start[:, 1] <= end[:, 1])[:, None]
        low, high = np.where(upwards, start, end), np.where(upwards, end, start)
        first = np.clip(np.ceil(low[:, 1]), 0, shape[1]).astype(np.int64)
        last = np.clip(np.ceil(high[:, 1]), 0, shape[1]).astype(np.int64)
        count = last - first
        edge = np.repeat(np.arange(len(loop)), count)
        row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[edge]
        along = (row - low[edge, 1]) / (high[edge, 1] - low[edge, 1])
        column = low[edge, 0] + along * (high[edge, 0] - low[edge, 0])
        np.add.at(crossings, (np.clip(np.ceil(column), 0, shape[0]).astype(np.int64), row), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings[:-1], axis=0) % 2 == 1
    return inside


def area(loop: Loop) -> float:
    """Return the signed area of a loop [pixels²], by the shoelace formula."""
    x, y = (loop - loop[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def join_holes(loops: Sequence[Loop]) -> list[Loop]:
    """Return one loop per island, its holes tied to it by cuts of no width (key-holes).

    From the first vertex of a hole, in order of rows, a cut runs towards lower columns until it meets a loop.
    Whatever it can meet comes earlier in that order, and so is joined already. Cuts run between two rows of
    pixel centres and stay inside the mask.

    Parameters
    ----------
    loops
        As `trace` returns them.
    """
    joined = [loop for loop in loops if area(loop) > 0]
    holes = [_from_first_vertex(loop) for loop in loops if area(loop) < 0]
    for hole in sorted(holes, key=lambda loop: (loop[0, 1], loop[0, 0])):
        ring, edge, column = _first_hit(joined, hole[0])
        loop, meeting = joined[ring], np.array([[column, hole[0, 1]]])
        cut = [meeting, hole, hole[:1], meeting]
        joined[ring] = np.concatenate([loop[: edge + 1], *cut, loop[edge + 1 :]])
    return joined


def _first_hit(loops: Sequence[Loop], point: NDArray[np.float64]) -> tuple[int, int, float]:
    """Return loop, edge and column of the nearest crossing on the row of `point` at lower columns."""
    best = (-1, -1, -np.inf)
    for number, loop in enumerate(loops):
        start, end = loop, np.roll(loop, -1, axis=0)
        low, high = np.minimum(start[:, 1], end[:, 1]), np.maximum(start[:, 1], end[:, 1])
        crossing = np.flatnonzero((low <= point[1]) & (point[1] <= high) & (low < high))
        along = (point[1] - start[crossing, 1]) / (end[crossing, 1] - start[crossing, 1])
        columns = start[crossing, 0] + along * (end[crossing, 0] - start[crossing, 0])
        columns[columns >= point[0]] = -np.inf
        if columns.size and columns.max() > best[2]:
            best = (number, int(crossing[columns.argmax()]), float(columns.max()))
    return best


def _from_first_vertex(loop: Loop) -> Loop:
    """Return a loop begun at its vertex of lowest row, of these the one of lowest column."""
    return np.roll(loop, -int(np.lexsort((loop[:, 0], loop[:, 1]))[0]), axis=0)


def _without_straight_points(loop: Loop) -> Loop:
    before, after = loop - np.roll(loop, 1, axis=0), np.roll(loop, -1, axis=0) - loop
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return np.ascontiguousarray(loop[np.abs(turns) > 1e-9])
