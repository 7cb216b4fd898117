"""What a thread does with its cells in one stage of a time step (Numba).

A step's semi-iteration d ← β d + α (b + ½Δt A(x) − x), x ← x + d (``steps``) is one loop over cells,

    y ← x + β (x − y) + α (b + ½Δt A(x) − x),

with the iterate before x in y, which the next one replaces: neither d nor A(x) is stored. Iterates begin and end with
a spare plane where coefficients are zero, so that no cell lacks a neighbour. Coefficients and ρ are times ½Δt here.
"""

from __future__ import annotations

from typing import Any

import numba as nb

from gliodil.pde.fused import FAST, add_diffusion, inflow, neighbours, sides, slope


@nb.njit(fastmath=FAST)
def logistic(x, at, one):  # type: ignore
    """|x|(1 − x)."""
    return abs(x) * (one - x)


@nb.njit(fastmath=FAST)
def linearized(x, at, one):  # type: ignore
    """Its derivative at another density, times x."""
    return slope(at, one - one, one) * x


def _relaxing(reaction: Any, *, from_nothing: bool) -> Any:
    """Return one step of the semi-iteration with a reaction; ``from_nothing``: y counts as zero, unread."""

    @nb.njit(fastmath=FAST)
    def relax(y, x, at, b, faces, strides, rho, beta, alpha, one, begin, end):  # type: ignore
        n, first = end - begin, begin + strides[0]
        out, here, u, r = y[first : first + n], x[first : first + n], at[begin:end], b[begin:end]
        x0, x1, y0, y1, z0, z1 = neighbours(x, strides, first, n)
        fx0, fx1, fy0, fy1, fz0, fz1 = sides(faces, strides, first, n)
        for k in range(n):
            h = here[k]
            diffusion = inflow(
                h, x0[k], x1[k], y0[k], y1[k], z0[k], z1[k], fx0[k], fx1[k], fy0[k], fy1[k], fz0[k], fz1[k]
            )
            change = h if from_nothing else h - out[k]
            out[k] = h + beta * change + alpha * (r[k] + diffusion + rho * reaction(h, u[k], one) - h)

    return relax


relax, relax_linear = _relaxing(logistic, from_nothing=False), _relaxing(linearized, from_nothing=False)
relax_first, relax_linear_first = (
    _relaxing(logistic, from_nothing=True),
    _relaxing(linearized, from_nothing=True),
)


@nb.njit(fastmath=FAST)
def add_scaled(out, x, factor):  # type: ignore
    """out += factor x."""
    for k in range(out.size):
        out[k] += factor * x[k]


@nb.njit(fastmath=FAST)
def penalties(u, impassable, one, sums):  # type: ignore
    """Add Σ (distance of u from [0, 1])² and Σ u² in impassable cells."""
    zero = one - one
    beyond, outside = zero, zero
    for k in range(u.size):
        x = u[k]
        d = x - min(max(x, zero), one)
        beyond += d * d
        outside += x * x * impassable[k]
    sums[0] += beyond
    sums[1] += outside


@nb.njit(fastmath=FAST)
def add_seen(b, u, impassable, scale_beyond, scale_outside, one):  # type: ignore
    """b += what the loss sees of this level."""
    zero = one - one
    for k in range(b.size):
        x = u[k]
        beyond = x - min(max(x, zero), one)
        b[k] += scale_beyond * beyond + scale_outside * x * impassable[k]


@nb.njit(fastmath=FAST)
def growth_gradient(u, z, one):  # type: ignore
    """Σ z |u|(1 − u)."""
    total = one - one
    for k in range(u.size):
        total += z[k] * logistic(u[k], u[k], one)
    return total


@nb.njit(fastmath=FAST)
def set_forcing(out, u, d_faces, strides, half, d_rho, one, begin, end):  # type: ignore
    """eⁿ = ½Δt [∇·(δc ∇u) + δρ |u|(1 − u)] in the cells from begin to end."""
    o, x = out[begin:end], u[begin:end]
    for k in range(end - begin):
        o[k] = d_rho * logistic(x[k], x[k], one)
    add_diffusion(out, u, d_faces, strides, begin, end)
    for k in range(end - begin):
        o[k] *= half
