"""The three time loops of ``loops`` compiled (Numba): how a step begins and ends, and what goes before and after.

``kernels`` has what they are made of, ``wave`` the order in which the stages of a step pass over the cells. Iterates
begin and end with a spare plane; all other fields do not.
"""

from __future__ import annotations

import numba as nb

from gliodil.pde.compiled_cache import kept
from gliodil.pde.fused import FAST, add_face_gradient, bounds
from gliodil.pde.odil.kernels import (
    add_scaled,
    add_seen,
    growth_gradient,
    penalties,
    relax,
    relax_first,
    relax_linear,
    relax_linear_first,
    set_forcing,
)
from gliodil.pde.odil.wave import marching


@nb.njit(fastmath=FAST)
def _prepare_forward(fields, n, x, begin, end):  # type: ignore
    """b ← 2u − b + Δt v/σ; the iterate begins where the last step leads, the model error apart."""
    u, v, _, b, drift, numbers, _ = fields
    here, base, r, change = u[n, begin:end], x[begin:end], b[begin:end], drift[begin:end]
    if v.shape[0] > 0:
        error, scale = v[n, begin:end], numbers[0]
        for k in range(end - begin):
            base[k] = here[k] + scale * error[k]
    else:
        base[:] = here
    for k in range(end - begin):
        r[k] = base[k] + here[k] - r[k]
    for k in range(end - begin):
        base[k], change[k] = base[k] + change[k], base[k]


@nb.njit(fastmath=FAST)
def _finish_forward(fields, n, x, begin, end, part):  # type: ignore
    """Keep uⁿ⁺¹, how far it came from the last level without the model error, and the penalties."""
    u, _, impassable, _, drift, numbers, sums = fields
    here, new, change = u[n + 1, begin:end], x[begin:end], drift[begin:end]
    for k in range(end - begin):
        here[k] = new[k]
        change[k] = new[k] - change[k]
    penalties(new, impassable[begin:end], numbers[2], sums[part])


_march_forward = marching(_prepare_forward, relax_first, relax, _finish_forward)


@kept
@nb.njit(parallel=True, fastmath=FAST)
def forward(u, v, faces, impassable, strides, numbers, weights, sums, scratch):  # type: ignore
    """Fill u[1:]; add up the two penalties."""
    rho, one = numbers[1], numbers[2]
    parts, cells, p = sums.shape[0], u.shape[1], strides[0]
    x, y, b, drift = scratch[0], scratch[1], scratch[2][:cells], scratch[3][:cells]
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        x[p + begin : p + end] = u[0, begin:end]
        penalties(u[0, begin:end], impassable[begin:end], one, sums[part])
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        relax_first(y, x, u[0], u[0], faces, strides, rho, one - one, -one, one, begin, end)
        b[begin:end] = y[p + begin : p + end]
    fields = (u, v, impassable, b, drift, numbers, sums)
    _march_forward((0, 1, u.shape[0] - 1), fields, x, y, u, b, faces, strides, rho, weights[:-1], one, parts)


@nb.njit(fastmath=FAST)
def _prepare_backward(fields, n, x, begin, end):  # type: ignore
    """b = 2μ and what the loss sees of this level; the iterates begin with α b."""
    u, _, impassable, _, _, _, b, mu, adjoint, seen, numbers, alpha, _, _, _, _ = fields
    r, m, new = b[begin:end], mu[begin:end], x[begin:end]
    one = numbers[5]
    for k in range(end - begin):
        r[k] = m[k] + m[k]
    if n == u.shape[0] - 1:
        add_scaled(r, adjoint[begin:end], one)
    if seen:
        add_seen(r, u[n, begin:end], impassable[begin:end], numbers[3], numbers[4], one)
    for k in range(end - begin):
        new[k] = alpha * r[k]


@nb.njit(fastmath=FAST)
def _finish_backward(fields, n, z, begin, end, part):  # type: ignore
    """μ ← z − μ, dL/dv = Δt μ/σ; z sees the coefficients and ρ."""
    u, d_v, _, gx, gy, gz, _, mu, _, _, numbers, _, p, q, s, sums = fields
    half, dt_sigma, one = numbers[0], numbers[1], numbers[5]
    m, new = mu[begin:end], z[begin:end]
    sums[part, 0] += half * growth_gradient(u[n, begin:end], new, one)
    add_face_gradient((gx, gy, gz), u[n], z, half, (p, q, s), begin, end)
    for k in range(end - begin):
        m[k] = new[k] - m[k]
    if d_v.shape[0] > 0:
        d = d_v[n - 1, begin:end]
        for k in range(end - begin):
            d[k] = dt_sigma * m[k]


