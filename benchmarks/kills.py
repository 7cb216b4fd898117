"""Kill `gliodil plan` and `gliodil cohort` at random moments: is a result always whole or absent?

    python benchmarks/kills.py [--kills 200] [--workers 2] [--seed 0] [--json FILE]

A tiny synthetic patient (8 mm, 8 cells) is planned, in turn into no folder and over the plan of another patient, and a
cohort of two, by processes that get SIGKILL or SIGTERM after a random time. Asked after each kill:

    whole or absent   every folder of results is as its manifest says, of one patient, or has none
    identical         the same command, with --resume, comes to the same volumes and numbers as an undisturbed run
    no leftovers      nothing hidden is left beside or in the results then

While a command runs, a reader looks at the folder again and again: it must never see a manifest that does not fit.
Processes are forks of one that has imported everything, so that a run takes seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

VOLUMES = ("density", "ctv_standard", "ctv_trimmed", "ctv_model", "margin", "plan_difference", "reach")
NUMBERS = ("patient", "status", "loss", "parameters", "volumes_ml", "coverage", "margin_mm", "warnings")
WORDS = ("--cells", "8", "--device", "cpu", "--labels", "brats-2023")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kills and print how they went; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="kills that go on side by side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gliodil-kills-") as folder:
        found = run(Path(folder), options.kills, options.workers, options.seed)
    print(json.dumps(found, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if found["faults"] else 0


def run(root: Path, kills: int, workers: int, seed: int) -> dict[str, Any]:
    """Return counts of what was killed and found, and the faults."""
    import gliodil.cohort.command
    import gliodil.data.patient
    import gliodil.inference.fit
    import gliodil.planning.plan
    import gliodil.reporting.folder  # noqa: F401

    for number, name in enumerate(("a", "b")):  # threads do not survive a fork, so nothing is computed here
        assert wait(start([str(number), str(root / "patients" / name)], simulated)) == 0
    undisturbed = {}
    for kind, words in (
        ("new", plan_words(root, "b", root / "b")),
        ("over", plan_words(root, "a", root / "a")),
    ):
        began = time.monotonic()
        assert wait(start(words)) == 0, words
        undisturbed[kind] = time.monotonic() - began
    began = time.monotonic()
    assert wait(start(cohort_words(root, root / "many"))) == 0
    undisturbed["cohort"] = time.monotonic() - began

    def share(words: Sequence[str]) -> int:
        first = int(words[0])
        found = [killed(root, n, seed, undisturbed) for n in range(first, kills, workers)]
        (root / f"share_{first}.json").write_text(json.dumps(found), encoding="utf-8")
        return 0

    running = [start([str(number)], share, quiet=False) for number in range(workers)]
    assert [wait(process) for process in running] == [0] * workers
    found = [f for n in range(workers) for f in json.loads((root / f"share_{n}.json").read_text())]
    return {
        "kills": len(found),
        "undisturbed_s": undisturbed,
        "seen": dict(sorted(Counter(state for each in found for state in each["seen"]).items())),
        "faults": [fault for each in found for fault in each["faults"]],
    }


def plan_words(root: Path, patient: str, out: Path) -> list[str]:
    """Return the command that plans a patient, whatever lies in the folder."""
    folder = str(root / "patients" / patient)
    return ["plan", folder, *WORDS, "--overwrite", "--resume", "--out", str(out)]


def cohort_words(root: Path, out: Path) -> list[str]:
    """Return the command that plans both patients."""
    return ["cohort", str(root / "patients"), str(out), "participant", "--scheduler", "none", *WORDS]


def killed(root: Path, number: int, seed: int, undisturbed: Mapping[str, float]) -> dict[str, list[str]]:
    """Kill one run, look at what is left, let the next run finish it, and look again."""
    random_ = random.Random(f"{seed} {number}")
    faults: list[str] = []
    seen: list[str] = []
    work = root / f"work_{number}"
    work.mkdir()
    kind = ("new", "over", "cohort")[number % 3]
    out = work / "out"
    folders = {out: "a"} if kind != "cohort" else {out / name: name for name in ("a", "b")}
    if kind == "over":
        shutil.copytree(root / "b", out)
    words = cohort_words(root, out) if kind == "cohort" else plan_words(root, "a", out)
    by = random_.choice((signal.SIGKILL, signal.SIGTERM))
    from_ = 0.0 if number % 2 else 0.7  # every other one towards the end, where results are exchanged
    after_s = random_.uniform(from_, 1.05) * undisturbed[kind]
    case = f"{number}: {kind}, {by.name} after {after_s:.2f} s"
    process = start(words)
    until = time.monotonic() + after_s
    while time.monotonic() < until and not has_ended(process):
        faults += [f"{case}: a reader saw {state}" for folder in folders if (state := half(folder))]
        time.sleep(0.05)
    stop(process, by)
    for folder in folders:
        if state := half(folder):
            faults.append(f"{case}: {state}")
        seen.append(f"{kind}: {whose(folder)} after the kill")
        if kind == "over" and whose(folder) == "none" and not list(work.glob(".gliodil-*/whole/old/out")):
            faults.append(f"{case}: the old result is lost")
    if (code := wait(start(words))) != 0:
        faults.append(f"{case}: the next run ended with {code}")
    for folder, name in folders.items():
        state = half(folder)
        if state or not (folder / "manifest.json").exists() or facts(folder) != facts(root / name):
            faults.append(
                f"{case}: {folder.name} is not what an undisturbed run gives ({state or 'another'})"
            )
    left = [str(p.relative_to(work)) for p in work.rglob("*") if p.name.startswith(".")]
    left += [p.name for p in work.iterdir() if p != out]
    if left:
        faults.append(f"{case}: left over: {left}")
    shutil.rmtree(work)
    print(f"{case}; {len(faults)} faults", *faults, sep="\n  ", file=sys.stderr, flush=True)
    return {"faults": faults, "seen": seen}


def simulated(words: Sequence[str]) -> int:
    """Save the synthetic patient of a seed in a folder."""
    from gliodil.data.synthetic import simulate

    simulate(seed=int(words[0]), resolution_mm=8).save(words[1])
    return 0


def command(words: Sequence[str]) -> int:
    """Run the command line."""
    from gliodil.cli import main as command_line

    return command_line(list(words))


def start(
    words: Sequence[str], function: Callable[[Sequence[str]], int] = command, *, quiet: bool = True
) -> int:
    """Run a function in a fork; return its process number."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2) if quiet else ():
        os.dup2(null, stream)
    code = 70
    try:
        code = function(words)
    finally:
        os._exit(code)


