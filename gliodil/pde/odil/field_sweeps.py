"""The sums of squares of ``field`` and their gradient, compiled (Numba): block by block of cells, through all levels.

No cell's residual needs another's, so threads share the cells and do not meet. For the adjoint a thread fills a
field w of its own, a plane beyond its cells on both sides.
"""

from __future__ import annotations

import numba as nb

from gliodil.pde.compiled_cache import kept
from gliodil.pde.fused import BLOCK, FAST, add_diffusion, add_face_gradient, bounds, set_rate, slope
from gliodil.pde.odil.kernels import add_seen, growth_gradient, penalties


@nb.njit(fastmath=FAST)
def _residual(r, u, before, a, a_before, per_dt, half):  # type: ignore
    """r = (u − u_before)/Δt − ½ (a + a_before), a_before ← a; return Σ r²."""
    total = half - half
    for k in range(u.size):
        x = (u[k] - before[k]) * per_dt - half * (a[k] + a_before[k])
        r[k] = x
        a_before[k] = a[k]
        total += x * x
    return total


@kept
@nb.njit(parallel=True, fastmath=FAST)
def squares(u, r, faces, impassable, strides, numbers, sums, scratch):  # type: ignore
    """Fill r; add up Σ r² and the two penalties."""
    rho, per_dt, half, one = numbers
    parts, cells = sums.shape[0], u.shape[1]
    for part in nb.prange(parts):
        first, last = bounds(part, parts, cells)
        a, a_before = scratch[2 * part], scratch[2 * part + 1]
        for begin in range(first, last, BLOCK):
            end = min(begin + BLOCK, last)
            set_rate(a_before, u[0], faces, strides, rho, one, begin, end)
            penalties(u[0, begin:end], impassable[begin:end], one, sums[part, 1:3])
            for n in range(1, u.shape[0]):
                set_rate(a, u[n], faces, strides, rho, one, begin, end)
                sums[part, 0] += _residual(
                    r[n - 1, begin:end], u[n, begin:end], u[n - 1, begin:end],
                    a[begin:end], a_before[begin:end], per_dt, half,
                )  # fmt: skip
                penalties(u[n, begin:end], impassable[begin:end], one, sums[part, 1:3])


@nb.njit(fastmath=FAST)
def _between(w, r, n, factor, begin, end):  # type: ignore
    """w = factor (rⁿ + rⁿ⁺¹); a residual that does not exist counts as zero."""
    out, rows = w[begin:end], r.shape[0]
    if 0 < n < rows:
        x, y = r[n - 1, begin:end], r[n, begin:end]
        for k in range(out.size):
            out[k] = factor * (x[k] + y[k])
        return
    x = r[0 if n == 0 else rows - 1, begin:end]
    for k in range(out.size):
        out[k] = factor * x[k]


@nb.njit(fastmath=FAST)
def _difference(d, r, n, factor):  # type: ignore
    """d = factor (rⁿ − rⁿ⁺¹)."""
    rows = r.shape[0]
    if 0 < n < rows:
        x, y = r[n - 1], r[n]
        for k in range(d.size):
            d[k] = factor * (x[k] - y[k])
        return
    x, signed = r[0 if n == 0 else rows - 1], -factor if n == 0 else factor
    for k in range(d.size):
        d[k] = signed * x[k]


@nb.njit(fastmath=FAST)
def _add_reaction(d, u, w, rho, one):  # type: ignore
    """d += ρ (1 − 2u) sign(u) w."""
    zero = one - one
    for k in range(d.size):
        d[k] += rho * slope(u[k], zero, one) * w[k]


@kept
@nb.njit(parallel=True, fastmath=FAST)
def gradient(d_u, d_faces, u, r, faces, impassable, strides, numbers, sums, scratch):  # type: ignore
    """Fill d_u; add to d_faces and to the sums of dL/dρ."""
    rho, towards_w, towards_d, beyond, outside, one = numbers
    parts, cells, plane = sums.shape[0], u.shape[1], strides[0]
    for part in nb.prange(parts):
        first, last = bounds(part, parts, cells)
        w = scratch[part]
        for n in range(u.shape[0]):
            _between(w, r, n, towards_w, max(0, first - plane), min(cells, last + plane))
            for begin in range(first, last, BLOCK):
                end = min(begin + BLOCK, last)
                d, here, mu = d_u[n, begin:end], u[n, begin:end], w[begin:end]
                _difference(d, r[:, begin:end], n, towards_d)
                _add_reaction(d, here, mu, rho, one)
                add_seen(d, here, impassable[begin:end], beyond, outside, one)
                add_diffusion(d_u[n], w, faces, strides, begin, end)
                add_face_gradient(d_faces, u[n], w, one, strides, begin, end)
                sums[part, 0] += growth_gradient(here, mu, one)
