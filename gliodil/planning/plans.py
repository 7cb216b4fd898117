"""Plans: the three CTVs of one patient with their margins, differences, volumes and coverage."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gliodil.data.nifti import write_nifti
from gliodil.data.volume import Volume
from gliodil.planning.coverage import Coverage
from gliodil.planning.crossings import Crossings
from gliodil.planning.rules import PlanRule
from gliodil.planning.surfaces import margin_at, surface, write_surface

FURTHER = ("clinic", "model_at_clinic", "isotropic_at_clinic")
"""Plans there are besides if the clinic's CTV is given, see `clinic.py`."""

OPTIONAL_FILES = (
    *(
        f"{kind}_{phase}{name}.nii.gz"
        for kind, phase in (("ptv", ""), ("ctv", "initial_"), ("ptv", "initial_"))
        for name in ("standard", "trimmed", "model")
    ),
    "recurrence.nii.gz",
    "reach.nii.gz",
    "probability.nii.gz",
    *(f"ctv_{name}.nii.gz" for name in FURTHER),
)
"""What `Plans.save` writes under some rules, or with a follow-up, only."""


@dataclass(frozen=True)
class Targets:
    """The targets of one phase: label volumes (uint8, 0 or 1).

    Attributes
    ----------
    gtv
        What is visible.
    ctv, ptv
        `standard`, `trimmed` and `model`; `ptv` is empty if the rule has no PTV margin.
    margin_mm
        Reach of the standard CTV beyond the GTV [mm].
    order
        Scalar volume: what ranks the voxels of the model CTV, the higher the earlier; finite in the brain only.
    """

    gtv: Volume
    ctv: Mapping[str, Volume]
    ptv: Mapping[str, Volume]
    margin_mm: float
    order: Volume | None = None

    def named(self, phase: str = "") -> dict[str, Volume]:
        """Return the targets by the names of their files and volumes."""
        mark = f"{phase}_" if phase else ""
        ctv = {f"ctv_{mark}{name}": volume for name, volume in self.ctv.items()}
        ptv = {f"ptv_{mark}{name}": volume for name, volume in self.ptv.items()}
        return {f"gtv_{phase}" if phase else "gtv": self.gtv, **ctv, **ptv}


