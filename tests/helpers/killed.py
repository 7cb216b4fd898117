"""Kill the command line outright, with SIGKILL and from outside, in the middle of a fit whose state it has just kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN = """
import sys, time
from gliodil.inference import checkpoint
from gliodil.cli import main

class Stopping(checkpoint.Checkpoint):
    times = 0

    def __init__(self, path):
        super().__init__(path, interval_s=0)

    def keep(self, state):
        super().keep(state)
        Stopping.times += 1
        if Stopping.times == int(sys.argv[1]):
            print("kept", flush=True)
            time.sleep(120)  # the fit goes no further before it is killed

checkpoint.Checkpoint = Stopping
main(sys.argv[2:])
"""


def kill_in_the_fit(*words: object, times: int) -> None:
    """Run the command line with these words and kill it when it has kept its state so many times."""
    running = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(times), *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    with running.stdout as said:
        kept = any(line == "kept\n" for line in iter(said.readline, ""))
        os.killpg(running.pid, signal.SIGKILL)
    assert running.wait(timeout=60) == -signal.SIGKILL
    assert kept
