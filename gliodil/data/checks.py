"""Checks of single volumes and of how they lie to each other.

What would make every later number wrong is an error; what a reader should know is a warning (a string).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.label_geometry import bounding_box
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError, LabelError

PROBABILITY_TOLERANCE = 1e-3
"""How far a tissue probability may leave [0, 1] and be clipped silently."""

FAINTEST_TISSUE = 0.1
"""Largest value below which a map of white or grey matter is none: tumour cells could not enter a single voxel."""

FAINT_TISSUE = 0.6
"""Largest value below which a map of white or grey matter is doubted."""

TISSUE_SUM = (0.75, 1.25)
"""Plausible middle of the sum of all tissue fractions through the brain; it should be 1."""

TISSUE_DICE = 0.8
"""Dice of the maps' and the mask's brain below which they are said not to agree; the maps without CSF are not asked."""

BRAIN_ML = (800.0, 2000.0)
"""Plausible volumes of an adult brain with its CSF, mL."""

REACH_MM = 10.0
"""How far around the tumour's box tissue must appear somewhere, mm."""


def check_tissue(role: str, volume: Volume) -> Volume:
    """Return a tissue probability map within [0, 1]; refuse what is not one."""
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < -PROBABILITY_TOLERANCE or high > 1 + PROBABILITY_TOLERANCE:
        scale = next((s for s in (100, 255) if 1.5 < high <= s * 1.001 and low >= 0), None)
        raise InputError(
            f"The {role} map does not hold probabilities.",
            file=volume.path,
            expected="values from 0 to 1",
            found=f"values from {low:.4g} to {high:.4g}",
            remedy=f"divide the map by {scale}"
            if scale
            else f"give the probability map of {role}, not an image",
        )
    if high <= 0:
        raise InputError(
            f"The {role} map is empty: every voxel is 0.",
            file=volume.path,
            expected="tissue probabilities from 0 to 1",
            found="only zeros",
            remedy=f"give the probability map of {role}",
        )
    if high < FAINTEST_TISSUE and role != "csf":  # there may be no fluid in the image
        raise InputError(
            f"The {role} map holds next to nothing.",
            file=volume.path,
            expected="tissue probabilities from 0 to 1, near 1 deep in the tissue",
            found=f"values up to {high:.4g}",
            remedy="scale the map such that it is 1 where there is nothing but that tissue",
        )
    if low >= 0 and high <= 1:
        return volume
    return Volume(
        np.clip(volume.data, 0, 1), volume.affine, kind="scalar", path=volume.path, notes=volume.notes
    )


def check_tissue_values(role: str, volume: Volume) -> tuple[str, ...]:
    """Warn of a tissue map, as in its file, that holds nothing but 0 and 1, or nowhere comes near 1."""
    high = float(volume.data.max())
    if np.isin(volume.data, (0, 1)).all():
        text = (
            f"the {role} map is hard (0 or 1 only); fractions of a voxel and doubtful borders are lost in it"
        )
    elif high < FAINT_TISSUE and role != "csf":
        text = f"the {role} map reaches no more than {high:.2g}, near 1 is expected; it may be scaled wrongly"
    else:
        return ()
    return (f"{_name(volume)}: {text}",)


