"""Who does the work: processes on this machine, a Dask cluster somewhere else, or this very process.

One patient is one task, and a worker gets one at a time: when a worker dies, Dask counts that against every task
assigned to it, and a patient must not fail for its neighbour. A patient whose worker died is tried once more
(somebody else may have taken the memory), then given up.

    workers = min(processors, memory / memory of one patient)        threads = 1 if several, else all
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gliodil.errors import GliodilError, InputError, MissingExtraError
from gliodil.inference.config import FitConfig
from gliodil.preflight import machine_memory_gb, memory_gb

Item = TypeVar("Item")
Result = TypeVar("Result")

ALLOWED_DEATHS = 1
"""How many workers may die over a patient before it is given up."""
SHARE_OF_MEMORY = 0.9
"""What a cohort may take of the machine's memory unless told otherwise."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerLostError(GliodilError):
    """The process that planned a patient died: out of memory, killed, or its machine went away."""


class Workers(Protocol):
    """Apply a function to many items, each in isolation; results come as they are ready."""

    @property
    def count(self) -> int:
        """Number of workers at this moment."""
        ...

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """Yield each item with what the function returned, or with the error that kept it from returning."""
        ...


@dataclass(frozen=True)
class Resources:
    """How a cohort uses this machine."""

    workers: int
    threads: int
    memory_mb: float
    """Limit of each worker, MB (10⁶ bytes)."""


def choose_resources(
    config: FitConfig, *, workers: int | None = None, memory_mb: float | None = None
) -> Resources:
    """Return how many workers to start, from the memory one patient needs and the processors there are.

    Parameters
    ----------
    workers
        Number wanted; None: as many as fit, and one where the fit runs on a GPU, which they would share.
    memory_mb
        Memory of all workers together, MB; None: nine tenths of the machine's.

    Raises
    ------
    InputError
        If the memory of a worker does not suffice for the grid.
    """
    needed = 1000 * memory_gb(config)
    total = memory_mb if memory_mb is not None else SHARE_OF_MEMORY * machine_memory_mb()
    fitting = 1 if _on_gpu(config) else max(1, min(processors(), int(total / needed)))
    count = workers if workers is not None else fitting
    if count < 1 or total < count * needed:
        raise InputError(
            "The workers do not have the memory one patient needs.",
            expected=f"about {needed:.0f} MB for each of at least 1 worker ({config.cells}³ cells)",
            found=f"{total:.0f} MB for {count}",
            remedy="use fewer workers (--n-procs), more memory (--mem-mb) or fewer cells (--cells)",
        )
    return Resources(count, 1 if count > 1 else processors(), total / count)


def _on_gpu(config: FitConfig) -> bool:
    if config.device == "cpu":
        return False
    from gliodil.inference.case import choose_device

    return choose_device(config.device).type == "cuda"


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory_mb() -> float:
    """Return the memory of this machine, MB; where the system does not tell, 8 GB are assumed."""
    return 1000 * (machine_memory_gb() or 8.0)


@dataclass(frozen=True)
class InProcess:
    """Everything in this process, one after another: for debugging."""

    count: int = 1

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """See `Workers.map`."""
        for item in items:
            try:
                yield item, function(item)
            except Exception as error:  # one patient's failure is not the cohort's
                yield item, error


@contextmanager
def local_workers(resources: Resources, *, at_most: int, scratch: Path | None = None) -> Iterator[Workers]:
    """Start worker processes on this machine; they end with the block, and with this process.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    """
    dask, distributed = _dask()
    # Several workers have one thread each whatever the shell says; a single one does as the shell says.
    shell = os.environ if resources.workers == 1 else {}
    environment = {name: shell.get(name, str(resources.threads)) for name in _THREADS}
    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
        "distributed.scheduler.worker-ttl": None,  # compiled code may hold a worker's attention for long
        # Results are tiny; memory that stays high after a patient must not keep the next one from starting.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": 0.95,
    }
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=max(1, min(resources.workers, at_most)),
            threads_per_worker=1,
            processes=True,
            memory_limit=int(resources.memory_mb * 1e6),
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address=None,
            host="127.0.0.1",
            env=environment,
            silence_logs=60,  # above critical: what matters is in status.json
            local_directory=None if scratch is None else str(scratch),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield DaskWorkers(client)


@contextmanager
def remote_workers(address: str) -> Iterator[Workers]:
    """Use the workers of a running Dask scheduler.

    Raises
    ------
    InputError
        If no scheduler answers at `address`.
    MissingExtraError
        If Dask is not installed.
    """
    _, distributed = _dask()
    try:
        client = distributed.Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise InputError(
            "No Dask scheduler answers there.",
            expected="the address of a running scheduler, like tcp://node17:8786",
            found=f"{address}: {error}",
            remedy="start one with `dask scheduler`, or leave out --scheduler",
        ) from error
    with client:
        yield DaskWorkers(client)


class DaskWorkers:
    """The workers of a Dask client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @property
    def count(self) -> int:
        """Number of workers at this moment."""
        return len(self._client.nthreads())

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[Item, Result | Exception]]:
        """See `Workers.map`; no worker has more than one item."""
        from distributed import wait

        waiting, running = list(reversed(items)), dict[Any, Item]()
        try:
            while waiting or running:
                while waiting and len(running) < self.count:
                    item = waiting.pop()
                    name = f"gliodil-{uuid.uuid4().hex}"
                    running[self._client.submit(function, item, pure=False, key=name)] = item
                if not running:  # workers are still queued on a cluster, or being restarted
                    time.sleep(0.2)
                    continue
                # Not for ever: workers may join meanwhile.
                with suppress(TimeoutError):
                    wait(list(running), timeout=2, return_when="FIRST_COMPLETED")
                done = [(running.pop(f), _outcome(f)) for f in list(running) if f.done()]
                yield from done
        finally:
            for future in running:
                future.cancel()


def _outcome(future: Any) -> Any:
    """Return the result of a finished future, or its error, and let go of it.

    A result that is not let go of would be computed again when the worker that holds it dies.
    """
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except (KilledWorker, FutureCancelledError) as error:
        return _lost(error)
    except Exception as error:
        return error
    finally:
        future.release()


def _lost(error: Exception) -> WorkerLostError:
    deaths = getattr(error, "allowed_failures", ALLOWED_DEATHS) + 1
    lost = WorkerLostError(
        "The worker process died.",
        expected="a patient that fits into the memory of its worker",
        found=f"{deaths} processes died over it, most often for their memory",
        remedy="give each worker more memory (--n-procs, --mem-mb), then --retry-failed",
    )
    return lost.with_traceback(error.__traceback__)


def _dask() -> tuple[Any, Any]:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingExtraError("dask", "cohort") from error
    return dask, distributed
