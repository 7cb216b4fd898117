"""How many time levels a fit needs.

    grown    the true parameters grown on the grid of a fit with so many levels, to the same day: density and plan
             against those of 768 levels. Nothing is fitted, so this is the error in time alone.
    fitted   a fit with so many levels: its density against the truth, its plan against that of the most levels.
             Searches that end in slightly different parameters count too.

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
from front_correction import ending_on, last_level, true_parameters

from gliodil.data.patient import Patient
from gliodil.data.synthetic import simulate_in
from gliodil.data.synthetic_patient import SyntheticPatient
from gliodil.data.template import load_anatomy
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.pde.lattice import grid_rates
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import distance_from

MARGINS_MM = (5, 15)
FINEST = 768


def main() -> None:
    """Grow and fit every patient with every number of levels, the finest first, and print one line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patients", type=int, default=3, metavar="N", help="seeds 0, 1, … (%(default)s)")
    parser.add_argument("--levels", type=int, nargs="+", default=[192, 96, 48], metavar="N")
    options = parser.parse_args()
    anatomy = load_anatomy(resolution_mm=1.0)
    patients = [simulate_in(anatomy, foci=1, seed=seed) for seed in range(options.patients)]
    levels = sorted(options.levels, reverse=True)
    plans = "".join(f"{f'plan {mm} mm':>12}" for mm in MARGINS_MM)
    print(f"grown\nseed  levels   Dice 10 %    Dice 1 %{plans}")
    for seed, synthetic in enumerate(patients):
        truth = grown(synthetic, FINEST)
        plans_there = plan_masks(synthetic.patient, truth)
        for n in levels:
            found = grown(synthetic, n)
            cells = row(found, truth, plan_masks(synthetic.patient, found), plans_there)
            print(f"{seed:>4}{n:>8}{cells}", flush=True)
    print(f"\nfitted\nseed  levels   Dice 10 %    Dice 1 %{plans}   CPU s  gradients")
    for seed, synthetic in enumerate(patients):
        patient, finest = without(synthetic.patient, "pet"), list[Any]()
        for n in levels:
            began = time.process_time()
            result = fit(patient, config=FitConfig(device="cpu", steps=n))
            seconds = time.process_time() - began
            masks = plan_masks(patient, result.density.data)
            finest = finest or masks
            cells = row(result.density.data, synthetic.truth.data, masks, finest)
            print(f"{seed:>4}{n:>8}{cells}{seconds:>8.1f}{result.evaluations:>11}", flush=True)


def grown(synthetic: SyntheticPatient, levels: int) -> Any:
    """Grow the true parameters with so many levels; the last one lies on the day of 192 levels."""
    patient, standard = without(synthetic.patient, "pet"), FitConfig(steps=192)
    day = standard.dt * (standard.steps - 1)
    config = ending_on(day, FitConfig(device="cpu", steps=levels))
    case = set_up(patient, config)
    p = true_parameters(case, synthetic)
    rates = grid_rates(p.diffusivity, p.proliferation_rate, p.wm_gm_ratio, spacing=case.grid.spacing)
    return case.volume_on(last_level(case, config, p, rates), patient.segmentation).data


def row(density: Any, truth: Any, masks: list[Any], finest: list[Any]) -> str:
    """Return Dice of a density with the truth at both levels, and of its plans with those of the finest."""
    near = [dice(density, truth, t) for t in (0.1, 0.01)]
    same = [dice(a, b, 0.5) for a, b in zip(masks, finest, strict=True)]
    return "".join(f"{n:>12.4f}" for n in [*near, *same])


def plan_masks(patient: Patient, density: Any) -> list[Any]:
    """Return the model CTVs with the volumes of the margins."""
    core, brain, spacing = patient.core, patient.brain, patient.segmentation.spacing
    distance = distance_from(core, spacing, region=brain)
    volumes = [int(np.count_nonzero(standard_ctv(core, brain, spacing, mm))) for mm in MARGINS_MM]
    return [model_ctv(density, brain, distance, volume) for volume in volumes]


if __name__ == "__main__":
    main()
