"""What cells of 2 mm do to growth, and what is left of it with corrected rates (``gliodil.pde.lattice``).

Simulated patients are grown on voxels of 1 mm. Here the true parameters grow them again on the grid of a fit, with the
rates as they are and with those that give the grid the fronts of voxels of 1 mm. Nothing is fitted. Printed are Dice
with the truth and the volume relative to it, inside u > 1, 10 and 50 %.

    python benchmarks/front_correction.py --patients 9
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np
import torch
from accuracy import dice, without

from gliodil.data.synthetic import simulate_in
from gliodil.data.synthetic_patient import SyntheticPatient
from gliodil.data.template import load_anatomy
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.informed_loss import InformedLoss
from gliodil.inference.parameters import Scalars
from gliodil.inference.variables import Coordinates, TransformedLoss
from gliodil.pde.lattice import GridRates, grid_rates, plain_rates
from gliodil.pde.odil.trajectory import sweep

LEVELS = (0.01, 0.1, 0.5)


def main() -> None:
    """Grow the patients again and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patients", type=int, default=9, metavar="N", help="seeds 0 … N−1 (%(default)s)")
    parser.add_argument("--cells", type=int, default=48, metavar="N", help="per axis (%(default)s)")
    options = parser.parse_args()
    config = FitConfig(device="cpu", cells=options.cells)
    config = ending_on(config.duration_days, config)  # as the truth
    anatomy = load_anatomy(resolution_mm=1.0)
    head = "".join(f"{f'Dice {100 * v:.0f} %':>11}" for v in LEVELS)
    head += "".join(f"{f'volume {100 * v:.0f} %':>13}" for v in LEVELS)
    print(f"{'seed':<6}{'length':>8}{'cells':>8}  {'rates':<10}{head}")
    every: dict[str, list[list[float]]] = {"as given": [], "corrected": []}
    for seed in range(options.patients):
        synthetic = simulate_in(anatomy, foci=1, seed=seed)
        case = set_up(without(synthetic.patient, "pet"), config)
        p = true_parameters(case, synthetic)
        three = (p.diffusivity, p.proliferation_rate, p.wm_gm_ratio)
        for name, rates in (
            ("as given", plain_rates(*three)),
            ("corrected", grid_rates(*three, spacing=case.grid.spacing)),
        ):
            grown = case.volume_on(last_level(case, config, p, rates), synthetic.patient.segmentation).data
            truth = synthetic.truth.data
            row = [dice(grown, truth, v) for v in LEVELS]
            row += [float((grown > v).sum() / (truth > v).sum()) for v in LEVELS]
            every[name].append(row)
            length, cell = math.sqrt(p.diffusivity / p.proliferation_rate), sum(case.grid.spacing) / 3
            print(f"{seed:<6}{length:>5.2f} mm{cell:>5.2f} mm  {name:<10}{formatted(row)}", flush=True)
    for name, rows in every.items():
        print(f"{'median':<24}{name:<10}{formatted(np.median(rows, axis=0).tolist())}")


def ending_on(day: float, config: FitConfig) -> FitConfig:
    """Return the settings with the last level on that day; it lies one step before the end of the duration."""
    return replace(config, duration_days=day * config.steps / (config.steps - 1))


def true_parameters(case: Case, synthetic: SyntheticPatient) -> Scalars:
    """Return the parameters the patient was grown with, origins in the grid's frame."""
    true = synthetic.parameters
    index = np.linalg.inv(case.affine) @ np.vstack([np.transpose(true["origins_mm"]), np.ones(1)])
    origins = torch.as_tensor((index[:3].T + 0.5) * np.asarray(case.grid.spacing))
    return Scalars.of(
        diffusivity=true["diffusivity_wm_mm2_per_day"],
        proliferation_rate=true["proliferation_rate_per_day"],
        wm_gm_ratio=true["wm_gm_ratio"],
        origins=origins,
    )


def last_level(case: Case, config: FitConfig, p: Scalars, rates: GridRates) -> torch.Tensor:
    """Grow a tumour on the grid with these rates."""
    loss = InformedLoss(case, config)
    box = loss.box()
    objective = TransformedLoss(loss, Coordinates.plain(box, box.encode(p)))
    coefficients = rates.coefficients(objective.model)
    steps = objective.steps(coefficients, float(rates.proliferation))
    seed = loss.seed(p.origins).to(objective.dtype)
    with torch.no_grad():
        run = sweep(
            seed,
            None,
            coefficients,
            rates.proliferation,
            objective.impassable,
            steps,
            count=objective.steps_shape[0],
        )
    return run.last.double()


def formatted(row: list[float]) -> str:
    """Return one row of the table."""
    return "".join(f"{v:>11.3f}" for v in row[:3]) + "".join(f"{v:>13.3f}" for v in row[3:])


if __name__ == "__main__":
    main()
