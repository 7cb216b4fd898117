"""The right-hand side A(u) = ∇·(D∇u) + ρ|u|(1−u) compiled for CPUs (Numba), and the pieces that sweeps are made of.

``operators``, ``integrate`` and ``odil.loops`` hold the definitions in plain torch, which CUDA runs; the tests hold
the two equal. Storage is flat and the face coefficients vanish where it wraps from one row to the next (``operators``),
so a stencil is one loop over a contiguous range of cells with six shifted views: no row is special, every loop
vectorizes. Only the first and the last plane lack a neighbour in storage. The first call compiles for some
seconds; the result is kept on disk (``compiled_cache``).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba as nb
import numpy as np
import torch

from gliodil.pde.compiled_cache import kept
from gliodil.pde.operators import Faces

# Numba's simplest threading layer does not take two parallel calls at once.
_one_at_a_time = threading.Lock()
_SMALL = 4096  # cells below which a second thread costs more than it saves
BLOCK = 4096
"""Cells worked on at a time, few enough that what one loop wrote is in cache for the next."""

# What lets sums be vectorized; infinities and NaN keep their meaning, since they tell a run that diverged.
FAST = {"reassoc", "contract", "nsz", "arcp"}


def applies(field: torch.Tensor) -> bool:
    """Whether the compiled kernels cover this field: on the CPU, in float32 or float64."""
    return field.device.type == "cpu" and field.dtype in (torch.float32, torch.float64)


def rate_(out: torch.Tensor, u: torch.Tensor, coefficients: Faces, rho: float) -> None:
    """Write A(u) into ``out``."""
    with threads(u.shape[0]) as parts:
        _rate(out.numpy(), u.numpy(), arrays(coefficients), coefficients.strides, scalars(u, rho), parts)


SPREAD = 16
"""Length of a thread's row of sums: two rows never share a cache line."""


def arrays(faces: Faces) -> tuple[np.ndarray[Any, Any], ...]:
    """Return the coefficients as arrays that share their memory."""
    return tuple(c.detach().numpy() for c in faces.values)


def scalars(like: torch.Tensor, *values: float) -> np.ndarray[Any, Any]:
    """Return numbers, the last of them 1, in the precision of a field: mixed arithmetic would be double."""
    return np.asarray([*values, 1], dtype=like.numpy().dtype)


@contextmanager
def threads(cells: int) -> Iterator[int]:
    """Yield the number of threads to work with: as many as torch uses, or one where more would not pay."""
    allowed = torch.get_num_threads()
    wanted = 1 if cells < _SMALL else min(allowed, nb.config.NUMBA_NUM_THREADS)
    with _one_at_a_time:
        nb.set_num_threads(wanted)
        yield wanted
    if torch.get_num_threads() != allowed:  # the two share a thread pool, and Numba resets it when it starts
        torch.set_num_threads(allowed)


@nb.njit(fastmath=FAST)
def bounds(part, parts, n):  # type: ignore
    """Return where a thread's share of n cells begins and ends."""
    return part * n // parts, (part + 1) * n // parts


@nb.njit(fastmath=FAST)
def _towards(out, u, c, here, there, face, n):  # type: ignore
    """out += c (u_there − u_here) over n cells; the three offsets say where each view begins."""
    o, a, b, f = out[here : here + n], u[here : here + n], u[there : there + n], c[face : face + n]
    for k in range(n):
        o[k] += f[k] * (b[k] - a[k])


@nb.njit(fastmath=FAST)
def neighbours(u, strides, begin, n):  # type: ignore
    """Views of the six neighbours of n cells, for a loop over them."""
    p, q = strides[0], strides[1]
    x0, x1 = u[begin - p : begin - p + n], u[begin + p : begin + p + n]
    y0, y1 = u[begin - q : begin - q + n], u[begin + q : begin + q + n]
    z0, z1 = u[begin - 1 : begin - 1 + n], u[begin + 1 : begin + 1 + n]
    return x0, x1, y0, y1, z0, z1


@nb.njit(fastmath=FAST)
def sides(faces, strides, begin, n):  # type: ignore
    """Views of the coefficients towards these neighbours."""
    cx, cy, cz = faces
    p, q, end = strides[0], strides[1], begin + n
    return (
        cx[begin - p : end - p],
        cx[begin:end],
        cy[begin - q : end - q],
        cy[begin:end],
        cz[begin - 1 : end - 1],
        cz[begin:end],
    )


