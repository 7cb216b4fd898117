"""Time and scaling of one forward and one adjoint sweep, and how else its kernels could be written.

    eager     the definition: plain torch, operation by operation (``pde.odil.loops``)
    compile   the same loops, A(u) and ∇·(D∇u) compiled by torch.compile (needs a C++ compiler)
    warp      the same loops, A(u) and ∇·(D∇u) as NVIDIA Warp kernels (pip install warp-lang; one thread on CPUs)
    numba     the package's: the whole time loop compiled (``pde.odil.compiled``)

All four have the same hand-written adjoint; what they return is compared before it is timed. The second table is the
cost of the package's sweeps per cell and step on growing grids: flat means that nothing but arithmetic grows.

    python benchmarks/bench_sweeps.py
    python benchmarks/bench_sweeps.py --cells 24 --steps 48 --largest 48 --runs 3

Beside busy programs, with the package's short waits between threads and with GNU OpenMP's own:

    python benchmarks/bench_sweeps.py --busy 2 --largest 48 --scaling
    GOMP_SPINCOUNT=300000 python benchmarks/bench_sweeps.py --busy 2 --largest 48 --scaling
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch

from gliodil.pde import fused
from gliodil.pde.grid import Grid
from gliodil.pde.memory import Memory
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.odil import loops
from gliodil.pde.odil.steps import Steps
from gliodil.pde.odil.trajectory import sweep
from gliodil.pde.operators import Faces, spectral_bound
from gliodil.pde.seed import gaussian_seed

SPACING_MM, DIFFUSIVITY, RATE, DAYS = 2.0, 0.14, 0.08, 100.0
Sweeps = Callable[[], tuple[torch.Tensor, torch.Tensor]]


def main() -> None:
    """Compare the kernels, then measure the scaling."""
    options = arguments()
    beside = f", beside {options.busy} busy programs" if options.busy else ""
    print(f"{torch.get_num_threads()} threads, float32, median of {options.runs} alternating runs{beside}")
    with busy(options.busy):
        if not options.scaling:
            compare(options)
        scaling(options)


def compare(options: argparse.Namespace) -> None:
    """Print what the sweeps take with each kind of kernels."""
    problem = sweeps(options.cells, options.steps)
    reference = problem()
    runs: dict[str, Sweeps] = {}
    for name, kernels in (
        ("eager", eager),
        ("compile", compiled_by_torch),
        ("warp", in_warp),
        ("numba", nullcontext),
    ):
        run = under(kernels, problem)
        try:
            found = run()
        except ImportError as missing:
            print(f"{name}: not installed ({missing})")
            continue
        for a, b in zip(found, reference, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
        runs[name] = run
    seconds = alternate(runs, options.runs)
    print(f"\nforward + adjoint, {options.cells}³ × {options.steps}        seconds      times numba")
    for name, t in seconds.items():
        print(f"  {name:<34}{t:>10.3f}{t / seconds['numba']:>17.1f}")


def scaling(options: argparse.Namespace) -> None:
    """Print what the package's sweeps take on growing grids."""
    grids = [n for n in (24, 32, 48, 64, 96, 128) if n <= options.largest] or [options.largest]
    scaled = {n: sweeps(n, options.steps) for n in grids}
    for run in scaled.values():
        run()
    seconds_of = alternate({str(n): run for n, run in scaled.items()}, options.runs)
    print("\nforward + adjoint, cells³        ns per cell and step      against 48³")
    cost = {n: 1e9 * seconds_of[str(n)] / n**3 / options.steps for n in grids}
    for n, ns in cost.items():
        print(f"  {n:<34}{ns:>10.2f}{ns / cost.get(48, cost[grids[-1]]):>17.2f}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=48, help="of the comparison, per axis (%(default)s)")
    parser.add_argument("--steps", type=int, default=192, help="of the comparison (%(default)s)")
    parser.add_argument("--largest", type=int, default=96, help="grid of the scaling (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="timed runs each (%(default)s)")
    parser.add_argument("--scaling", action="store_true", help="the second table only")
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="programs beside it (%(default)s)")
    return parser.parse_args()


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Keep so many other processes computing meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def sweeps(cells: int, steps: int) -> Sweeps:
    """Return a function that runs both sweeps in half white, half grey matter with a wall."""
    grid = Grid((cells, cells, cells), (SPACING_MM,) * 3, dtype=torch.float32)
    centres = grid.centres()
    white = 0.5 + 0.4 * torch.sin(centres.sum(dim=0) / 7)
    wall = (centres[0] - 0.6 * cells * SPACING_MM).abs() < SPACING_MM
    white[wall] = 0
    model = FisherKolmogorov.on(grid, white, torch.where(wall, 0.0, 0.95 - white))
    faces = model.coefficients(DIFFUSIVITY, 18.0)
    growth = torch.tensor(RATE)
    plan = Steps.resolving(
        dt=DAYS / 192,
        sigma=1.0,
        diffusion_bound=float(spectral_bound(faces, grid.cells)),
        growth=RATE,
        tolerance=1e-4,
    )
    u0 = gaussian_seed(centres, centres.mean(dim=1)).requires_grad_()
    impassable = (~model.passable).float()
    model_error = torch.full((steps - 1, grid.cells), 1e-6, requires_grad=True)
    memory = Memory()

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        t = sweep(u0, model_error, faces, growth, impassable, plan, memory=memory)
        (gradient,) = torch.autograd.grad(t.last.square().sum(), u0)
        return t.last.detach(), gradient

    return run


def under(kernels: Callable[[], Any], problem: Sweeps) -> Sweeps:
    """Return the sweeps run with other kernels."""

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        with kernels():
            return problem()

    return run


def alternate(runs: dict[str, Sweeps], count: int) -> dict[str, float]:
    """Return the median seconds of each, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


@contextmanager
def replaced(rate: Any, diffusion: Any) -> Iterator[None]:
    """Run the loops of the definition with these two kernels."""
    with (
        mock.patch.object(fused, "applies", return_value=False),
        mock.patch.object(loops, "rate_", rate),
        mock.patch.object(loops, "add_diffusion_", diffusion),
    ):
        yield


def eager() -> Any:
    """Plain torch."""
    return mock.patch.object(fused, "applies", return_value=False)


def _new_diffusion(u: torch.Tensor, c: Sequence[torch.Tensor], s: tuple[int, int, int]) -> torch.Tensor:
    out = torch.zeros_like(u)
    for values, stride in zip(c, s, strict=True):
        flux = values * (u[stride:] - u[:-stride])
        out = out + torch.nn.functional.pad(flux, (0, stride)) - torch.nn.functional.pad(flux, (stride, 0))
    return out


_COMPILED: dict[str, Any] = {}


def compiled_by_torch() -> Any:
    """torch.compile, which fuses each of the two into one loop."""
    if not _COMPILED:
        _COMPILED["diffusion"] = torch.compile(_new_diffusion)
        _COMPILED["rate"] = torch.compile(
            lambda u, c, s, rho: rho * u.abs() * (1 - u) + _new_diffusion(u, c, s), dynamic=False
        )

    def rate(out: torch.Tensor, u: torch.Tensor, faces: Faces, rho: float, _: torch.Tensor) -> None:
        out.copy_(_COMPILED["rate"](u, faces.values, faces.strides, rho))

    def diffusion(out: torch.Tensor, u: torch.Tensor, faces: Faces, _: torch.Tensor) -> None:
        out.add_(_COMPILED["diffusion"](u, faces.values, faces.strides))

    return replaced(rate, diffusion)


def in_warp() -> Any:
    """NVIDIA Warp kernels on the same memory."""
    import warp as wp

    if "kernel" not in _COMPILED:
        wp.config.quiet = True
        wp.init()

        @wp.kernel  # type: ignore[untyped-decorator]
        def add_rate(
            out: wp.array(dtype=float),  # type: ignore[valid-type]
            u: wp.array(dtype=float),  # type: ignore[valid-type]
            cx: wp.array(dtype=float),  # type: ignore[valid-type]
            cy: wp.array(dtype=float),  # type: ignore[valid-type]
            cz: wp.array(dtype=float),  # type: ignore[valid-type]
            sx: int,
            sy: int,
            n: int,
            rho: float,
            keep: float,
        ) -> None:
            i = wp.tid()
            here = u[i]
            total = keep * out[i] + rho * wp.abs(here) * (1.0 - here)
            if i >= sx:
                total += cx[i - sx] * (u[i - sx] - here)
            if i + sx < n:
                total += cx[i] * (u[i + sx] - here)
            if i >= sy:
                total += cy[i - sy] * (u[i - sy] - here)
            if i + sy < n:
                total += cy[i] * (u[i + sy] - here)
            if i >= 1:
                total += cz[i - 1] * (u[i - 1] - here)
            if i + 1 < n:
                total += cz[i] * (u[i + 1] - here)
            out[i] = total

        _COMPILED["kernel"] = add_rate

    def launch(out: torch.Tensor, u: torch.Tensor, faces: Faces, rho: float, keep: float) -> None:
        fields = [wp.from_torch(t.detach()) for t in (out, u, *faces.values)]
        sx, sy, _ = faces.strides
        n = u.shape[0]
        wp.launch(_COMPILED["kernel"], dim=n, inputs=[*fields, sx, sy, n, rho, keep], device="cpu")

    def rate(out: torch.Tensor, u: torch.Tensor, faces: Faces, rho: float, _: torch.Tensor) -> None:
        launch(out, u, faces, rho, 0.0)

    def diffusion(out: torch.Tensor, u: torch.Tensor, faces: Faces, _: torch.Tensor) -> None:
        launch(out, u, faces, 0.0, 1.0)

    return replaced(rate, diffusion)


if __name__ == "__main__":
    main()
