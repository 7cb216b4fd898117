"""Real worker processes: one that is killed, one that takes too much memory, one that raises; the rest goes on."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gliodil.cohort import workers as module
from gliodil.cohort.workers import (
    InProcess,
    Resources,
    WorkerLostError,
    choose_resources,
    local_workers,
    remote_workers,
)
from gliodil.errors import GliodilError, InputError
from gliodil.inference.config import FitConfig

pytest.importorskip("distributed", reason="needs Dask")
ROOT = Path(__file__).resolve().parents[2]


def behave(kind: str, folder: str) -> tuple[str, int]:
    """Do what the name says; every attempt leaves a file."""
    for attempt in range(10):
        try:
            Path(folder, f"{kind}-{attempt}").touch(exist_ok=False)
            break
        except FileExistsError:
            continue
    if kind == "raise":
        raise InputError("On purpose.", patient=kind)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hoard":
        blocks = []
        while True:
            blocks.append(bytearray(os.urandom(1)) * 20_000_000)
            time.sleep(0.01)
    time.sleep(0.2)
    return kind, os.getpid()


def test_a_killed_and_a_greedy_worker_do_not_stop_the_others(tmp_path):
    items = ["kill", "a", "hoard", "b", "raise", "c", "d", "e"]
    with local_workers(Resources(2, 1, 600.0), at_most=len(items), scratch=tmp_path / "scratch") as workers:
        assert workers.count == 2
        found = dict(workers.map(functools.partial(behave, folder=str(tmp_path)), items))
    assert sorted(found) == sorted(items)
    assert isinstance(found.pop("kill"), WorkerLostError)
    greedy = found.pop("hoard")
    assert isinstance(greedy, WorkerLostError)
    assert "memory" in str(greedy)
    assert isinstance(found.pop("raise"), InputError)
    assert {value[0] for value in found.values()} == set("abcde")
    assert os.getpid() not in {value[1] for value in found.values()}
    attempts = {name: len(list(tmp_path.glob(f"{name}-*"))) for name in items}
    assert attempts.pop("kill") == attempts.pop("hoard") == 2  # once more, then given up
    assert set(attempts.values()) <= {1, 2}  # a result can be lost with the worker that holds it


def threads(_: int) -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS"))


@pytest.mark.parametrize(
    ("resources", "expected"),
    [(Resources(2, 1, 600.0), ("1", "1", "1")), (Resources(1, 3, 600.0), ("5", "3", "3"))],
    ids=["several: one each", "one: what the shell says, else all"],
)
def test_threads_of_a_worker(resources, expected, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    for name in ("NUMBA_NUM_THREADS", "MKL_NUM_THREADS"):  # Dask leaves some behind in this process
        monkeypatch.delenv(name, raising=False)
    with local_workers(resources, at_most=1) as workers:
        assert next(workers.map(threads, [0]))[1] == expected


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    """Start a Dask scheduler and two workers, each a process of its own, as on a cluster."""
    address = tmp_path / "scheduler.json"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}",
    }
    dask = [sys.executable, "-m", "dask"]
    local = ["--host", "127.0.0.1", "--no-dashboard"]
    where = ["--scheduler-file", str(address)]
    worker = [*dask, "worker", *where, *local, "--nthreads", "1", "--memory-limit", "2GB"]
    commands = [[*dask, "scheduler", *where, *local, "--port", "0"], worker, worker]
    started = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for command in commands
    ]
    try:
        yield _address(address, started[0])
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=60)


def _address(file: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError):
            time.sleep(0.1)
    raise AssertionError("the scheduler did not start")


def test_a_cluster_in_separate_processes_plans_a_cohort(scheduler, patients, cohort, tmp_path):
    """One good patient and one without segmentation; two workers that were started by somebody else."""
    source = patients("a", "b")
    (source / "b" / "seg.nii.gz").unlink()
    run = cohort(source, tmp_path / "out", "participant", "--cells", 12, "--scheduler", scheduler)
    assert run.code == 2, run.err
    assert "1 done, 1 failed" in run.err
    assert (tmp_path / "out/a/report.html").is_file()


def test_no_scheduler_is_one_clear_error():
    with pytest.raises(InputError, match="No Dask scheduler answers"), remote_workers("nonsense://x"):
        pass


def test_in_process_one_failure_does_not_stop_the_others():
    def fail(item: str) -> str:
        raise GliodilError("On purpose.") if item == "purpose" else KeyError(item)

    found = [result for _, result in InProcess().map(fail, ["purpose", "accident"])]
    assert [type(result) for result in found] == [GliodilError, KeyError]


def test_the_number_of_workers_follows_memory_and_processors(monkeypatch):
    monkeypatch.setattr(module, "processors", lambda: 8)
    config = FitConfig(physics="soft", steps=192)  # 3 GB
    assert choose_resources(config, memory_mb=32_000) == Resources(8, 1, 4000.0)
    assert choose_resources(config, memory_mb=10_000) == Resources(3, 1, pytest.approx(10_000 / 3))
    assert choose_resources(config, memory_mb=4000) == Resources(1, 8, 4000.0)  # alone, with all processors
    assert choose_resources(config, memory_mb=32_000, workers=2) == Resources(2, 1, 16_000.0)
    for wrong in ({"memory_mb": 1000}, {"memory_mb": 10_000, "workers": 5}, {"workers": 0}):
        with pytest.raises(InputError, match="memory"):
            choose_resources(config, **wrong)