@nb.njit(fastmath=FAST)
def inflow(here, x0, x1, y0, y1, z0, z1, fx0, fx1, fy0, fy1, fz0, fz1):  # type: ignore
    """∇·(D∇u) in one cell."""
    along_x = fx0 * (x0 - here) + fx1 * (x1 - here)
    along_y = fy0 * (y0 - here) + fy1 * (y1 - here)
    along_z = fz0 * (z0 - here) + fz1 * (z1 - here)
    return along_x + along_y + along_z


@nb.njit(fastmath=FAST)
def add_diffusion(out, u, faces, strides, begin, end):  # type: ignore
    """out += ∇·(D∇u) in the cells from begin to end."""
    cells, plane = u.size, strides[0]
    inner_begin, inner_end = max(begin, plane), min(end, cells - plane)
    if inner_begin >= inner_end:
        _add_axes(out, u, faces, strides, begin, end)
        return
    _add_axes(out, u, faces, strides, begin, inner_begin)
    n = inner_end - inner_begin
    o, here = out[inner_begin:inner_end], u[inner_begin:inner_end]
    x0, x1, y0, y1, z0, z1 = neighbours(u, strides, inner_begin, n)
    fx0, fx1, fy0, fy1, fz0, fz1 = sides(faces, strides, inner_begin, n)
    for k in range(n):
        o[k] += inflow(
            here[k], x0[k], x1[k], y0[k], y1[k], z0[k], z1[k], fx0[k], fx1[k], fy0[k], fy1[k], fz0[k], fz1[k]
        )
    _add_axes(out, u, faces, strides, inner_end, end)


@nb.njit(fastmath=FAST)
def _add_axes(out, u, faces, strides, begin, end):  # type: ignore
    """The same where a neighbour may be missing: face by face."""
    cells = u.size
    for axis in range(3):
        s = strides[axis]
        c = faces[axis]
        n = min(end, cells - s) - begin
        if n > 0:
            _towards(out, u, c, begin, begin + s, begin, n)
        low = max(begin, s)
        if end > low:
            _towards(out, u, c, low, low - s, low - s, end - low)


@nb.njit(fastmath=FAST)
def set_rate(out, u, faces, strides, rho, one, begin, end):  # type: ignore
    """out = A(u) in the cells from begin to end."""
    o, here = out[begin:end], u[begin:end]
    for k in range(end - begin):
        o[k] = rho * abs(here[k]) * (one - here[k])
    add_diffusion(out, u, faces, strides, begin, end)


@nb.njit(fastmath=FAST)
def slope(u, zero, one):  # type: ignore
    """d/du |u|(1 − u), zero at zero."""
    sign = one if u > zero else (-one if u < zero else zero)
    return sign * (one - u - u)


@nb.njit(fastmath=FAST)
def add_face_gradient(gradient, u, mu, factor, strides, begin, end):  # type: ignore
    """dL/dc −= factor (μ_there − μ_here)(u_there − u_here) at the faces from begin to end."""
    cells, (p, q, _) = u.size, strides
    gx, gy, gz = gradient
    inner = max(begin, min(end, cells - p))
    n = inner - begin
    x, y, z = gx[begin:inner], gy[begin:inner], gz[begin:inner]
    u0, m0 = u[begin:inner], mu[begin:inner]
    ux, uy, uz = u[begin + p : inner + p], u[begin + q : inner + q], u[begin + 1 : inner + 1]
    mx, my, mz = mu[begin + p : inner + p], mu[begin + q : inner + q], mu[begin + 1 : inner + 1]
    for k in range(n):
        c, m = u0[k], factor * m0[k]
        x[k] -= (factor * mx[k] - m) * (ux[k] - c)
        y[k] -= (factor * my[k] - m) * (uy[k] - c)
        z[k] -= (factor * mz[k] - m) * (uz[k] - c)
    for axis in range(1, 3):
        s = strides[axis]
        g = gradient[axis]
        for k in range(inner, min(end, cells - s)):
            g[k] -= factor * (mu[k + s] - mu[k]) * (u[k + s] - u[k])


@kept
@nb.njit(parallel=True, fastmath=FAST)
def _rate(out, u, faces, strides, scalars, parts):  # type: ignore
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, u.size)
        for b in range(begin, end, BLOCK):
            set_rate(out, u, faces, strides, scalars[0], scalars[1], b, min(b + BLOCK, end))
