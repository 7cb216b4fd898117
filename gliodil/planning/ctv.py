"""The targets on voxels: GTV, standard CTV, model CTV and PTV.

    GTV       union of the compartments a rule names
    standard  { x in brain : dist(x, GTV) <= margin }
    model     the k voxels of the brain with the highest density, k = |standard|
    PTV       { x : dist(x, CTV) <= margin }, not cut to the brain: set-up errors do not stop at the skull

Organs that no plan may enter are taken out of the brain beforehand. A resection cavity holds no cells, yet belongs
to the target where a rule counts it as GTV: there it ranks above any density.

Distances are Euclidean, in mm, between voxel centres. Source: design section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gliodil.errors import GeometryError, InputError, LabelError, NumericsError
from gliodil.planning.distance import TOLERANCE_MM, Mask, distance_from, margin_box
from gliodil.planning.rules import PlanRule

if TYPE_CHECKING:
    from gliodil.data.patient import Patient


def gtv_mask(patient: Patient, rule: PlanRule) -> Mask:
    """Return the GTV of `patient` under `rule` (in its phase to the full dose), on the grid of the segmentation.

    Raises
    ------
    LabelError
        If the segmentation holds none of the compartments the rule asks for.
    """
    gtv = compartments_mask(patient, rule.gtv)
    if not gtv.any():
        raise LabelError(
            "The segmentation has no visible tumour to plan on.",
            patient=patient.identity,
            file=patient.segmentation.path,
            expected=f"{' or '.join(rule.gtv)} voxels (rule {rule.name})",
            found="none",
            remedy="check the label convention, or give a segmentation with a tumour core",
        )
    return gtv


def compartments_mask(patient: Patient, compartments: Sequence[str]) -> Mask:
    """Return the union of compartments (`enhancing`, `necrotic`, `oedema`, `cavity`); it may be empty."""
    union = np.zeros(patient.segmentation.shape, bool)
    for compartment in compartments:
        union |= getattr(patient, compartment)
    return union


def standard_ctv(gtv: Mask, brain: Mask, spacing: Sequence[float], margin_mm: float) -> Mask:
    """Return the voxels of `brain` within `margin_mm` of `gtv`.

    Parameters
    ----------
    gtv, brain
        3-D masks of one shape; `gtv` not empty.
    spacing
        Voxel spacing [mm] per array axis.
    margin_mm
        Margin [mm]; voxels at exactly this distance belong to the CTV.

    Raises
    ------
    GeometryError
        If no voxel of the brain is that near to the GTV.
    """
    box = margin_box(gtv, spacing, margin_mm)
    ctv = np.zeros(gtv.shape, bool)
    ctv[box] = (distance_from(gtv[box], spacing) <= margin_mm + TOLERANCE_MM) & brain[box]
    if not ctv.any():
        raise GeometryError(
            "The tumour lies outside the brain mask.",
            expected=f"brain within {margin_mm:g} mm of the GTV",
            found="none",
            remedy="check that segmentation and brain mask belong to the same patient and space",
        )
    return ctv


def model_ctv(
    density: NDArray[np.floating], brain: Mask, gtv_distance: NDArray[np.floating], voxels: int
) -> Mask:
    """Return exactly `voxels` voxels of `brain`: those with the highest density.

    Ties are broken by distance from the GTV, then by linear index in C order, so the result is unique, and
    for a growing number of voxels the results are nested.

    Parameters
    ----------
    density
        3-D, tumour-cell density; any monotone scale.
    brain
        Where the CTV may lie.
    gtv_distance
        Distance from the GTV [mm], finite in the brain.
    voxels
        Number of voxels wanted, at least 1.

    Raises
    ------
    InputError
        If the brain has fewer voxels.
    NumericsError
        If the density is not finite in the brain.
    """
    inside = np.flatnonzero(brain)
    if voxels < 1 or inside.size < voxels:
        raise InputError(
            "The brain mask cannot hold a CTV of this volume.",
            expected=f"{voxels} voxels, at least 1",
            found=f"{inside.size} voxels in the brain mask",
            remedy="check the brain mask",
        )
    values = density.ravel()[inside]
    if not np.isfinite(values).all():
        raise NumericsError(
            "The density is not finite.",
            expected="a number in every voxel of the brain",
            found=f"{int(np.count_nonzero(~np.isfinite(values)))} voxels that are NaN or infinite",
        )
    threshold = np.partition(values, inside.size - voxels)[inside.size - voxels]
    above = inside[values > threshold]
    tied = inside[values == threshold]
    ctv = np.zeros(brain.size, bool)
    ctv[above] = True
    ctv[_nearest(tied, gtv_distance.ravel()[tied], voxels - above.size)] = True
    return ctv.reshape(brain.shape)


def ptv(ctv: Mask, spacing: Sequence[float], margin_mm: float) -> Mask:
    """Return the voxels within `margin_mm` [mm] of a CTV (not empty), in and outside the brain."""
    box = margin_box(ctv, spacing, margin_mm)
    grown = np.zeros_like(ctv)
    grown[box] = distance_from(ctv[box], spacing) <= margin_mm + TOLERANCE_MM
    return grown


def _nearest(indices: NDArray[np.intp], distances: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Return the `count` indices with the smallest distance, the earlier index first where distances tie."""
    if count == indices.size:
        return indices
    limit = np.partition(distances, count - 1)[count - 1]
    nearer = indices[distances < limit]
    return np.concatenate([nearer, indices[distances == limit][: count - nearer.size]])