_march_backward = marching(_prepare_backward, relax_linear_first, relax_linear, _finish_backward)


@kept
@nb.njit(parallel=True, fastmath=FAST)
def backward(  # type: ignore
    adjoint, d_v, u, faces, d_faces, impassable, strides, numbers, weights, seen, sums, scratch
):
    """Turn adjoint into dL/du⁰; fill d_v, d_faces and the sums of dL/dρ."""
    half, rho, one = numbers[0], numbers[2], numbers[5]
    parts, cells, last, p = sums.shape[0], u.shape[1], u.shape[0] - 1, strides[0]
    x, y, b, mu = scratch[0], scratch[1], scratch[2][:cells], scratch[3][:cells]
    gx, gy, gz = d_faces
    p, q, s = strides
    fields = (u, d_v, impassable, gx, gy, gz, b, mu, adjoint, seen, numbers, weights[0, 1], p, q, s, sums)
    _march_backward((last, -1, last), fields, x, y, u, b, faces, strides, rho, weights[1:], one, parts)
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        x[p + begin : p + end] = mu[begin:end]
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        sums[part, 0] += half * growth_gradient(u[0, begin:end], mu[begin:end], one)
        add_face_gradient(d_faces, u[0], mu, half, strides, begin, end)
        relax_linear_first(y, x, u[0], mu, faces, strides, rho, one - one, one, one, begin, end)
        adjoint[begin:end] = y[p + begin : p + end]
        if seen:
            add_seen(adjoint[begin:end], u[0, begin:end], impassable[begin:end], numbers[3], numbers[4], one)


@nb.njit(fastmath=FAST)
def _prepare_tangent(fields, n, x, begin, end):  # type: ignore
    """δb ← 2δu − δb + Δt δv/σ; the iterates begin with α (δb + e)."""
    w, d_v, u, cx, cy, cz, b, c, numbers, alpha, p, q, s = fields
    r, right, old, new = b[begin:end], c[begin:end], w[begin:end], x[begin:end]
    one = numbers[4]
    for k in range(end - begin):
        r[k] = old[k] + old[k] - r[k]
    if d_v.shape[0] > 0:
        add_scaled(r, d_v[n - 1, begin:end], numbers[1])
    set_forcing(c, u[n], (cx, cy, cz), (p, q, s), numbers[0], numbers[3], one, begin, end)
    add_scaled(right, r, one)
    for k in range(end - begin):
        new[k] = alpha * right[k]


@nb.njit(fastmath=FAST)
def _finish_tangent(fields, n, x, begin, end, part):  # type: ignore
    fields[0][begin:end] = x[begin:end]


_march_tangent = marching(_prepare_tangent, relax_linear_first, relax_linear, _finish_tangent)


@kept
@nb.njit(parallel=True, fastmath=FAST)
def tangent(w, d_v, u, faces, d_faces, strides, numbers, weights, parts, scratch):  # type: ignore
    """Turn w from the change of u⁰ into that of the last level."""
    half, rho, d_rho, one = numbers[0], numbers[2], numbers[3], numbers[4]
    cells, p = u.shape[1], strides[0]
    x, y, b, c = scratch[0], scratch[1], scratch[2][:cells], scratch[3][:cells]
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        x[p + begin : p + end] = w[begin:end]
        set_forcing(c, u[0], d_faces, strides, half, d_rho, one, begin, end)
    for part in nb.prange(parts):
        begin, end = bounds(part, parts, cells)
        relax_linear_first(y, x, u[0], w, faces, strides, rho, one - one, -one, one, begin, end)
        for k in range(begin, end):
            b[k] = y[p + k] - c[k]
    cx, cy, cz = d_faces
    p, q, s = strides
    fields = (w, d_v, u, cx, cy, cz, b, c, numbers, weights[0, 1], p, q, s)
    steps = u.shape[0] - 1
    _march_tangent((1, 1, steps), fields, x, y, u, c, faces, strides, rho, weights[1:], one, parts)
