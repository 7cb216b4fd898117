"""After surgery, density is estimated for the tumour as it was before: a cavity is where its core has been.

A fit that knew only the residue would place the tumour's origin in it and leave the cavity's other walls without
cells, while it is around the whole cavity that tumours come back. Core and cavity therefore count as one core, without
levels inside. PET is left out: that the cavity takes up nothing says nothing about the tumour.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gliodil.data.patient import Patient
from gliodil.planning.rules import PlanRule


def as_before_surgery(patient: Patient, rule: PlanRule) -> Patient:
    """Return the patient whose density a fit should estimate under a rule, with what to know among its warnings.

    That is the patient itself, unless the rule counts a resection cavity as GTV and there is one.
    """
    if "cavity" not in rule.gtv or not patient.cavity.any():
        return patient
    label = patient.convention.enhancing[0]
    labels = np.where(patient.core | patient.cavity, label, patient.segmentation.data)
    note = "the cavity is taken for the core of the tumour before surgery when the density is estimated"
    if patient.pet is not None:
        note += "; PET is not used"
    return replace(
        patient,
        segmentation=patient.segmentation.with_data(labels),
        volumes={role: volume for role, volume in patient.volumes.items() if role != "pet"},
        warnings=(*patient.warnings, note),
    )
