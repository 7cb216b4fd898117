"""Expected reach: how far from the GTV a voxel lies, in the mean over what is not known of the tissue between.

A metric is one guess at how tissue slows spread. Its speed, relative to white matter,

    s = √m,   m = G_b ∗ [w + g/R + c s_c²] · (1 − a e^{−δ/7 mm})²,   c = 1 − w − g

R   ratio of diffusivities, white to grey matter       s_c  speed in CSF relative to white matter
b   error of the tissue maps' registration [mm]        a    slowing at the brain's surface, at depth δ below it

With T the travel time from the GTV at that speed, its reach is the isotropic margin that holds as much brain:

    reach(x) = the d with |{y in brain : dist(y) ≤ d}| = |{y in brain : T(y) ≤ T(x)}|             [mm]

so that metrics are comparable whatever their unit, and the reach expected is their mean. No single metric is known to be
right; on pairs of visits their mean predicts later tumour better than most of them, and better than a ruler
(docs/evidence_patients.md). The set was chosen after seeing such pairs, so gains on those same pairs are optimistic.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.patient import Patient
from gliodil.errors import InputError
from gliodil.inference.tissue import blurred
from gliodil.planning.distance import Mask, distance_from, margin_box

Field = NDArray[np.float32]

SURFACE_MM = 7.0
"""Depth over which slowing at the brain's surface fades [mm]."""
BEYOND_MM = 15.0
"""How far beyond the margin asked for reach is told apart from distance [mm]."""
BARE = 0.1
"""White plus grey matter below which a voxel of visible tumour has lost its tissue in the maps."""


@dataclass(frozen=True)
class Metric:
    """One guess at how tissue slows spread; see the head of the file."""

    wm_gm_ratio: float
    csf_speed: float
    blur_mm: float
    surface_slowing: float = 0.0

    def speed(
        self, white: Field, grey: Field, *, depth_mm: Field, inside: Mask, spacing: Sequence[float]
    ) -> Field:
        """Return √m inside a mask, 0 outside; fractions of tissue and the depth below the surface are 3-D."""
        fluid = np.clip(1 - white - grey, 0, 1)
        mobility = white + grey / self.wm_gm_ratio + fluid * self.csf_speed**2
        m = blurred(mobility, self.blur_mm, spacing=spacing, inside=inside)
        speed: Field = np.sqrt(m) * (1 - self.surface_slowing * np.exp(-depth_mm / SURFACE_MM))
        return np.where(inside, speed, 0)


METRICS = (
    Metric(3, 0.4, 4),
    Metric(3, 0.4, 4, 0.7),
    Metric(18, 0.2, 4),
    Metric(18, 0.2, 2),
    Metric(18, 0.2, 3, 0.7),
    Metric(1, 1, 0, 0.7),
    Metric(18, 0.1, 12),
)
"""The metrics averaged."""


def tissue_fractions(patient: Patient) -> tuple[Field, Field]:
    """Return white and grey matter inside the brain; visible tumour without tissue in the maps counts as white matter.

    Raises
    ------
    InputError
        If there are no such maps.
    """
    if missing := [name for name in ("wm", "gm") if name not in patient.volumes]:
        raise InputError(
            "Reach through tissue needs white- and grey-matter maps.",
            patient=patient.identity,
            found=f"no {' and no '.join(missing)}",
            remedy="give both, or rank by density (--rank density)",
        )
    brain = patient.brain
    white, grey = (np.where(brain, patient.volumes[n].data, 0).astype(np.float32) for n in ("wm", "gm"))
    white[patient.tumour & (white + grey < BARE)] = 1
    return white, grey


def expected_reach(
    gtv: Mask,
    white: Field,
    grey: Field,
    *,
    brain: Mask,
    spacing: Sequence[float],
    limit_mm: float,
    metrics: Sequence[Metric] = METRICS,
    distance_mm: NDArray[np.floating] | None = None,
) -> Field:
    """Return the mean reach over metrics [mm].

    Parameters
    ----------
    gtv
        3-D mask, not empty; it belongs to what can be passed.
    white, grey
        Fractions of tissue in [0, 1], same shape.
    brain
        Where cells can go.
    spacing
        Voxel spacing [mm] per array axis.
    limit_mm
        Reach is told apart from distance up to this distance from the GTV; beyond, it is the distance.
    metrics
        What is averaged.
    distance_mm
        Distance from the GTV, where it is known in the brain already.

    Returns
    -------
    0 in the GTV, the expected reach in the brain, infinite elsewhere.
    """
    from gliodil.pde.eikonal import travel_time  # brings Numba with it

    distance = distance_from(gtv, spacing, region=brain) if distance_mm is None else distance_mm
    reach = np.where(brain | gtv, distance, np.inf).astype(np.float32)
    box = margin_box(gtv, spacing, limit_mm)
    start, inside = gtv[box], brain[box] | gtv[box]
    straight = reach[box].copy()
    ranked = inside & ~start & (straight <= limit_mm)
    if not ranked.any():
        return reach
    depth = ndimage.distance_transform_edt(inside, sampling=spacing).astype(np.float32)
    isotropic_mm = np.sort(straight[ranked])

    def time_of(metric: Metric | None) -> Field:
        speed = np.ones_like(straight)
        if metric is not None:
            speed = metric.speed(white[box], grey[box], depth_mm=depth, inside=inside, spacing=spacing)
        return travel_time(start, speed, spacing=spacing)[ranked]

    with ThreadPoolExecutor(_threads()) as pool:
        clear, *times = pool.map(time_of, (None, *metrics))
    # Straight distances, where nothing is in the way, are known better than the solver tells them.
    exact = straight[ranked] / clear
    total = np.zeros(isotropic_mm.size)
    for time in times:
        total[np.argsort(time * exact, kind="stable")] += isotropic_mm
    reach[box][ranked] = total / len(times)
    return reach


def _threads() -> int:
    import numba

    return int(numba.get_num_threads())
