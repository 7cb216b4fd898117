"""Whether a plan depends on the space it is made in: the same patient as scanned, and turned into the template's axes.

The images and the segmentation of a patient folder are carried rigidly (millimetres stay millimetres) onto the
template's 1 mm grid, and everything is done twice: tissue maps, fit, plans. Volumes are compared, and the masks made
in the template's space after they were carried back. Labels take the largest share of the interpolation weights: the
nearest voxel would leave jagged borders, around which margins grow.

    python benchmarks/native_atlas.py PATIENT_FOLDER --labels brats-2017
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gliodil.data.patient import Patient, load_patient
from gliodil.data.registration.brain import find_brain
from gliodil.data.registration.prepare import prepare
from gliodil.data.registration.transform import GridGeometry, Transform
from gliodil.data.template import load_anatomy
from gliodil.data.volume import Volume
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.planning.plan import plan
from gliodil.planning.plans import Plans

CARRIED = ("t1", "t1c", "t2", "flair", "pet")


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels")
    parser.add_argument("--cells", type=int, default=FitConfig.cells)
    options = parser.parse_args()
    config = FitConfig(cells=options.cells)
    patient = load_patient(options.folder, labels=options.labels)
    # One brain mask for both: found again in interpolated images, whose edges are blurred, it would be larger.
    mask = find_brain(patient.volumes).mask
    patient = replace(patient, volumes={**patient.volumes, "brain": mask})
    here, to_template = planned(patient, config)
    rigid = rigid_part(to_template)
    there, _ = planned(carried(patient, rigid), config)
    print(f"{'':<14}{'native mL':>11}{'template mL':>13}{'difference':>12}{'Dice':>8}")
    for key in ("gtv", "standard", "trimmed", "model"):
        name = key if key == "gtv" else f"ctv_{key}"
        one, other = here.volumes_ml[name], there.volumes_ml[name]
        back = rigid.apply(getattr(there, key), patient.segmentation).data > 0
        overlap = dice(getattr(here, key).data > 0, back)
        print(f"{name:<14}{one:>11.2f}{other:>13.2f}{(other - one) / one:>+12.2%}{overlap:>8.3f}")


def planned(patient: Patient, config: FitConfig) -> tuple[Plans, Transform]:
    """Return the plans of a patient without tissue maps, and the template's transform to it."""
    prepared = prepare(patient)
    return plan(prepared.patient, fit(prepared.patient, config=config)), prepared.transforms["template"]


def rigid_part(transform: Transform) -> Transform:
    """Return rotation and shift of an affine map: the closest rotation, and the brain's centre kept."""
    left, _, right = np.linalg.svd(transform.matrix[:3, :3])
    matrix = np.eye(4)
    matrix[:3, :3] = left @ right
    centre = transform.fixed.affine @ np.append((np.asarray(transform.fixed.shape) - 1) / 2, 1.0)
    matrix[:3, 3] = (transform.matrix @ centre)[:3] - matrix[:3, :3] @ centre[:3]
    return Transform(matrix, transform.fixed, GridGeometry.of(load_anatomy().t1))


def carried(patient: Patient, rigid: Transform) -> Patient:
    """Return the patient on the template's grid."""
    volumes = {
        role: rigid.apply(patient.volumes[role], inverse=True) for role in CARRIED if role in patient.volumes
    }
    volumes["brain"] = carried_labels(patient.volumes["brain"], rigid)
    segmentation = carried_labels(patient.segmentation, rigid)
    return Patient(patient.identity, segmentation, patient.convention, volumes)


def carried_labels(labels: Volume, rigid: Transform) -> Volume:
    """Return a label map on the template's grid; each voxel takes the largest share."""
    values = np.unique(labels.data)
    masks = (labels.with_data((labels.data == value).astype(np.float32), kind="scalar") for value in values)
    shares = [rigid.apply(mask, inverse=True) for mask in masks]
    largest = np.argmax([share.data for share in shares], axis=0)
    return shares[0].with_data(values[largest], kind="label")


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the Dice overlap of two masks."""
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


if __name__ == "__main__":
    main()
