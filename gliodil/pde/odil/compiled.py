"""The three sweeps of ``loops`` as compiled loops over time, for CPUs (Numba).

``loops`` holds the same in plain torch. Threads keep the same cells throughout, so their part of every field stays in
their own cache, and meet only before a stencil reads what its neighbours wrote.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
import torch

from gliodil.pde.fused import (
    BLOCK,
    FAST,
    SPREAD,
    add_diffusion,
    add_face_gradient,
    arrays,
    bounds,
    scalars,
    slope,
    threads,
)
from gliodil.pde.odil.steps import Steps
from gliodil.pde.operators import Faces


def forward(
    u: torch.Tensor,
    v: torch.Tensor | None,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See ``loops.forward``."""
    with threads(u.shape[1]) as parts:
        sums = np.zeros((parts, SPREAD))
        _forward(
            u.numpy(),
            _or_empty(v, u),
            arrays(faces),
            impassable.numpy(),
            faces.strides,
            scalars(u, steps.dt / 2, steps.dt / steps.sigma, growth),
            _weights(u, steps),
            sums,
        )
    squares, outside = torch.from_numpy(sums[:, :2].sum(axis=0))
    return squares, outside


def backward(
    adjoint: torch.Tensor,
    d_v: torch.Tensor | None,
    u: torch.Tensor,
    faces: Faces,
    impassable: torch.Tensor,
    growth: float,
    steps: Steps,
    scales: tuple[float, float] | None,
) -> tuple[Faces, torch.Tensor]:
    """See ``loops.backward``."""
    x, y, z = (torch.zeros_like(c) for c in faces.values)
    d_faces = Faces((x, y, z), faces.strides)
    with threads(u.shape[1]) as parts:
        sums = np.zeros((parts, SPREAD))
        _backward(
            adjoint.numpy(),
            _or_empty(d_v, u),
            u.numpy(),
            arrays(faces),
            arrays(d_faces),
            impassable.numpy(),
            faces.strides,
            scalars(u, steps.dt / 2, steps.dt / steps.sigma, growth, *(scales or (0.0, 0.0))),
            _weights(u, steps),
            scales is not None,
            sums,
        )
    return d_faces, torch.tensor(sums[:, 0].sum())


def tangent(
    d_u: torch.Tensor,
    d_v: torch.Tensor | None,
    u: torch.Tensor,
    faces: Faces,
    growth: float,
    d_faces: Faces,
    d_growth: float,
    steps: Steps,
) -> None:
    """See ``loops.tangent``."""
    with threads(u.shape[1]) as parts:
        _tangent(
            d_u.numpy(),
            _or_empty(d_v, u),
            u.numpy(),
            arrays(faces),
            arrays(d_faces),
            faces.strides,
            scalars(u, steps.dt / 2, steps.dt / steps.sigma, growth, d_growth),
            _weights(u, steps),
            parts,
        )


