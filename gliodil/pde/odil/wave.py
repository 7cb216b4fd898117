r"""The order in which a time step's stages pass over the cells, so that what one loads the next finds in cache.

A step has K + 2 stages: it is prepared, K times relaxed, and finished (``kernels``). A stage reads of the one before
what lies within a plane of its cells, so it may follow one plane behind, and all pass over the field together, block
by block. Where two threads' cells meet (cells to the right, stages upwards, each one plane narrower or wider),

    3          ___       |       ___
    2         /   \     /|\     /   \          all threads first pass over their trapezoids,
    1        /     \   / | \   /     \         then over the triangles between them.
    0     __/_______\_/__|__\_/_______\__

x and y take turns: in a cell that s stages have passed, one holds iterate s and the other s − 1, and its neighbours ask
for no other. So nothing is computed twice and nothing copied, and threads meet twice per group of stages instead of
once per stage. A group has as many stages as fit with their planes into a thread's cells.
"""

from __future__ import annotations

from typing import Any

import numba as nb

from gliodil.pde.fused import FAST, bounds

DEPTH = 8
"""Most stages in a group: their planes are in cache together."""
BLOCK = 16384
"""Cells that a stage passes before the next follows."""


def stepping(prepare: Any, relax_first: Any, relax: Any, finish: Any) -> Any:
    """Return one time step of these stages, as a compiled function.

    Parameters
    ----------
    prepare
        (fields, n, x, begin, end): sets the first iterate x of step n, and b.
    relax_first, relax
        See ``kernels``.
    finish
        (fields, n, x, begin, end, part): keeps the last iterate.
    """

    @nb.njit(fastmath=FAST)
    def stage(j, fields, n, x, y, at, b, faces, strides, rho, weights, one, begin, end, part):  # type: ignore
        cells, p = b.size, strides[0]
        old, new = (x, y) if j % 2 == 0 else (y, x)
        if j < 0:
            prepare(fields, n, x[p : p + cells], begin, end)
        elif j == weights.shape[0]:
            finish(fields, n, old[p : p + cells], begin, end, part)
        elif j == 0:
            relax_first(new, old, at, b, faces, strides, rho, weights[j, 0], weights[j, 1], one, begin, end)
        else:
            relax(new, old, at, b, faces, strides, rho, weights[j, 0], weights[j, 1], one, begin, end)

    @nb.njit(fastmath=FAST)
    def group(  # type: ignore
        first, depth, left, right, fields, n, x, y, at, b, faces, strides, rho, weights, one, begin, end, part
    ):
        """Stage first + i of the step in the cells from begin + i left to end + i right, for all i < depth."""
        p = strides[0]
        for block in range(begin, end + (depth - 1) * max(0, right + p), BLOCK):
            for i in range(depth):
                low, high = max(block - i * p, begin + i * left), min(block - i * p + BLOCK, end + i * right)
                if low < high:
                    stage(
                        first + i, fields, n, x, y, at, b, faces, strides, rho, weights, one, low, high, part
                    )

    @nb.njit(parallel=True, fastmath=FAST)
    def step(fields, n, x, y, at, b, faces, strides, rho, weights, one, parts):  # type: ignore
        p, cells, last = strides[0], b.size, weights.shape[0] + 1
        widest = DEPTH if parts == 1 else min(DEPTH, 1 + cells // parts // (2 * p))
        for first in range(-1, last, widest):
            depth = min(widest, last - first)
            for part in nb.prange(parts):
                begin, end = bounds(part, parts, cells)
                left, right = p if part > 0 else 0, -p if part < parts - 1 else 0
                group(
                    first, depth, left, right, fields, n, x, y, at, b, faces, strides, rho, weights, one,
                    begin, end, part,
                )  # fmt: skip
            if depth > 1:
                for part in nb.prange(1, parts):
                    seam, _ = bounds(part, parts, cells)
                    group(
                        first, depth, -p, p, fields, n, x, y, at, b, faces, strides, rho, weights, one,
                        seam, seam, part,
                    )  # fmt: skip

    return step
