"""What solving dz/dt = f(z) and its gradient cost, beside torchdiffeq and torchode, at equal true error.

f is 64 → 64 tanh → 64 with weights times four, batch 128, float64, t from 0 to 1, one thread. Everything runs in
turns (A, B, A, B …) in one process; CPU milliseconds (time.process_time) of solve and backward, the minimum of the
repetitions, wall milliseconds beside. Four tables:

    work and precision    error against a reference at 1e-13, evaluations, milliseconds, per tolerance and solver
    equal error           milliseconds at one true error, by interpolation of log time over log error
    recording             what the records, and the gradient of the error regularizer, add
    adjoints              time and states kept per step: tape, checkpointed, continuous
    samples               128 samples of speeds from 1 to 30: steps shared, per sample with compaction, torchode

Rows are kept in a file as they come, one JSON line per timed run; a second run with the same folder goes on from there.

    python benchmarks/ode_solvers.py --out results/          # about five minutes
    python benchmarks/ode_solvers.py --quick                 # one minute, for a look

Needs torchdiffeq and torchode (pip install torchdiffeq torchode); one that is missing is left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gliodil.pde import ode, regularizers
from gliodil.pde.ode.checkpointed import Kept

BATCH, WIDTH, GAIN = 128, 64, 4.0
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
EQUAL_ERRORS = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
MIDDLE = 1e-6
OWN = ("gliodil tsit5", "gliodil dp5")
Run = Callable[[], dict[str, Any]]


def main() -> None:
    """Measure what is missing, print the tables."""
    options = arguments()
    torch.set_num_threads(1)
    tolerances = TOLERANCES[1:5] if options.quick else TOLERANCES
    repetitions = options.repetitions or (2 if options.quick else 7)
    rows = Rows(options.out)
    problem = Problem()

    curves = {
        f"work|{name}|{tolerance:g}": run
        for tolerance in tolerances
        for name, run in solvers(problem, tolerance).items()
    }
    rows.measure(curves, repetitions)
    rows.measure({f"record|{k}|{MIDDLE:g}": run for k, run in recordings(problem).items()}, 2 * repetitions)
    rows.measure({f"adjoint|{k}|{MIDDLE:g}": run for k, run in adjoints(problem).items()}, 2 * repetitions)
    rows.measure({f"samples|{k}|{MIDDLE:g}": run for k, run in samples().items()}, max(1, repetitions // 2))

    print(f"MLP {WIDTH}→{WIDTH} tanh→{WIDTH}, batch {BATCH}, float64, one thread, torch {torch.__version__}")
    print(f"{repetitions} repetitions in turns; CPU ms: minimum (median)")
    print_work(rows, tolerances)
    print_equal_error(rows, tolerances)
    print_ratios(rows, "record", "plain", "recording, at 1e-6")
    print_ratios(rows, "adjoint", "tape", "adjoints, error regularizer in the loss, at 1e-6")
    print_ratios(rows, "samples", "gliodil, shared steps", "128 samples of different speed, at 1e-6")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, help="folder to keep rows in and go on from; none: nothing is kept"
    )
    parser.add_argument("--quick", action="store_true", help="fewer tolerances, two repetitions")
    parser.add_argument("--repetitions", type=int, help="timed runs each (7, quick: 2)")
    return parser.parse_args()


class Problem:
    """The field, the start and the true end."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH)).double()
        with torch.no_grad():
            for layer in (self.net[0], self.net[2]):
                layer.weight.mul_(GAIN)
        self.parameters = list(self.net.parameters())
        self.z0 = torch.randn(BATCH, WIDTH, dtype=torch.float64)
        self.f = Timed(self.net)
        with torch.no_grad():
            self.truth = ode.solve(self.f, self.z0, (0.0, 1.0), method="dp5", rtol=1e-13, atol=1e-13).states[
                -1
            ]

    def finish(self, end: torch.Tensor, extra: torch.Tensor | float = 0.0) -> float:
        """Run the backward pass; return the rms error of the end."""
        torch.autograd.grad(end.square().mean() + extra, self.parameters)
        return float((end.detach() - self.truth).square().mean().sqrt())


