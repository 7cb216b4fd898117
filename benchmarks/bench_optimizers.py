"""The published optimizer and the default one on the same discrete loss.

One synthetic patient, whose truth is known, is fitted four times on a small grid:

    faithful    the published loss, the published optimizer: Adam on a multigrid decomposition of u
    default     the published loss, L-BFGS in parameters, initial misfit and model error
    informed    the package's own loss and L-BFGS, physics soft
    as planned  the package's own loss, physics exact where that explains the labels: what `gliodil plan` runs

Every result is judged by the published loss, evaluated in float64 on its space-time field, term by term, and
by its Dice with the true density. Nothing else is shared: each fit starts on its own from the same images.
Seconds are wall time of the whole fit, start and nested grids included, after a warm-up that compiles the
kernels. The faithful fit's gradient is compiled like the others'; what it takes in plain torch, which is how the
published code is written, is measured over a few epochs.

    python benchmarks/bench_optimizers.py                      # 9000 epochs: takes long
    python benchmarks/bench_optimizers.py --epochs 30 --cells 16
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gliodil.data.patient import Patient
from gliodil.data.synthetic import SyntheticPatient, simulate
from gliodil.inference.case import Case, set_up
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import Outcome, _fit_nested
from gliodil.inference.informed_loss import make_loss
from gliodil.inference.parameters import Scalars
from gliodil.inference.public_path import fit_public
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.score import score
from gliodil.pde import fused
from gliodil.pde.odil.problem import Recorder

TERMS = ("pde", "initial", "seg_lower", "seg_upper", "pet", "bounds", "csf", "parameters")


@dataclass(frozen=True)
class Row:
    """What one fit reached."""

    name: str
    status: str
    loss: float
    terms: dict[str, float]
    evaluations: int
    seconds: float
    dice_10: float | None
    dice_1: float | None
    parameters: dict[str, float]


def main() -> None:
    """Run the four fits and print the table; progress goes to stderr."""
    options = arguments()
    synthetic = simulate(seed=options.seed, progress=ticker("simulating"))
    patient = synthetic.patient if options.pet else without_pet(synthetic.patient)
    base = FitConfig(cells=options.cells, steps=options.steps, loss="reference", device="cpu")
    public = replace(base, optimizer="adam-multigrid", max_evaluations=options.epochs)
    informed = replace(base, loss="informed", physics="soft")
    runs = [
        ("faithful", public),
        ("default", base),
        ("informed", informed),
        ("as planned", replace(informed, physics="auto")),
    ]
    warm_up(patient, base)
    rows = [run(name, config, patient, synthetic) for name, config in runs]
    plain_s = plain_epoch_s(patient, public) * options.epochs
    settings = {
        "patient": f"synthetic, seed {options.seed}, {'with' if options.pet else 'without'} PET",
        "cells": options.cells,
        "steps": options.steps,
        "epochs": options.epochs,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "truth": {k: v for k, v in synthetic.parameters.items() if k in rows[0].parameters},
    }
    say()
    print(table(settings, rows))
    ratios = ", ".join(f"{plain_s / row.seconds:.1f} × {row.name}" for row in rows)
    print(f"\nfaithful in plain torch: {plain_s:.1f} s, {ratios}")
    if options.out is not None:
        record = {"settings": settings, "fits": [asdict(row) for row in rows], "plain_s": plain_s}
        options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--epochs", type=int, default=9000, metavar="N", help="of Adam (default: %(default)s)"
    )
    parser.add_argument("--cells", type=int, default=24, metavar="N", help="per axis (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=48, metavar="N", help="time levels (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which patient (default: %(default)s)"
    )
    parser.add_argument("--pet", action="store_true", help="keep the patient's FET-PET")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON")
    return parser.parse_args()


def without_pet(patient: Patient) -> Patient:
    """Return the patient without its PET."""
    return replace(patient, volumes={name: v for name, v in patient.volumes.items() if name != "pet"})


def warm_up(patient: Patient, config: FitConfig) -> None:
    """Compile every kernel the fits use, so that none of them pays for it."""
    small = replace(config, cells=8, steps=8, max_evaluations=2)
    for config in (small, replace(small, loss="informed"), replace(small, optimizer="adam-multigrid")):
        loss = make_loss(set_up(patient, config), config)
        if config.optimizer == "adam-multigrid":
            fit_public(loss, Recorder())
        else:
            _fit_nested(patient, loss, Recorder())


def run(name: str, config: FitConfig, patient: Patient, synthetic: SyntheticPatient) -> Row:
    """Fit once and judge the result by the published loss and the truth."""
    record = Recorder(progress=ticker(name, config.max_evaluations))
    started = time.perf_counter()
    case = set_up(patient, config)
    loss = make_loss(case, config)
    if config.optimizer == "adam-multigrid":
        levels, scalars, found = fit_public(loss, record)
        terms = dict(found.terms)
        seconds = time.perf_counter() - started
    else:
        outcome = _fit_nested(patient, loss, record)
        levels, scalars, found = outcome.levels, outcome.scalars, outcome.minimum
        seconds = time.perf_counter() - started
        terms = reference_terms(case, config, outcome)
    scores = score(case.volume_on(levels[-1], patient.segmentation), synthetic.truth, patient.tumour)
    return Row(
        name=name,
        status=found.status,
        loss=sum(terms.values()),
        terms={term: terms.get(term, 0.0) for term in TERMS},
        evaluations=record.evaluations,
        seconds=seconds,
        dice_10=scores["dice_at_0.1"],
        dice_1=scores["dice_at_0.01"],
        parameters=named(scalars),
    )


def plain_epoch_s(patient: Patient, config: FitConfig, epochs: int = 60) -> float:
    """Return the seconds of one epoch of the faithful fit without compiled kernels."""
    applies, fused.applies = fused.applies, lambda field: False
    try:
        seconds = []
        for count in (10, 10 + epochs):
            config = replace(config, max_evaluations=count)
            loss = make_loss(set_up(patient, config), config)
            started = time.perf_counter()
            fit_public(loss, Recorder())
            seconds.append(time.perf_counter() - started)
        return (seconds[1] - seconds[0]) / epochs
    finally:
        fused.applies = applies


def reference_terms(case: Case, config: FitConfig, outcome: Outcome) -> dict[str, float]:
    """Return the terms of the published loss at the space-time field of a fit, in float64."""
    levels = outcome.levels.double()
    published = ReferenceLoss(case, config)
    return {name: float(t) for name, t in published.of_field(levels, outcome.scalars).items()}


def named(p: Scalars) -> dict[str, float]:
    """Return the parameters that the truth has too, under its names."""
    return {
        "diffusivity_wm_mm2_per_day": float(p.diffusivity),
        "proliferation_rate_per_day": float(p.proliferation_rate),
        "wm_gm_ratio": float(p.wm_gm_ratio),
        "infiltration_length_mm": math.sqrt(max(float(p.diffusivity / p.proliferation_rate), 0.0)),
        "threshold_core": float(p.threshold_core),
        "threshold_oedema": float(p.threshold_oedema),
    }


def table(settings: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return the results as text: one column per fit, ratios against the first."""
    first = rows[0]
    lines: list[tuple[str, list[str]]] = [
        ("", [row.name for row in rows]),
        ("status", [row.status for row in rows]),
        ("published loss", [f"{row.loss:.3e}" for row in rows]),
        *((f"  {term}", [f"{row.terms[term]:.3e}" for row in rows]) for term in TERMS),
        ("loss / faithful loss", [f"{row.loss / first.loss:.4f}" for row in rows]),
        ("gradients", [str(row.evaluations) for row in rows]),
        ("seconds", [f"{row.seconds:.1f}" for row in rows]),
        ("faithful seconds / seconds", [f"{first.seconds / row.seconds:.1f}" for row in rows]),
        ("Dice with truth at 10 %", [_number(row.dice_10) for row in rows]),
        ("Dice with truth at 1 %", [_number(row.dice_1) for row in rows]),
    ]
    for name, true in settings["truth"].items():
        lines.append((f"{name} (true {true:.3g})", [f"{row.parameters[name]:.3g}" for row in rows]))
    width = max(len(label) for label, _ in lines)
    head = (
        f"{settings['patient']}; {settings['cells']}³ cells × {settings['steps']} levels; "
        f"{settings['epochs']} epochs of Adam; {settings['threads']} threads"
    )
    return "\n".join(
        [head, "", *(f"{label:<{width}}" + "".join(f"{c:>17}" for c in cells) for label, cells in lines)]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def ticker(name: str, total: int | None = None) -> Callable[[str, int, float], None]:
    """Return a progress callback that writes to stderr at most twice a second, if that is a terminal."""
    last, began = 0.0, time.perf_counter()

    def tick(stage: str, done: int, value: float) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last > 0.5 and sys.stderr.isatty():
            last = now
            of = f"/{total}" if total is not None and stage == "adam" else ""
            say(f"\r{name}, {stage}: {done}{of}, {value:.4g}, {now - began:.0f} s".ljust(78), end="")

    return tick


def say(text: str = "", *, end: str = "\n") -> None:
    """Write to stderr."""
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