def has_ended(process: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait(process: int) -> int:
    """Return the exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def stop(process: int, by: signal.Signals) -> None:
    """Send a signal and wait for the end."""
    if not has_ended(process):
        os.kill(process, by)
    wait(process)


def half(folder: Path) -> str | None:
    """Return what is wrong with a folder of results that is neither whole nor absent."""
    from gliodil.data.manifest import read_manifest
    from gliodil.errors import GliodilError

    try:
        before = os.stat(folder)
        manifest = read_manifest(folder)
        damage = [] if manifest is None else manifest.damage(folder)
        if manifest is None and (files := [p.name for p in folder.iterdir() if p.name not in RECORDS]):
            damage = [f"{files} without a manifest"]
        if not os.path.samestat(before, os.stat(folder)):
            return None  # exchanged while we read: what we opened first was the other one
    except (OSError, GliodilError) as error:
        return (
            None if not folder.exists() or isinstance(error, FileNotFoundError) else f"{folder.name}: {error}"
        )
    return f"{folder.name}: {damage[:3]}" if damage else None


RECORDS = {"status.json", ".status.json.new", "run.log"}


def whose(folder: Path) -> str:
    """Return the patient whose result a folder holds."""
    from gliodil.data.manifest import read_manifest

    manifest = read_manifest(folder) if folder.exists() else None
    return "none" if manifest is None else manifest.owner.patient


def facts(folder: Path) -> dict[str, Any]:
    """Return what must be the same however often a run was interrupted."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    volumes = {name: (folder / f"{name}.nii.gz").read_bytes() for name in VOLUMES}
    return {**volumes, **{key: metrics[key] for key in NUMBERS}}


if __name__ == "__main__":
    sys.exit(main())
