"""Simulated patients that the fitted equation cannot match: other growth, and tissue maps that are off.

    anisotropic    ∂u/∂t = Σ_a ∂_a (D f_a(x) ∂_a u) + ρ u (1 − u): smooth random factors f_x, f_y, f_z of mean 1
    two-component  ∂p/∂t = ∇·(D∇p) + 1.25 ρ s p (1 − p − n) − δ (1 − s)² p,   ∂n/∂t = δ (1 − s)² p,
                   s = 1/(1 + ((p + n)/0.7)⁴), δ = 0.08/day: cells p starve where it is crowded and leave necrosis n;
                   u = p + n

In both the tissue maps the fit gets are warped by a smooth random displacement of 1.5 mm (standard deviation per axis,
correlated over 30 mm), as an imperfect registration would.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from gliodil.data.draw import VISIBLE_ML, allowed_origins, draw_tumour, objection
from gliodil.data.growth import Rates, seed_density
from gliodil.data.synthetic import DURATION_DAYS, _observe
from gliodil.data.synthetic_patient import SyntheticPatient
from gliodil.data.template import Anatomy
from gliodil.pde.grid import Grid
from gliodil.pde.integrate import rate_
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.operators import Faces, spectral_bound

KINDS = ("anisotropic", "two-component")
REACH_VOXELS = 50
DEATH_RATE = 0.08
FWHM_PER_SIGMA = 2.355


def simulate_wrong(anatomy: Anatomy, kind: str, seed: int) -> SyntheticPatient:
    """Return a patient grown by another model; equal arguments give equal patients."""
    below = anatomy.infratentorial()
    allowed = allowed_origins(anatomy, below)
    for number in range(200):
        rng = np.random.default_rng([seed, 77 + KINDS.index(kind), number])
        draw = draw_tumour(rng, allowed, 1)
        start = seed_density(anatomy.wm, anatomy.gm, draw.origins)
        density = _grow(kind, rng, start, anatomy, draw.rates, draw.thresholds.oedema)
        if objection(density, draw.thresholds, below, anatomy.wm.voxel_volume_ml):
            continue
        settings = {"seed": seed, "foci": 1, "resolution_mm": anatomy.wm.spacing[0], "draw": number}
        patient = _observe(anatomy, density, draw, settings, rng, None)
        shape = anatomy.wm.shape
        displacement = np.stack([1.5 * _smooth(rng, shape, 30) for _ in range(3)])
        volumes = dict(patient.patient.volumes)
        for role in ("wm", "gm", "csf"):
            warped = _warp(volumes[role].data, displacement)
            volumes[role] = volumes[role].with_data(np.clip(warped, 0, 1), kind="scalar")
        name = f"{kind}-{seed}"
        return replace(patient, patient=replace(patient.patient, identity=name, volumes=volumes))
    raise RuntimeError(f"no plausible tumour for seed {seed}")


def _grow(
    kind: str, rng: np.random.Generator, start: Any, anatomy: Anatomy, rates: Rates, level: float
) -> Any:
    """Grow over the nominal time, or until the tumour is larger than any that would be accepted."""
    where = np.argwhere(start > 0)
    low = np.maximum(where.min(axis=0) - REACH_VOXELS, 0)
    high = np.minimum(where.max(axis=0) + REACH_VOXELS, start.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    nx, ny, nz = (int(n) for n in high - low)
    grid = Grid((nx, ny, nz), anatomy.wm.spacing, dtype=torch.float32)
    tissue = (torch.as_tensor(m.data[box].copy()) for m in (anatomy.wm, anatomy.gm))
    c = FisherKolmogorov.on(grid, *tissue).coefficients(rates.diffusivity, rates.wm_gm_ratio)
    if kind == "anisotropic":
        factors = [np.exp(0.5 * _smooth(rng, grid.shape, 25)) for _ in range(3)]
        mean = sum(factors) / 3
        fields = [grid.field((f / mean).astype(np.float32)) for f in factors]
        x, y, z = (v * 0.5 * (f[s:] + f[: f.shape[0] - s]) for (v, s), f in zip(c, fields, strict=True))
        c = Faces((x, y, z), c.strides)
    per_day = max(2, math.ceil(float(spectral_bound(c, grid.cells)) + rates.proliferation))
    dt, voxel_ml = 1 / per_day, anatomy.wm.voxel_volume_ml
    p = grid.field(start[box].copy())
    dead, rate, scratch = torch.zeros_like(p), torch.empty_like(p), torch.empty_like(p)
    for _ in range(DURATION_DAYS):
        for _ in range(per_day):
            if kind == "anisotropic":
                rate_(rate, p, c, rates.proliferation, scratch)
                p.add_(rate, alpha=dt)
                continue
            rate_(rate, p, c, 0.0, scratch)
            crowd = p + dead
            nutrient = 1 / (1 + (crowd / 0.7) ** 4)
            dying = DEATH_RATE * p * (1 - nutrient) ** 2
            born = 1.25 * rates.proliferation * nutrient * p * (1 - crowd)
            p.add_(rate + born - dying, alpha=dt).clamp_(min=0)
            dead.add_(dying, alpha=dt)
        if float((p + dead > level).sum()) * voxel_ml > VISIBLE_ML[1]:
            break
    grown = start.copy()
    grown[box] = grid.box((p + dead).clamp(0, 1)).numpy()
    return grown


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], fwhm_voxels: float) -> Any:
    """Return smooth noise of standard deviation 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), fwhm_voxels / FWHM_PER_SIGMA)
    return field / field.std()


def _warp(image: Any, displacement: Any) -> Any:
    index = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij")).astype(float)
    return ndimage.map_coordinates(image, index + displacement, order=1, mode="nearest").astype(np.float32)
