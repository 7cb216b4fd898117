"""What a fit costs: seconds and memory of whole fits, a forward run of a whole brain, and what single precision does.

    reference  the published loss, minimized to convergence in all its variables, soft physics
    default    what `gliodil plan` runs

One synthetic patient without PET. Every fit runs in a process of its own, in turns; its seconds are those of
gliodil.fit after a small fit that loads the compiled kernels, its memory the peak of the whole process.

    python benchmarks/bench_odil.py                                   # half an hour
    python benchmarks/bench_odil.py --runs 1 --large-runs 0
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gliodil.data.growth import Rates, grow, seed_density
from gliodil.data.patient import Patient
from gliodil.data.synthetic import simulate
from gliodil.data.template import load_anatomy
from gliodil.inference import exact, variables
from gliodil.inference.case import set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit, fit_parameters
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.nested import nested
from gliodil.inference.variables import TransformedLoss
from gliodil.pde.grid import Grid
from gliodil.pde.integrate import integrate
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.odil.problem import Recorder
from gliodil.planning.plan import plan

BRAIN = Rates(diffusivity=0.14, proliferation=0.08, wm_gm_ratio=18.0)
ORIGIN_MM = (-30.0, 10.0, 25.0)
DAYS = 100


def main() -> None:
    """Print the tables, or, asked for one fit, its numbers as JSON."""
    options = arguments()
    if options.one is not None:
        print(json.dumps(one(options.one, options.cells, options.steps)))
        return
    print(f"{torch.get_num_threads()} threads\n")
    # Compiles the kernels if nothing has yet: that takes time and memory once.
    alternate([("default", 16)], 1)
    fits = alternate([("reference", 48), ("default", 48)], options.runs)
    if options.large_runs:
        fits |= alternate([("reference", 96), ("default", 96)], options.large_runs)
    print(f"{'fit, levels 192':<28}{'seconds':>16}{'peak MB':>9}{'gradients':>11}{'loss':>12}  status")
    for (name, cells), rows in fits.items():
        seconds = sorted(r["seconds"] for r in rows)
        spread = f"{statistics.median(seconds):.1f} ({seconds[0]:.1f}-{seconds[-1]:.1f})"
        print(
            f"{name + f', {cells}³':<28}{spread:>16}{max(r['peak_mb'] for r in rows):>9.0f}"
            f"{rows[0]['evaluations']:>11}{rows[0]['loss']:>12.3e}  {rows[0]['status']}"
        )
    whole_brain(options.runs)
    precision()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of every fit at 48³ (%(default)s)")
    parser.add_argument("--large-runs", type=int, default=1, help="of every fit at 96³ (%(default)s)")
    parser.add_argument("--one", choices=["reference", "default"], help=argparse.SUPPRESS)
    parser.add_argument("--cells", type=int, default=48, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=192, help=argparse.SUPPRESS)
    return parser.parse_args()


def patient_without_pet() -> Patient:
    """Return the synthetic patient."""
    patient = simulate(seed=0).patient
    return replace(patient, volumes={k: v for k, v in patient.volumes.items() if k != "pet"})


def config_of(name: str, cells: int, steps: int) -> FitConfig:
    """Return the settings of a fit."""
    return FitConfig(
        cells=cells, steps=steps, device="cpu", loss="reference" if name == "reference" else "informed"
    )


def one(name: str, cells: int, steps: int) -> dict[str, Any]:
    """Fit once, in this process."""
    patient, config = patient_without_pet(), config_of(name, cells, steps)
    fit(patient, config=replace(config, cells=8, steps=8, max_evaluations=2))
    began = time.perf_counter()
    found = fit(patient, config=config)
    return {
        "seconds": time.perf_counter() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "evaluations": found.evaluations,
        "loss": found.loss_total,
        "status": found.status,
    }


def alternate(kinds: list[tuple[str, int]], runs: int) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Run fits in turns, each in a process of its own."""
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(runs):
        for kind in kinds:
            command = [sys.executable, __file__, "--one", kind[0], "--cells", str(kind[1])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows[kind].append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def whole_brain(runs: int) -> None:
    """Grow a tumour in the whole brain at 1 mm; the error is that of time stepping and of the moving box."""
    anatomy = load_anatomy(resolution_mm=1.0)
    spacing = anatomy.wm.spacing
    start = seed_density(anatomy.wm, anatomy.gm, [ORIGIN_MM])
    seconds = []
    for _ in range(runs + 1):
        began = time.perf_counter()
        density, _ = grow(
            start,
            anatomy.wm.data,
            anatomy.gm.data,
            spacing=spacing,
            rates=BRAIN,
            days=DAYS,
            level=0.5,
            limit_ml=1e9,
        )
        seconds.append(time.perf_counter() - began)
    where = np.argwhere(density > 1e-9)
    low = np.maximum(where.min(axis=0) - 15, 0)
    high = np.minimum(where.max(axis=0) + 15, density.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    nx, ny, nz = (int(n) for n in high - low)
    grid = Grid((nx, ny, nz), spacing)
    white, grey = (torch.as_tensor(m.data[box].astype(np.float64)) for m in (anatomy.wm, anatomy.gm))
    fine = integrate(
        FisherKolmogorov.on(grid, white, grey),
        grid.field(start[box].astype(np.float64)),
        diffusivity=BRAIN.diffusivity,
        proliferation_rate=BRAIN.proliferation,
        wm_gm_ratio=BRAIN.wm_gm_ratio,
        duration=float(DAYS),
        steps=16 * DAYS,
    )
    difference = grid.box(fine).numpy() - density[box]
    error = float(np.linalg.norm(difference) / np.linalg.norm(grid.box(fine).numpy()))
    shape = " × ".join(map(str, density.shape))
    print(
        f"\nforward run, {shape} voxels of 1 mm, {DAYS} days: {statistics.median(seconds[1:]):.2f} s, "
        f"relative error {error:.1e} against 1600 steps in float64"
    )


def precision() -> None:
    """Sweep the fitted parameters in both precisions and plan on both."""
    patient, config = patient_without_pet(), config_of("default", 48, 192)
    losses = nested(patient, make_loss(set_up(patient, config), config))
    landscape, found = fit_parameters(losses, Recorder())
    masks = []
    for dtype in (torch.float32, torch.float64):
        objective = TransformedLoss(losses[-1], landscape.objective.coordinates, dtype=dtype)
        with torch.no_grad():
            run = exact.ExactPhysics(objective).run(found.x)
        if run is None:
            raise RuntimeError("the parameters cannot be evaluated")
        density = losses[-1].case.volume_on(run[1].last, patient.segmentation)
        masks.append(plan(patient, density).model.data > 0)
    both = float(2 * np.count_nonzero(masks[0] & masks[1]) / (masks[0].sum() + masks[1].sum()))
    tolerances = variables.SOLVER_TOLERANCE
    print(
        f"\nmodel CTV of float32 sweeps (steps solved to {tolerances[torch.float32]:g}) and float64 sweeps "
        f"({tolerances[torch.float64]:g}): Dice {both:.6f}"
    )


if __name__ == "__main__":
    main()
