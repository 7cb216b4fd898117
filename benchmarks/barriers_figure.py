"""A frontal tumour at the falx: what the barriers of a rule take from the standard CTV, and where it may cross.

A ball of tumour is placed beside the midline of the MNI152 brain, close to the genu of the corpus callosum, and
planned under a rule that knows falx, tentorium, ventricles and the edge of the brain. Written: the figure in
docs/concepts.md. Printed: volumes on the other side, and the smallest share of white matter where the trimmed CTV
passes the midline.

    python benchmarks/barriers_figure.py [docs/images/barriers.png]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from gliodil.data.barriers import FALX, falx_and_tentorium
from gliodil.data.labels import get_convention
from gliodil.data.patient import Patient
from gliodil.data.template import load_anatomy
from gliodil.planning import Plans, plan
from gliodil.reporting.display import PLANES
from gliodil.reporting.panels import outline, patient_display, planes
from gliodil.reporting.style import dark_legend, line_handle

CENTRE_MM = (-16.0, 33.0, 26.0)
RADIUS_MM = 11.0
RULE = "eortc-2016"
DPI = 72


def main(target: Path) -> None:
    """Plan, print and draw."""
    patient = frontal_patient()
    distance = np.linalg.norm(positions(patient) - CENTRE_MM, axis=-1)
    density = patient.segmentation.with_data(np.exp(-distance / 20).astype(np.float32), kind="scalar")
    plans = plan(patient, density, rule=RULE)
    report(patient, plans)
    draw(patient, plans, target)


def frontal_patient() -> Patient:
    """Return the template with a ball of enhancing tumour, left of the midline."""
    anatomy = load_anatomy()
    volumes = {role: getattr(anatomy, role) for role in ("wm", "gm", "csf", "brain", "t1")}
    empty = Patient("template", anatomy.brain.with_data(anatomy.brain.data * 0), get_convention("brats-2023"))
    ball = np.linalg.norm(positions(empty) - CENTRE_MM, axis=-1) <= RADIUS_MM
    ball &= anatomy.wm.data + anatomy.gm.data > 0.5
    return Patient(
        identity="frontal tumour in MNI152",
        segmentation=anatomy.brain.with_data(3 * ball.astype(np.uint8)),
        convention=empty.convention,
        volumes={**volumes, "barriers": falx_and_tentorium(anatomy)},
    )


def positions(patient: Patient) -> np.ndarray:
    """Return the world positions [mm] of all voxels, shape (..., 3)."""
    grid = patient.segmentation
    return grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))


def report(patient: Patient, plans: Plans) -> None:
    """Print what the trimmed CTV has beyond the midline, and through what it gets there."""
    x, ml = positions(patient)[..., 0], plans.gtv.voxel_volume_ml
    for name in ("standard", "trimmed"):
        mask = getattr(plans, name).data > 0
        other = np.count_nonzero(mask & (x > 0)) * ml
        print(f"{name}: {np.count_nonzero(mask) * ml:.1f} mL, {other:.1f} mL of it right of the midline")
    crossing = (plans.trimmed.data > 0) & (np.abs(x) < 0.5)
    callosum = crossing & (patient.volumes["wm"].data > 0.5)
    in_falx = crossing & (patient.volumes["barriers"].data == FALX)
    counts = [np.count_nonzero(mask) for mask in (crossing, callosum, in_falx)]
    print(
        "voxels of the trimmed CTV on the midline: {}, in the corpus callosum {}, in the falx {}".format(
            *counts
        )
    )


def draw(patient: Patient, plans: Plans, target: Path) -> None:
    """Write the figure."""
    from matplotlib.patches import Patch

    display = patient_display(patient, plans)
    middle = round(float(patient.segmentation.to_index((0.0, 0.0, 0.0))[0]))
    display = replace(display, centre=(middle, *display.centre[1:]))
    figure, panels = planes(patient, display, title=f"What barriers leave of a margin ({RULE})")
    sheets = patient.volumes["barriers"].data > 0
    for axes, plane in zip(panels, PLANES, strict=True):
        x, y = display.pixel_centres(plane)
        picture = display.cut(sheets, plane).astype(float)
        if picture.any():
            axes.contourf(x, y, picture, levels=(0.5, 1.5), colors=["#FFFFFF"], alpha=0.45)
        for name in ("standard", "trimmed", "gtv"):
            outline(axes, display, plane, getattr(plans, name).data, name)
    handles = [line_handle(name) for name in ("gtv", "standard", "trimmed")]
    for handle, name in zip(handles, ("gtv", "ctv_standard", "ctv_trimmed"), strict=True):
        handle.set_label(f"{handle.get_label()}, {plans.volumes_ml[name]:.0f} mL")
    dark_legend(figure, [*handles, Patch(color="#AAAAAA", label="Falx, tentorium")], columns=4)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=DPI, metadata={"Software": None})
    print(f"{target} ({target.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/barriers.png"))
