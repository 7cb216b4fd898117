"""Organs at risk: how much of each lies in a plan, and which no plan may enter."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from gliodil.data.volume import Volume
from gliodil.errors import GeometryError, InputError
from gliodil.planning.distance import Mask
from gliodil.planning.rules import PlanRule

Organs = Mapping[str, Volume]


def check_organs(organs: Organs, exclude: Collection[str], grid: Volume) -> None:
    """Refuse organs on another grid, and the exclusion of organs that were not given.

    Raises
    ------
    GeometryError, InputError
        For these reasons.
    """
    for name, organ in organs.items():
        if not organ.same_grid(grid):
            raise GeometryError(
                f"The mask of {name} does not lie on the grid of the segmentation.",
                file=organ.path,
                expected=repr(grid),
                found=repr(organ),
                remedy="resample it with Volume.resample_to(segmentation)",
            )
    if unknown := sorted(set(exclude) - set(organs)):
        raise InputError(
            "An organ to exclude has no mask.",
            expected=", ".join(organs) or "masks of organs (--oar NAME=FILE)",
            found=", ".join(unknown),
            remedy="give its mask with --oar NAME=FILE",
        )


def excluded_organs(
    organs: Organs, exclude: Collection[str], rule: PlanRule, gtv: Mask, warnings: list[str]
) -> tuple[str, ...]:
    """Return the names of the organs that no plan may enter: those asked for, and the rule's not invaded ones."""
    chosen = set(exclude)
    if missing := [name for name in rule.exclude_organs if name not in organs]:
        warnings.append(
            f"rule {rule.name} excludes {', '.join(missing)}, but no mask was given (--oar NAME=FILE): the plans "
            "may enter"
        )
    for name in rule.exclude_organs:
        if name in organs and name not in chosen:
            invaded = int(np.count_nonzero(gtv & (organs[name].data != 0)))
            if invaded:
                ml = invaded * organs[name].voxel_volume_ml
                warnings.append(f"{name} is not excluded: {ml:.1f} mL of the GTV lie in it")
            else:
                chosen.add(name)
    return tuple(name for name in organs if name in chosen)


def organs_mask(organs: Organs, names: Collection[str], grid: Volume) -> Mask:
    """Return the union of some organs."""
    union = np.zeros(grid.shape, bool)
    for name in names:
        union |= organs[name].data != 0
    return union


def organs_ml(organs: Organs, targets: Mapping[str, Mask]) -> dict[str, dict[str, float]]:
    """Return the volume of each organ [mL] as a whole (`organ`) and within each target."""
    return {
        name: {
            "organ": int(np.count_nonzero(organ.data)) * organ.voxel_volume_ml,
            **{
                target: int(np.count_nonzero(mask & (organ.data != 0))) * organ.voxel_volume_ml
                for target, mask in targets.items()
            },
        }
        for name, organ in organs.items()
    }