@dataclass(frozen=True)
class Plans:
    """The plans of one patient under one rule.

    Attributes
    ----------
    rule
        The definition the plans follow.
    gtv, standard, trimmed, model
        Label volumes (uint8, 0 or 1): gross tumour, and the CTVs of `ctv.py` and `geodesic.py`.
    density
        Scalar volume (float32) in [0, 1]: the fitted tumour-cell density, on the grid of the segmentation.
    margin
        Scalar volume (float32): distance from the GTV [mm] in the model CTV outside the GTV, 0 elsewhere.
    difference
        Label volume (int8): +1 gained, -1 given up by the model against the standard CTV.
    volumes_ml
        `gtv`, `ctv_standard`, `ctv_trimmed`, `ctv_model` [mL]; `ptv_...` with a PTV margin, `gtv_initial`,
        `ctv_initial_...`, `ptv_initial_...` with two phases.
    equal_volume_voxel_difference
        Voxels of the model CTV minus those of the standard CTV: 0.
    margin_mm
        Summary of the model CTV's margins [mm], see `margins.py`; None where a direction has no boundary.
    coverage
        Recurrence coverage, see `coverage.py`; None without a recurrence.
    warnings
        What a reader of the plans must know; those of the patient and the fit not repeated.
    ptv
        The planning target volumes of the three CTVs by name (uint8); empty without a PTV margin.
    initial
        The targets that are irradiated first, under rules of two phases; all else describes the phase to the
        full dose.
    gtv_ml
        Volume [mL] of each compartment that the rule counts as GTV; 0 where the segmentation shows none.
    organs_ml
        Per organ its volume [mL] as a whole (`organ`) and in each target (`gtv`, `ctv_standard`, ...).
    organs_excluded
        Organs that no CTV enters.
    crossings
        What lies beyond midline and tentorium and why, see `crossings.py`; None without `barriers`.
    brain
        Where a CTV may lie (uint8): the brain without excluded organs. Saved, so that other maps can be compared at
        equal volume later.
    recurrence
        Labels of the follow-up, saved likewise; None without one.
    rank
        What ranked the voxels of the model CTV: `reach` or `density`, see `ranking.py`.
    reach
        Scalar volume (float32): expected reach from the GTV [mm], 0 in it, -1 outside the brain; None where density
        ranks.
    probability
        Scalar volume (float32): probability of later tumour, see `later_tumour.py`; None where density ranks, or
        the GTV is not one that it was calibrated for.
    ctv_end
        `reach_mm`, `probability` and `density` at the model CTV's last voxel; None where not known.
    order
        Scalar volume: what ranks the voxels of the model CTV, the higher the earlier; finite in the brain only.
    contours
        Islands and holes of `standard`, `trimmed`, `model`, and of `as_ranked`: the model CTV before cleaning; see
        `clean.py`.
    last_density
        Lowest, median and highest density of the model CTV's last voxels: the 1 % its ranking puts last.
    further
        The clinic's CTV, and model and isotropic CTV of its volume, see `clinic.py` (uint8); empty without one.
    """

    rule: PlanRule
    gtv: Volume
    standard: Volume
    trimmed: Volume
    model: Volume
    density: Volume
    margin: Volume
    difference: Volume
    volumes_ml: Mapping[str, float]
    equal_volume_voxel_difference: int
    margin_mm: Mapping[str, float | None]
    coverage: Coverage | None
    warnings: tuple[str, ...] = field(default=())
    ptv: Mapping[str, Volume] = field(default_factory=dict)
    initial: Targets | None = None
    gtv_ml: Mapping[str, float] = field(default_factory=dict)
    organs_ml: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    organs_excluded: tuple[str, ...] = ()
    crossings: Crossings | None = None
    brain: Volume | None = None
    recurrence: Volume | None = None
    rank: str = "density"
    reach: Volume | None = None
    probability: Volume | None = None
    ctv_end: Mapping[str, float | None] = field(default_factory=dict)
    order: Volume | None = None
    contours: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    last_density: Mapping[str, float] = field(default_factory=dict)
    further: Mapping[str, Volume] = field(default_factory=dict)

    def save(self, folder: Path | str) -> tuple[Path, ...]:
        """Write volumes and surfaces into `folder` under the names of the contract; return the paths.

        Each file appears complete or not at all; missing folders are created.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        MissingExtraError
            If scikit-image or meshio is not installed.
        """
        folder = Path(folder)
        volumes = {
            "density": (self.density, np.float32),
            "ctv_standard": (self.standard, np.uint8),
            "ctv_trimmed": (self.trimmed, np.uint8),
            "ctv_model": (self.model, np.uint8),
            "margin": (self.margin, np.float32),
            "plan_difference": (self.difference, np.int8),
            "gtv": (self.gtv, np.uint8),
        }
        if self.brain is not None:
            volumes["brain"] = (self.brain, np.uint8)
        volumes |= {
            name: (volume, np.float32)
            for name, volume in (("reach", self.reach), ("probability", self.probability))
            if volume is not None
        }
        more = {f"ptv_{name}": volume for name, volume in self.ptv.items()}
        more |= {f"ctv_{name}": volume for name, volume in self.further.items()}
        if self.initial is not None:
            more |= self.initial.named("initial")
        volumes |= {name: (v, np.uint8) for name, v in more.items() if f"{name}.nii.gz" in OPTIONAL_FILES}
        paths = [write_nifti(v, folder / f"{name}.nii.gz", dtype=t) for name, (v, t) in volumes.items()]
        if self.recurrence is not None:
            paths.append(write_nifti(self.recurrence, folder / "recurrence.nii.gz"))
        return (*paths, *self._save_surfaces(folder / "surfaces"))

    def _save_surfaces(self, folder: Path) -> list[Path]:
        affine = self.gtv.affine
        gtv, model = self.gtv.data > 0, self.model.data > 0
        mesh = surface(model, affine)
        margins = {"margin_mm": margin_at(mesh, gtv, model, affine, self.gtv.spacing)}
        return [
            write_surface(surface(gtv, affine), folder / "gtv.stl"),
            write_surface(surface(self.standard.data > 0, affine), folder / "ctv_standard.stl"),
            write_surface(mesh, folder / "ctv_model.stl"),
            write_surface(mesh, folder / "ctv_model.vtu", point_data=margins),
        ]

    def __repr__(self) -> str:
        volumes = ", ".join(f"{name} {ml:.1f} mL" for name, ml in self.volumes_ml.items())
        return f"Plans({self.rule.name} {self.rule.version}: {volumes})"

    def _repr_html_(self) -> str:
        from gliodil.data.display import Outline, notes_html, planes_html, table_html

        plans = ("standard", "trimmed", "model")
        rows = [("volume", *(f"{self.volumes_ml[f'ctv_{plan}']:.1f} mL" for plan in plans))]
        if self.ptv:
            grown = (
                f"{self.volumes_ml[key]:.1f} mL" if (key := f"ptv_{p}") in self.volumes_ml else "–"
                for p in plans
            )
            rows.append(("with PTV margin", *grown))
        for organ, volumes in self.organs_ml.items():
            rows.append((f"{organ} inside", *(f"{volumes[f'ctv_{plan}']:.1f} mL" for plan in plans)))
        for kind, fractions in (self.coverage or {}).items():
            cells = ("–",) * 3 if fractions is None else (f"{100 * fractions[plan]:.1f} %" for plan in plans)
            rows.append((f"covers {kind} recurrence", *cells))
        body = "".join(
            f"<tr><th style='text-align:left'>{html.escape(r[0])}</th>"
            + "".join(f"<td>{c}</td>" for c in r[1:])
            + "</tr>"
            for r in rows
        )
        head = "".join(f"<th>{plan} CTV</th>" for plan in plans)
        title = f"{self.rule.name} {self.rule.version}, GTV {self.volumes_ml['gtv']:.1f} mL"
        per_voxel = self.difference.voxel_volume_ml
        gained, given_up = (np.count_nonzero(self.difference.data == sign) * per_voxel for sign in (1, -1))
        facts = {
            "model against standard CTV": f"{gained:.1f} mL gained, {given_up:.1f} mL given up",
            "margin of the model CTV": ", ".join(
                f"{name} {mm:.0f} mm"
                for name, mm in self.margin_mm.items()
                if mm is not None and "_" not in name
            ),
        }
        picture = planes_html(
            self.density,
            self.density.data,
            [
                Outline("standard", self.standard.data, "#56B4E9", (0, (5, 2))),
                Outline("trimmed", self.trimmed.data, "#F4A6D0", (0, (1, 1.4))),
                Outline("model", self.model.data, "#D55E00"),
                Outline("GTV", self.gtv.data, "#F0E442"),
            ],
            alt="Axial, coronal and sagittal plane of the density with the outlines of GTV and CTVs",
        )
        table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        words = f"<p>{html.escape(self.rule.description)} Research use only.</p>"
        return (
            f"<div><b>{html.escape(title)}</b>{table}{table_html(facts)}{picture}{words}"
            f"{notes_html(self.warnings)}</div>"
        )
