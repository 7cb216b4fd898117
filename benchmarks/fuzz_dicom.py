"""Read small DICOM files with random damage: no crash, no hanging, no writing, no identity in a message.

    python benchmarks/fuzz_dicom.py                    10,000 damaged files
    python benchmarks/fuzz_dicom.py --count 500 --seed 3

Needs the `dicom` extra. Stops at the first file that does anything but be read or be refused with a typed error,
and keeps it.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from dicom_fuzz import mutate, outcome, read_everything, write_small

KINDS = ("files", "enhanced", "pet")


def main() -> None:
    """Damage, read, count."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random, ended, slowest = np.random.default_rng(arguments.seed), Counter(), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        sources = {kind: write_small(Path(scratch) / kind, kind)[0] for kind in KINDS}
        whole = {kind: path.read_bytes() for kind, path in sources.items()}
        for number in range(arguments.count):
            kind = KINDS[number % len(KINDS)]
            target, content = sources[kind], mutate(whole[kind], random)
            target.write_bytes(content)
            started = time.perf_counter()
            try:
                ended[kind, outcome(lambda folder=target.parent: read_everything(folder), target)] += 1
            except BaseException:
                kept = Path(f"fuzz-{kind}-{arguments.seed}-{number}.dcm")
                kept.write_bytes(content)
                print(f"number {number} ({kind}) is kept as {kept}")
                raise
            slowest = max(slowest, time.perf_counter() - started)
    for (kind, how), count in sorted(ended.items()):
        print(f"{kind:<10}{how:<18}{count:6d}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{arguments.count} damaged files, none crashed; slowest {slowest:.2f} s, peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