class Timed(nn.Module):
    """f(t, z) = net(z), whatever the order a library hands them over in."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: Any, z: torch.Tensor) -> torch.Tensor:
        """Return the rate."""
        rate: torch.Tensor = self.net(z)
        return rate


def solvers(problem: Problem, tolerance: float) -> dict[str, Run]:
    """Return every solver, solve and backward, at one tolerance."""
    settings = {"rtol": tolerance, "atol": tolerance}

    def own(method: str) -> Run:
        def run() -> dict[str, Any]:
            began = time.process_time()
            out = ode.solve(problem.f, problem.z0, (0.0, 1.0), method=method, **settings)
            forward = time.process_time() - began
            error = problem.finish(out.states[-1])
            return {"evaluations": out.evaluations, "error": error, "forward": forward}

        return run

    runs = {name: own(name.split()[1]) for name in OWN}
    runs |= torchdiffeq_runs(problem, settings)
    runs |= torchode_runs(problem, settings)
    return runs


def torchdiffeq_runs(problem: Problem, settings: dict[str, float]) -> dict[str, Run]:
    """Return torchdiffeq's dopri5, or nothing."""
    try:
        from torchdiffeq import odeint
    except ImportError:
        return {}
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def run() -> dict[str, Any]:
        calls = Counter(problem.net)
        began = time.process_time()
        end = odeint(calls.time_first, problem.z0, times, method="dopri5", **settings)[-1]
        forward = time.process_time() - began
        return {"error": problem.finish(end), "evaluations": calls.count, "forward": forward}

    return {"torchdiffeq dopri5": run}


def torchode_runs(problem: Problem, settings: dict[str, float]) -> dict[str, Run]:
    """Return torchode's two pairs, its controller left out of the gradient (its faster setting), or nothing."""
    try:
        import torchode
    except ImportError:
        return {}

    def of(method: Any) -> Run:
        def run() -> dict[str, Any]:
            calls = Counter(problem.net)
            began = time.process_time()
            term = torchode.ODETerm(calls.time_first)
            control = torchode.IntegralController(atol=settings["atol"], rtol=settings["rtol"], term=term)
            solver = torchode.AutoDiffAdjoint(
                method(term=term), control, backprop_through_step_size_control=False
            )
            times = torch.tensor([[0.0, 1.0]], dtype=torch.float64).expand(len(problem.z0), 2)
            found = solver.solve(torchode.InitialValueProblem(y0=problem.z0, t_eval=times))
            forward = time.process_time() - began
            return {
                "error": problem.finish(found.ys[:, -1]),
                "evaluations": calls.count,
                "forward": forward,
            }

        return run

    return {"torchode dopri5": of(torchode.Dopri5), "torchode tsit5": of(torchode.Tsit5)}


