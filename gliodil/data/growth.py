"""Growing a tumour in given tissue, from its seeds or onwards from a density.

    ∂u/∂t = ∇·(D(x)∇u) + ρ u (1 − u),      D(x) = D_w (w + g/R),      u(0) = min(1, Σ_foci g(x − x_k))

`gliodil.pde` holds the equation, the seed g and the time stepping. Most of a head is free of tumour, so each
stretch of τ = 5 days is integrated in a box around u > ε only, ε = 1e-6. The box reaches

    r = √(4 D_w τ (ρτ + ln 1/ε))

further: a unit source spreads below ε beyond r within τ (heat kernel times e^{ρτ}), so the box's border,
which lets nothing pass, stays free of tumour. Where D or ρ vary in space, r is that of the fastest place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gliodil.data.label_geometry import bounding_box
from gliodil.data.volume import Volume

FLOOR = 1e-6
"""Density taken as none when the box is chosen."""

STRETCH_DAYS = 5

SEED_RADIUS_MM = 12.0
"""Half width of the box in which the seed is evaluated; it ends at 10.3 mm."""

Density = NDArray[np.float32]


@dataclass(frozen=True)
class Rates:
    """How fast a tumour grows: D_w [mm²/day], ρ [1/day] and R = D_white/D_grey [-]."""

    diffusivity: float
    proliferation: float
    wm_gm_ratio: float

    def reach_mm(self, days: float) -> float:
        """Return how far from its edge a tumour can spread within some days [mm]."""
        return math.sqrt(4 * self.diffusivity * days * (self.proliferation * days - math.log(FLOOR)))


def seed_density(wm: Volume, gm: Volume, origins: Sequence[Sequence[float]]) -> Density:
    """Return the density at day 0 on the grid of `wm`: seeds at `origins` [world mm], in passable tissue."""
    import torch

    from gliodil.pde.grid import Grid
    from gliodil.pde.models.fisher_kolmogorov import TISSUE_THRESHOLD
    from gliodil.pde.seed import gaussian_seed

    total = np.zeros(wm.shape, np.float64)
    spacing = np.asarray(wm.spacing)
    for origin in origins:
        centre = wm.to_index(origin)
        low = np.maximum(np.floor(centre - SEED_RADIUS_MM / spacing), 0).astype(int)
        high = np.minimum(np.ceil(centre + SEED_RADIUS_MM / spacing) + 1, wm.shape).astype(int)
        grid = Grid(_triple(high - low), wm.spacing)
        there = torch.as_tensor((centre - low + 0.5) * spacing)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        total[box] += grid.box(gaussian_seed(grid.centres(), there)).numpy()
    passable = wm.data + gm.data >= TISSUE_THRESHOLD
    return np.where(passable, np.minimum(total, 1), 0).astype(np.float32)


def grow(
    density: Density,
    white: NDArray[np.floating],
    grey: NDArray[np.floating],
    *,
    spacing: tuple[float, float, float],
    rates: Rates,
    days: int,
    level: float,
    limit_ml: float,
    proliferation: NDArray[np.floating] | None = None,
    on_day: Callable[[int, float], None] | None = None,
) -> tuple[Density, int]:
    """Grow a density until a day, or until the first day on which it exceeds `level` in `limit_ml`.

    Parameters
    ----------
    density
        u at the start, 3-D, in [0, 1], zero where `white` + `grey` is below 0.1.
    white, grey
        Tissue fractions on the same grid, in [0, 1]; larger where cells move faster than in plain tissue.
    spacing
        Voxel spacing [mm].
    days
        Longest time to grow [day].
    level, limit_ml
        Growth stops when the volume of u > level reaches this [mL].
    proliferation
        Factor on ρ, place by place, on the same grid; None for 1.
    on_day
        Called with (day, volume above `level` [mL]) after every day.

    Returns
    -------
    Density and the number of days grown. Float32 throughout; the same on any number of threads.
    """
    import torch

    from gliodil.pde.grid import Grid
    from gliodil.pde.integrate import integrate
    from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov

    u = density.copy()
    voxel_ml = math.prod(spacing) / 1000
    faster = 1.0 if proliferation is None else float(proliferation.max())
    fastest = Rates(
        rates.diffusivity * max(1.0, float((white + grey).max())),
        rates.proliferation * max(1.0, faster),
        rates.wm_gm_ratio,
    )
    day, volume = 0, 0.0
    while day < days and volume < limit_ml and (u > FLOOR).any():
        stretch = min(STRETCH_DAYS, days - day)
        pad = [math.ceil(fastest.reach_mm(stretch) / h) + 1 for h in spacing]
        box = tuple(
            slice(max(s.start - p, 0), s.stop + p) for s, p in zip(bounding_box(u > FLOOR), pad, strict=True)
        )
        start = u[box].copy()
        grid = Grid(_triple(start.shape), spacing, dtype=torch.float32)
        tissue = (torch.as_tensor(fraction[box].copy()) for fraction in (white, grey))
        model = FisherKolmogorov.on(grid, *tissue)
        rho: float | torch.Tensor = rates.proliferation
        if proliferation is not None:
            rho = grid.field((rates.proliferation * proliferation[box]).astype(np.float32))
        first = day

        def check(step: int, field, first=first) -> bool:  # type: ignore[no-untyped-def]
            nonlocal day, volume
            day, volume = first + step, float((field > level).sum()) * voxel_ml
            if on_day is not None and step > 0:
                on_day(day, volume)
            return step > 0 and volume >= limit_ml

        end = integrate(
            model,
            grid.field(start),
            diffusivity=rates.diffusivity,
            proliferation_rate=rho,
            wm_gm_ratio=rates.wm_gm_ratio,
            duration=stretch,
            steps=stretch,
            on_level=check,
        )
        u[box] = grid.box(end.clamp(0, 1)).numpy()
    return u, day


def _triple(numbers: Sequence[int] | NDArray[np.int_]) -> tuple[int, int, int]:
    x, y, z = (int(n) for n in numbers)
    return x, y, z
