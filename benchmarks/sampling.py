"""Time to accuracy of samplers × optimizers on problems with known solutions, DeepXDE beside them.

Every run is one line of JSON in OUT/runs.jsonl, written when it ends; runs that are there are not run again, so the
command can be stopped and repeated. Times are CPU seconds of this process on one thread, evaluation of the exact
solution excluded; errors are relative L2 under the problem's evaluation law, of the parameters that the validation
residual would choose at that time.

    python benchmarks/sampling.py --quick                                # everything, seconds each: does it run?
    python benchmarks/sampling.py --problems one-peak burgers --seeds 5  # two problems, five seeds
    python benchmarks/sampling.py --samplers aas uniform h1 --optimizers lm-varpro --problems one-peak
    python benchmarks/sampling.py --tables                               # print and plot what is there, run nothing

Samplers and optimizers that are not named are the problem's own (`SETTINGS`).

Optimizers are those of `gliodil.sampling.optimizers` on the problem's network, and ``local``: growing local bases.
Peers are ``deepxde-adam`` (tanh network, uniform points) and ``deepxde-lbfgs`` (Adam for half the time, then L-BFGS).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gliodil.sampling.local import Growth, solve_local
from gliodil.sampling.networks import MLP
from gliodil.sampling.optimizers.catalogue import OPTIMIZERS, RESAMPLE
from gliodil.sampling.points import Sampler
from gliodil.sampling.problems.catalogue import PROBLEMS
from gliodil.sampling.problems.problem import Problem
from gliodil.sampling.schedule import Schedule
from gliodil.sampling.solution import Record
from gliodil.sampling.solve import solve

SAMPLERS = ("uniform", "sobol", "rar", "rar-d", "rad", "r3", "failure-informed", "das-g", "das-r", "aas")
SAMPLERS += ("aas-logit", "h1", "smc", "ladder")
PEERS = ("deepxde-adam", "deepxde-lbfgs")
LEVELS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-9)


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
    "ring-layer": Setting((16, 16, 16), 4.0),
    "burgers": Setting((12, 12, 12), samplers=("rad", "uniform"), optimizers=("lm",)),
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
    runs = [run for run in read(file) if run["problem"] in options.problems]
    text = tables(runs)
    (options.out / "sampling.md").write_text(text)
    print(text)
    draw(runs, options.out)
    return 0


def jobs(options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """Yield every run that was asked for; all methods with the first seed come before the second seed."""
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
            for method in [*methods, *options.peers]:
                yield {"problem": problem, "method": method, "seed": seed, "budget_s": budget}


def key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same run."""
    return run["problem"], run["method"], run["seed"], run["budget_s"]


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
            return deepxde(problem, setting, job)
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
        schedule = {"patience": 100_000, "resample": RESAMPLE[optimizer]} | dict(setting.schedule)
        found = solve(
            problem,
            network=MLP(
                problem.box,
                setting.hidden,
                first_scale=setting.first_scale,
                activation=setting.activation,
            ),
            sampler=sampler,
            optimizer=OPTIMIZERS[optimizer](),
            schedule=Schedule(budget_s=job["budget_s"], **schedule),
            seed=job["seed"],
        )
    return {
        "status": found.status,
        "message": found.message,
        "size": found.network.size,
        "history": thin(found.history),
    }


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


