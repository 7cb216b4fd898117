"""Synthetic patients with known truth: a tumour grown in the MNI152 brain, imaged, resected, and come back.

    draw         parameters and foci, until the tumour is plausible               `gliodil.data.draw`
    growth       u_t = ∇·(D_w (w + g/R) ∇u) + ρ u (1 − u) over 100 days           `gliodil.data.growth`
    images       labels at θ_nec > θ_core > θ_oed; FET-PET                        `gliodil.data.observe`
    recurrence   the core u > θ_core is resected: u = w = g = 0 there, so nothing enters the cavity. The rest
                 grows on with the same rates until V mL of u > θ_core stand outside the cavity,
                 V ∈ [5, 15] drawn evenly, 200 days at most. Nothing is treated but the core.

The tissue maps of the patient are those of the healthy anatomy: no mass effect. Draw k of a seed depends on
(seed, foci, k) alone; the first plausible one is taken.

Realistic patients (`gliodil.data.realistic`) are made in another way: as wrong as people are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import numpy as np

from gliodil.data.barriers import falx_and_tentorium
from gliodil.data.draw import VISIBLE_ML, Draw, allowed_origins, draw_tumour, objection
from gliodil.data.growth import Density, grow, seed_density
from gliodil.data.observe import CONVENTION, fet_pet, label_recurrence, segment
from gliodil.data.patient import Patient
from gliodil.data.realistic import simulate_realistic
from gliodil.data.synthetic_patient import UNITS, SyntheticPatient
from gliodil.data.template import Anatomy, load_anatomy
from gliodil.errors import InputError, NumericsError

__all__ = ["UNITS", "SyntheticPatient", "simulate", "simulate_in"]

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, float], None]

DURATION_DAYS = 100
RECURRENCE_DAYS = 200
RECURRENCE_ML = (5.0, 15.0)
MAX_DRAWS = 200


def simulate(
    *,
    foci: int | None = None,
    seed: int = 0,
    resolution_mm: float = 1.0,
    realistic: bool = False,
    progress: Progress | None = None,
) -> SyntheticPatient:
    """Return a synthetic patient; equal arguments give equal patients.

    Parameters
    ----------
    foci
        Number of places the tumour grows from, 1 or 3; None for one, or, in realistic patients, as drawn.
    seed
        Which patient, 0 or more.
    resolution_mm
        Voxel size, whole millimetres from 1 to 8. Infiltration lengths are 0.4 to 2.4 mm: what is coarser
        than 1 mm is for quick tests.
    realistic
        Whether growth, tissue maps and labels are as wrong as people's (`gliodil.data.realistic`).
    progress
        Called after each simulated day with the stage (`"growth"`, `"recurrence"`), the day, and the volume
        of the visible or recurrent tumour [mL]; the days start again with every draw.

    Raises
    ------
    InputError
        If an argument is out of range.
    MissingExtraError
        If nilearn, whose wheel holds the anatomy, is not installed.
    """
    _check(foci, seed)
    anatomy = load_anatomy(resolution_mm=resolution_mm)
    return simulate_in(anatomy, foci=foci, seed=seed, realistic=realistic, progress=progress)


def simulate_in(
    anatomy: Anatomy,
    *,
    foci: int | None = None,
    seed: int = 0,
    realistic: bool = False,
    progress: Progress | None = None,
) -> SyntheticPatient:
    """Return what `simulate` returns, in an anatomy that is at hand already (for many patients in a row)."""
    _check(foci, seed)
    if realistic:
        return simulate_realistic(anatomy, seed=seed, foci=foci, progress=progress)
    foci = foci or 1
    below = anatomy.infratentorial()
    allowed = allowed_origins(anatomy, below)
    for number in range(MAX_DRAWS):
        rng = np.random.default_rng([seed, foci, number])
        draw = draw_tumour(rng, allowed, foci)
        density, _ = grow(
            seed_density(anatomy.wm, anatomy.gm, draw.origins),
            anatomy.wm.data,
            anatomy.gm.data,
            spacing=anatomy.wm.spacing,
            rates=draw.rates,
            days=DURATION_DAYS,
            level=draw.thresholds.oedema,
            # A tumour that is too large will not shrink again: no need to grow it to the end.
            limit_ml=VISIBLE_ML[1] + anatomy.wm.voxel_volume_ml,
            on_day=_reporter(progress, "growth"),
        )
        if reason := objection(density, draw.thresholds, below, anatomy.wm.voxel_volume_ml):
            logger.info("draw %d of seed %d is rejected: %s", number, seed, reason)
            continue
        settings = {"seed": seed, "foci": foci, "resolution_mm": anatomy.wm.spacing[0], "draw": number}
        return _observe(anatomy, density, draw, settings, rng, progress)
    raise NumericsError("No draw gave a plausible tumour.", found=f"{MAX_DRAWS} draws of seed {seed}")


def _observe(
    anatomy: Anatomy,
    density: Density,
    draw: Draw,
    settings: Mapping[str, float],
    rng: np.random.Generator,
    progress: Progress | None,
) -> SyntheticPatient:
    """Image a grown tumour, resect it, let it come back, and put the patient together."""
    grid, spacing, brain = anatomy.brain, anatomy.brain.spacing, anatomy.brain.data > 0
    labels = segment(density, draw.thresholds)
    uptake = fet_pet(density, brain, draw.thresholds, spacing=spacing, rng=rng)
    cavity = density > draw.thresholds.core
    later, days = grow(
        np.where(cavity, np.float32(0), density),
        np.where(cavity, np.float32(0), anatomy.wm.data),
        np.where(cavity, np.float32(0), anatomy.gm.data),
        spacing=spacing,
        rates=draw.rates,
        days=RECURRENCE_DAYS,
        level=draw.thresholds.core,
        limit_ml=float(rng.uniform(*RECURRENCE_ML)),
        on_day=_reporter(progress, "recurrence"),
    )
    recurrence = label_recurrence(later, cavity, draw.thresholds)
    name = f"synthetic-{settings['seed']}" + ("" if settings["foci"] == 1 else f"-{settings['foci']}foci")
    patient = Patient(
        identity=name,
        segmentation=grid.with_data(labels),
        convention=CONVENTION,
        volumes={
            **{role: getattr(anatomy, role) for role in ("wm", "gm", "csf", "brain", "t1")},
            "pet": grid.with_data(uptake.image, kind="scalar"),
            "recurrence": grid.with_data(recurrence),
            "barriers": falx_and_tentorium(anatomy),
        },
    )
    volumes = {
        "visible": labels > 0,
        "core": cavity,
        "recurrence_enhancing": np.isin(recurrence, CONVENTION.enhancing),
        "recurrence": recurrence > 0,
    }
    return SyntheticPatient(
        patient=patient,
        truth=grid.with_data(density, kind="scalar"),
        parameters={
            "diffusivity_wm_mm2_per_day": draw.rates.diffusivity,
            "proliferation_rate_per_day": draw.rates.proliferation,
            "wm_gm_ratio": draw.rates.wm_gm_ratio,
            "infiltration_length_mm": (draw.rates.diffusivity / draw.rates.proliferation) ** 0.5,
            "threshold_necrotic": draw.thresholds.necrotic,
            "threshold_core": draw.thresholds.core,
            "threshold_oedema": draw.thresholds.oedema,
            "origins_mm": [list(origin) for origin in draw.origins],
            "duration_days": DURATION_DAYS,
            "pet_scale": uptake.scale,
            "pet_background": uptake.background,
            "recurrence_days": days,
        },
        volumes_ml={
            key: float(np.count_nonzero(mask)) * grid.voxel_volume_ml for key, mask in volumes.items()
        },
        settings=settings,
    )


def _check(foci: int | None, seed: int) -> None:
    if foci not in (None, 1, 3):
        raise InputError("Synthetic tumours have one or three foci.", expected="1 or 3", found=str(foci))
    if seed < 0:
        raise InputError("The seed must not be negative.", expected="0, 1, 2, ...", found=str(seed))


def _reporter(progress: Progress | None, stage: str) -> Callable[[int, float], None] | None:
    return None if progress is None else lambda day, volume: progress(stage, day, volume)
