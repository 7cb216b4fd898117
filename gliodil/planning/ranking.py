"""Which tissue a model CTV takes first.

    reach     the smaller the expected reach from the GTV, the earlier (``reach``): the default
    density   the higher the fitted tumour-cell density, the earlier: the published definition

On pairs of visits the density of one growth model on one set of maps covers less later tumour than an isotropic margin
of the same volume, and the reach more (docs/evidence.md). The density is then shown, and ranks nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from gliodil.data.patient import Patient
from gliodil.data.volume import Volume
from gliodil.errors import InputError
from gliodil.planning.distance import Mask, orthogonal_spacing
from gliodil.planning.later_tumour import WITHIN_MM, probability, probability_map
from gliodil.planning.reach import BEYOND_MM, expected_reach, tissue_fractions

Rank = Literal["reach", "density"]

CALIBRATED = frozenset({"enhancing", "necrotic"})
"""Compartments of the GTV from which the probability of later tumour was calibrated."""
OUTSIDE_BRAIN = np.float32(-1.0)
"""What stands in a file in place of a reach outside the brain."""


@dataclass(frozen=True)
class Ranking:
    """An order of voxels.

    Attributes
    ----------
    order
        3-D, finite in the brain; the higher, the earlier.
    reach_mm
        Expected reach behind it, infinite outside the brain; None where density ranks.
    """

    order: NDArray[np.floating]
    reach_mm: NDArray[np.float32] | None = None

    def last_of(self, ctv: Mask) -> int:
        """Return the linear index of the voxel of a CTV that came last."""
        inside = np.flatnonzero(ctv)
        return int(inside[self.order.ravel()[inside].argmin()])


def check_rank(rank: str) -> Rank:
    """Return the name of a ranking.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if rank not in get_args(Rank):
        raise InputError(
            "There is no ranking of that name.",
            expected=" or ".join(get_args(Rank)),
            found=str(rank),
            remedy="choose one of these with --rank",
        )
    return rank  # type: ignore[return-value]


def reach_ranking(
    patient: Patient,
    gtv: Mask,
    brain: Mask,
    margin_mm: float,
    *,
    distance_mm: NDArray[np.floating] | None = None,
) -> Ranking:
    """Return the ranking by expected reach from a GTV, for CTVs as large as a margin makes them."""
    white, grey = tissue_fractions(patient)
    reach = expected_reach(
        gtv,
        white,
        grey,
        brain=brain,
        spacing=orthogonal_spacing(patient.affine),
        limit_mm=max(WITHIN_MM, margin_mm + BEYOND_MM),
        distance_mm=distance_mm,
    )
    return Ranking(-reach, reach)


def reach_volume(ranking: Ranking, grid: Volume) -> Volume | None:
    """Return the reach [mm] as it is saved, −1 outside the brain."""
    reach = ranking.reach_mm
    if reach is None:
        return None
    return grid.with_data(np.where(np.isfinite(reach), reach, OUTSIDE_BRAIN), kind="scalar")


def probability_volume(ranking: Ranking, gtv: Mask, grid: Volume) -> Volume | None:
    """Return the probability of later tumour per voxel, 1 in the GTV, 0 outside the brain."""
    if ranking.reach_mm is None:
        return None
    return grid.with_data(probability_map(ranking.reach_mm, gtv), kind="scalar")


def ctv_end(
    ranking: Ranking, model: Mask, density: NDArray[np.floating], *, calibrated: bool
) -> dict[str, float | None]:
    """Return reach [mm], probability of later tumour and density where the model CTV ends: at its last voxel."""
    last = ranking.last_of(model)
    reach = None if ranking.reach_mm is None else float(ranking.reach_mm.ravel()[last])
    likely = None if reach is None or not calibrated else float(probability(np.array(reach)))
    return {"reach_mm": reach, "probability": likely, "density": float(density.ravel()[last])}