def deepxde(problem: Problem, setting: Setting, job: Mapping[str, Any]) -> dict[str, Any]:
    """The same problem, hard conditions included, by DeepXDE with its usual float32 and uniform points."""
    os.environ.setdefault("DDE_BACKEND", "pytorch")
    import deepxde as dde

    from gliodil.sampling.derivatives import Jet
    from gliodil.sampling.problems.problem import values

    dde.config.set_default_float("float32")
    dde.config.set_random_seed(job["seed"])
    # DeepXDE sets torch's defaults for the whole process; tensors made here name their type.
    box, d = problem.box, problem.box.dimension
    empty = torch.zeros(1, 0)

    def jet(x: torch.Tensor, y: torch.Tensor) -> Jet:
        c = torch.tensor(problem.second_order, dtype=x.dtype)
        first = torch.cat([dde.grad.jacobian(y, x, i=0, j=axis) for axis in range(d)], 1).T
        second = [
            dde.grad.hessian(y, x, i=axis, j=axis) if bool(c[:, axis].any()) else torch.zeros_like(y)
            for axis in range(d)
        ]
        return Jet(torch.cat([y.T, first, c @ torch.cat(second, 1).T]), c)

    def equation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        r = problem.residual(x, jet(x, y), empty.expand(x.shape[0], -1))
        return (r if problem.inside is None else r * problem.inside(x))[:, None]

    generator = torch.Generator().manual_seed(job["seed"])
    conditions, weights = [], [1.0]
    for condition in problem.conditions:
        x = condition.points(200, generator=generator, dtype=torch.float32).numpy()

        def operator(x: torch.Tensor, y: torch.Tensor, _: Any, stated: Any = condition) -> torch.Tensor:
            return stated.residual(x, jet(x, y), empty.expand(x.shape[0], -1))[:, None]

        conditions.append(dde.icbc.PointSetOperatorBC(x, 0 * x[:, :1], operator))
        weights.append(condition.weight)
    count = 3 * MLP(box, setting.hidden).size
    geometry = dde.geometry.Hypercube(list(box.lower), list(box.upper))
    data = dde.data.PDE(geometry, equation, conditions, num_domain=count, train_distribution="pseudo")
    network = dde.nn.FNN([d, *setting.hidden, 1], "tanh", "Glorot normal")
    if problem.distance is not None or problem.lift is not None:

        def transform(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            if problem.distance is not None:
                y = values(problem.distance, x)[:, None] * y
            return y if problem.lift is None else values(problem.lift, x)[:, None] + y

        network.apply_output_transform(transform)
    model = dde.Model(data, network)
    if problem.exact is None:
        raise ValueError("comparison needs an exact solution")
    law = torch.Generator().manual_seed(job["seed"] + 1_000_003)
    test = problem.draw_test(20_000, generator=law, dtype=torch.float64)
    truth = problem.exact(test)
    history: list[list[float]] = []
    begin, looked = time.process_time(), 0.0

    def spent() -> float:
        return time.process_time() - begin - looked

    def look() -> None:
        nonlocal looked
        before, now = time.process_time(), spent()
        wrong = torch.as_tensor(model.predict(test.float().numpy())).double()[:, 0] - truth
        mse = float(wrong.square().mean())
        history.append([now, math.sqrt(mse / float(truth.square().mean())), mse, math.nan])
        looked += time.process_time() - before

    class Clock(dde.callbacks.Callback):  # type: ignore[misc]
        """Looks now and then and ends training when its share of the time is over."""

        def __init__(self, until: float) -> None:
            super().__init__()
            self.until, self.next = until, 0.0

        def on_epoch_end(self) -> None:
            now = spent()
            if now >= self.next:
                look()
                self.next = now + job["budget_s"] / 60
            if now >= self.until:
                self.model.stop_training = True

    adam_share = 0.5 if job["method"] == "deepxde-lbfgs" else 1.0
    model.compile("adam", lr=1e-3, loss_weights=weights, verbose=0)
    resample = dde.callbacks.PDEPointResampler(period=100)
    clock = Clock(adam_share * job["budget_s"])
    model.train(iterations=10_000_000, callbacks=[clock, resample], display_every=10_000_000, verbose=0)
    if adam_share < 1:
        limits = dde.optimizers.config
        limits.set_LBFGS_options(maxiter=10_000_000, ftol=0, gtol=0)
        # Its callbacks, and with them the clock, come round between calls of torch's optimizer only.
        limits.LBFGS_options["iter_per_step"], limits.LBFGS_options["fun_per_step"] = 20, 25
        model.compile("L-BFGS", loss_weights=weights, verbose=0)
        model.train(callbacks=[Clock(job["budget_s"])], display_every=10_000_000, verbose=0)
    look()
    status = "budget" if math.isfinite(history[-1][1]) else "diverged"
    return {
        "status": status,
        "message": dde.__version__,
        "size": network.num_trainable_parameters(),
        "history": history,
    }


def tables(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return one Markdown table per problem: error at the end and time to each level, medians over seeds."""
    lines = ["# Time to accuracy", ""]
    for problem in dict.fromkeys(run["problem"] for run in runs):
        budgets = sorted({run["budget_s"] for run in runs if run["problem"] == problem})
        for budget in budgets:
            lines += [
                f"## {problem}, {budget:g} CPU s",
                "",
                f"Evaluation law: {PROBLEMS[problem]().evaluation}.",
                "",
                "| method | seeds | parameters | rel. L2, median (range) | MSE | "
                + " | ".join(f"s to {level:.0e}" for level in LEVELS)
                + " | failures |",
                "|---" * (6 + len(LEVELS)) + "|",
            ]
            chosen = [run for run in runs if run["problem"] == problem and run["budget_s"] == budget]
            groups = {m: [r for r in chosen if r["method"] == m] for m in {r["method"] for r in chosen}}
            for method, group in sorted(groups.items(), key=lambda item: median_error(item[1])):
                lines.append(row(method, group))
            lines.append("")
    return "\n".join(lines)


def final(run: Mapping[str, Any], column: int = 1) -> float:
    """Return what a run ended with; a failed run ended with nothing."""
    last = run["history"][-1][column] if run["history"] else None
    return math.inf if last is None or not math.isfinite(last) else float(last)


def median_error(group: Sequence[Mapping[str, Any]]) -> float:
    """Median of the last errors; failures count as infinite."""
    return statistics.median(final(run) for run in group)


def reached(run: Mapping[str, Any], level: float) -> float:
    """CPU seconds after which the error stays at or below the level at that moment first."""
    return next((h[0] for h in run["history"] if h[1] is not None and h[1] <= level), math.inf)


def row(method: str, group: Sequence[Mapping[str, Any]]) -> str:
    """One line of a table."""
    errors = sorted(final(run) for run in group)
    times = [statistics.median(reached(run, level) for run in group) for level in LEVELS]
    shown = [f"{t:.1f}" if math.isfinite(t) else "–" for t in times]
    mse = statistics.median(final(run, 2) for run in group)
    failures = sum(run["status"] in ("failed", "diverged") for run in group)
    cells = [method, str(len(group)), str(max(run["size"] for run in group))]
    cells += [f"{median_error(group):.1e} ({errors[0]:.1e} to {errors[-1]:.1e})", f"{mse:.1e}", *shown]
    return "| " + " | ".join([*cells, str(failures)]) + " |"


def draw(runs: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write one figure per problem: error against CPU seconds, every seed thin, methods by colour."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for problem in dict.fromkeys(run["problem"] for run in runs):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        chosen = [run for run in runs if run["problem"] == problem and run["history"]]
        for index, method in enumerate(sorted({run["method"] for run in chosen})):
            for number, run in enumerate(r for r in chosen if r["method"] == method):
                curve = [(h[0], h[1]) for h in run["history"] if h[1] is not None]
                style = "--" if method in PEERS else "-"
                label = method if number == 0 else None
                axes.plot(
                    *zip(*curve, strict=True), style, color=f"C{index % 10}", lw=1, alpha=0.8, label=label
                )
        axes.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="relative L2 error", title=problem)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
        figure.savefig(out / f"sampling_{problem}.png", dpi=150)
        pyplot.close(figure)


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