def _or_empty(field: torch.Tensor | None, like: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.empty((0, 0), like.numpy().dtype) if field is None else field.numpy()


def _weights(like: torch.Tensor, steps: Steps) -> np.ndarray[Any, Any]:
    return np.asarray(steps.weights, dtype=like.numpy().dtype)


@nb.njit(fastmath=FAST)
def _set_rate(out, u, faces, strides, half, rho, one, begin, end):  # type: ignore
    """out = ½Δt A(u)."""
    o, x = out[begin:end], u[begin:end]
    for k in range(end - begin):
        o[k] = rho * abs(x[k]) * (one - x[k])
    add_diffusion(out, u, faces, strides, begin, end)
    for k in range(end - begin):
        o[k] *= half


@nb.njit(fastmath=FAST)
def _set_linear_rate(out, x, u, faces, strides, half, rho, one, begin, end):  # type: ignore
    """out = ½Δt A′(u) x."""
    zero = one - one
    o, y, at = out[begin:end], x[begin:end], u[begin:end]
    for k in range(end - begin):
        o[k] = rho * slope(at[k], zero, one) * y[k]
    add_diffusion(out, x, faces, strides, begin, end)
    for k in range(end - begin):
        o[k] *= half


@nb.njit(fastmath=FAST)
def _correct(there, x, d, a, b, beta, alpha):  # type: ignore
    """One step of the semi-iteration: d ← β d + α (b + a − x), x ← x + d, into another field."""
    for k in range(x.size):
        change = beta * d[k] + alpha * (b[k] + a[k] - x[k])
        d[k] = change
        there[k] = x[k] + change


@nb.njit(fastmath=FAST)
def _add_scaled(out, x, factor):  # type: ignore
    for k in range(out.size):
        out[k] += factor * x[k]


@nb.njit(fastmath=FAST)
def _penalties(u, impassable, one, sums):  # type: ignore
    zero = one - one
    beyond, outside = zero, zero
    for k in range(u.size):
        x = u[k]
        d = x - min(max(x, zero), one)
        beyond += d * d
        outside += x * x * impassable[k]
    sums[0] += beyond
    sums[1] += outside


@nb.njit(parallel=True, fastmath=FAST, cache=True)
def _forward(u, v, faces, impassable, strides, numbers, weights, sums):  # type: ignore
    half, dt_sigma, rho, one = numbers[0], numbers[1], numbers[2], numbers[3]
    parts, cells = sums.shape[0], u.shape[1]
    two = one + one
    a, b, d = np.empty_like(u[0]), np.empty_like(u[0]), np.zeros_like(u[0])
    x, y, drift = np.empty_like(u[0]), np.empty_like(u[0]), np.zeros_like(u[0])
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        _set_rate(a, u[0], faces, strides, half, rho, one, begin, end)
        for k in range(begin, end):
            b[k] = u[0, k] - a[k]
        _penalties(u[0, begin:end], impassable[begin:end], one, sums[part])
    for n in range(u.shape[0] - 1):
        for part in nb.prange(parts):
            begin, end = bounds(part, parts, cells)
            for i in range(begin, end, BLOCK):
                e = min(i + BLOCK, end)
                for k in range(i, e):
                    x[k] = u[n, k]
                    b[k] = two * u[n, k] - b[k]
                if v.shape[0] > 0:
                    _add_scaled(b[i:e], v[n, i:e], dt_sigma)
                    _add_scaled(x[i:e], v[n, i:e], dt_sigma)
                for k in range(i, e):
                    base = x[k]
                    x[k] = base + drift[k]
                    drift[k] = base
        for j in range(weights.shape[0] - 1):
            beta, alpha = weights[j, 0], weights[j, 1]
            for part in nb.prange(parts):
                begin, end = bounds(part, parts, cells)
                for i in range(begin, end, BLOCK):
                    e = min(i + BLOCK, end)
                    _set_rate(a, x, faces, strides, half, rho, one, i, e)
                    _correct(y[i:e], x[i:e], d[i:e], a[i:e], b[i:e], beta, alpha)
            x, y = y, x
        for part in nb.prange(parts):
            begin, end = bounds(part, parts, cells)
            u[n + 1, begin:end] = x[begin:end]
            for k in range(begin, end):
                drift[k] = x[k] - drift[k]
            _penalties(x[begin:end], impassable[begin:end], one, sums[part])


@nb.njit(fastmath=FAST)
def _begin_solve(x, d, b, alpha):  # type: ignore
    for k in range(x.size):
        y = alpha * b[k]
        x[k] = y
        d[k] = y


@nb.njit(fastmath=FAST)
def _right_hand_side(b, mu, u, impassable, scale_beyond, scale_outside, seen, one):  # type: ignore
    """2μ, and what the loss sees of this level."""
    zero = one - one
    if seen:
        for k in range(b.size):
            x = u[k]
            beyond = x - min(max(x, zero), one)
            b[k] = mu[k] + mu[k] + scale_beyond * beyond + scale_outside * x * impassable[k]
    else:
        for k in range(b.size):
            b[k] = mu[k] + mu[k]


@nb.njit(fastmath=FAST)
def _growth_gradient(u, z, one):  # type: ignore
    total = one - one
    for k in range(u.size):
        total += z[k] * abs(u[k]) * (one - u[k])
    return total


@nb.njit(parallel=True, fastmath=FAST, cache=True)
def _backward(  # type: ignore
    adjoint, d_v, u, faces, d_faces, impassable, strides, numbers, weights, seen, sums
):
    half, dt_sigma, rho, scale_beyond, scale_outside, one = (
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        numbers[5],
    )
    parts, cells, last = sums.shape[0], u.shape[1], u.shape[0] - 1
    mu, b, d = np.zeros_like(adjoint), np.empty_like(adjoint), np.empty_like(adjoint)
    a, x, y = np.empty_like(adjoint), np.empty_like(adjoint), np.empty_like(adjoint)
    for level in range(last):
        n = last - level
        for part in nb.prange(parts):
            begin, end = bounds(part, parts, cells)
            for i in range(begin, end, BLOCK):
                e = min(i + BLOCK, end)
                _right_hand_side(
                    b[i:e], mu[i:e], u[n, i:e], impassable[i:e], scale_beyond, scale_outside, seen, one
                )
                if n == last:
                    _add_scaled(b[i:e], adjoint[i:e], one)
                _begin_solve(x[i:e], d[i:e], b[i:e], weights[0, 1])
        for j in range(1, weights.shape[0]):
            beta, alpha = weights[j, 0], weights[j, 1]
            for part in nb.prange(parts):
                begin, end = bounds(part, parts, cells)
                for i in range(begin, end, BLOCK):
                    e = min(i + BLOCK, end)
                    _set_linear_rate(a, x, u[n], faces, strides, half, rho, one, i, e)
                    _correct(y[i:e], x[i:e], d[i:e], a[i:e], b[i:e], beta, alpha)
            x, y = y, x
        for part in nb.prange(parts):
            begin, end = bounds(part, parts, cells)
            for i in range(begin, end, BLOCK):
                e = min(i + BLOCK, end)
                sums[part, 0] += half * _growth_gradient(u[n, i:e], x[i:e], one)
                add_face_gradient(d_faces, u[n], x, half, strides, i, e)
                for k in range(i, e):
                    mu[k] = x[k] - mu[k]
                if d_v.shape[0] > 0:
                    for k in range(i, e):
                        d_v[n - 1, k] = dt_sigma * mu[k]
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        _right_hand_side(
            b[begin:end],
            mu[begin:end],
            u[0, begin:end],
            impassable[begin:end],
            scale_beyond,
            scale_outside,
            seen,
            one,
        )
        sums[part, 0] += half * _growth_gradient(u[0, begin:end], mu[begin:end], one)
        add_face_gradient(d_faces, u[0], mu, half, strides, begin, end)
        _set_linear_rate(a, mu, u[0], faces, strides, half, rho, one, begin, end)
        for k in range(begin, end):
            adjoint[k] = b[k] - mu[k] + a[k]


@nb.njit(fastmath=FAST)
def _set_forcing(out, u, d_faces, strides, half, d_rho, one, begin, end):  # type: ignore
    """eⁿ = ½Δt [∇·(δc ∇u) + δρ |u|(1 − u)]."""
    o, x = out[begin:end], u[begin:end]
    for k in range(end - begin):
        o[k] = d_rho * abs(x[k]) * (one - x[k])
    add_diffusion(out, u, d_faces, strides, begin, end)
    for k in range(end - begin):
        o[k] *= half


@nb.njit(parallel=True, fastmath=FAST, cache=True)
def _tangent(w, d_v, u, faces, d_faces, strides, numbers, weights, parts):  # type: ignore
    half, dt_sigma, rho, d_rho, one = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    cells = u.shape[1]
    b, c, d, a = np.empty_like(w), np.empty_like(w), np.empty_like(w), np.empty_like(w)
    x, y = w.copy(), np.empty_like(w)
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        _set_forcing(c, u[0], d_faces, strides, half, d_rho, one, begin, end)
        _set_linear_rate(a, x, u[0], faces, strides, half, rho, one, begin, end)
        for k in range(begin, end):
            b[k] = x[k] - a[k] - c[k]
    for n in range(1, u.shape[0]):
        for part in nb.prange(parts):
            begin, end = bounds(part, parts, cells)
            for i in range(begin, end, BLOCK):
                e = min(i + BLOCK, end)
                _set_forcing(c, u[n], d_faces, strides, half, d_rho, one, i, e)
                for k in range(i, e):
                    b[k] = x[k] + x[k] - b[k]
                if d_v.shape[0] > 0:
                    _add_scaled(b[i:e], d_v[n - 1, i:e], dt_sigma)
                _add_scaled(c[i:e], b[i:e], one)
                _begin_solve(y[i:e], d[i:e], c[i:e], weights[0, 1])
        x, y = y, x
        for j in range(1, weights.shape[0]):
            beta, alpha = weights[j, 0], weights[j, 1]
            for part in nb.prange(parts):
                begin, end = bounds(part, parts, cells)
                for i in range(begin, end, BLOCK):
                    e = min(i + BLOCK, end)
                    _set_linear_rate(a, x, u[n], faces, strides, half, rho, one, i, e)
                    _correct(y[i:e], x[i:e], d[i:e], a[i:e], c[i:e], beta, alpha)
            x, y = y, x
    w[:] = x
