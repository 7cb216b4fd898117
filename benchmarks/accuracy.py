"""How close estimates come to a known truth, on simulated patients of the fitted equation and of others.

    cohort    single   one focus, grown by the fitted equation
              three    three foci
              wrong    one focus, grown by another equation, tissue maps off (see wrong_models.py), half of each kind
              realistic  as wrong as people are: growth, maps, labels, later tumour (see gliodil/data/realistic.py)
    method    default  what `gliodil plan` runs: exact physics, from a free start where the labels ask for it
              pet      default, with the patient's FET-PET too
              exact    the equation holds, its parameters are fitted; misfits, priors and grid rates as in default
              hard     the equation holds, its parameters are fitted to the published misfits, each between bounds
              hard-priors  exact without any other of the default's terms than its priors (and its box and crop)
              no-TERM  default without one of its terms (`FitConfig.left_out`)
              soft     model error everywhere
              static   no growth: a front of 1 mm infiltration length laid along the visible boundaries
              reference  the published loss, minimized by L-BFGS
              pinn     a network with adversarially sampled points (`gliodil plan --method pinn`; minutes each)
              faithful   the published loss and the published optimizer, 9000 epochs, at 24³ × 48 (two minutes each)

Segmentation and tissue maps only, no PET but for `pet`. Every method sees the same. Rows are kept in a file as they
come, and a second run goes on from there.

At the margin of 15 mm every plan covers nearly all of a simulated recurrence. Coverage is therefore also scored at
the smaller volumes that margins of 3, 5 and 8 mm have, against plans of that volume: standard (by distance from the
core, inside the brain) and trimmed (by the length of the path through brain tissue). Default is scored as it is shipped,
ranked by expected reach; its density alone would rank as `density`, as all other methods do. Rims are filled first.
In realistic patients the later tumour also lies where the core was: `cover` looks outside the core, `later` at all of
it.

    python benchmarks/accuracy.py --single 8 --three 0 --wrong 10 --methods default exact soft static
    python benchmarks/accuracy.py --against ROWS         paired with the rows that another version left
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_tables import MARGINS_MM, against, table
from scipy import ndimage
from wrong_models import KINDS, simulate_wrong

from gliodil.data.patient import Patient
from gliodil.data.synthetic import simulate_in
from gliodil.data.synthetic_patient import SyntheticPatient
from gliodil.data.template import load_anatomy
from gliodil.data.volume import Volume
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.inference.result import Fit
from gliodil.inference.score import score
from gliodil.planning.ctv import model_ctv, standard_ctv
from gliodil.planning.distance import distance_from
from gliodil.planning.geodesic import geodesic_distance
from gliodil.planning.plan import plan
from gliodil.planning.ranking import reach_ranking

LEFT_OUT = ("rim", "distances", "priors", "fronts", "foci")
METHODS = (
    *("default", "pet", "static", "exact", "hard", "hard-priors", "soft", "reference", "pinn", "faithful"),
    *(f"no-{term}" for term in LEFT_OUT),
)
CONFIGS = {
    "default": FitConfig(device="cpu"),
    "pet": FitConfig(device="cpu"),
    "exact": FitConfig(device="cpu", physics="exact"),
    "hard": FitConfig(device="cpu", loss="reference", physics="exact"),
    "hard-priors": FitConfig(
        device="cpu", physics="exact", left_out=("rim", "distances", "fronts", "foci", "pet")
    ),
    "soft": FitConfig(device="cpu", physics="soft"),
    "reference": FitConfig(device="cpu", loss="reference"),
    "pinn": FitConfig(device="cpu", method="pinn"),
    "faithful": FitConfig(
        device="cpu", loss="reference", optimizer="adam-multigrid", max_evaluations=9000, cells=24, steps=48
    ),
    **{f"no-{term}": FitConfig(device="cpu", left_out=(term,)) for term in LEFT_OUT},
}


def main() -> None:
    """Run what is missing and print the tables."""
    options = arguments()
    rows = read(options.rows)
    have = {(r["cohort"], r["patient"], r["method"]) for r in rows}
    asked = set()
    for cohort, name, make in patients(options):
        asked.add((cohort, name))
        missing = [m for m in options.methods if (cohort, name, m) not in have]
        if not missing:
            continue
        synthetic = make()
        for method in missing:
            print(f"{cohort} {name} {method}", file=sys.stderr, flush=True)
            row = {"cohort": cohort, "patient": name, "method": method, **estimate(method, synthetic)}
            rows.append(row)
            with options.rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    rows = [r for r in rows if r["method"] in options.methods and (r["cohort"], r["patient"]) in asked]
    other = read(options.against) if options.against else []
    for cohort in ("single", "three", "wrong", "realistic"):
        of_cohort, of_other = ([r for r in found if r["cohort"] == cohort] for found in (rows, other))
        if of_cohort:
            print(table(cohort, of_cohort, options.methods))
        if of_cohort and options.against:
            print(against(of_cohort, of_other, options.methods))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, count in (("single", 20), ("three", 10), ("wrong", 10), ("realistic", 10)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help="patients (%(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["default", "static"])
    parser.add_argument("--rows", type=Path, default=Path("accuracy.jsonl"), metavar="FILE")
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="rows of another version to compare with"
    )
    return parser.parse_args()


def patients(options: argparse.Namespace) -> Iterator[tuple[str, str, Any]]:
    """Yield cohort, name, and a function that simulates the patient."""
    anatomy = load_anatomy(resolution_mm=1.0)
    for cohort, foci, count in (("single", 1, options.single), ("three", 3, options.three)):
        for seed in range(count):
            yield cohort, str(seed), lambda s=seed, f=foci: simulate_in(anatomy, foci=f, seed=s)
    for number in range(options.wrong):
        kind, seed = KINDS[number % 2], number // 2
        yield "wrong", f"{kind}-{seed}", lambda k=kind, s=seed: simulate_wrong(anatomy, k, s)
    for seed in range(options.realistic):
        yield "realistic", str(seed), lambda s=seed: simulate_in(anatomy, seed=s, realistic=True)


def estimate(method: str, synthetic: SyntheticPatient) -> dict[str, Any]:
    """Estimate the density of a patient and score it."""
    patient = synthetic.patient if method == "pet" else without(synthetic.patient, "pet")
    started = time.perf_counter()
    row: dict[str, Any] = {"status": None, "physics": None}
    if method == "static":
        density = static(patient)
    else:
        found = fit(patient, config=CONFIGS[method])
        density = found.density
        row |= {"status": found.status, "physics": found.physics, "misfit_mm": found.label_misfit_mm}
        # In realistic patients D, ρ and the day differ from place to place: no one number is the truth.
        if "realistic" not in synthetic.settings:
            row |= parameter_errors(found, synthetic.parameters)
    row["seconds"] = time.perf_counter() - started
    known = score(density, synthetic.truth, ndimage.binary_fill_holes(patient.tumour))
    row |= {k: known[k] for k in ("relative_l2", "rmse_outside_visible")}
    for percent in (1, 5, 10, 20):
        row[f"dice_{percent}"] = dice(density.data, synthetic.truth.data, percent / 100)
    rank = "reach" if method == "default" else "density"
    row["coverage"] = (plan(patient, density, rank=rank).coverage or {"any": {"model": None}})["any"]["model"]
    return row | covers(patient, density, rank)


def parameter_errors(found: Fit, true: Mapping[str, Any]) -> dict[str, float]:
    """Return the errors of infiltration length and growth (relative) and of the nearest origin [mm]."""
    p = found.parameters
    d, rho = (p[k].value for k in ("diffusivity_wm_mm2_per_day", "proliferation_rate_per_day"))
    d_true, rho_true = (true[k] for k in ("diffusivity_wm_mm2_per_day", "proliferation_rate_per_day"))
    origins = np.asarray(true["origins_mm"])
    return {
        "length_error": abs(math.sqrt(d / rho * rho_true / d_true) - 1),
        "growth_error": abs(d * rho / (d_true * rho_true) - 1),
        "origin_mm": float(np.linalg.norm(origins - p["origin_mm"].value, axis=1).min()),
    }


def covers(patient: Patient, density: Volume, rank: str) -> dict[str, float]:
    """Return the shares of the later tumour, outside the core and all of it, in plans of equal, small volume."""
    core, brain, spacing = (
        ndimage.binary_fill_holes(patient.core),
        patient.brain,
        patient.segmentation.spacing,
    )
    all_of_it = (patient.recurrence.data > 0) & brain
    found = all_of_it & ~core
    if not found.any():
        return {}
    passable = brain & (patient.volumes["wm"].data + patient.volumes["gm"].data >= 0.1)
    distance = distance_from(core, spacing, region=brain)
    path = geodesic_distance(core, passable, spacing, limit_mm=2.0 * MARGINS_MM[-1])
    path = np.where(np.isfinite(path), path, 1e3)
    order = density.data
    if rank == "reach":
        order = reach_ranking(patient, core, brain, MARGINS_MM[-1]).order
    row = {}
    for mm in MARGINS_MM:
        volume = int(np.count_nonzero(standard_ctv(core, brain, spacing, mm)))
        masks = {
            "": model_ctv(order, brain, distance, volume),
            "_density": model_ctv(density.data, brain, distance, volume),
            "_standard": model_ctv(-distance, brain, distance, volume),
            "_trimmed": model_ctv(-path, brain, distance, volume),
        }
        for name, tumour in (("cover", found), ("later", all_of_it)):
            row |= {f"{name}_{mm}mm{k}": float((tumour & m).sum() / tumour.sum()) for k, m in masks.items()}
    return row


def without(patient: Patient, name: str) -> Patient:
    """Return the patient without one of its volumes."""
    return replace(patient, volumes={k: v for k, v in patient.volumes.items() if k != name})


def static(patient: Patient) -> Volume:
    """Lay a front u = (1 + e^ψ)⁻² along the boundaries of core (u = 0.55) and tumour (u = 0.25)."""
    spacing, slope = patient.segmentation.spacing, 1 / (math.sqrt(6) * 1.0)

    def signed(mask: Any) -> Any:
        inside, outside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (mask, ~mask))
        return outside - inside

    to_core, to_tumour = signed(patient.core), signed(patient.tumour)
    psi_core, psi_edge = (math.log(t**-0.5 - 1) for t in (0.55, 0.25))
    part = to_core / np.maximum(to_core - to_tumour, 1e-6)  # 0 at the core's boundary, 1 at the tumour's
    psi = np.where(
        to_tumour > 0,
        psi_edge + slope * to_tumour,
        np.where(to_core < 0, psi_core + slope * to_core, psi_core + part * (psi_edge - psi_core)),
    )
    passable = patient.volumes["wm"].data + patient.volumes["gm"].data >= 0.1
    u = np.where(passable | patient.tumour, (1 + np.exp(np.minimum(psi, 50))) ** -2, 0)
    return patient.segmentation.with_data(u.astype(np.float32), kind="scalar")


def dice(a: Any, b: Any, threshold: float) -> float:
    """Return the Dice coefficient of {a > θ} and {b > θ}."""
    x, y = a > threshold, b > threshold
    return float(2 * np.count_nonzero(x & y) / max(np.count_nonzero(x) + np.count_nonzero(y), 1))


def read(path: Path) -> list[dict[str, Any]]:
    """Read the rows of earlier runs."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
