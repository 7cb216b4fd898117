"""Time to accuracy of samplers × optimizers on problems with known solutions, other libraries beside them.

Every run is one line of JSON in OUT/runs.jsonl, written when it ends; runs that are there with the same settings are
not run again, so the command can be stopped and repeated. Times are CPU seconds of this process on one thread,
evaluation of the exact solution excluded; errors are relative L2 under the problem's evaluation law, of the parameters
that the validation residual would choose at that time.

    python benchmarks/sampling.py --quick                                # everything, seconds each: does it run?
    python benchmarks/sampling.py --problems one-peak burgers --seeds 5  # two problems, five seeds
    python benchmarks/sampling.py --samplers aas uniform h1 --optimizers lm-varpro --problems one-peak
    python benchmarks/sampling.py --tables                               # print and plot what is there, run nothing

Samplers and optimizers that are not named are the problem's own (`SETTINGS`).

Optimizers are those of `gliodil.sampling.optimizers` on the problem's network, and ``local``: growing local bases.
Peers are methods of DeepXDE, PINA and Scimba, each described in `benchmarks/peers`; those that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Linear algebra of SciPy reads this when it is loaded. All that is timed here runs on one thread.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import torch
from peers import PEERS, Task
from sampling_tables import draw, tables

from gliodil.sampling.local import Growth, solve_local
from gliodil.sampling.mlp import MLP
from gliodil.sampling.optimizers.catalogue import OPTIMIZERS, RESAMPLE
from gliodil.sampling.points import Sampler
from gliodil.sampling.problems.catalogue import PROBLEMS
from gliodil.sampling.problems.problem import Problem
from gliodil.sampling.schedule import Schedule
from gliodil.sampling.solution import Record
from gliodil.sampling.solve import solve

SAMPLERS = ("uniform", "sobol", "rar", "rar-d", "rad", "r3", "failure-informed", "das-g", "das-r", "aas")
SAMPLERS += ("aas-logit", "h1", "smc", "ladder")


@dataclass(frozen=True)
class Setting:
    """What suits a problem: the network, CPU seconds, the loop's settings, and what is run if nothing is named."""

    hidden: tuple[int, ...] = (20, 20)
    first_scale: float = 2.0
    budget_s: float = 60.0
    schedule: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "tanh"
    samplers: tuple[str, ...] = ("uniform", "rad", "aas", "h1")
    optimizers: tuple[str, ...] = ("lm-varpro", "local")


# All scales between the bump and the faces, held evenly: the ladder of the first residual, and κ = 4/d.
HIGH_DIMENSIONAL = Setting(
    (20, 10, 10),
    2.0,
    300.0,
    {"kappa": 0.4, "points": 6000, "defensive": 0.1, "prepare": 1, "adapt": 0},
    "softplus",
    ("ladder", "uniform"),
    ("lm",),
)

SETTINGS = {
    "poisson": Setting((16, 16), budget_s=60.0),
    "one-peak": Setting((20, 20, 20), 10.0),
    "two-peaks": Setting((20, 20, 20), 10.0, budget_s=120.0),
    "nine-peaks": Setting((20, 20, 20), 10.0, budget_s=120.0),
    "ring-layer": Setting((16, 16, 16), 4.0, schedule={"defensive": 0.0, "resample": 5}),
    "burgers": Setting(
        (12, 12, 12), schedule={"defensive": 0.0}, samplers=("rad", "uniform"), optimizers=("lm",)
    ),
    "allen-cahn": Setting((16, 16, 16)),
    "helmholtz": Setting((20, 20), 4.0),
    "fisher-kpp": Setting((12, 12, 12)),
    "bump-linear": HIGH_DIMENSIONAL,
    "bump-nonlinear": HIGH_DIMENSIONAL,
    "moving-peak": Setting((20, 20, 20), 4.0),
    "disk": Setting((16, 16)),
}


