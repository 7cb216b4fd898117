"""How many time levels a fit needs: its density against the truth, and its plan against that of 192 levels.

Simulated patients with one focus, segmentation and tissue maps only. Plans are model CTVs of the volumes that margins
of 5 and 15 mm have. CPU seconds of the fit; the first fit of a process also compiles.

    python benchmarks/time_levels.py --patients 3 --levels 192 96 48
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from accuracy import dice, without

from gliodil.data.patient import Patient
from gliodil.data.synthetic import simulate_in
from gliodil.data.template import load_anatomy
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import distance_from

MARGINS_MM = (5, 15)


def main() -> None:
    """Fit every patient with every number of levels, the finest first, and print one line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patients", type=int, default=3, metavar="N", help="seeds 0, 1, … (%(default)s)")
    parser.add_argument("--levels", type=int, nargs="+", default=[192, 96, 48], metavar="N")
    options = parser.parse_args()
    anatomy = load_anatomy(resolution_mm=1.0)
    plans = "".join(f"{f'plan {mm} mm':>12}" for mm in MARGINS_MM)
    print(f"seed  levels   CPU s  gradients   Dice 10 %    Dice 1 %{plans}")
    for seed in range(options.patients):
        synthetic = simulate_in(anatomy, foci=1, seed=seed)
        patient = without(synthetic.patient, "pet")
        finest: list[Any] = []
        for levels in sorted(options.levels, reverse=True):
            began = time.process_time()
            found = fit(patient, config=FitConfig(device="cpu", steps=levels))
            seconds = time.process_time() - began
            masks = plan_masks(patient, found.density.data)
            finest = finest or masks
            near = [dice(found.density.data, synthetic.truth.data, t) for t in (0.1, 0.01)]
            same = [dice(a, b, 0.5) for a, b in zip(masks, finest, strict=True)]
            numbers = "".join(f"{n:>12.4f}" for n in [*near, *same])
            print(f"{seed:>4}{levels:>8}{seconds:>8.1f}{found.evaluations:>11}{numbers}", flush=True)


def plan_masks(patient: Patient, density: Any) -> list[Any]:
    """Return the model CTVs with the volumes of the margins."""
    core, brain, spacing = patient.core, patient.brain, patient.segmentation.spacing
    distance = distance_from(core, spacing, region=brain)
    volumes = [int(np.count_nonzero(standard_ctv(core, brain, spacing, mm))) for mm in MARGINS_MM]
    return [model_ctv(density, brain, distance, volume) for volume in volumes]


if __name__ == "__main__":
    main()