def check_tissue_sum(
    tissue: Mapping[str, Volume], brain: Volume | None, tumour: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Warn of maps that are scaled differently from fractions, or lie elsewhere than the brain mask.

    Parameters
    ----------
    tissue
        Maps by role (`wm gm csf`) on one grid, in [0, 1].
    brain
        Mask on that grid, if one was given.
    tumour
        Visible tumour: maps made from images are not to be trusted there.
    """
    if not {"wm", "gm"} <= tissue.keys():
        return ()
    roles, warnings = " + ".join(role.upper() for role in tissue), []
    total = np.zeros(tumour.shape, dtype=np.float32)
    for volume in tissue.values():
        total += volume.data
    there = total > FAINTEST_TISSUE
    mask = there if brain is None else brain.data != 0
    inside = mask & there & ~tumour
    middle = float(np.median(total[inside])) if inside.any() else 1.0
    if middle > TISSUE_SUM[1] or (middle < TISSUE_SUM[0] and "csf" in tissue):
        warnings.append(
            f"{roles} is {middle:.2g} in the middle of the brain's voxels, 1 is expected: the tissue maps may be "
            "scaled wrongly, or one of them may be another image"
        )
    if brain is not None and "csf" in tissue:
        size = int(np.count_nonzero(mask)) + int(np.count_nonzero(there))
        dice = 2 * int(np.count_nonzero(mask & there)) / max(size, 1)
        if dice < TISSUE_DICE:
            warnings.append(
                f"the tissue maps and the brain mask do not cover the same place (Dice {dice:.2f}); check that they "
                "are registered to each other"
            )
    return tuple(warnings)


def check_brain(volume: Volume) -> None:
    """Refuse a brain mask that is empty or has more than one value besides 0."""
    values = np.unique(volume.data)
    inside = values[values != 0]
    if len(inside) != 1:
        raise InputError(
            "The brain mask is empty." if not len(inside) else "This is not a brain mask.",
            file=volume.path,
            expected="0 outside the brain, one other value inside",
            found=f"{len(values)} different values" if len(inside) else "only zeros",
            remedy="give a mask with --brain, or leave it out if WM, GM and CSF maps are there",
        )


def check_barriers(volume: Volume) -> None:
    """Refuse sheets that are empty or have labels other than 1 (falx) and 2 (tentorium)."""
    found = [int(value) for value in np.unique(volume.data) if value != 0]
    if not found or not set(found) <= {1, 2}:
        raise LabelError(
            "This is not a map of falx and tentorium.",
            file=volume.path,
            expected="label 1 on the falx, 2 on the tentorium, 0 elsewhere",
            found="labels " + ", ".join(map(str, found[:10])) if found else "only zeros",
            remedy="give such a map with --barriers, or leave it out",
        )


def check_recurrence(volume: Volume) -> tuple[str, ...]:
    """Refuse negative labels; warn of an empty recurrence."""
    if volume.data.min() < 0:
        raise LabelError(
            "The recurrence map holds negative labels.",
            file=volume.path,
            expected="0 outside, positive labels inside",
            found=f"label {int(volume.data.min())}",
            remedy="give the segmentation of the recurrence",
        )
    return (
        ()
        if volume.data.any()
        else (f"{_name(volume)}: the recurrence map is empty; coverage is not defined",)
    )


def check_pet(volume: Volume, tumour: NDArray[np.bool_]) -> tuple[Volume, tuple[str, ...]]:
    """Return the uptake without negative values; refuse one that is zero in the tumour or not an uptake."""
    data = volume.data
    low, high = float(data.min()), float(data.max())
    if not (data[tumour] > 0).any():
        raise InputError(
            "The PET image is zero everywhere in the tumour.",
            file=volume.path,
            expected="positive uptake in the tumour",
            found=f"values from {low:.4g} to {high:.4g} in the image, none above 0 in the tumour",
            remedy="check that the PET image belongs to this patient and is registered to the segmentation",
        )
    if low >= 0:
        return volume, ()
    if -low > 0.1 * high:
        raise InputError(
            "The PET image does not look like uptake.",
            file=volume.path,
            expected="uptake, 0 or more",
            found=f"values from {low:.4g} to {high:.4g}",
            remedy="give the uptake itself, not an image normalised to zero mean",
        )
    clipped = Volume(np.maximum(data, 0), volume.affine, kind="scalar", path=volume.path, notes=volume.notes)
    count = int(np.count_nonzero(data < 0))
    return clipped, (f"{_name(volume)}: {count} negative PET values (down to {low:.3g}) are set to 0",)


def check_field_of_view(
    role: str, volume: Volume, segmentation: Volume, tumour: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Refuse a volume that does not reach the tumour; warn of one that does not reach around it."""
    tumour_low, tumour_high = tumour_box(segmentation, tumour)
    low, high = volume.field_of_view
    if (low >= tumour_high).any() or (high <= tumour_low).any():
        raise _apart(role, volume, segmentation, (low, high), (tumour_low, tumour_high))
    if (low > tumour_low + 0.5).any() or (high < tumour_high - 0.5).any():
        return (f"{_name(volume)}: the {role} image does not cover the whole tumour",)
    return ()


def check_tissue_at_tumour(
    tissue: Mapping[str, Volume], segmentation: Volume, tumour: NDArray[np.bool_]
) -> None:
    """Refuse tissue maps that are all zero in and around the tumour (all on the segmentation's grid)."""
    if not tissue:
        return
    reach = [int(np.ceil(REACH_MM / s)) for s in segmentation.spacing]
    box = tuple(
        slice(max(s.start - r, 0), s.stop + r) for s, r in zip(bounding_box(tumour), reach, strict=True)
    )
    if not any(volume.data[box].any() for volume in tissue.values()):
        role, volume = next(iter(tissue.items()))
        anywhere = np.any([v.data > 0 for v in tissue.values()], axis=0)
        if not anywhere.any():
            raise GeometryError(
                f"The {role} image does not reach the segmentation.",
                file=volume.path,
                expected="both in one space, over the same head",
                found="only zeros on the grid of the segmentation",
                remedy="check the voxel size and the place of the image",
            )
        span = bounding_box(anywhere)
        where = volume.bounds([s.start for s in span], [s.stop - 1 for s in span])
        raise _apart(role, volume, segmentation, where, tumour_box(segmentation, tumour))


def check_resolution(segmentation: Volume) -> tuple[str, ...]:
    """Warn of thick slices."""
    spacing = segmentation.spacing
    if max(spacing) <= 5 and max(spacing) <= 3 * min(spacing):
        return ()
    text = " x ".join(f"{s:.3g}" for s in spacing)
    return (f"{_name(segmentation)}: coarse voxels ({text} mm); margins are in mm, but no finer than that",)


def check_tumour_position(
    tumour: NDArray[np.bool_], brain: NDArray[np.bool_] | None, voxel_ml: float
) -> tuple[str, ...]:
    """Warn of a tumour at the image border or outside the brain, and of an implausible brain volume."""
    warnings = []
    if any(s.start == 0 or s.stop == n for s, n in zip(bounding_box(tumour), tumour.shape, strict=True)):
        warnings.append("the tumour touches the border of the image; it may be cut off")
    if brain is not None:
        volume = float(np.count_nonzero(brain)) * voxel_ml
        if not BRAIN_ML[0] <= volume <= BRAIN_ML[1]:
            expected = f"{BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} mL are expected"
            warnings.append(f"the brain mask holds {volume:.0f} mL; {expected}")
        outside = float(np.count_nonzero(tumour & ~brain)) / float(np.count_nonzero(tumour))
        if outside > 0.05:
            warnings.append(f"{100 * outside:.0f} % of the tumour lie outside the brain mask")
    return tuple(warnings)


def check_enhancement(
    t1c: Volume, enhancing: NDArray[np.bool_], oedema: NDArray[np.bool_]
) -> tuple[str, ...]:
    """Warn if the enhancing part is no brighter on T1 with contrast than the oedema."""
    if not enhancing.any() or not oedema.any():
        return ()
    bright, around = float(t1c.data[enhancing].mean()), float(t1c.data[oedema].mean())
    if bright > around:
        return ()
    finding = f"enhancing tumour is not brighter than oedema ({bright:.3g} against {around:.3g})"
    return (f"{_name(t1c)}: {finding}; check the label convention",)


def tumour_box(
    segmentation: Volume, tumour: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lowest and highest world coordinates of the tumour, mm."""
    box = bounding_box(tumour)
    return segmentation.bounds([s.start for s in box], [s.stop - 1 for s in box])


def _apart(role: str, volume: Volume, segmentation: Volume, found: Any, tumour: Any) -> GeometryError:
    return GeometryError(
        f"The {role} image and the tumour of the segmentation do not lie in the same place.",
        file=volume.path,
        expected=f"{role} at the tumour of {_name(segmentation)}, {_box(*tumour)}",
        found=f"{role} from {_name(volume)} at {_box(*found)}",
        remedy="register the images to one space, and check that they belong to one patient",
    )


def _box(low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    spans = [f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("xyz", low, high, strict=True)]
    return ", ".join(spans) + " mm"


def _name(volume: Volume) -> str:
    return "image" if volume.path is None else volume.path.name