def main() -> int:
    """Run what is missing, then print tables and draw curves."""
    options = arguments()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    if not options.tables:
        done = {key(run) for run in read(file)}
        for job in jobs(options):
            if key(job) in done:
                continue
            print(f"{job['problem']} {job['method']} seed {job['seed']}", file=sys.stderr, flush=True)
            with file.open("a") as lines:
                lines.write(json.dumps(job | attempt(job)) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
    runs = [labelled(run) for run in read(file) if run["problem"] in options.problems]
    text = tables(runs)
    (options.out / "sampling.md").write_text(text)
    print(text)
    draw(runs, options.out)
    return 0


def jobs(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """Yield every run that was asked for; all methods with the first seed come before the second seed."""
    for name in options.peers:
        if PEERS[name].missing:
            print(f"{name} is left out: {PEERS[name].missing}", file=sys.stderr)
    peers = [name for name in options.peers if not PEERS[name].missing]
    for seed in range(options.seeds):
        for problem in options.problems:
            setting = SETTINGS[problem]
            budget = 3.0 if options.quick else options.budget_s or setting.budget_s
            dimension = PROBLEMS[problem]().box.dimension
            methods = [
                f"{sampler} + {optimizer}"
                for optimizer in options.optimizers or setting.optimizers
                for sampler in options.samplers or setting.samplers
                if not (sampler == "h1" and dimension > 3) and not (optimizer == "local" and dimension > 3)
            ]
            for method in [*methods, *peers]:
                job = {"problem": problem, "method": method, "seed": seed, "budget_s": budget}
                yield job | {"settings": digest(job)}


def key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same run; lines of before settings were written down match none."""
    return run["problem"], run["method"], run["seed"], run["budget_s"], run.get("settings")


def digest(job: Mapping[str, Any]) -> str:
    """Return eight digits that change with what a method runs with here: network and schedule, or growth."""
    problem, setting = PROBLEMS[job["problem"]](), SETTINGS[job["problem"]]
    _, _, optimizer = job["method"].partition(" + ")
    used: Any
    if job["method"] in PEERS:
        used = setting.hidden
    elif optimizer == "local":
        used = Growth(budget_s=job["budget_s"])
    else:
        used = network(problem, setting), schedule(setting, optimizer, job["budget_s"])
    return hashlib.sha256(repr(used).encode()).hexdigest()[:8]


def labelled(run: dict[str, Any]) -> dict[str, Any]:
    """Return the run, its method marked where it may have run with other settings than it would now."""
    settings = run.get("settings", "settings unknown")
    if "settings" in run and settings == digest(run):
        return run
    return run | {"method": f"{run['method']} [{settings}]"}


def read(file: Path) -> list[dict[str, Any]]:
    """Return the runs on file; a line cut short by a crash is no run."""
    runs = []
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            runs.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return runs


def attempt(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run one job; what goes wrong is part of the result."""
    problem, setting = PROBLEMS[job["problem"]](), SETTINGS[job["problem"]]
    try:
        if job["method"] in PEERS:
            task = Task(problem, setting.hidden, job["budget_s"], job["seed"])
            return PEERS[job["method"]].run(task)
        return own(problem, setting, job)
    except Exception as error:
        return {"status": "failed", "message": f"{type(error).__name__}: {error}", "size": 0, "history": []}


def own(problem: Problem, setting: Setting, job: Mapping[str, Any]) -> dict[str, Any]:
    """One run of this package."""
    sampler_name, optimizer = job["method"].split(" + ")
    sampler: Sampler | None = None
    if sampler_name != "uniform":
        from gliodil.sampling.samplers.registry import make_sampler

        sampler = make_sampler(sampler_name, problem.box, dtype=torch.float64, seed=job["seed"])
    if optimizer == "local":
        growth = Growth(budget_s=job["budget_s"])
        found = solve_local(problem, sampler=sampler, growth=growth, seed=job["seed"])
    else:
        found = solve(
            problem,
            network=network(problem, setting),
            sampler=sampler,
            optimizer=OPTIMIZERS[optimizer](),
            schedule=schedule(setting, optimizer, job["budget_s"]),
            seed=job["seed"],
        )
    return {
        "status": found.status,
        "message": found.message,
        "size": found.network.size,
        "history": thin(found.history),
    }


def network(problem: Problem, setting: Setting) -> MLP:
    """Return the problem's network."""
    return MLP(problem.box, setting.hidden, first_scale=setting.first_scale, activation=setting.activation)


def schedule(setting: Setting, optimizer: str, budget_s: float) -> Schedule:
    """Return how the problem's network is trained by an optimizer."""
    chosen = {"patience": 100_000, "resample": RESAMPLE[optimizer]} | dict(setting.schedule)
    return Schedule(budget_s=budget_s, **chosen)


def thin(history: Sequence[Record], most: int = 200) -> list[list[float | None]]:
    """Return at most `most` of [CPU s, error, MSE, validation]; the error is that of the best validation so far."""
    best, chosen = math.inf, []
    error, mse = math.nan, math.nan
    for record in history:
        if record.validation < best:
            best, error, mse = record.validation, record.error or math.nan, record.mse or math.nan
        chosen.append([record.cpu_s, error, mse, best])
    step = max(1, len(chosen) // most)
    return chosen[::step] + (chosen[-1:] if (len(chosen) - 1) % step else [])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="NAME")
    parser.add_argument(
        "--samplers", nargs="+", choices=SAMPLERS, metavar="NAME", help="the problem's own if not given"
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=[*OPTIMIZERS, "local"],
        metavar="NAME",
        help="the problem's own if not given",
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, … (5)")
    parser.add_argument(
        "--budget-s", type=float, help="CPU seconds of every run (the problem's own if not given)"
    )
    parser.add_argument("--quick", action="store_true", help="three CPU seconds each, to see that all runs")
    parser.add_argument("--out", type=Path, default=Path("results/sampling"), help="folder of results")
    parser.add_argument("--tables", action="store_true", help="run nothing, print and draw what is there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
