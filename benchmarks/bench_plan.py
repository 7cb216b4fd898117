"""What `gliodil plan` costs, this version against another checkout, in turns.

    python benchmarks/bench_plan.py OTHER PATIENT [more arguments of gliodil plan]

The whole command is timed, from its start to the report, after one run of each that compiles what it needs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TURNS = 3


def main() -> None:
    """Print seconds of every turn and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("other", type=Path, metavar="OTHER", help="checkout of the version to compare with")
    parser.add_argument(
        "plan", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="arguments of gliodil plan"
    )
    options = parser.parse_args()
    roots = {"other": options.other.resolve(), "this": Path(__file__).resolve().parents[1]}
    seconds: dict[str, list[float]] = {name: [] for name in roots}
    for turn in range(TURNS + 1):
        for name, root in roots.items():
            took = plan(root, options.plan)
            if turn:  # the first compiles
                seconds[name].append(took)
    medians = {name: sorted(of)[len(of) // 2] for name, of in seconds.items()}
    for name, of in seconds.items():
        print(f"{name:<6}" + "".join(f"{s:>8.1f}" for s in of) + f"   median {medians[name]:.1f} s")
    print(f"this / other {medians['this'] / medians['other']:.2f}")


def plan(root: Path, arguments: list[str]) -> float:
    """Return the seconds that a checkout takes to plan a patient."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "gliodil", "plan", *arguments, "--out", f"{out}/plan", "-q"]
        started = time.perf_counter()
        subprocess.run(
            command, check=True, env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
