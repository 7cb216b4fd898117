"""Everything between the scanner's images and the fit that a patient's folder lacks: brain mask and tissue maps.

brain     given | already stripped | deepbet                                         `brain`
tissue    MNI152 template -> patient: affine, SyN; WM, GM carried, CSF = brain − WM − GM   `atlas`, `tissue`
images    on request: T1, T2, FLAIR, PET aligned rigidly with the reference             `rigid`
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gliodil.data import checks
from gliodil.data.nifti import is_nifti_name, read_nifti, write_nifti
from gliodil.data.patient import Patient
from gliodil.data.registration.atlas import AtlasConfig, register_template
from gliodil.data.registration.brain import ANATOMICAL, Brain, brain_source, find_brain
from gliodil.data.registration.rigid import align_rigidly
from gliodil.data.registration.tissue import carry_sheets, tissue_maps
from gliodil.data.registration.transform import Transform
from gliodil.data.registration.transform_files import save_transform, transform_files
from gliodil.data.template import COARSEST_MM, Anatomy, load_anatomy
from gliodil.data.volume import Volume
from gliodil.errors import InputError, MissingExtraError

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, float], None]
TemplateLabels = Callable[[Anatomy], Volume]

DRIVERS = ("t1", "t1c", "flair", "t2")
"""Images the template can be registered to, the most alike first."""

MADE = ("wm", "gm", "csf", "brain", "barriers", *ANATOMICAL, "pet")
"""Volumes that can be made here."""

POOR_CORRELATION = 0.6
"""Local correlation with the template below which the tissue maps are doubted."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A patient with what was missing filled in, and how it was made.

    Attributes
    ----------
    patient
        The patient, with its new volumes and warnings.
    made
        Names of the volumes that were not given.
    transforms
        By name; `template` carries template images to the patient (fixed: patient, moving: template).
    record
        What was done, for `metrics.json`.
    """

    patient: Patient
    made: tuple[str, ...] = ()
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path | str) -> Path:
        """Write the volumes made (`<name>.nii.gz`) and the transforms (`transforms/<name>/`) into a folder."""
        folder = Path(folder)
        for role in self.made:
            volume = self.patient.volumes[role]
            write_nifti(volume, folder / f"{role}.nii.gz")
        for name, transform in self.transforms.items():
            save_transform(transform, folder / "transforms" / name)
        return folder


def restore(patient: Patient, folder: Path) -> Patient:
    """Return a patient with the brain mask, tissue maps and sheets that `Prepared.save` wrote for it."""
    made = {
        role: read_nifti(path, kind="label" if role in ("brain", "barriers") else "scalar")
        for role in ("wm", "gm", "csf", "brain", "barriers")
        if role not in patient.volumes and (path := folder / f"{role}.nii.gz").is_file()
    }
    return replace(patient, volumes={**patient.volumes, **made}) if made else patient


def preprocess_files(folder: Path) -> list[Path]:
    """Return the files in a folder that `Prepared.save` writes."""
    return [
        *(
            path
            for role in ("wm", "gm", "csf", "brain", "barriers")
            if (path := folder / f"{role}.nii.gz").is_file()
        ),
        *(path for place in (folder / "transforms").glob("*") for path in transform_files(place)),
    ]


def needs_tissue(patient: Patient) -> bool:
    """Whether the patient has no tissue maps, but an image to make them from."""
    return not {"wm", "gm"} & patient.volumes.keys() and any(role in patient.volumes for role in DRIVERS)


def check_preparation(patient: Patient, *, register: bool = False) -> tuple[str, ...]:
    """Raise what `prepare` would refuse before it computes; return what it will do, in sentences."""
    texts = []
    if register:
        reference, others = _to_align(patient)
        texts.append(f"{', '.join(others)} will be aligned with {reference}")
    _check_dipy(patient, register)
    if not needs_tissue(patient):
        return tuple(texts)
    words = {
        "given": "",
        "stripped": "; the images are without skull",
        "deepbet": "; deepbet finds the brain",
    }
    how = words[brain_source(patient.volumes)]
    image = next(role for role in DRIVERS if role in patient.volumes)
    texts.append(f"tissue maps will be made from the MNI152 template, registered to the {image} image{how}")
    return tuple(texts)


def _check_dipy(patient: Patient, register: bool) -> None:
    if find_spec("dipy") is None and (register or needs_tissue(patient)):
        instead = "leave out --register" if register else "give tissue maps with --wm FILE and --gm FILE"
        raise MissingExtraError("dipy", "register", instead=instead)


def prepare(
    patient: Patient,
    *,
    register: bool = False,
    config: AtlasConfig | None = None,
    carry: Mapping[str, TemplateLabels] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Return the patient with brain mask and tissue maps; a patient that has them comes back as it is.

    Parameters
    ----------
    register
        Align the other images with the one the segmentation was drawn on first; otherwise they are taken as aligned.
    config
        How the template is registered.
    carry
        Label volumes of the template to carry to the patient as closed sheets, by the name of the volume they become.
    progress
        Called with (stage, 0, nan) as each stage begins.

    Raises
    ------
    MissingExtraError
        If dipy, or nilearn with the template, or deepbet for images with skull, is needed and not installed.
    InputError, NumericsError
        If no brain is found, or the template cannot be registered.
    """
    _check_dipy(patient, register)
    started = time.perf_counter()
    done = _aligned(patient, progress) if register else Prepared(patient)
    if needs_tissue(patient):
        done = _with_tissue(done, config or AtlasConfig(), carry or {}, progress)
    if not done.made:
        return done
    record = {**done.record, "wall_s": time.perf_counter() - started}
    logger.info("%s: prepared: %s", patient.identity, record)
    return replace(done, record=record)


