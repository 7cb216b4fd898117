"""The folder `ct/` of a plan: everything on the slices of the planning CT, and how MR and CT lie to each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gliodil.data.dicom.reference import read_reference
from gliodil.data.dicom.registration_object import write_registration
from gliodil.data.patient import Patient
from gliodil.planning.export import export_structures, structure_name

if TYPE_CHECKING:
    from gliodil.planning.on_ct import PlansOnCT

REG_FILE = "reg.dcm"


def write_on_ct(folder: Path, patient: Patient, on_ct: PlansOnCT, *, keyholes: bool) -> dict[str, Any]:
    """Write targets, density and registration on the planning CT; return what `metrics.json` says of them.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or a DICOM file does not give back what was written into it.
    """
    planning = patient.planning
    assert planning is not None
    on_ct.save(folder)
    structures = {structure_name(name): mask for name, mask in on_ct.targets.items() if mask.data.any()}
    exported = export_structures(folder, structures, on_ct.density, planning.series.files, keyholes=keyholes)
    files = [path.name for path in exported.files]
    if on_ct.link.origin != "same frame":
        moving: tuple[Any, ...] = ()
        if patient.reference is not None and patient.reference.frame_of_reference == on_ct.link.source:
            moving = patient.reference.headers
        write_registration(
            folder / REG_FILE, on_ct.link, read_reference(planning.series.files), moving=moving
        )
        files.append(REG_FILE)
    middle = np.argwhere(patient.tumour | patient.cavity).mean(axis=0)
    return {
        **planning.to_record(patient.segmentation.to_world(middle)),
        **on_ct.to_dict(),
        "dicom": {**exported.to_dict(), "files": files},
        "warnings": [*on_ct.warnings, *(f"on the planning CT: {text}" for text in exported.warnings)],
    }
