r"""The order in which the stages of all time steps pass over the cells, so that what one loads the next finds in cache.

A step has K + 2 stages: it is prepared, K times relaxed, and finished (``kernels``). A stage reads of the one before
what lies within a plane of its cells, so it may follow one plane behind, across the end of a step too. A group of stages
passes over a chunk of cells together, block by block, and leaves the chunk's edge leaning (cells to the right, stages
upwards):

    3     ______\_________\_____        chunk k needs k − 1 in the same group, and k + 1 in the one before;
    2     _______\_________\____        so at any time every other chunk can be worked on, and threads, each with
    1     ________\_________\___        two neighbouring chunks, meet twice per group.
    0     _________\_________\__

x and y take turns: in a cell that s stages have passed, one holds iterate s and the other s − 1, and its neighbours ask
for no other. So nothing is computed twice and nothing copied. Edges begin half a group's planes to the right of equal
shares, which makes chunks equally large.
"""

from __future__ import annotations

from typing import Any

import numba as nb

from gliodil.pde.fused import FAST

DEPTH = 12
"""Most stages in a group: their planes are in cache together."""
BLOCK = 16384
"""Cells that a stage passes before the next follows."""


def marching(prepare: Any, relax_first: Any, relax: Any, finish: Any) -> Any:
    """Return a loop over time steps of these stages, as a compiled function.

    Parameters
    ----------
    prepare
        (fields, n, x, begin, end): sets the first iterate x of step n, and b.
    relax_first, relax
        See ``kernels``; ``at`` is level n.
    finish
        (fields, n, x, begin, end, part): keeps the last iterate.
    """

    @nb.njit(fastmath=FAST)
    def stage(s, levels, fields, x, y, u, b, faces, strides, rho, weights, one, begin, end, part):  # type: ignore
        cells, p, relaxations = b.size, strides[0], weights.shape[0]
        n, j = levels[0] + levels[1] * (s // (relaxations + 2)), s % (relaxations + 2) - 1
        old, new = (x, y) if j % 2 == 0 else (y, x)
        if j < 0:
            prepare(fields, n, x[p : p + cells], begin, end)
        elif j == relaxations:
            finish(fields, n, old[p : p + cells], begin, end, part)
        elif j == 0:
            relax_first(new, old, u[n], b, faces, strides, rho, weights[j, 0], weights[j, 1], one, begin, end)
        else:
            relax(new, old, u[n], b, faces, strides, rho, weights[j, 0], weights[j, 1], one, begin, end)

    @nb.njit(fastmath=FAST)
    def group(  # type: ignore
        first, depth, left, right, levels, fields, x, y, u, b, faces, strides, rho, weights, one,
        begin, end, part,
    ):  # fmt: skip
        """Stage first + i in the cells from begin + i left to end + i right, for all i < depth."""
        p = strides[0]
        for block in range(begin, end + (depth - 1) * max(0, right + p), BLOCK):
            for i in range(depth):
                low, high = max(block - i * p, begin + i * left), min(block - i * p + BLOCK, end + i * right)
                if low < high:
                    stage(
                        first + i, levels, fields, x, y, u, b, faces, strides, rho, weights, one, low, high, part
                    )  # fmt: skip

    @nb.njit(parallel=True, fastmath=FAST)
    def march(levels, fields, x, y, u, b, faces, strides, rho, weights, one, parts):  # type: ignore
        """Take levels[2] steps: the first is step levels[0], the next levels[1] further on."""
        p, cells, stages = strides[0], b.size, levels[2] * (weights.shape[0] + 2)
        chunks = max(1, min(2 * parts, cells // p))
        depth = min(DEPTH, cells // (chunks * p))
        groups = -(-stages // depth)
        for moment in range(2 * groups + chunks - 2):
            for part in nb.prange((chunks + 1) // 2):
                chunk = 2 * part + moment % 2
                first = (moment - chunk) // 2 * depth
                if chunk < chunks and 0 <= first < stages:
                    begin, end, left, right = 0, cells, 0, 0
                    if chunk > 0:
                        begin, left = chunk * cells // chunks + (depth - 1) * p // 2, -p
                    if chunk < chunks - 1:
                        end, right = (chunk + 1) * cells // chunks + (depth - 1) * p // 2, -p
                    group(
                        first, min(depth, stages - first), left, right, levels, fields, x, y, u, b, faces,
                        strides, rho, weights, one, begin, end, part,
                    )  # fmt: skip

    return march