class Counter:
    """A field that counts its calls."""

    def __init__(self, net: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.net, self.count = net, 0

    def time_first(self, t: Any, z: torch.Tensor) -> torch.Tensor:
        """Return f(t, z)."""
        self.count += 1
        return self.net(z)


def recordings(problem: Problem) -> dict[str, Run]:
    """Return solve and backward with more and more recorded; and the bare evaluations with their gradients."""

    def of(record: tuple[str, ...], penalty: Callable[[ode.Solution], torch.Tensor] | None) -> Run:
        def run() -> dict[str, Any]:
            out = ode.solve(problem.f, problem.z0, (0.0, 1.0), rtol=MIDDLE, atol=MIDDLE, record=record)
            problem.finish(out.states[-1], penalty(out) if penalty else 0.0)
            return {"evaluations": out.evaluations}

        return run

    calls = ode.solve(problem.f, problem.z0, (0.0, 1.0), rtol=MIDDLE, atol=MIDDLE).evaluations

    def bare() -> dict[str, Any]:
        for _ in range(calls):
            z = problem.z0.clone().requires_grad_()
            k = problem.net(z)
            torch.autograd.grad(k, [z, *problem.parameters], k.detach())
        return {"evaluations": calls}

    return {
        "plain": of((), None),
        "error recorded": of(("error",), None),
        "error in the loss": of(("error",), regularizers.error),
        "error and stiffness in the loss": of(("error", "stiffness"), regularizers.error_and_stiffness),
        "bare f and vjp, as many": bare,
    }


def adjoints(problem: Problem) -> dict[str, Run]:
    """Return solve and backward by each adjoint, with the error regularizer where there can be one."""

    def of(adjoint: ode.Adjoint, record: tuple[str, ...]) -> Run:
        kept = 0.0

        def run() -> dict[str, Any]:
            out = ode.solve(
                problem.f, problem.z0, (0.0, 1.0), rtol=MIDDLE, atol=MIDDLE, record=record, adjoint=adjoint
            )
            problem.finish(out.states[-1], regularizers.error(out) if record else 0.0)
            return {"evaluations": out.evaluations, "states_per_step": kept}

        kept = states_per_step(problem, adjoint, record)
        return run

    with_error = ("error",)
    return {
        "tape": of("tape", with_error),
        "checkpointed": of("checkpointed", with_error),
        "tape, no regularizer": of("tape", ()),
        "checkpointed, no regularizer": of("checkpointed", ()),
        "continuous, no regularizer": of("continuous", ()),
    }


def states_per_step(problem: Problem, adjoint: ode.Adjoint, record: tuple[str, ...]) -> float:
    """Count what is alive between solve and backward, in state sizes per step, without the parameters."""

    class Packed:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    alive: weakref.WeakSet[Packed] = weakref.WeakSet()

    def pack(tensor: torch.Tensor) -> Packed:
        alive.add(packed := Packed(tensor))
        return packed

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed.tensor):
        out = ode.solve(
            problem.f, problem.z0, (0.0, 1.0), rtol=MIDDLE, atol=MIDDLE, record=record, adjoint=adjoint
        )
    tensors = [packed.tensor for packed in alive]
    for kept in [x for x in gc.get_objects() if type(x) is Kept]:
        tensors += [kept.z, kept.k1]
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    for p in problem.parameters:
        sizes.pop(p.untyped_storage().data_ptr(), None)
    return sum(sizes.values()) / (problem.z0.nbytes * out.accepted)


def samples() -> dict[str, Run]:
    """Return solves, forward and backward, of a batch whose samples are of very different speed."""
    problem = Problem()
    net = problem.net
    speeds = torch.logspace(0, math.log10(30), BATCH, dtype=torch.float64)[:, None] / 4
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.div_(GAIN / 2)
    z0 = torch.cat((problem.z0[:, 1:], speeds), 1)

    def f(t: Any, z: torch.Tensor) -> torch.Tensor:
        rate: torch.Tensor = net(z) * z[:, -1:]
        return torch.cat((rate[:, :-1], torch.zeros_like(z[:, -1:])), 1)

    def own(per_sample: bool) -> Run:
        def run() -> dict[str, Any]:
            out = ode.solve(f, z0, (0.0, 1.0), rtol=MIDDLE, atol=MIDDLE, per_sample=per_sample)
            torch.autograd.grad(out.states[-1].square().mean(), problem.parameters)
            steps = out.accepted / BATCH if per_sample else out.accepted
            return {"evaluations": out.evaluations, "steps_per_sample": steps}

        return run

    runs = {"gliodil, shared steps": own(False), "gliodil, per sample": own(True)}
    problem.z0, problem.net, problem.truth = z0, Wrapped(f), torch.zeros_like(z0)
    return runs | torchode_runs(problem, {"rtol": MIDDLE, "atol": MIDDLE})


