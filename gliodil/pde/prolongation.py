"""Linear interpolation between cell centres along one axis after another, and its transpose (Numba).

On an axis of m coarse and n fine cells, fine cell i lies at s = max(0, (i + ½) m/n − ½) in coarse indices:

    (P x)_i = (1 − λ) x_j + λ x_{j'},      j = ⌊s⌋,  λ = s − j,  j' = min(j + 1, m − 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numba as nb
import numpy as np

from gliodil.pde.compiled_cache import kept
from gliodil.pde.fused import FAST

Array = np.ndarray[Any, Any]


def add_prolonged(out: Array, x: Array) -> None:
    """out += P x, from the last axis, where x is smallest, to the first."""
    for axis in reversed(range(1, x.ndim)):
        shape = (*x.shape[:axis], out.shape[axis], *x.shape[axis + 1 :])
        finer = np.zeros(shape, x.dtype)
        _along(_add_interpolated, finer, x, axis)
        x = finer
    _along(_add_interpolated, out, x, 0)


def restricted(y: Array, shape: Sequence[int]) -> Array:
    """Return Pᵀ y on a coarser shape."""
    for axis, n in enumerate(shape):
        coarser = np.zeros((*y.shape[:axis], n, *y.shape[axis + 1 :]), y.dtype)
        _along(_add_gathered, coarser, y, axis)
        y = coarser
    return y


def _along(kernel: Any, out: Array, x: Array, axis: int) -> None:
    coarse, fine = sorted((out.shape[axis], x.shape[axis]))
    inner = int(np.prod(out.shape[axis + 1 :]))
    kernel(
        out.reshape(-1, out.shape[axis], inner),
        x.reshape(-1, x.shape[axis], inner),
        *_stencil(coarse, fine, x.dtype.char),
    )


@cache
def _stencil(coarse: int, fine: int, dtype: str) -> tuple[Array, Array, Array, Array]:
    """Return j, j′, 1 − λ and λ."""
    at = np.maximum((np.arange(fine) + 0.5) * (coarse / fine) - 0.5, 0)
    low = at.astype(np.int64)
    high = np.minimum(low + 1, coarse - 1)
    return low, high, (1 - (at - low)).astype(dtype), (at - low).astype(dtype)


@kept
@nb.njit(fastmath=FAST)
def _add_interpolated(out, x, low, high, near, far):  # type: ignore
    for o in range(out.shape[0]):
        for i in range(out.shape[1]):
            row, a, b, p, q = out[o, i], x[o, low[i]], x[o, high[i]], near[i], far[i]
            for k in range(row.size):
                row[k] += p * a[k] + q * b[k]


@kept
@nb.njit(fastmath=FAST)
def _add_gathered(out, y, low, high, near, far):  # type: ignore
    for o in range(y.shape[0]):
        for i in range(y.shape[1]):
            row, p, q = y[o, i], near[i], far[i]
            a = out[o, low[i]]
            for k in range(row.size):
                a[k] += p * row[k]
            b = out[o, high[i]]
            for k in range(row.size):
                b[k] += q * row[k]
