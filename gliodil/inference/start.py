"""Where a fit starts: parameters read off the visible tumour, and the public code's forward run.

A front of u_t = D u_xx + ρ u (1 − u) with the profile u = (1 + e^{x/(√6 ℓ)})⁻², ℓ = √(D/ρ) (Ablowitz & Zeppetella 1979),
puts the two imaging thresholds at x(θ) = √6 ℓ ln(θ^{−½} − 1). With radii r of spheres as large as the core and the whole
tumour

    ℓ = (r_whole − r_core) / (x(θ_oed)/ℓ − x(θ_core)/ℓ),        2√(Dρ) = (r_whole − r_seed)/T .
"""

from __future__ import annotations

import math

import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import RATIO
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.pde.integrate import integrate
from gliodil.pde.odil.steps import LARGEST_GROWTH
from gliodil.pde.seed import radius_mm

PUBLIC_DIFFUSIVITY, PUBLIC_RATE, PUBLIC_RATIO = 1.5, 0.12, 100.0
"""Start of the public code: D [mm²/day], ρ [1/day], R [-]."""


def from_segmentation(case: Case, config: FitConfig) -> Scalars:
    """Return parameters estimated from the volumes of the core and the whole tumour."""
    cell = case.grid.cell_volume_mm3
    core, whole = int(case.core.sum()), int((case.core | case.oedema).sum())
    r_core, r_whole = (math.cbrt(3 * n * cell / (4 * math.pi)) for n in (core, whole))
    ratio = 20.0 if config.loss == "reference" else RATIO[0]
    p = Scalars.of(diffusivity=1, proliferation_rate=1, wm_gm_ratio=ratio, origins=centre_of_core(case))
    theta_core, theta_oedema = float(p.threshold_core), float(p.threshold_oedema)
    gap = math.sqrt(6) * (math.log(theta_oedema**-0.5 - 1) - math.log(theta_core**-0.5 - 1))
    length = min(max((r_whole - r_core) / gap, 0.7), 3.0)
    speed = max(r_whole - radius_mm(theta_oedema), 3.0) / config.duration_days
    # The front meets a mixture of tissues; D refers to pure white matter.
    infiltrated = case.core | case.oedema
    mobility = float((case.model.white + case.model.grey / p.wm_gm_ratio)[infiltrated].mean().clamp(min=0.1))
    fastest = min(LARGEST_GROWTH / config.dt, 1.0)  # half of what the time steps can resolve
    return Scalars.of(
        diffusivity=min(max(speed / 2 * length / mobility, 0.02), 5.0),
        proliferation_rate=min(max(speed / 2 / length, 0.025), fastest),
        wm_gm_ratio=ratio,
        origins=p.origins,
    )


def centre_of_core(case: Case) -> torch.Tensor:
    """Return the centre of the core's cells [mm from the corner].

    Where that lies outside the core or in impassable tissue, the nearest passable cell of the core is taken.
    """
    centres = case.grid.centres()
    middle = centres[:, case.core].mean(dim=1)
    allowed = case.core & case.model.passable
    if not bool(allowed.any()):
        allowed = case.core
    spacing = torch.as_tensor(case.grid.spacing, device=centres.device, dtype=centres.dtype)
    around = ((centres - middle[:, None]).abs() <= 0.5001 * spacing[:, None]).all(dim=0)
    if bool(allowed[around].all()):
        return middle
    inside = centres[:, allowed]
    return inside[:, (inside - middle[:, None]).square().sum(dim=0).argmin()]


def forward_run(loss: ReferenceLoss) -> tuple[Scalars, torch.Tensor]:
    """Return the public code's start: a forward run stopped where Dice stops rising, stretched over [0, T].

    Returns
    -------
    Parameters (rates scaled by the stopping time over T) and the run as a field of shape (Nt, N).
    """
    case, config = loss.case, loss.config
    origin = centre_of_core(case)
    whole = case.core | case.oedema
    p = Scalars.of(diffusivity=1, proliferation_rate=1, origins=origin)
    kept: list[torch.Tensor] = []
    best = -1.0
    interval = 0.5  # days of the unscaled run between two looks

    def look(_: int, u: torch.Tensor) -> bool:
        nonlocal best
        seen = u > p.threshold_oedema
        dice = 2 * float((seen & whole).sum()) / max(1.0, float(seen.sum() + whole.sum()))
        kept.append(u.clone())
        if dice < best - 1e-3:
            return True
        best = max(best, dice)
        return False

    integrate(
        case.model,
        loss.seed(origin[None]),
        diffusivity=PUBLIC_DIFFUSIVITY,
        proliferation_rate=PUBLIC_RATE,
        wm_gm_ratio=PUBLIC_RATIO,
        duration=200.0,
        steps=400,
        on_level=look,
    )
    kept.pop()
    stretch = max(1, len(kept) - 1) * interval / config.duration_days
    run = torch.stack(kept)
    at = torch.linspace(0, len(kept) - 1, config.steps, device=run.device, dtype=run.dtype)
    low = at.floor().long().clamp(max=max(0, len(kept) - 2))
    high = (low + 1).clamp(max=len(kept) - 1)
    part = (at - low)[:, None]
    start = Scalars.of(
        diffusivity=PUBLIC_DIFFUSIVITY * stretch,
        proliferation_rate=PUBLIC_RATE * stretch,
        wm_gm_ratio=PUBLIC_RATIO,
        origins=origin,
    )
    return start, run[low] * (1 - part) + run[high] * part