def _to_align(patient: Patient) -> tuple[str, tuple[str, ...]]:
    """Return the reference, the first image on the segmentation's own grid (else simply the first), and the others."""
    images = [role for role in (*ANATOMICAL, "pet") if role in patient.volumes]
    if len(images) < 2:
        raise InputError(
            "There is nothing to align.",
            patient=patient.identity,
            expected="at least two images (t1c, t1, flair, t2, pet)",
            found=", ".join(images) or "none",
            remedy="leave out --register",
        )
    resampled = {source.role for source in patient.sources if source.resampled}
    reference = next((role for role in images if role not in resampled), images[0])
    return reference, tuple(role for role in images if role != reference)


def _aligned(patient: Patient, progress: Progress | None) -> Prepared:
    """Align all images with the reference; each is interpolated once, from its file."""
    reference, others = _to_align(patient)
    volumes, transforms, motions = dict(patient.volumes), {}, {}
    notes: list[str] = []
    for role in others:
        (progress or (lambda *_: None))(f"{role} to {reference}", 0, float("nan"))
        image = _as_in_file(patient, role)
        found = align_rigidly(patient.volumes[reference], image, role)
        volumes[role], transforms[role] = found.transform.apply(image, patient.segmentation), found.transform
        motions[role] = {
            "shift_mm": found.shift_mm,
            "angle_deg": found.angle_deg,
            "spread_mm": found.spread_mm,
            "overlap": found.overlap,
        }
        if role == "pet":
            volumes[role], more = checks.check_pet(volumes[role], patient.tumour)
            notes += more
        notes.append(
            f"{role} was moved by {found.shift_mm:.1f} mm and turned by {found.angle_deg:.1f}° to lie on {reference}"
        )
    aligned = replace(patient, volumes=volumes, warnings=(*patient.warnings, *notes))
    return Prepared(aligned, others, transforms, {"reference": reference, "aligned": motions})


def _as_in_file(patient: Patient, role: str) -> Volume:
    """Return an image as it was before it was brought onto the segmentation's grid, where its file can tell."""
    volume = patient.volumes[role]
    resampled = any(source.role == role and source.resampled for source in patient.sources)
    if resampled and volume.path is not None and is_nifti_name(volume.path.name):
        return read_nifti(volume.path, kind="scalar")
    return volume


def _with_tissue(
    done: Prepared, config: AtlasConfig, carry: Mapping[str, TemplateLabels], progress: Progress | None
) -> Prepared:
    """Find the brain, register the template and carry its maps."""
    tell, patient = progress or (lambda *_: None), done.patient
    tell("brain", 0, float("nan"))
    brain = find_brain(patient.volumes)
    # Means over the patient's voxels, as far as the template comes in them: points of a finer map would be noise.
    anatomy = load_anatomy(resolution_mm=int(np.clip(min(patient.spacing), 1, COARSEST_MM)))
    driver = next(role for role in DRIVERS if role in patient.volumes)
    lesion = np.asarray(patient.tumour | patient.cavity)
    found = register_template(
        patient.volumes[driver], brain.mask.data != 0, lesion, anatomy, config=config, progress=progress
    )
    tell("tissue maps", 0, float("nan"))
    made = {**tissue_maps(found.transform, anatomy, brain.mask), "brain": brain.mask}
    for role, labels in carry.items():
        made[role] = carry_sheets(found.transform, labels(anatomy), brain.mask)
    new = {role: volume for role, volume in made.items() if role not in patient.volumes}
    warnings = _warnings(patient, brain, driver, found.correlation)
    complete = replace(
        patient,
        volumes={**patient.volumes, **new},
        warnings=(*patient.warnings, *warnings),
        tissue_source="template",
    )
    record = {
        "brain": brain.source,
        "image": driver,
        "template": "MNI152 (ICBM 2009a, symmetric)",
        "lesion_handling": config.lesion,
        "correlation": found.correlation,
        "correlation_expected": POOR_CORRELATION,
    }
    return Prepared(
        complete,
        (*done.made, *new),
        {**done.transforms, "template": found.transform},
        {**done.record, **record},
    )


def _warnings(patient: Patient, brain: Brain, driver: str, correlation: float) -> list[str]:
    texts = [
        "the tissue maps are not measured: they are the MNI152 template's, registered to the "
        f"{driver} image (local correlation {correlation:.2f}); look at the figure of them"
    ]
    if correlation < POOR_CORRELATION:
        texts.append(
            f"the template matches the {driver} image poorly (local correlation {correlation:.2f}, "
            f"{POOR_CORRELATION} expected): the tissue maps may be wrong"
        )
    if brain.source == "deepbet":
        texts.append(
            "the brain mask was predicted by deepbet, which was trained on healthy adults; look at it"
        )
    inside = np.asarray(brain.mask.data != 0)
    texts += checks.check_tumour_position(patient.tumour, inside, patient.segmentation.voxel_volume_ml)
    return [text for text in texts if text not in patient.warnings]
