"""What a cohort costs beyond its patients, and whether two workers beat one that has all processors.

The same simulated patient is planned several times, by one worker with all threads and by several with one each.
Scheduling is the share of time between the patients of a worker, from the start and duration each `status.json`
holds:

    Σ gaps between consecutive patients of a worker / Σ seconds of patients

Start-up of the workers and validation of the input come on top and are shown beside it.

    python benchmarks/bench_cohort.py                          # eight patients, 24³ cells
    python benchmarks/bench_cohort.py --patients 4 --cells 12  # a quick look
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from gliodil.cohort.inputs import find_rows
from gliodil.cohort.rows import Row
from gliodil.cohort.run import check_cohort, run_cohort
from gliodil.cohort.status import read_status
from gliodil.cohort.validate import Request
from gliodil.cohort.workers import Resources, local_workers, processors
from gliodil.data.synthetic import simulate
from gliodil.inference.config import FitConfig


def main() -> None:
    """Run the comparison and print one row per way of using the machine."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--cells", type=int, default=24)
    arguments = parser.parse_args()
    config = FitConfig(cells=arguments.cells, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "in", Path(scratch) / "out"
        first = simulate(resolution_mm=4).save(source / "patient_0")
        for number in range(1, arguments.patients):
            shutil.copytree(first, source / f"patient_{number}")
        rows = find_rows(source, out, labels="brats-2023")
        print("workers threads  start-up  validation  planning  per patient  scheduling")
        for count, threads in ((1, processors()), (processors(), 1)):
            measure(rows, Resources(count, threads, 4000.0), config, out / str(count))


def measure(rows: Sequence[Row], resources: Resources, config: FitConfig, out: Path) -> None:
    """Plan the cohort once every worker is warm, and print the row."""
    started = time.perf_counter()
    with local_workers(resources, at_most=len(rows)) as workers:
        start_up = time.perf_counter() - started
        run_cohort(rows[: resources.workers], Request(out / "warm", config, started=time.time()), workers)
        request = Request(out / "run", config, started=time.time())
        started = time.perf_counter()
        check_cohort(rows, request, workers)
        validation = time.perf_counter() - started
        summary = run_cohort(rows, request, workers)
        assert summary.counts == {"done": len(rows)}
    planning = summary.seconds - validation
    print(
        f"{resources.workers:7d} {resources.threads:7d}  {start_up:6.1f} s  {validation:8.1f} s  {planning:6.1f} s  "
        f"{planning / len(rows):9.2f} s  {scheduling(rows, request.out):9.2%}"
    )


def scheduling(rows: Sequence[Row], out: Path) -> float:
    """Return the time between patients of the same worker over the time of the patients."""
    spans = defaultdict(list)
    for row in rows:
        status = read_status(out / row.place) or {}
        start = float(status["started_s"])
        spans[status["pid"]].append((start, start + float(status["seconds"])))
    gaps = sum(after[0] - before[1] for found in spans.values() for before, after in pairwise(sorted(found)))
    return gaps / sum(end - start for found in spans.values() for start, end in found)


if __name__ == "__main__":
    main()
