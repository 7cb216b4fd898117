"""The targets of a plan on the slices of the planning CT.

The plan was made on the MR. Its ranking and its density are carried to the CT and interpolated linearly, and the model
CTV is cut there, so that it holds as many voxels of the CT as the standard CTV does::

    model_CT = the k voxels of the brain that the carried ranking puts first,   k = |standard_CT|

All other targets are carried by their outlines (``data.shapes``). A GTV that was drawn on the CT is taken as drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.frames import Link
from gliodil.data.nifti import write_nifti
from gliodil.data.patient import Patient
from gliodil.data.shapes import carry_mask
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError
from gliodil.planning.clean import Cleaning, clean_ctv
from gliodil.planning.distance import Box, Mask, bounding_box, distance_from
from gliodil.planning.plans import Plans, Targets

NOTABLE_CHANGE = 0.02
NOTABLE_ML = 0.2
"""Relative and absolute change of a volume, from the MR to the CT, that deserve a warning."""


@dataclass(frozen=True)
class PlansOnCT:
    """What is exported on the planning CT.

    Attributes
    ----------
    targets
        Label volumes (uint8) on the grid of the CT by the names of their files: `gtv`, `ctv_standard`, ...
    density
        Scalar volume on the grid of the CT.
    link
        MR to CT.
    volumes_ml
        Volume of each target [mL].
    equal_volume_voxel_difference
        Voxels of the model CTV minus those of the standard CTV: 0.
    warnings
        What to know.
    """

    targets: Mapping[str, Volume]
    density: Volume
    link: Link
    volumes_ml: Mapping[str, float]
    equal_volume_voxel_difference: int
    warnings: tuple[str, ...] = field(default=())

    def save(self, folder: Path | str) -> tuple[Path, ...]:
        """Write targets and density as NIfTI on the slices of the CT; return the paths."""
        folder = Path(folder)
        written = [
            write_nifti(mask, folder / f"{name}.nii.gz", dtype=np.uint8)
            for name, mask in self.targets.items()
        ]
        return (*written, write_nifti(self.density, folder / "density.nii.gz", dtype=np.float32))

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as they stand in `metrics.json` under `ct`."""
        return {
            "volumes_ml": dict(self.volumes_ml),
            "equal_volume_voxel_difference": self.equal_volume_voxel_difference,
        }


def ct_grid(patient: Patient) -> Volume:
    """Return an empty label volume on the grid of the planning CT."""
    assert patient.planning is not None
    ct = patient.planning.series.volume()
    shape = ct.shape
    return Volume.lazy(
        lambda: np.zeros(shape, np.uint8), shape=shape, affine=ct.affine, kind="label", frame=ct.frame
    )


def gtv_on_ct(patient: Patient, gtv: Volume, compartments: tuple[str, ...]) -> Volume:
    """Return a GTV on the grid of the CT: as it was drawn there, else carried from the MR.

    Raises
    ------
    GeometryError
        If it lies outside the CT.
    """
    assert patient.planning is not None
    grid, link, drawn = ct_grid(patient), patient.planning.related_link, patient.planning.drawn
    if drawn is not None:
        labels = tuple(label for name in compartments for label in getattr(patient.convention, name))
        mask = drawn.resample_to(grid).mask(labels)
    else:
        mask = carry_mask(gtv, grid, link.matrix)
    if gtv.data.any() and not mask.any():
        raise GeometryError(
            "The GTV lies outside the planning CT.",
            file=patient.planning.series.files[0],
            expected="a CT that shows the tumour",
            found="none of it in the field of view",
            remedy="check the registration of MR and CT, or plan without the CT (--ct none)",
        )
    return grid.with_data(mask.astype(np.uint8))


def plans_on_ct(patient: Patient, plans: Plans) -> PlansOnCT:
    """Return the plans of a patient on the grid of the planning CT, which must have been related to the MR.

    Raises
    ------
    GeometryError
        If the GTV lies outside the CT.
    """
    assert patient.planning is not None
    grid, link = ct_grid(patient), patient.planning.related_link
    brain = np.zeros(grid.shape, bool) if plans.brain is None else carry_mask(plans.brain, grid, link.matrix)
    full = Targets(
        plans.gtv,
        {"standard": plans.standard, "trimmed": plans.trimmed, "model": plans.model},
        plans.ptv,
        plans.rule.margin_mm,
        plans.order,
    )
    masks = _carried(patient, plans, full, plans.rule.gtv, brain, grid, link)
    if plans.initial is not None and plans.rule.initial is not None:
        first = _carried(
            patient, plans, plans.initial, plans.rule.initial.gtv, brain, grid, link, holding=masks
        )
        for name in plans.initial.named("initial"):
            masks[name] = first[name.replace("initial_", "").replace("_initial", "")]
    volume = {name: float(np.count_nonzero(mask)) * grid.voxel_volume_ml for name, mask in masks.items()}
    before = full.named() | ({} if plans.initial is None else plans.initial.named("initial"))
    warnings = [
        f"{name} has {volume[name]:.1f} mL on the planning CT and {ml:.1f} mL on the MR"
        for name, one in before.items()
        if abs(volume[name] - (ml := np.count_nonzero(one.data) * one.voxel_volume_ml))
        > max(NOTABLE_CHANGE * ml, NOTABLE_ML)
    ]
    warnings += [
        f"{name} reaches beyond the planning CT: {missing:.2f} mL of it are missing there"
        for name, one in before.items()
        if (missing := _beyond_ml(one, grid, link)) > 0
    ]
    return PlansOnCT(
        targets={name: grid.with_data(mask.astype(np.uint8)) for name, mask in masks.items()},
        density=plans.density.carried(link.matrix, grid.frame).resample_to(grid),
        link=link,
        volumes_ml=volume,
        equal_volume_voxel_difference=int(masks["ctv_model"].sum()) - int(masks["ctv_standard"].sum()),
        warnings=tuple(warnings),
    )


