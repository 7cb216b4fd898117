"""What can be known to fail before anything long is computed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gliodil.errors import GliodilError, InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

    from gliodil.data.patient import Patient
    from gliodil.inference.config import FitConfig
    from gliodil.planning.clinic import ClinicPlan
    from gliodil.planning.organs import Organs
    from gliodil.planning.rules import PlanRule

Progress = Callable[[str, int, float], None]
POINTS = 3000
"""Points of the brain at which a registration is judged, at least."""


def check(
    patient: Patient,
    out: Path | str,
    *,
    config: FitConfig,
    rule: str | PlanRule,
    organs: Organs | None = None,
    exclude: Collection[str] = (),
    register: bool = False,
    overwrite: bool = False,
    relate: bool = True,
    clinic: ClinicPlan | None = None,
) -> tuple[str, ...]:
    """Raise what `plan_patient` would refuse before its fit, and return the warnings; leave nothing in `out`.

    Without `relate` the planning CT is not registered yet, which takes a minute.
    """
    from gliodil.data.registration.prepare import needs_tissue
    from gliodil.inference.case import set_up
    from gliodil.planning.clinic import check_frames
    from gliodil.planning.resected import as_before_surgery
    from gliodil.planning.rules import get_rule
    from gliodil.reporting.folder import plan_folder

    if clinic is not None:
        patient = replace(patient, places=(*patient.places, *clinic.files.values()))
    with naming(patient), plan_folder(patient, out, overwrite=overwrite):
        planned = check_request(
            patient, config=config, rule=rule, organs=organs, exclude=exclude, register=register
        )
        if relate:
            related = on_planning_ct(patient, rule)
            if clinic is not None:
                check_frames(related, clinic)
            planned = (*planned, *ct_sentences(related), *related.warnings[len(patient.warnings) :])
        if needs_tissue(patient):  # what maps that are to be made will be like is only known then
            return planned
        rule = get_rule(rule) if isinstance(rule, str) else rule
        return (*planned, *set_up(as_before_surgery(patient, rule), config).warnings)


def check_request(
    patient: Patient,
    *,
    config: FitConfig,
    rule: str | PlanRule,
    organs: Organs | None = None,
    exclude: Collection[str] = (),
    register: bool = False,
) -> tuple[str, ...]:
    """Refuse what would only come to light after the fit; return what will be made first, in sentences."""
    from gliodil.data.registration.prepare import check_preparation
    from gliodil.inference.case import choose_device
    from gliodil.planning.ctv import gtv_mask, standard_ctv
    from gliodil.planning.distance import orthogonal_spacing
    from gliodil.planning.export import check_export
    from gliodil.planning.organs import check_organs
    from gliodil.planning.rules import get_rule

    known = get_rule(rule) if isinstance(rule, str) else rule
    check_organs(organs or {}, exclude, patient.segmentation)
    for library in ("matplotlib", "jinja2"):
        if find_spec(library) is None:
            raise MissingExtraError(library, "report")
    if (reference := patient.reference) is not None:
        check_export(reference.files, patient.segmentation.with_data(gtv_mask(patient, known), kind="label"))
    planned = check_preparation(patient, register=register)
    present = _memory_of(choose_device(config.device))
    if present is not None and memory_gb(config) > present:
        raise _too_large(config, f"{present:.1f} GB")
    spacing = orthogonal_spacing(patient.affine)
    if {"wm", "gm"} <= patient.volumes.keys():
        standard_ctv(gtv_mask(patient, known), patient.brain, spacing, known.margin_mm)
    return planned


def on_planning_ct(patient: Patient, rule: str | PlanRule, *, progress: Progress | None = None) -> Patient:
    """Return the patient with the planning CT related to the MR; refuse what could not be exported on the CT.

    A patient without a CT comes back as it is.
    """
    from gliodil.data.load import brain_mask
    from gliodil.data.planning_ct import related
    from gliodil.planning.ctv import gtv_mask
    from gliodil.planning.export import check_export
    from gliodil.planning.on_ct import gtv_on_ct
    from gliodil.planning.rules import get_rule

    if patient.planning is None:
        return patient
    known = get_rule(rule) if isinstance(rule, str) else rule
    gtv = patient.segmentation.with_data(gtv_mask(patient, known).astype("uint8"), kind="label")
    known_brain = brain_mask(patient.volumes)
    inside = np.argwhere(gtv.data if known_brain is None else known_brain)
    target = gtv.to_world(inside[:: max(1, len(inside) // POINTS)])
    planning = related(patient.planning, patient.mr_image, target=target, progress=progress)
    patient = replace(patient, planning=planning, warnings=(*patient.warnings, *planning.notes))
    check_export(planning.series.files, gtv_on_ct(patient, gtv, tuple(known.gtv)))
    return patient


def ct_sentences(patient: Patient) -> tuple[str, ...]:
    """Return how MR and planning CT lie to each other, in words."""
    planning = patient.planning
    if planning is None:
        return ()
    link = planning.related_link
    how = {
        "same frame": "shares the frame of reference of the MR",
        "REG": "is related to the MR by the clinic's registration",
        "registered": "was registered to the MR",
    }[link.origin]
    middle = np.argwhere(patient.tumour | patient.cavity).mean(axis=0)
    parts = [
        f"{link.shift_mm(patient.segmentation.to_world(middle)):.1f} mm at the tumour",
        f"{link.angle_deg:.1f}°",
    ]
    if link.residual_mm is not None:
        parts.append(f"answers of several starts within {link.residual_mm:.1f} mm")
    if planning.difference_mm is not None:
        parts.append(f"{planning.difference_mm:.1f} mm at most from the product's own registration")
    return (
        f"the planning CT, {planning.series.name}, {how} ({', '.join(parts)}); targets will be exported on it",
    )


def memory_gb(config: FitConfig) -> float:
    """Return about how much memory a fit takes, GB: float32 trajectories, and 1.5 GB for the rest.

    Exact physics keeps one and works on a few; soft physics stores pairs of them.
    """
    soft = config.physics == "soft" or (config.loss == "reference" and config.physics != "exact")
    trajectories = 18 if soft else 4
    return trajectories * config.cells**3 * config.steps * 4 / 1e9 + 1.5


@contextmanager
def memory_errors(config: FitConfig) -> Iterator[None]:
    """Turn a failed allocation into an error that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch has a type of its own on CUDA only.
        if isinstance(error, MemoryError) or "memory" in str(error):
            raise _too_large(config, str(error).split("\n")[0] or "no memory left") from error
        raise


@contextmanager
def naming(patient: Patient) -> Iterator[None]:
    """Name the patient in every error raised on purpose."""
    try:
        yield
    except GliodilError as error:
        error.for_patient(patient.identity)
        raise


def _memory_of(device: torch.device) -> float | None:
    """Return the memory of a device or of this machine, GB; None if unknown."""
    if device.type == "cuda":
        import torch

        return float(torch.cuda.get_device_properties(device).total_memory) / 1e9
    return machine_memory_gb()


def machine_memory_gb() -> float | None:
    """Return the memory this process may take, GB: the machine's, a container's or that of `ulimit`; None if unknown."""
    limits = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has neither
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ImportError, AttributeError):
        import resource

        limits += [
            soft
            for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
            if (soft := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY
        ]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups, second and first version
        with suppress(OSError, ValueError):  # "max": none
            limits.append(int(Path("/sys/fs/cgroup", file).read_text()))
    return min(limits) / 1e9 if limits else None


def _too_large(config: FitConfig, found: str) -> InputError:
    return InputError(
        "There is not enough memory for this grid.",
        expected=f"about {memory_gb(config):.1f} GB for {config.cells}³ cells and {config.steps} time levels",
        found=found,
        remedy="use fewer cells (--cells)",
    )
