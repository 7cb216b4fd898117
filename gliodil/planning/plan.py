"""From a patient and a density to the plans: targets, margins, differences, coverage.

Everything lives on the grid of the patient's segmentation. Volumes are in mL, margins in mm.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import GliodilError, NumericsError
from gliodil.inference.result import Fit
from gliodil.planning.barriers import Domain, domain
from gliodil.planning.clean import Cleaning, clean_ctv, islands_and_holes, last_density
from gliodil.planning.coverage import coverage
from gliodil.planning.crossings import crossings
from gliodil.planning.ctv import compartments_mask, gtv_mask, model_ctv, ptv, standard_ctv
from gliodil.planning.distance import TOLERANCE_MM, Mask, bounding_box, distance_from, orthogonal_spacing
from gliodil.planning.geodesic import trimmed_ctv
from gliodil.planning.margins import margin_map, margin_summary
from gliodil.planning.organs import Organs, check_organs, excluded_organs, organs_mask, organs_ml
from gliodil.planning.plans import Plans, Targets
from gliodil.planning.ranking import (
    CALIBRATED,
    Rank,
    Ranking,
    check_rank,
    ctv_end,
    probability_volume,
    reach_ranking,
    reach_volume,
)
from gliodil.planning.rules import PlanRule, get_rule

__all__ = ["Plans", "plan"]

logger = logging.getLogger(__name__)

NOTABLE_FRACTION = 0.01
"""Share of the GTV outside the brain mask, or left out by the model CTV, that deserves a warning."""

ABOVE_ANY_DENSITY = np.float32(2.0)
"""Rank of a resection cavity that belongs to the GTV: no cells can be estimated there, and it comes first."""


def plan(
    patient: Patient,
    source: Fit | Volume,
    *,
    rule: str | PlanRule = "benchmark-15mm",
    rank: Rank | None = None,
    organs: Organs | None = None,
    exclude: Collection[str] = (),
) -> Plans:
    """Return the standard, trimmed and model plans of a patient.

    Parameters
    ----------
    patient
        Segmentation, brain mask, and tissue maps and sheets (`barriers`) if there are any.
    source
        A fit, or a density in [0, 1] as scalar volume; on another grid it is resampled.
    rule
        A rule, the name of a packaged one, or a file (ending in `.toml`).
    rank
        What the model CTV takes first: `reach` (default for a fit) or `density` (default for a density), see
        `ranking.py`.
    organs
        Masks of organs at risk by name, on the grid of the segmentation; not zero is inside.
    exclude
        Names of organs that no CTV may enter, besides those of the rule.

    Raises
    ------
    LabelError
        If there is no visible tumour.
    GeometryError
        If the affine is sheared, the tumour lies outside the brain mask, or an organ on another grid.
    NumericsError
        If the density is not finite or leaves [0, 1].
    InputError
        If the rule does not exist, or an organ to exclude was not given.
    """
    rule = get_rule(rule) if isinstance(rule, str) else rule
    density = source.density if isinstance(source, Fit) else source
    if rank is None:
        rank = "reach" if isinstance(source, Fit) and source.method != "given" else "density"
    try:
        return _plan(patient, density, rule, check_rank(rank), organs or {}, exclude)
    except GliodilError as error:
        error.for_patient(patient.identity)
        raise


def _plan(
    patient: Patient,
    density: Volume,
    rule: PlanRule,
    rank: Rank,
    organs: Organs,
    exclude: Collection[str],
) -> Plans:
    grid = patient.segmentation
    warnings: list[str] = []
    check_organs(organs, exclude, grid)
    density = _checked_density(density, grid, warnings)
    gtv = gtv_mask(patient, rule)
    _warn_scan(patient, rule, warnings)
    _warn_outside(gtv, patient.brain, "outside the brain mask", grid, warnings)
    excluded = excluded_organs(organs, exclude, rule, gtv, warnings)
    forbidden = organs_mask(organs, excluded, grid)
    _warn_outside(gtv, ~forbidden, f"in excluded organs ({', '.join(excluded)})", grid, warnings)

    brain = patient.brain & ~forbidden
    distance = distance_from(gtv, orthogonal_spacing(grid.affine), region=brain)
    where = domain(patient, rule, forbidden, warnings)
    if rank == "reach":
        ranking = reach_ranking(patient, gtv, brain, rule.margin_mm, distance_mm=distance)
    elif "cavity" in rule.gtv:
        ranking = Ranking(np.where(patient.cavity, ABOVE_ANY_DENSITY, density.data))
    else:
        ranking = Ranking(density.data)
    full = _targets(grid, gtv, brain, where, ranking, distance, rule.margin_mm, rule)
    initial = None
    if rule.initial is not None:
        margin_mm = rule.initial.margin_mm
        if not patient.oedema.any() and rule.initial.margin_without_oedema_mm is not None:
            margin_mm = rule.initial.margin_without_oedema_mm
        gtv1 = compartments_mask(patient, rule.initial.gtv)
        first = ranking
        if rank == "reach":
            first = reach_ranking(patient, gtv1, brain, margin_mm)
            first = Ranking(
                np.where(full.ctv["model"].data > 0, ABOVE_ANY_DENSITY, first.order), first.reach_mm
            )
        initial = _targets(grid, gtv1, brain, where, first, distance, margin_mm, rule, within=full)
    for targets in filter(None, (full, initial)):
        _warn_cut(targets, rule.ptv_mm, warnings)

    standard, trimmed, model = (full.ctv[name] for name in ("standard", "trimmed", "model"))
    masks = {name: volume.data > 0 for name, volume in full.ctv.items()}
    if rank == "density":
        _warn_model(masks["model"], gtv & brain, grid.with_data(ranking.order, kind="scalar"), warnings)
    calibrated = set(rule.gtv) <= CALIBRATED
    # What the ranking says of the CTV's end holds for the cut it makes, not for what cleaning adds to it.
    ranked = model_ctv(ranking.order, brain, distance, int(np.count_nonzero(masks["model"])))
    named = full.named() | (initial.named("initial") if initial is not None else {})
    for warning in warnings:
        logger.warning("%s: %s", patient.identity, warning)
    return Plans(
        rule=rule,
        gtv=full.gtv,
        standard=standard,
        trimmed=trimmed,
        model=model,
        density=density,
        margin=grid.with_data(margin_map(masks["model"], gtv, distance), kind="scalar"),
        difference=grid.with_data(model.data.astype(np.int8) - standard.data.astype(np.int8), kind="label"),
        volumes_ml={name: _volume_ml(volume.data, grid) for name, volume in named.items()},
        equal_volume_voxel_difference=int(np.count_nonzero(model.data))
        - int(np.count_nonzero(standard.data)),
        margin_mm=margin_summary(masks["model"], gtv, brain, grid.affine),
        coverage=coverage(patient.recurrence, masks, patient.convention),
        warnings=tuple(warnings),
        ptv=full.ptv,
        initial=initial,
        gtv_ml={name: _volume_ml(getattr(patient, name), grid) for name in rule.gtv},
        organs_ml=organs_ml(organs, {name: volume.data > 0 for name, volume in named.items()}),
        organs_excluded=excluded,
        crossings=crossings(patient, gtv, masks, brain=brain, margin_mm=rule.margin_mm),
        brain=_label(brain, grid),
        recurrence=patient.recurrence,
        rank=rank,
        reach=reach_volume(ranking, grid),
        probability=probability_volume(ranking, gtv, grid) if calibrated else None,
        ctv_end=ctv_end(ranking, ranked, density.data, calibrated=calibrated),
        order=full.order,
        contours=islands_and_holes({**masks, "as_ranked": ranked}, brain, orthogonal_spacing(grid.affine)),
        last_density=last_density(ranking.order, masks["model"], density.data),
    )


def _targets(
    grid: Volume,
    gtv: Mask,
    brain: Mask,
    where: Domain,
    ranking: Ranking,
    distance: NDArray[np.floating],
    margin_mm: float,
    rule: PlanRule,
    *,
    within: Targets | None = None,
) -> Targets:
    """Return the targets of one phase.

    `distance`, from the GTV of the phase to the full dose, settles ties of `ranking` in both, so that the model CTVs
    are nested; `within` are targets that the result must contain (path lengths round barriers are known to 2.5 %
    only).
    """
    spacing = orthogonal_spacing(grid.affine)
    standard = standard_ctv(gtv, brain, spacing, margin_mm)
    trimmed = trimmed_ctv(gtv, where, standard, spacing, margin_mm)
    if within is not None:
        trimmed |= within.ctv["trimmed"].data > 0
    model = clean_ctv(
        ranking.order,
        brain,
        distance,
        int(np.count_nonzero(standard)),
        spacing=spacing,
        cleaning=Cleaning.of(rule),
        keep=gtv if within is None else gtv | (within.ctv["model"].data > 0),
    )
    masks = {"standard": standard, "trimmed": trimmed, "model": model}
    grown = {n: ptv(m, spacing, rule.ptv_mm) for n, m in masks.items() if m.any()} if rule.ptv_mm > 0 else {}
    return Targets(
        gtv=_label(gtv, grid),
        ctv={name: _label(mask, grid) for name, mask in masks.items()},
        ptv={name: _label(mask, grid) for name, mask in grown.items()},
        margin_mm=margin_mm,
        order=grid.with_data(np.asarray(ranking.order, np.float32), kind="scalar"),
    )


def _checked_density(density: Volume, grid: Volume, warnings: list[str]) -> Volume:
    """Return the density as it will be saved and is ranked: float32 in [0, 1], on the grid."""
    if not density.same_grid(grid):
        density = density.resample_to(grid)
        warnings.append("the density was resampled onto the grid of the segmentation")
    values = density.data.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise NumericsError(
            "The density is not a fraction of the carrying capacity.",
            file=density.path,
            expected="values in [0, 1]",
            found=f"values from {low:.3g} to {high:.3g}",
        )
    return grid.with_data(np.clip(values, 0.0, 1.0), kind="scalar")


def _warn_scan(patient: Patient, rule: PlanRule, warnings: list[str]) -> None:
    """Say so if the rule is meant for the other scan, before or after surgery."""
    if rule.scan == "post-operative" and not patient.cavity.any():
        parts = [name for name in rule.gtv if getattr(patient, name).any()]
        warnings.append(
            f"rule {rule.name} is defined on the scan after surgery, and the segmentation shows no cavity: its "
            f"GTV here is the tumour ({' and '.join(parts)}) alone"
        )
    elif rule.scan == "pre-operative" and patient.cavity.any() and "cavity" not in rule.gtv:
        ml = _volume_ml(patient.cavity, patient.segmentation)
        warnings.append(
            f"the segmentation shows a resection cavity of {ml:.1f} mL, which rule {rule.name} does not count as "
            "GTV: it is defined on the scan before surgery"
        )


def _warn_outside(gtv: Mask, allowed: Mask, place: str, grid: Volume, warnings: list[str]) -> None:
    outside = gtv & ~allowed
    fraction = np.count_nonzero(outside) / np.count_nonzero(gtv)
    if fraction > NOTABLE_FRACTION:
        warnings.append(
            f"{100 * fraction:.1f} % of the GTV ({_volume_ml(outside, grid):.1f} mL) lies {place}, and so outside "
            "every CTV"
        )


def _warn_cut(targets: Targets, margin_mm: float, warnings: list[str]) -> None:
    """Say so if the image ends before a PTV does."""
    for name in targets.ptv:
        volume = targets.ctv[name]
        ends = zip(bounding_box(volume.data > 0), volume.shape, volume.spacing, strict=True)
        if any(min(side.start, n - side.stop) * h < margin_mm - TOLERANCE_MM for side, n, h in ends):
            warnings.append(
                f"the image ends within {margin_mm:g} mm of the {name} CTV: its PTV is cut off there"
            )


def _warn_model(model: Mask, gtv: Mask, density: Volume, warnings: list[str]) -> None:
    empty = model & (density.data <= 0)
    if empty.any():
        warnings.append(
            f"{np.count_nonzero(empty)} voxels of the model CTV ({_volume_ml(empty, density):.1f} mL) have "
            "no predicted cell; they were added by distance from the GTV to reach the standard volume"
        )
    missed = gtv & ~model
    if np.count_nonzero(missed) > NOTABLE_FRACTION * np.count_nonzero(gtv):
        warnings.append(f"the model CTV leaves out {_volume_ml(missed, density):.1f} mL of the GTV")


def _volume_ml(mask: Mask, grid: Volume) -> float:
    return int(np.count_nonzero(mask)) * grid.voxel_volume_ml


def _label(mask: Mask, grid: Volume) -> Volume:
    return grid.with_data(mask.astype(np.uint8), kind="label")