def _beyond_ml(mask: Volume, grid: Volume, link: Link) -> float:
    """Return how much of a mask [mL] lies outside the field of view of the CT."""
    index = grid.to_index(mask.carried(link.matrix, grid.frame).to_world(np.argwhere(mask.data)))
    outside = ((index < -0.5) | (index > np.asarray(grid.shape) - 0.5)).any(axis=1)
    return int(np.count_nonzero(outside)) * mask.voxel_volume_ml


def _carried(
    patient: Patient,
    plans: Plans,
    targets: Targets,
    compartments: tuple[str, ...],
    brain: Mask,
    grid: Volume,
    link: Link,
    *,
    holding: Mapping[str, Mask] | None = None,
) -> dict[str, Mask]:
    """Return the targets of one phase on the CT by file name; those of `holding` lie within them."""
    gtv = gtv_on_ct(patient, targets.gtv, tuple(compartments)).data > 0
    inside = gtv & brain
    masks: dict[str, Mask] = {"gtv": gtv}
    for name in ("standard", "trimmed"):
        mask = (carry_mask(targets.ctv[name], grid, link.matrix) & brain) | inside
        masks[f"ctv_{name}"] = mask if holding is None else mask | holding[f"ctv_{name}"]
    first = inside if plans.rank == "reach" else np.zeros_like(inside)
    if holding is not None:
        first = first | holding["ctv_model"]
    masks["ctv_model"] = _model(
        targets,
        plans.brain,
        brain,
        first,
        gtv,
        masks["ctv_standard"],
        grid,
        link,
        Cleaning.of(plans.rule),
    )
    for name, volume in targets.ptv.items():
        masks[f"ptv_{name}"] = carry_mask(volume, grid, link.matrix) | masks[f"ctv_{name}"]
    return masks


def _model(
    targets: Targets,
    brain_mr: Volume | None,
    brain: Mask,
    first: Mask,
    gtv: Mask,
    standard: Mask,
    grid: Volume,
    link: Link,
    cleaning: Cleaning,
) -> Mask:
    """Return as many voxels of the CT as the standard CTV has: those that the carried ranking puts first, cleaned."""
    assert targets.order is not None
    assert brain_mr is not None
    order = targets.order.with_data(_filled_in(targets.order.data, brain_mr.data > 0))
    box = bounding_box(brain | gtv)
    part = _boxed(grid, box)
    carried = order.carried(link.matrix, grid.frame).resample_to(part).data.astype(np.float64)
    carried[first[box]] = np.finfo(np.float32).max
    distance = distance_from(gtv[box], grid.spacing)
    model = np.zeros(grid.shape, bool)
    model[box] = clean_ctv(
        carried,
        brain[box],
        distance,
        int(np.count_nonzero(standard)),
        spacing=grid.spacing,
        cleaning=cleaning,
        keep=first[box] | gtv[box],
    )
    return model


def _filled_in(order: NDArray[np.floating], brain: Mask) -> NDArray[np.float32]:
    """Return a ranking that goes on outside the brain as at its nearest voxel, so that none of it is blurred there."""
    filled = np.array(order, np.float32)
    box = bounding_box(brain, pad=(2, 2, 2))
    nearest = ndimage.distance_transform_edt(~brain[box], return_distances=False, return_indices=True)
    filled[box] = filled[box][tuple(nearest)]
    filled[~np.isfinite(filled)] = np.finfo(np.float32).min / 4  # far from the brain: nothing is taken there
    return filled


def _boxed(grid: Volume, box: Box) -> Volume:
    affine = grid.affine.copy()
    low = [side.start for side in box]
    affine[:3, 3] = grid.to_world(low)
    shape = tuple(side.stop - side.start for side in box)
    return Volume.lazy(
        lambda: np.zeros(shape, np.uint8), shape=shape, affine=affine, kind="label", frame=grid.frame
    )
