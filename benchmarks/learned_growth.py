"""Learned laws of growth on synthetic patients seen three times, with and without a regularizer.

For each law, seed, noise and regularizer: the relative error of the reaction on u in [0.05, 0.95] (root of summed
squares), of the diffusivity, and of the speed of a plane front; the misfit in variances of the noise (of 0.01 where
there is none), gradients, evaluations of the correction on its table, and CPU seconds. Fisher-Kolmogorov growth fitted
to the same visits stands beside them ("without a correction").

Each finished run is one line of OUT/learned_growth.jsonl; runs that are there are not done again.

    python benchmarks/learned_growth.py --out results
    python benchmarks/learned_growth.py --out results --quick
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliodil.data.longitudinal import SyntheticLongitudinal, simulate_longitudinal
from gliodil.inference.config import FitConfig
from gliodil.inference.learned import START, LearnedConfig, fit_learned
from gliodil.inference.learned_case import set_up_visits
from gliodil.inference.learned_loss import VisitLoss
from gliodil.pde.models.growth_laws import GrowthLaw
from gliodil.pde.models.learned_growth import front_speed
from gliodil.pde.odil.lbfgs import LBFGSOptions, lbfgs
from gliodil.pde.odil.problem import Recorder
from gliodil.pde.reaction_diffusion import Logistic

U = np.linspace(0.05, 0.95, 181)
WEIGHTS = {"without a correction": 0.0, "none": 0.0, "er": 1.0, "smooth": 1e-3}
Run = dict[str, Any]


def main() -> None:
    """Do the runs that are missing, then print the table."""
    options = arguments()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "learned_growth.jsonl"
    done = {key(run): run for run in lines(file)}
    wanted = [
        {"law": law, "seed": seed, "noise": noise, "regularizer": regularizer}
        for noise in options.noise
        for law in options.laws
        for seed in range(options.seeds)
        for regularizer in WEIGHTS
    ]
    for run in wanted:
        if key(run) not in done:
            finished = {**run, **measure(run)}
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(finished) + "\n")
            done[key(run)] = finished
            print(f"{key(run)}: reaction {finished['reaction']:.3f}, {finished['cpu_s']:.1f} s", flush=True)
    table([done[key(run)] for run in wanted])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--laws", nargs="+", default=["gompertz", "allee"], help="true laws (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="patients per law (%(default)s)")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.0, 0.02], help="deviations (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one patient per law, no noise")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.noise = 1, [0.0]
    return options


def key(run: Run) -> str:
    """Return what names a run."""
    return f"{run['law']} {run['seed']} noise {run['noise']:g} {run['regularizer']}"


def lines(file: Path) -> Iterator[Run]:
    """Yield the runs of a file; a last line cut short is no run."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def measure(run: Run) -> Run:
    """Fit one patient and compare with the truth."""
    synthetic = simulate_longitudinal(law=run["law"], seed=run["seed"], noise=run["noise"])
    speed = front_speed(synthetic.diffusivity, GrowthLaw(synthetic.law, synthetic.per_day))
    if run["regularizer"] == "without a correction":
        found = mechanistic(synthetic)
    else:
        config = LearnedConfig(regularizer=run["regularizer"], weight=WEIGHTS[run["regularizer"]])
        fit = fit_learned(synthetic.visits, config=config, fit_config=FitConfig(device="cpu"))
        found = {
            "f": fit.reaction(U),
            "d": fit.parameters["diffusivity_wm_mm2_per_day"].value,
            "speed": fit.parameters["front_speed_mm_per_day"].value,
            "misfit": fit.misfit,
            "status": fit.status,
            "gradients": fit.evaluations,
            "table_evaluations": fit.table_evaluations,
            "cpu_s": fit.cpu_s,
            "wall_s": fit.wall_s,
        }
    truth = synthetic.reaction(U)
    return {
        "reaction": float(np.linalg.norm(found.pop("f") - truth) / np.linalg.norm(truth)),
        "diffusivity": found.pop("d") / synthetic.diffusivity - 1,
        "front_speed": found.pop("speed") / speed - 1,
        **found,
    }


def mechanistic(synthetic: SyntheticLongitudinal) -> Run:
    """Fit D and ρ alone."""
    cpu, wall = time.process_time(), time.perf_counter()
    case = set_up_visits(synthetic.visits, 100.0, device="cpu")
    loss, record = VisitLoss(case, LearnedConfig(), max(0.01, synthetic.visits.noise)), Recorder()
    options = LBFGSOptions(tolerance=1e-4, max_evaluations=80, memory=20, curvature=100.0, max_step=1.0)
    found = lbfgs(loss, [torch.log(torch.tensor(START, dtype=torch.float64))], options, record)
    d, rho = (math.exp(float(v)) for v in found.x[0])
    return {
        "f": rho * U * (1 - U),
        "d": d,
        "speed": front_speed(d, Logistic(rho)),
        "misfit": found.terms["misfit"],
        "status": found.status,
        "gradients": record.evaluations,
        "table_evaluations": 0,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
    }


def table(runs: list[Run]) -> None:
    """Print medians over the seeds, and the worst reaction error."""
    print(
        f"\n{'law':<10}{'noise':>6}  {'regularizer':<22}{'reaction':>9}{'worst':>7}{'D':>8}{'speed':>8}"
        f"{'misfit':>9}{'gradients':>10}{'table':>7}{'CPU s':>7}  status"
    )
    groups: dict[tuple[str, float, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run["law"], run["noise"], run["regularizer"]), []).append(run)
    for (law, noise, regularizer), group in groups.items():

        def median(name: str, group: list[Run] = group) -> float:
            return statistics.median(abs(run[name]) for run in group)

        statuses = ", ".join(sorted({run["status"] for run in group}))
        print(
            f"{law:<10}{noise:>6g}  {regularizer:<22}{median('reaction'):>9.1%}"
            f"{max(run['reaction'] for run in group):>7.1%}{median('diffusivity'):>8.1%}"
            f"{median('front_speed'):>8.1%}{median('misfit'):>9.2g}{median('gradients'):>10.0f}"
            f"{median('table_evaluations'):>7.0f}{median('cpu_s'):>7.1f}  {statuses}"
        )
    print(
        "\nMedians over patients of the sizes of relative errors; worst: the largest error of the reaction."
    )


if __name__ == "__main__":
    main()
