"""The clinic's own plan: its dose, and its CTV as one more plan at its own volume.

    clinic               the CTV of the clinic's structure set, as it was drawn
    model_at_clinic      the model CTV, isotropic_at_clinic the isotropic margin, of as many voxels as that

so that coverages compare what equal volumes reach. Both objects lie in frames of their own, mostly that of the planning
CT, and meet the MR through the registrations of the patient alone (``data.frames``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.dicom.headers import items, read_header, text
from gliodil.data.dicom.rtdose import Dose, read_dose
from gliodil.data.dicom.rtstruct_reader import read_structures, structure_frames
from gliodil.data.identity import Owned, require_one_patient
from gliodil.data.shapes import carry_mask
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, ImageFileError, InputError, LabelError
from gliodil.planning.clean import Cleaning, clean_ctv
from gliodil.planning.coverage import coverage
from gliodil.planning.ctv import model_ctv
from gliodil.planning.distance import distance_from, orthogonal_spacing
from gliodil.planning.dose import DoseFigures, check_prescription, dose_figures
from gliodil.planning.plans import FURTHER, Plans

if TYPE_CHECKING:
    from gliodil.data.dicom.series import Series
    from gliodil.data.patient import Patient

_CTV = re.compile(r"(?<![A-Za-z])CTV(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class ClinicPlan:
    """What the clinic planned.

    Attributes
    ----------
    dose
        Dose of its plan.
    prescription_gy
        Total dose prescribed.
    ctv
        Its CTV (label volume) on the slices it was drawn on, in their frame.
    roi
        Name of that structure.
    structures
        File it was read from.
    notes
        What was noticed.
    """

    dose: Dose | None = None
    prescription_gy: float | None = None
    ctv: Volume | None = None
    roi: str = ""
    structures: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, Path]:
        """Files it was read from, by what they are."""
        found = {} if self.dose is None else {"dose": self.dose.file}
        return found if self.structures is None else {**found, "structures": self.structures}

    def to_record(self) -> dict[str, Any]:
        """Return what was asked for, as it enters provenance; files are recorded with the other inputs."""
        return {"prescription_gy": self.prescription_gy, "roi": self.roi}


def read_clinic_plan(
    patient: Patient,
    *,
    dose: Path | str | None = None,
    structures: Path | str | None = None,
    roi: str | None = None,
    prescription_gy: float | None = None,
    same_patient: bool = False,
) -> ClinicPlan | None:
    """Return the clinic's plan of a patient; None if nothing of it is given.

    Parameters
    ----------
    dose, structures
        RTDOSE and RTSTRUCT.
    roi
        Name of the CTV in the structure set; by default the only one that is called so.
    prescription_gy
        Total dose prescribed to the target.
    same_patient
        States that all is one person's although PatientIDs differ.

    Raises
    ------
    InputError
        If one of them is another patient's, cannot be read, or holds no such CTV.
    """
    check_prescription(prescription_gy)
    for value, file, option, needed in (
        (prescription_gy, dose, "--prescription-gy", "--dose"),
        (roi, structures, "--clinic-ctv", "--structures"),
    ):
        if value is not None and file is None:
            raise InputError(
                f"{option} says something of a file that was not given.",
                expected=f"{needed} FILE with it",
                found=f"{option} alone",
            )
    if dose is None and structures is None:
        return None
    given = {"dose": dose, "structure set": structures}
    owned = [Owned.of_file(role, Path(path)) for role, path in given.items() if path is not None]
    known = [Owned.of_series(role, series) for role, series in patient.series.items()]
    if patient.planning is not None:
        known.append(Owned.of_series("planning CT", patient.planning.series))
    require_one_patient((*known, *owned), stated=same_patient)
    read = None if dose is None else read_dose(dose)
    if structures is None:
        return ClinicPlan(read, prescription_gy)
    ctv, name, notes = _read_ctv(Path(structures), roi, _series(patient))
    return ClinicPlan(read, prescription_gy, ctv, name, Path(structures), notes)


def check_frames(patient: Patient, clinic: ClinicPlan) -> None:
    """Refuse what no registration relates to the patient's images; a planning CT must have been related before.

    Raises
    ------
    GeometryError
        If nothing relates them.
    """
    if clinic.dose is not None:
        _matrix(patient, clinic.dose.volume.frame, "dose", clinic.dose.file)
    if clinic.ctv is not None:
        _placed_ctv(patient, clinic)


def with_clinic(patient: Patient, plans: Plans, clinic: ClinicPlan) -> Plans:
    """Return the plans with the clinic's CTV, and model and isotropic CTV of its volume.

    Raises
    ------
    GeometryError
        If the CTV lies in a frame that nothing relates to the patient's, or outside the images.
    InputError
        If the brain cannot hold a CTV of its volume.
    """
    if clinic.ctv is None:
        return plans
    mask, grid = _placed_ctv(patient, clinic), patient.segmentation
    assert plans.brain is not None
    assert plans.order is not None
    gtv, brain, spacing = plans.gtv.data > 0, plans.brain.data > 0, orthogonal_spacing(grid.affine)
    distance = distance_from(gtv, spacing, region=brain)
    voxels = int(np.count_nonzero(mask))
    masks = {
        "clinic": mask,
        "model_at_clinic": clean_ctv(
            plans.order.data,
            brain,
            distance,
            voxels,
            spacing=spacing,
            cleaning=Cleaning.of(plans.rule),
            keep=gtv,
        ),
        "isotropic_at_clinic": model_ctv(-distance, brain, distance, voxels),
    }
    assert tuple(masks) == FURTHER
    found = coverage(patient.recurrence, masks, patient.convention)
    covered = plans.coverage
    if found is not None and covered is not None:
        covered = {
            kind: None if shares is None else {**shares, **(found[kind] or {})}
            for kind, shares in covered.items()
        }
    ml = {f"ctv_{name}": int(np.count_nonzero(one)) * grid.voxel_volume_ml for name, one in masks.items()}
    return replace(
        plans,
        further={name: grid.with_data(one.astype(np.uint8), kind="label") for name, one in masks.items()},
        volumes_ml={**plans.volumes_ml, **ml},
        coverage=covered,
    )


def clinic_dose(patient: Patient, plans: Plans, clinic: ClinicPlan) -> DoseFigures | None:
    """Return the dose-volume figures of the clinic's dose; None without one."""
    if clinic.dose is None:
        return None
    ctv = {"standard": plans.standard, "trimmed": plans.trimmed, "model": plans.model, **plans.further}
    structures = {"gtv": plans.gtv, **{f"ctv_{name}": volume for name, volume in ctv.items()}}
    structures |= {f"ptv_{name}": volume for name, volume in plans.ptv.items()}
    if patient.recurrence is not None:
        # A cavity is not recurrence.
        cavity = np.isin(patient.recurrence.data, patient.convention.cavity)
        later = (patient.recurrence.data != 0) & ~cavity
        structures["recurrence"] = patient.segmentation.with_data(later.astype(np.uint8), kind="label")
    matrix = _matrix(patient, clinic.dose.volume.frame, "dose", clinic.dose.file)
    return dose_figures(
        clinic.dose.volume,
        structures,
        plans.density,
        matrix=matrix,
        prescription_gy=clinic.prescription_gy,
    )


