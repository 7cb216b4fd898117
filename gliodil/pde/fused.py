"""The two operations that dominate every sweep, fused into one pass over the cells for CPUs (Numba).

    rate:       A(u) = ∇·(D∇u) + ρ|u|(1−u)
    transpose:  out += A′(u)ᵀ μ, with dL/dc and dL/dρ collected on the way

``operators``, ``integrate`` and ``odil.loops`` hold the definitions in plain torch, which CUDA runs; the tests hold
the two equal. Rows along z are contiguous and every inner loop runs over views of whole rows: their indices are
provably non-negative, so the loops vectorize. The first call compiles for some seconds; the result is cached on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba as nb
import numpy as np
import torch

from gliodil.pde.operators import Faces

# Numba's simplest threading layer does not take two parallel calls at once.
_one_at_a_time = threading.Lock()
_SMALL = 4096  # cells below which a second thread costs more than it saves


def applies(field: torch.Tensor) -> bool:
    """Whether the fused kernels cover this field: on the CPU, in float32 or float64."""
    return field.device.type == "cpu" and field.dtype in (torch.float32, torch.float64)


def rate_(out: torch.Tensor, u: torch.Tensor, coefficients: Faces, rho: float) -> None:
    """Write A(u) into ``out``."""
    field = u.numpy()
    with _threads(u.shape[0]) as parallel:
        (_rate if parallel else _rate_serial)(
            out.numpy(),
            field,
            *_arrays(coefficients),
            *_shape(u, coefficients),
            np.asarray([rho, 1], dtype=field.dtype),
        )


def transpose_(
    out: torch.Tensor, u: torch.Tensor, mu: torch.Tensor, coefficients: Faces, rho: float, gradient: Faces
) -> float:
    """Add A′(u)ᵀ μ to ``out`` and dL/dc to ``gradient``; return this field's part of dL/dρ."""
    shape = _shape(u, coefficients)
    sums = np.zeros(shape[0])
    field = u.numpy()
    with _threads(u.shape[0]) as parallel:
        (_transpose if parallel else _transpose_serial)(
            out.numpy(),
            field,
            mu.numpy(),
            *_arrays(coefficients),
            *_arrays(gradient),
            *shape,
            np.asarray([rho, 1], dtype=field.dtype),
            sums,
        )
    return float(sums.sum())


def _arrays(faces: Faces) -> list[np.ndarray[Any, Any]]:
    return [c.detach().numpy() for c in faces.values]


def _shape(u: torch.Tensor, faces: Faces) -> tuple[int, int, int]:
    sx, sy, _ = faces.strides
    return u.shape[0] // sx, sx // sy, sy


@contextmanager
def _threads(cells: int) -> Iterator[bool]:
    """On as many threads as torch uses; yields False for one, where waking the others would cost more."""
    wanted = 1 if cells < _SMALL else min(torch.get_num_threads(), nb.config.NUMBA_NUM_THREADS)
    if wanted == 1:
        yield False
        return
    with _one_at_a_time:
        nb.set_num_threads(wanted)
        yield True


@nb.njit(inline="always", fastmath=True)
def _add_axis(out, u, c, b, i, n, stride, nz):  # type: ignore
    """Add the fluxes through a row's faces along x or y."""
    here = u[b : b + nz]
    if i > 0:
        face, there = c[b - stride : b - stride + nz], u[b - stride : b - stride + nz]
        for k in range(nz):
            out[k] += face[k] * (there[k] - here[k])
    if i < n - 1:
        face, there = c[b : b + nz], u[b + stride : b + stride + nz]
        for k in range(nz):
            out[k] += face[k] * (there[k] - here[k])


@nb.njit(inline="always", fastmath=True)
def _add_diffusion(out, flux, u, cx, cy, cz, i, j, nx, ny, nz):  # type: ignore
    """Add ∇·(D∇u) along row (i, j) to ``out``; ``flux`` is scratch of nz + 1, zero at both ends."""
    b = (i * ny + j) * nz
    here, face = u[b : b + nz], cz[b : b + nz - 1]
    for k in range(nz - 1):
        flux[k + 1] = face[k] * (here[k + 1] - here[k])
    for k in range(nz):
        out[k] += flux[k + 1] - flux[k]
    _add_axis(out, u, cx, b, i, nx, ny * nz, nz)
    _add_axis(out, u, cy, b, j, ny, nz, nz)


def _rate_cells(out, u, cx, cy, cz, nx, ny, nz, scalars):  # type: ignore
    rho, one = scalars[0], scalars[1]
    for i in nb.prange(nx):
        flux = np.zeros(nz + 1, u.dtype)
        for j in range(ny):
            b = (i * ny + j) * nz
            here, row = u[b : b + nz], out[b : b + nz]
            for k in range(nz):
                row[k] = rho * abs(here[k]) * (one - here[k])
            _add_diffusion(row, flux, u, cx, cy, cz, i, j, nx, ny, nz)


def _transpose_cells(out, u, mu, cx, cy, cz, dx, dy, dz, nx, ny, nz, scalars, sums):  # type: ignore
    rho, one = scalars[0], scalars[1]
    zero = one - one
    plane = ny * nz
    for i in nb.prange(nx):
        flux = np.zeros(nz + 1, u.dtype)
        growth = 0.0
        for j in range(ny):
            b = (i * ny + j) * nz
            here, m, row = u[b : b + nz], mu[b : b + nz], out[b : b + nz]
            row_growth = zero
            for k in range(nz):
                c = here[k]
                row_growth += m[k] * abs(c) * (one - c)
                sign = one if c > zero else (-one if c < zero else zero)
                row[k] += rho * sign * (one - c - c) * m[k]
            growth += row_growth
            _add_diffusion(row, flux, mu, cx, cy, cz, i, j, nx, ny, nz)
            if i < nx - 1:
                a = b + plane
                _face_gradient(dx[b : b + nz], m, here, mu[a : a + nz], u[a : a + nz])
            if j < ny - 1:
                a = b + nz
                _face_gradient(dy[b : b + nz], m, here, mu[a : a + nz], u[a : a + nz])
            _face_gradient(dz[b : b + nz - 1], m, here, m[1:], here[1:])
        sums[i] = growth


@nb.njit(inline="always", fastmath=True)
def _face_gradient(out, m, u, m_there, u_there):  # type: ignore
    for k in range(out.size):
        out[k] -= (m_there[k] - m[k]) * (u_there[k] - u[k])


_rate = nb.njit(parallel=True, fastmath=True, cache=True)(_rate_cells)
_rate_serial = nb.njit(fastmath=True, cache=True)(_rate_cells)
_transpose = nb.njit(parallel=True, fastmath=True, cache=True)(_transpose_cells)
_transpose_serial = nb.njit(fastmath=True, cache=True)(_transpose_cells)
