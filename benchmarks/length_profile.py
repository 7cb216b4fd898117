"""How well one segmentation determines the infiltration length ℓ = √(D/ρ): its profile likelihood on simulated patients.

The default loss of exact physics, as −2 ln(posterior) = n ln J, is minimized over everything else with ℓ held at f times
its true value. The prior of ℓ does not enter; those of the other parameters do. Printed is by how much each f lies
above the least value found, the standard deviation σ of ln ℓ that a parabola through the profile has, and where its
minimum lies.

Values of f within 1 of the least are one standard deviation away at most: the data do not tell them apart. With the
prior (standard deviation 0.35) the length cannot be known better than 1/√(1/σ² + 1/0.35²) on average, and the median
error of the best possible estimate is 0.67 of that.

    python benchmarks/length_profile.py --patients 10
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from gliodil.data.patient import Patient
from gliodil.data.synthetic import simulate_in
from gliodil.data.template import load_anatomy
from gliodil.inference import informed_loss
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
HELD = 0.02
"""Standard deviation of the prior that holds ln ℓ."""


def main() -> None:
    """Run what is missing and print the profiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--patients", type=int, default=10, metavar="N", help="seeds 0 … N−1 (%(default)s)")
    parser.add_argument("--rows", type=Path, default=Path("length_profile.jsonl"), metavar="FILE")
    options = parser.parse_args()
    rows = (
        [json.loads(r) for r in options.rows.read_text("utf-8").splitlines()] if options.rows.exists() else []
    )
    have = {(r["seed"], r["factor"]) for r in rows}
    anatomy = None
    for seed in range(options.patients):
        missing = [f for f in FACTORS if (seed, f) not in have]
        if not missing:
            continue
        anatomy = anatomy or load_anatomy(resolution_mm=1.0)
        synthetic = simulate_in(anatomy, foci=1, seed=seed)
        patient, true = synthetic.patient, synthetic.parameters
        patient = replace(patient, volumes={k: v for k, v in patient.volumes.items() if k != "pet"})
        length = math.sqrt(true["diffusivity_wm_mm2_per_day"] / true["proliferation_rate_per_day"])
        for factor in missing:
            print(f"seed {seed}, {factor} of the true length", file=sys.stderr, flush=True)
            rows.append(
                {"seed": seed, "factor": factor, "length_mm": length, **held(patient, factor * length)}
            )
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(table(rows))


def held(patient: Patient, length_mm: float) -> dict[str, object]:
    """Fit with the infiltration length held."""
    with mock.patch.object(informed_loss, "LENGTH_MM", (length_mm, HELD)):
        found = fit(patient, config=FitConfig(device="cpu", physics="exact"))
    reached = found.parameters["infiltration_length_mm"].value
    n = informed_loss.EFFECTIVE_OBSERVATIONS
    deviation = (math.log(reached) - math.log(length_mm)) / HELD  # type: ignore[arg-type]
    return {
        "reached_mm": reached,
        "objective": n * math.log(found.loss_total) - deviation**2,
        "misfit_mm": found.label_misfit_mm,
        "status": found.status,
    }


def table(rows: list[dict[str, float]]) -> str:
    """Return the profiles, one row per patient."""
    lines = ["−2 ln(profile), above its least value, at f times the true length"]
    lines.append(
        f"{'seed':>4}{'true mm':>9}"
        + "".join(f"{f'f = {f}':>10}" for f in FACTORS)
        + f"{'σ(ln ℓ)':>10}{'least at f':>12}{'misfit at f = 1':>17}"
    )
    sigmas = []
    for seed in sorted({r["seed"] for r in rows}):
        of = sorted((r for r in rows if r["seed"] == seed), key=lambda r: r["factor"])
        if len(of) < len(FACTORS):
            continue
        values = np.array([r["objective"] for r in of])
        x = np.log([r["reached_mm"] / r["length_mm"] for r in of])
        a, b, _ = np.polyfit(x, values, 2)
        sigma = math.sqrt(1 / a) if a > 0 else math.inf
        sigmas.append(sigma)
        least = f"{math.exp(-b / (2 * a)):.2f}" if a > 0 else "-"
        lines.append(
            f"{seed:>4}{of[0]['length_mm']:>9.2f}"
            + "".join(f"{v:>10.2f}" for v in values - values.min())
            + f"{sigma:>10.2f}{least:>12}{of[2]['misfit_mm']:>14.2f} mm"
        )
    s = float(np.median(sigmas))
    both = 1 / math.sqrt(1 / s**2 + 1 / informed_loss.LENGTH_MM[1] ** 2)
    lines.append(
        f"median σ {s:.2f}; with the prior {both:.2f}; "
        f"median error of the best possible estimate {0.674 * both:.1%}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