def _matrix(patient: Patient, frame: str, what: str, file: Path | None) -> NDArray[np.float64]:
    """Return world mm of the MR to world mm of a frame, 4x4."""
    planning = patient.planning
    if planning is not None:
        onward = patient.links.require(planning.frame, frame, what=what, file=file)
        return np.asarray(onward.matrix @ planning.related_link.matrix)
    reference = patient.reference
    own = patient.segmentation.frame or ("" if reference is None else reference.frame_of_reference)
    if not own or not frame:
        return np.eye(4)  # NIfTI states no frame: it is taken to share that of what is given with it
    return patient.links.require(own, frame, what=what, file=file).matrix


def _placed_ctv(patient: Patient, clinic: ClinicPlan) -> NDArray[np.bool_]:
    """Return the clinic's CTV on the grid of the segmentation."""
    assert clinic.ctv is not None
    to_mr = np.linalg.inv(_matrix(patient, clinic.ctv.frame, f"structure {clinic.roi!r}", clinic.structures))
    mask = carry_mask(clinic.ctv, patient.segmentation, to_mr)
    if not mask.any():
        raise GeometryError(
            "The clinic's CTV lies outside the images.",
            file=clinic.structures,
            expected="a CTV around the tumour",
            found=f"none of {clinic.roi!r} in their field of view",
            remedy="check that structures and images belong to the same patient, and their registration",
        )
    return mask


