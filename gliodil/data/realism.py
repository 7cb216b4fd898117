"""How wrong a realistic synthetic patient is: every number, and where it comes from.

What has no source below is assumed. What the whole was matched to, on which seeds, stands in `realistic`.
"""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[float, float]


@dataclass(frozen=True)
class Realism:
    """Ranges are drawn from evenly, unless said otherwise; fields are smooth noise (`distort.smooth_field`).

    Attributes
    ----------
    registration_mm, registration_fwhm_mm
        Error of the registration that carried the tissue maps: standard deviation along each axis, width of its blur
        [mm]. From a template to a patient it is several mm at sulci.
    diffusion_log_sd, proliferation_log_sd, heterogeneity_fwhm_mm
        Factors on D and ρ are e^{sd q}, q of this width [mm].
    wm_gm_ratio, csf_speed
        D_white/D_grey, where fits to real patients go when it is free; front speed in what the template calls CSF,
        relative to white: there, too, tumour is found.
    origin_weights, origin_delay_days
        Chance of 1, 2, 3 origins; those after the first start later by this [day].
    core_ml
        Volume of the core at imaging, drawn evenly in its logarithm [mL].
    mass_effect_mm
        Largest push of the tissue around the core; the maps do not know of it [mm].
    oedema_mm, oedema_log_sd, oedema_fwhm_mm, oedema_in_grey
        How far oedema reaches beyond the core in white matter, in front coordinates [mm], times e^{sd q}; the part of
        that in grey matter (none in CSF): oedema spreads along white matter. Real ones reach about 10 mm.
    boundary_mm, boundary_fwhm_mm
        Segmentation noise: shift of each boundary, standard deviation and blur [mm].
    rim_mm, rim_log_sd
        Width of the enhancing rim, times e^{sd q} [mm].
    survival_log_mean, survival_log_sd, survival_fwhm_mm
        Treatment after imaging leaves the part e^{mean + sd q} of the cells (at most all of them): patchy, and known to
        nobody.
    later_share
        Later tumour is seen when it has this volume, relative to the core at imaging.
    satellite_chance, satellite_mm
        Chance that a new focus starts after imaging, and how far from the core [mm]. Of real later tumour outside the
        core about a fourteenth lies beyond 15 mm.
    """

    registration_mm: float = 3.0
    registration_fwhm_mm: float = 25.0
    diffusion_log_sd: float = 0.5
    proliferation_log_sd: float = 0.4
    heterogeneity_fwhm_mm: float = 25.0
    wm_gm_ratio: Span = (2.5, 4.0)
    csf_speed: Span = (0.3, 0.6)
    origin_weights: tuple[float, float, float] = (0.5, 0.3, 0.2)
    origin_delay_days: Span = (0.0, 40.0)
    core_ml: Span = (8.0, 50.0)
    mass_effect_mm: Span = (2.0, 8.0)
    oedema_mm: Span = (3.0, 14.0)
    oedema_log_sd: float = 0.7
    oedema_fwhm_mm: float = 20.0
    oedema_in_grey: float = 0.4
    boundary_mm: float = 0.9
    boundary_fwhm_mm: float = 8.0
    rim_mm: Span = (2.0, 6.0)
    rim_log_sd: float = 0.35
    survival_log_mean: float = -1.5
    survival_log_sd: float = 2.0
    survival_fwhm_mm: float = 15.0
    later_share: Span = (1.0, 2.6)
    satellite_chance: float = 0.5
    satellite_mm: Span = (10.0, 30.0)


REALISM = Realism()

LABEL_SETS = (
    "complete",
    "hollow rim",
    "complete",
    "no oedema",
    "complete",
    "hollow rim",
    "core alone",
    "complete",
    "no enhancement",
    "hollow rim",
)
"""What is labelled, by seed modulo 10.

complete: necrosis, rim, oedema; no oedema: necrosis, rim; hollow rim: the rim alone, its middle unlabelled; core alone:
one label for the filled core; no enhancement: core and oedema, the core as non-enhancing."""
