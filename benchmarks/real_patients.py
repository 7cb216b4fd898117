"""Real patients of a data folder, prepared by the product and cached: who is there, and what each can tell.

    pair      a GTV, and later tumour on the same grid         progression/*, gliodil_001
    oedema    core and oedema at one visit                     preop/*, tcga_du_7294, gliodil_001

    progression/NN   gtv, followup_on_baseline, brain_mask, wm, gm, csf, t1c
    gliodil_001      segm, segm_rec, brainMask, FET; tissue from sri24/ beside it
    preop/NAME       seg, t1c (and more); tissue maps are registered by the product
    tcga_du_7294     as preop

Other folders below `progression` and `preop` are taken like those that are there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gliodil.data.nifti import read_nifti, write_nifti
from gliodil.data.patient import Patient, load_patient
from gliodil.data.registration.prepare import prepare
from gliodil.errors import GliodilError

MADE = ("wm", "gm", "csf", "brain")
CONVENTIONS = {"tcga": "brats-2017", "brats13": "brats-2013"}
"""Label conventions that the arrangement of the labels does not tell, by the beginning of a folder's name."""


@dataclass(frozen=True)
class Real:
    """A patient, and what is known of it besides one visit's images."""

    name: str
    patient: Patient
    is_pair: bool
    has_oedema: bool


def real_patients(data: Path, cache: Path, *, quick: bool = False) -> Iterator[Real]:
    """Yield the patients of a folder; ``quick`` leaves out those whose tissue maps have to be made."""
    found = list(_folders(data))
    if not found:
        sys.exit(f"{data} holds none of progression/*, gliodil_001, preop/*, tcga_du_7294")
    for name, folder, files, labels in found:
        needs_maps = "wm" not in files
        if quick and needs_maps and not (cache / name / "wm.nii.gz").exists():
            continue
        try:
            # All maps here are a template's: registered by the product, or an atlas in the same space.
            patient = load_patient(
                folder, files=files, labels=labels, identity=name, tissue_source="template"
            )
            if "wm" not in patient.volumes:
                patient = _with_maps(patient, cache / name)
        except GliodilError as error:
            print(f"left out: {error}", file=sys.stderr, flush=True)
            continue
        yield Real(name, patient, patient.recurrence is not None, bool(patient.oedema.any()))


def core_alone(patient: Patient) -> Patient:
    """Return the patient as if its oedema had not been labelled, and without PET, which shows where tumour is."""
    data = np.where(patient.oedema, 0, patient.segmentation.data)
    volumes = {k: v for k, v in patient.volumes.items() if k not in ("pet", "recurrence")}
    return replace(patient, segmentation=patient.segmentation.with_data(data), volumes=volumes)


def _folders(data: Path) -> Iterator[tuple[str, Path | None, dict[str, Path], str | None]]:
    """Yield name, folder, files named by hand, and the label convention where it has to be said."""
    for folder in sorted((data / "progression").glob("*")):
        parts = ("wm", "gm", "csf", "t1c")
        files = {role: folder / f"{role}.nii.gz" for role in parts if (folder / f"{role}.nii.gz").exists()}
        files |= {"seg": folder / "gtv.nii.gz", "brain": folder / "brain_mask.nii.gz"}
        files["recurrence"] = folder / "followup_on_baseline.nii.gz"
        if all(path.exists() for path in files.values()):
            yield f"progression_{folder.name}", None, files, None
    if (folder := data / "gliodil_001").is_dir():
        atlas = {tissue: data / "sri24" / f"{tissue}.nii.gz" for tissue in ("wm", "gm", "csf")}
        yield "gliodil_001", folder, atlas, "gliodil"
    for folder in (*sorted((data / "preop").glob("*")), data / "tcga_du_7294"):
        if folder.is_dir():
            yield folder.name, folder, {}, CONVENTIONS.get(folder.name.split("_")[0])


def _with_maps(patient: Patient, cache: Path) -> Patient:
    """Return the patient with tissue maps registered by the product, made once."""
    if not (cache / "wm.nii.gz").exists():
        print(f"{patient.identity}: registering the template", file=sys.stderr, flush=True)
        made = prepare(patient)
        for role in MADE:
            write_nifti(made.patient.volumes[role], cache / f"{role}.nii.gz", dtype=np.float32)
    maps = {
        role: patient.segmentation.with_data(
            read_nifti(cache / f"{role}.nii.gz", kind="scalar").data.astype(np.float32), kind="scalar"
        )
        for role in MADE
    }
    brain = patient.segmentation.with_data((maps.pop("brain").data > 0).astype(np.uint8), kind="label")
    return replace(patient, volumes={**patient.volumes, "brain": brain, **maps})