def _series(patient: Patient) -> tuple[Series, ...]:
    ct = () if patient.planning is None else (patient.planning.series,)
    return (*ct, *patient.series.values())


def _read_ctv(path: Path, roi: str | None, series: Iterable[Series]) -> tuple[Volume, str, tuple[str, ...]]:
    """Return the CTV of a structure set on the slices it was drawn on, its name, and what was noticed."""
    header = read_header(path)
    if header is None or text(header, "Modality") != "RTSTRUCT":
        raise ImageFileError(
            "The file is no RT Structure Set.",
            file=path,
            expected="modality RTSTRUCT",
            found="no DICOM file" if header is None else text(header, "Modality")[:16],
            remedy="check the path given with --structures",
        )
    frames, drawn_on = structure_frames(header)
    name = _choose(path, frames, roi, _stated_ctvs(header))
    grid = _grid(series, frames[name], drawn_on)
    if grid is None:
        raise GeometryError(
            "The clinic's structures need the images they were drawn on.",
            file=path,
            expected="their series as planning CT (--ct PATH) or among the images",
            found="no series in their frame of reference",
            remedy="add the CT with --ct, and the registration to the MR with --reg if there is one",
        )
    read = read_structures(path, grid, names=[name])
    if name not in read.masks:
        raise LabelError(
            "The clinic's CTV is empty.", file=path, expected="closed contours", found=f"none in {name!r}"
        )
    mask = read.masks[name]
    placed = Volume(mask.data, mask.affine, kind="label", path=path, frame=frames[name] or grid.frame)
    return placed, name, read.notes


def _grid(series: Iterable[Series], frame: str, drawn_on: Collection[str]) -> Volume | None:
    fitting = [
        one
        for one in series
        if one.stack is not None and (not frame or one.frame_of_reference in ("", frame))
    ]
    fitting.sort(key=lambda one: one.uid not in drawn_on)
    return fitting[0].volume() if fitting else None


def _choose(path: Path, names: Collection[str], roi: str | None, stated: Collection[str]) -> str:
    """Return the name of the CTV: the one asked for, else the only one that is called so, or stated to be one."""
    called = [name for name in names if _CTV.search(name)]
    for found in ([roi] if roi is not None else called, stated):
        if len(found) == 1 and next(iter(found)) in names:
            return next(iter(found))
        if roi is not None:
            break
    raise LabelError(
        "It is not clear which structure is the clinic's CTV.",
        file=path,
        expected=f"{roi!r}" if roi is not None else "one structure called CTV",
        found=", ".join(called if len(called) > 1 else names) or "no structure",
        remedy="name it with --clinic-ctv NAME",
    )


def _stated_ctvs(header: Any) -> list[str]:
    """Return the names of structures whose type is CTV."""
    numbers = {
        text(entry, "ReferencedROINumber")
        for entry in items(header, "RTROIObservationsSequence")
        if text(entry, "RTROIInterpretedType").upper() == "CTV"
    }
    return [
        text(entry, "ROIName")
        for entry in items(header, "StructureSetROISequence")
        if text(entry, "ROINumber") in numbers
    ]