class Wrapped(nn.Module):
    """A field of z alone."""

    def __init__(self, f: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the rate."""
        return self.f(None, z)


class Rows:
    """Timed runs, kept in a file where there is a folder for it."""

    def __init__(self, folder: Path | None) -> None:
        self.file = folder / "ode_solvers.jsonl" if folder else None
        self.rows: list[dict[str, Any]] = []
        if self.file and self.file.is_file():
            self.rows = [json.loads(line) for line in self.file.read_text().splitlines() if line.strip()]

    def measure(self, runs: dict[str, Run], repetitions: int) -> None:
        """Time all of them in turns, as often as is missing; the first, untimed turn warms up."""
        missing = {name: run for name, run in runs.items() if len(self.of(name)) < repetitions}
        for run in missing.values():
            run()
        for repetition in range(repetitions):
            for name, run in missing.items():
                if len(self.of(name)) > repetition:
                    continue
                cpu, wall = time.process_time(), time.perf_counter()
                found = run()
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                self.add({"run": name, "repetition": repetition, "cpu": cpu, "wall": wall, **found})

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row."""
        self.rows.append(row)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def of(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a run."""
        return [row for row in self.rows if row["run"] == name]

    def names(self, table: str) -> list[str]:
        """Return what a table compares, in order."""
        return list(
            dict.fromkeys(r["run"].split("|")[1] for r in self.rows if r["run"].startswith(f"{table}|"))
        )

    def best(self, name: str, key: str = "cpu") -> float:
        """Return the minimum in milliseconds."""
        return 1e3 * min(row[key] for row in self.of(name))

    def median(self, name: str, key: str = "cpu") -> float:
        """Return the median in milliseconds."""
        return 1e3 * statistics.median(row[key] for row in self.of(name))


def print_work(rows: Rows, tolerances: Iterable[float]) -> None:
    """Print errors, evaluations and times."""
    print(
        f"\n{'solver':<22}{'tol':>7}{'NFE':>6}{'true error':>12}{'forward':>9}{'with backward':>18}{'wall':>8}"
    )
    for name in rows.names("work"):
        for tolerance in tolerances:
            key = f"work|{name}|{tolerance:g}"
            if not rows.of(key):
                continue
            row = rows.of(key)[0]
            times = f"{rows.best(key):.1f} ({rows.median(key):.1f})"
            print(
                f"{name:<22}{tolerance:>7.0e}{row['evaluations']:>6}{row['error']:>12.1e}"
                f"{rows.best(key, 'forward'):>9.1f}{times:>18}{rows.best(key, 'wall'):>8.1f}"
            )


def print_equal_error(rows: Rows, tolerances: Iterable[float]) -> None:
    """Print the time each needs for one true error, and how many times the fastest own one that is."""
    curves = {}
    for name in rows.names("work"):
        keys = [key for tol in tolerances if rows.of(key := f"work|{name}|{tol:g}")]
        curves[name] = sorted((math.log(rows.of(key)[0]["error"]), math.log(rows.best(key))) for key in keys)
    print("\nequal true error: CPU ms with backward, and times gliodil tsit5")
    print(f"{'solver':<22}" + "".join(f"{error:>16.0e}" for error in EQUAL_ERRORS))
    own = curves[OWN[0]]
    for name, curve in curves.items():
        cells = []
        for error in EQUAL_ERRORS:
            mine, reference = interpolated(curve, math.log(error)), interpolated(own, math.log(error))
            ratio = f"{mine / reference:6.2f}×" if mine and reference else "      –"
            cells.append((f"{mine:8.1f} " if mine else "       – ") + ratio)
        print(f"{name:<22}" + "".join(f"{cell:>16}" for cell in cells))


def interpolated(curve: list[tuple[float, float]], at: float) -> float | None:
    """Return the time at an error, linear in the logarithms; None outside the measured errors."""
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 <= at <= x1:
            return math.exp(y0 + (y1 - y0) * (at - x0) / (x1 - x0))
    return None


def print_ratios(rows: Rows, table: str, first: str, title: str) -> None:
    """Print the times of a table against its first row."""
    print(f"\n{title:<52}{'CPU ms':>18}{'ratio':>8}{'NFE':>7}")
    base = rows.best(f"{table}|{first}|{MIDDLE:g}")
    for name in rows.names(table):
        key = f"{table}|{name}|{MIDDLE:g}"
        row = rows.of(key)[0]
        times = f"{rows.best(key):.1f} ({rows.median(key):.1f})"
        more = f"   {row['states_per_step']:.1f} states per step" if "states_per_step" in row else ""
        more += f"   {row['steps_per_sample']:.1f} steps per sample" if "steps_per_sample" in row else ""
        print(f"  {name:<50}{times:>18}{rows.best(key) / base:>8.2f}{row['evaluations']:>7}{more}")


if __name__ == "__main__":
    main()
