"""Fisher-Kolmogorov growth on a grid: what an error of 1e-3 costs with each method.

64³ cells of 1 mm, D = 0.15 mm²/day, rho = 0.025/day, 200 days, from a Gaussian of 3 mm. "constant": white matter alone;
"varying": white and grey matter in waves (R = 10), with a ball of CSF beside the start. All methods share one grid
operator; Tsit5 is the package's adaptive one (gliodil.pde.ode), Heun the integrator of the forward runs. Errors are the
largest over the cells, against Chebyshev steps at a tolerance of 1e-7. Evaluations are applications of the diffusion
operator (of its exact flow where there is one). CPU seconds: one thread, the smallest of interleaved runs.

    python benchmarks/reaction_diffusion.py
    python benchmarks/reaction_diffusion.py --cells 32 --runs 2
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gliodil.pde import ode
from gliodil.pde.grid import Grid
from gliodil.pde.integrate import integrate, substeps_needed
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.reaction_diffusion import Logistic, ReactionDiffusion, solve

DIFFUSIVITY, RATIO, RATE, DAYS, ASKED = 0.15, 10.0, 0.025, 200.0, 1e-3
Outcome = tuple[torch.Tensor, int, str]


@dataclass
class Row:
    """One method with one setting."""

    method: str
    setting: str
    run: Callable[[], Outcome]
    error: float = 0.0
    evaluations: int = 0
    steps: str = ""
    cpu_s: float = float("inf")
    wall_s: float = float("inf")


def main() -> None:
    """Print one table per kind of tissue."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=64, help="per axis (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="interleaved runs of each (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in ("constant", "varying"):
        model, u0 = tissue(options.cells, kind)
        compare(kind, model, u0, options.runs)


def tissue(cells: int, kind: str) -> tuple[FisherKolmogorov, torch.Tensor]:
    """Return the tissue and the density at the start."""
    grid = Grid((cells, cells, cells), (1.0, 1.0, 1.0))
    x, y, z = grid.centres()
    middle = cells / 2
    u0 = 0.8 * torch.exp(-((x - middle) ** 2 + (y - middle) ** 2 + (z - middle) ** 2) / (2 * 3.0**2))
    white = grid.zeros() + 1
    grey = grid.zeros()
    if kind == "varying":
        white = (0.5 + 0.5 * torch.sin(x / 5) * torch.sin(y / 7) * torch.cos(z / 6)).clamp(0, 1)
        grey = 1 - white
        csf = (x - middle - 8) ** 2 + (y - middle) ** 2 + (z - middle) ** 2 < 36
        white[csf], grey[csf], u0[csf] = 0.0, 0.0, 0.0
    return FisherKolmogorov.on(grid, white, grey), u0


def rows(model: FisherKolmogorov, u0: torch.Tensor) -> list[Row]:
    """Return what is compared."""
    coefficients = model.coefficients(DIFFUSIVITY, RATIO)
    problem = ReactionDiffusion(model.grid, coefficients, Logistic(RATE))

    def tsit5(tolerance: float) -> Outcome:
        with torch.no_grad():
            s = ode.solve(lambda _, u: problem.rate(u), u0, (0.0, DAYS), rtol=tolerance, atol=tolerance)
        return s.states[-1], s.evaluations, f"{s.accepted}+{s.rejected}"

    def heun() -> Outcome:
        steps = 200
        u = integrate(
            model,
            u0,
            diffusivity=DIFFUSIVITY,
            proliferation_rate=RATE,
            wm_gm_ratio=RATIO,
            duration=DAYS,
            steps=steps,
        )
        taken = steps * substeps_needed(coefficients, model.grid.cells, DAYS / steps, RATE)
        return u, 2 * taken, str(taken)

    def ours(**how: Any) -> Outcome:
        s = solve(problem, u0, duration=DAYS, **how)
        return s.u, s.evaluations, f"{len(s.steps)}+{s.rejected}"

    found = [Row("tsit5", f"tolerance {t:g}", lambda t=t: tsit5(t)) for t in (1e-3, 3e-4, 1e-4, 1e-5, 1e-6)]
    found.append(Row("heun", "stable steps", heun))
    for method, counts, tolerances in (
        ("strang", (8, 10, 12, 14, 16), (0.2, 0.1, 0.05, 0.03, 0.01)),
        ("rkc2", (32, 40, 48), (1e-3, 1e-4)),
        ("imex", (32, 64), (1e-3,)),
    ):
        for n in counts:
            found.append(Row(method, f"{n} steps", lambda m=method, n=n: ours(method=m, steps=n)))
        for t in tolerances:
            found.append(Row(method, f"tolerance {t:g}", lambda m=method, t=t: ours(method=m, tolerance=t)))
    return found


def compare(kind: str, model: FisherKolmogorov, u0: torch.Tensor, runs: int) -> None:
    """Run, and print the table of one kind of tissue."""
    problem = ReactionDiffusion(model.grid, model.coefficients(DIFFUSIVITY, RATIO), Logistic(RATE))
    reference = solve(problem, u0, duration=DAYS, method="rkc2", tolerance=1e-7).u
    table = rows(model, u0)
    for _ in range(runs):
        for row in table:
            wall, cpu = time.perf_counter(), time.process_time()
            u, row.evaluations, row.steps = row.run()
            row.cpu_s = min(row.cpu_s, time.process_time() - cpu)
            row.wall_s = min(row.wall_s, time.perf_counter() - wall)
            row.error = float((u - reference).abs().max())
    print(f"\n{kind} D, {model.grid!r}, smallest of {runs} interleaved runs, one thread")
    print(
        f"  {'method':<8}{'setting':<18}{'steps':>9}{'evaluations':>12}{'error':>10}{'CPU s':>9}{'wall s':>9}"
    )
    for row in table:
        print(
            f"  {row.method:<8}{row.setting:<18}{row.steps:>9}{row.evaluations:>12}{row.error:>10.1e}"
            f"{row.cpu_s:>9.3f}{row.wall_s:>9.3f}"
        )
    print(f"  cheapest within an error of {ASKED:g}, and how many times cheaper than Tsit5:")
    fair = {m: [r for r in table if r.method == m and r.error <= ASKED] for m in ("tsit5", "heun", "strang")}
    fair |= {m: [r for r in table if r.method == m and r.error <= ASKED] for m in ("rkc2", "imex")}
    if not fair["tsit5"]:
        print("  Tsit5 reached it with none of its tolerances")
        return
    base_cpu, base_evaluations = (
        min(getattr(r, name) for r in fair["tsit5"]) for name in ("cpu_s", "evaluations")
    )
    for method, candidates in fair.items():
        if candidates:
            quick = min(candidates, key=lambda r: r.cpu_s)
            few = min(candidates, key=lambda r: r.evaluations)
            print(
                f"  {method:<8}CPU {base_cpu / quick.cpu_s:>6.1f}x ({quick.setting})   "
                f"evaluations {base_evaluations / few.evaluations:>6.1f}x ({few.setting}, {few.evaluations})"
            )


if __name__ == "__main__":
    main()
