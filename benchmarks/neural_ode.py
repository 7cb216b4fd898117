"""Neural differential equations trained with and without penalties on their solver's heuristics.

    python benchmarks/neural_ode.py mnist-node --mnist FILE --out DIR          all variants, three seeds, CPU-sized
    python benchmarks/neural_ode.py physionet --physionet FILE --out DIR --variants vanilla,er,sr
    python benchmarks/neural_ode.py all --quick --out DIR                      only shows that everything runs
    python benchmarks/neural_ode.py digits --size paper --out DIR              the published settings: hours
    python benchmarks/neural_ode.py all --out DIR --print                      tables of what is there

Experiments: mnist-node, physionet, mnist-nsde, spiral-ode, spiral-sde, digits. FILE is a tar archive or a folder (the
four IDX files of MNIST; the text files of PhysioNet 2012's set a); without it a synthetic twin is learned from, and
the table says so. Every finished run is one line of DIR/runs.jsonl and is not run again. One thread. CPU seconds are
this process's; those of a prediction are for one batch. NFE counts evaluations of the right-hand side (the drift) in
one solve, rejected steps and the guess of the first step included.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from neural import records
from neural.experiments import EXPERIMENTS, PEERS, PEERS_FOR, SIZES, Experiment, Sources


def main() -> None:
    """Run what is missing and print the tables."""
    options = arguments()
    torch.set_num_threads(1)
    size = "quick" if options.quick else options.size
    file = options.out / "runs.jsonl"
    names = list(EXPERIMENTS) if options.experiment == "all" else [options.experiment]
    sources = Sources(options.mnist, options.physionet)
    for name in names:
        experiment = EXPERIMENTS[name]
        label = (
            size if experiment.needs is None or getattr(sources, experiment.needs) else f"{size}, synthetic"
        )
        if not options.print:
            run_missing(name, experiment, size, label, sources, file, options)
        print("\n" + records.table(records.load(file), name, label) + "\n", flush=True)


def run_missing(
    name: str,
    experiment: Experiment,
    size: str,
    label: str,
    sources: Sources,
    file: Path,
    options: argparse.Namespace,
) -> None:
    """Run one experiment's variants and seeds that the file does not have, seed by seed."""
    config = experiment.configs[size]
    chosen = [v for v in experiment.variants[size] if options.variants is None or v.name in options.variants]
    for seed in range(options.seeds):
        sets = None
        for variant in chosen:
            key = {"experiment": name, "size": label, "variant": variant.name, "seed": seed}
            if records.has(records.load(file), **key):
                continue
            if sets is None:
                sets = experiment.load(config, sources, seed)
            began = time.perf_counter()
            peers = PEERS if variant.name in PEERS_FOR and not options.no_peers else ()
            row = experiment.run(config, variant, seed, sets, peers)
            records.append(file, key | {"metric": experiment.metric} | row)
            print(
                f"{name} {label} {variant.name} seed {seed}: {experiment.metric} {row['value']}, NFE {row['nfe']}, "
                f"train {row['train_cpu_s']:.1f} CPU s, {row['status']}, {time.perf_counter() - began:.0f} s",
                flush=True,
            )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "all"])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of runs.jsonl")
    parser.add_argument("--mnist", type=Path, metavar="FILE", help="archive or folder with the IDX files")
    parser.add_argument(
        "--physionet", type=Path, metavar="FILE", help="archive or folder with set a's text files"
    )
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--quick", action="store_true", help="same as --size quick")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument(
        "--variants", type=lambda text: text.split(","), metavar="A,B", help="only these variants, by name"
    )
    parser.add_argument(
        "--no-peers", action="store_true", help="do not predict with torchdiffeq and torchode"
    )
    parser.add_argument("--print", action="store_true", help="only print tables")
    options = parser.parse_args()
    names = {v.name for experiment in EXPERIMENTS.values() for vs in experiment.variants.values() for v in vs}
    if options.variants and (unknown := set(options.variants) - names):
        parser.error(f"no such variant: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names))}")
    return options


if __name__ == "__main__":
    main()
