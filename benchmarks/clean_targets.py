"""What cleaning the model CTV costs in coverage of later tumour, and what it removes, on pairs of visits.

    python benchmarks/clean_targets.py DATA

Model CTVs ranked by expected reach, at the volumes of margins of 10, 15 and 20 mm, cut by the ranking alone and cleaned
in several ways. Differences in coverage are paired over the patients (mean over them, 95 % bootstrap interval).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from real_patients import Real, real_patients

from gliodil.planning.clean import Cleaning, clean_ctv, cleanliness
from gliodil.planning.ctv import standard_ctv
from gliodil.planning.distance import distance_from, orthogonal_spacing
from gliodil.planning.equal_volume import filled, paired_difference
from gliodil.planning.ranking import reach_ranking

MARGINS_MM = (10.0, 15.0, 20.0)
CHOICES = {
    "as ranked": Cleaning(),
    "sizes alone, 100 mm3": Cleaning(0.0, 100.0, 100.0),
    "0.5 mm, 100 mm3": Cleaning(0.5, 100.0, 100.0),
    "1 mm, 100 mm3": Cleaning(1.0, 100.0, 100.0),
    "1 mm, 500 mm3": Cleaning(1.0, 500.0, 500.0),
    "1.5 mm, 500 mm3": Cleaning(1.5, 500.0, 500.0),
    "2 mm, 500 mm3": Cleaning(2.0, 500.0, 500.0),
    "3 mm, 1000 mm3": Cleaning(3.0, 1000.0, 1000.0),
}


def main() -> None:
    """Print one row per margin and choice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--cache", type=Path, default=Path(".real-cache"), metavar="DIR")
    options = parser.parse_args()
    rows: dict[tuple[float, str], list[list[float]]] = {}
    for real in real_patients(options.data, options.cache, quick=True):
        if real.is_pair:
            print(real.name, file=sys.stderr, flush=True)
            for key, row in of_pair(real).items():
                rows.setdefault(key, []).append(row)
    print(f"{'margin':<8}{'cleaning':<24}{'coverage':>9}{'difference':>12}{'95 %':>20}", end="")
    print(f"{'islands':>9}{'holes':>7}{'axial islands':>15}{'axial holes':>13}   mean over n")
    for (margin_mm, name), found in rows.items():
        base = [row[0] for row in rows[margin_mm, "as ranked"]]
        mean, low, high = paired_difference([row[0] for row in found], base)
        cells = np.mean(found, axis=0)
        interval = "–" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
        print(f"{margin_mm:<8g}{name:<24}{cells[0]:>9.4f}{mean or 0:>+12.4f}{interval:>20}", end="")
        print(f"{cells[1]:>9.1f}{cells[2]:>7.1f}{cells[3]:>15.1f}{cells[4]:>13.1f}   n = {len(found)}")


def of_pair(real: Real) -> dict[tuple[float, str], list[float]]:
    """Return coverage, islands, holes, and islands and holes of axial slices, by margin and choice."""
    patient = real.patient
    gtv, brain = filled(patient.core), patient.brain
    spacing = orthogonal_spacing(patient.affine)
    later = np.asarray(patient.recurrence.data > 0)
    found = {}
    for margin_mm in MARGINS_MM:
        distance = distance_from(gtv, spacing, region=brain)
        ranking = reach_ranking(patient, gtv, brain, margin_mm, distance_mm=distance)
        voxels = int(np.count_nonzero(standard_ctv(gtv, brain, spacing, margin_mm)))
        for name, cleaning in CHOICES.items():
            mask = clean_ctv(
                ranking.order, brain, distance, voxels, spacing=spacing, cleaning=cleaning, keep=gtv
            )
            whole = cleanliness(mask, brain, spacing)
            slices = [cleanliness(m[..., None], b[..., None], spacing) for m, b in _axial(mask, brain)]
            found[margin_mm, name] = [
                float(np.count_nonzero(later & mask) / np.count_nonzero(later)),
                whole.islands,
                whole.holes,
                sum(one.islands for one in slices),
                sum(one.holes for one in slices),
            ]
    return found


def _axial(mask: np.ndarray, brain: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(mask[..., k], brain[..., k]) for k in range(mask.shape[2]) if mask[..., k].any()]


if __name__ == "__main__":
    main()
