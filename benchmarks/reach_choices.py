"""What the expected reach averages, and what was tried and not kept: every choice on the same patients.

    python benchmarks/reach_choices.py DATA

    pairs     coverage of all later tumour at the volumes of margins of 3, 5, 8, 10, 15 mm, minus the isotropic margin's
    oedema    Dice of the oedema, foreseen from the core alone, at its volume

Rows: the seven metrics of ``planning.reach`` averaged; with the isotropic margin, or the default fit's density, as one
more member (its order turned into millimetres like a metric's); the metrics drawn towards one speed near the GTV,
s ← s (1 − e^{−d/L}) + 0.7 e^{−d/L}; each metric alone; and the average without each. The set was chosen on such figures:
they say how much hangs on the choice, not what to expect on other patients.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from real_patients import Real, core_alone, real_patients

from gliodil.data.patient import Patient
from gliodil.inference.fit import fit
from gliodil.pde.eikonal import travel_time
from gliodil.planning.distance import distance_from, margin_box
from gliodil.planning.equal_volume import MARGINS_MM
from gliodil.planning.reach import METRICS, tissue_fractions

LIMIT_MM = 30.0
EDGE_SPEED = 0.7
EDGES_MM = (0.0, 2.0, 5.0)
Field = NDArray[np.floating]


def main() -> None:
    """Print one row per choice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--cache", type=Path, default=Path(".real-cache"), metavar="DIR")
    options = parser.parse_args()
    pairs: dict[str, list[list[float]]] = {}
    oedema: dict[str, list[float]] = {}
    for real in real_patients(options.data, options.cache):
        print(real.name, file=sys.stderr, flush=True)
        if real.is_pair:
            for name, row in of_pair(real).items():
                pairs.setdefault(name, []).append(row)
        if real.has_oedema:
            for name, dice in of_oedema(real).items():
                oedema.setdefault(name, []).append(dice)
    n, m = (len(next(iter(d.values()), ())) for d in (pairs, oedema))
    print(f"{'':<34}" + "".join(f"{mm:>7g} mm" for mm in MARGINS_MM) + f"{'oedema':>10}   n = {n}, {m}")
    for name in pairs or oedema:
        cells = "".join(f"{x:>+10.4f}" for x in np.mean(pairs[name], axis=0)) if name in pairs else ""
        print(f"{name:<34}{cells}" + (f"{np.mean(oedema[name]):>10.4f}" if name in oedema else ""))


def of_pair(real: Real) -> dict[str, list[float]]:
    """Return coverages minus those of the isotropic margin, by choice."""
    members, straight, there = reaches(real.patient)
    later = np.asarray(real.patient.recurrence.data > 0)
    # The isotropic margin equivalent to the density's order.
    density = fit(real.patient).density.data[there]
    members["density"] = np.empty_like(straight)
    members["density"][np.lexsort((straight, -density))] = np.sort(straight)

    def covered(reach: Field) -> NDArray[np.floating]:
        first = later[there][np.lexsort((straight, reach))]
        counts = [int(np.count_nonzero(straight <= mm + 1e-6)) for mm in MARGINS_MM]
        return np.array([first[:k].sum() for k in counts]) / later.sum()

    return {name: list(covered(r) - covered(straight)) for name, r in choices(members, straight).items()}


def of_oedema(real: Real) -> dict[str, float]:
    """Return Dice of the oedema by choice."""
    members, straight, there = reaches(core_alone(real.patient))
    oedema = real.patient.oedema & real.patient.brain & ~real.patient.core
    count, target = int(oedema.sum()), oedema[there]
    return {
        name: float(target[np.lexsort((straight, r))[:count]].sum() / count)
        for name, r in choices(members, straight).items()
    }


def reaches(patient: Patient) -> tuple[dict[str, Field], Field, NDArray[np.bool_]]:
    """Return each metric's reach for each damping near the GTV, straight distances, and where they are."""
    white, grey = tissue_fractions(patient)
    core, brain, spacing = patient.core, patient.brain, patient.spacing
    box = margin_box(core, spacing, LIMIT_MM)
    start, inside = core[box], (brain | core)[box]
    straight = distance_from(start, spacing).astype(np.float32)
    ranked = inside & ~start & (straight <= LIMIT_MM)
    depth = distance_from(~inside, spacing).astype(np.float32)
    clear = travel_time(start, np.ones_like(straight), spacing=spacing)
    order, found = np.sort(straight[ranked]), {}
    for k, metric in enumerate(METRICS):
        speed = metric.speed(white[box], grey[box], depth_mm=depth, inside=inside, spacing=spacing)
        for edge_mm in EDGES_MM:
            near = np.exp(-straight / edge_mm) if edge_mm else 0 * straight
            time = travel_time(
                start, np.where(inside, speed * (1 - near) + EDGE_SPEED * near, 0), spacing=spacing
            )
            time = time[ranked] * (straight[ranked] / clear[ranked])
            reach = np.empty_like(order)
            reach[np.argsort(time, kind="stable")] = order
            found[f"{k} {edge_mm:g}"] = reach
    there = np.zeros(core.shape, bool)
    there[box] = ranked
    return found, straight[ranked], there


def choices(members: dict[str, Field], straight: Field) -> dict[str, Field]:
    """Return the rankings compared [mm]."""
    kept = [members[f"{k} 0"] for k in range(len(METRICS))]
    found = {"seven metrics (kept)": np.mean(kept, axis=0)}
    found["with the isotropic margin"] = np.mean([*kept, straight], axis=0)
    if "density" in members:
        found["with the fit's density"] = np.mean([*kept, members["density"]], axis=0)
        found["the fit's density alone"] = members["density"]
    for mm in EDGES_MM[1:]:
        near = [members[f"{k} {mm:g}"] for k in range(len(METRICS))]
        found[f"one speed near the GTV, L = {mm:g} mm"] = np.mean(near, axis=0)
    for k, metric in enumerate(METRICS):
        name = f"R {metric.wm_gm_ratio:g}, s {metric.csf_speed:g}, b {metric.blur_mm:g}, a {metric.surface_slowing:g}"
        found[name] = kept[k]
        found[f"  the others without it ({k + 1})"] = np.mean(kept[:k] + kept[k + 1 :], axis=0)
    return found


if __name__ == "__main__":
    main()
