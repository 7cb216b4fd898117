"""What the plans are worth on real patients: every claim about patients is printed by this command.

    python benchmarks/real.py DATA --json FILE
    python benchmarks/real.py DATA --density mine=maps/{patient}.nii.gz      a map made elsewhere, ranked likewise

pairs       coverage of later tumour, all of it and new tumour (outside the filled GTV), at the volumes of isotropic
            margins of 3, 5, 8, 10 and 15 mm inside the brain: the model as `gliodil plan` ships it (ranked by expected
            reach), minus the isotropic margin, paired, with 95 % bootstrap intervals over patients; and comparators
oedema      the core alone is seen; Dice of the oedema with as much tissue as it holds, taken in order
labels      how well the default fit reproduces the labels on their own grid
calibration leave-one-patient-out log loss per voxel, and predicted against observed later tumour by reach

    path        shortest path through white and grey matter            travel R, csf   one metric of ``planning.reach``
    static      a front laid along the labels (accuracy.py)            density        the default fit, by density
    reference   the minimum of the published loss, by density          published      its own optimizer (--published)

Preprocessing (brain mask, tissue maps) is the product's own and cached. ``--quick`` fits nothing and registers nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import static
from numpy.typing import NDArray
from real_patients import Real, core_alone, real_patients

from gliodil.data.patient import Patient
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.planning.ctv import model_ctv
from gliodil.planning.distance import distance_from, orthogonal_spacing
from gliodil.planning.equal_volume import MARGINS_MM, coverages, paired_difference
from gliodil.planning.geodesic import geodesic_distance
from gliodil.planning.later_tumour import WITHIN_MM, fit_coefficients, probability
from gliodil.planning.maps import read_map
from gliodil.planning.ranking import reach_ranking
from gliodil.planning.reach import Metric, expected_reach, tissue_fractions

TRAVEL = {
    "travel R 1.5, slow csf": Metric(1.5, 0.4, 4),
    "travel R 3, slow csf": Metric(3, 0.4, 4),
    "travel R 3, closed csf": Metric(3, 0, 4),
    "travel R 18, slow csf": Metric(18, 0.2, 4),
    "travel R 18, closed csf": Metric(18, 0, 0),
}
BINS_MM = (0.0, 3.0, 5.0, 8.0, 10.0, 15.0, WITHIN_MM)
"""Reach between which predicted and observed later tumour are compared: the margins of the evidence."""
PUBLISHED = FitConfig(loss="reference", optimizer="adam-multigrid", max_evaluations=9000, cells=24, steps=48)
Order = NDArray[np.floating]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run everything on every patient, print and write the figures, and return them."""
    options = arguments(argv)
    rows = []
    for real in real_patients(options.data, options.cache, quick=options.quick):
        started = time.perf_counter()
        rows.append(study(real, options))
        print(f"{real.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    found = {
        "pairs": pairs([r for r in rows if "pair" in r]),
        "core_to_oedema": core_to_oedema([r for r in rows if "oedema" in r]),
        **labels([r for r in rows if "labels" in r]),
        "calibration": calibration([r.pop("voxels") for r in rows if "voxels" in r]),
        "patients": rows,
    }
    print(text(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DATA", help="folder described in real_patients.py")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--cache", type=Path, default=Path(".real-cache"), metavar="DIR", help="registered tissue maps"
    )
    parser.add_argument("--quick", action="store_true", help="no fits, no registration: rankings alone")
    parser.add_argument(
        "--published", action="store_true", help="the published optimizer too (minutes a patient)"
    )
    parser.add_argument(
        "--density", nargs="+", default=[], metavar="NAME=PATTERN", help="maps made elsewhere"
    )
    return parser.parse_args(argv)


def study(real: Real, options: argparse.Namespace) -> dict[str, Any]:
    """Return everything one patient tells."""
    patient, row = real.patient, {"patient": real.name}
    fitted = None if options.quick else fit(patient)
    if fitted is not None and fitted.agreement is not None:
        a = fitted.agreement
        row["labels"] = {
            "misfit_mm": a.misfit_mm,
            "core_below_level": a.core_below_level,
            "lesions": [a.lesions_found, a.lesions_explained],
            "physics": fitted.physics,
            "seconds": fitted.wall_s,
        }
    if real.is_pair:
        orders = rankings(patient)
        if fitted is not None:
            orders["density"] = fitted.density.data
            orders["static"] = static(patient).data
            orders["reference"] = fit(patient, config=FitConfig(loss="reference")).density.data
        if options.published:
            orders["published"] = fit(patient, config=PUBLISHED).density.data
        for name, _, pattern in (d.partition("=") for d in options.density):
            path = Path(pattern.format(patient=real.name))
            orders[name] = read_map(path, patient.segmentation, patient.brain).data
        brain, spacing = patient.brain, orthogonal_spacing(patient.affine)
        later = np.asarray(patient.recurrence.data > 0)
        found = coverages(orders, gtv=patient.core, brain=brain, spacing=spacing, later=later)
        row["pair"] = {
            name: {target: {f"{mm:g}": c for mm, c in curve.items()} for target, curve in of.items()}
            for name, of in found.items()
        }
        row["voxels"] = voxels(patient, -orders["model"], later)
        if fitted is not None and patient.pet is not None:
            row["without_pet"] = without_pet(patient, later)
    if real.has_oedema:
        row["oedema"] = oedema_dice(patient)
    return row


def without_pet(patient: Patient, later: NDArray[np.bool_]) -> dict[str, Any]:
    """Return what the default fit makes of a patient without its PET: misfit, and coverage ranked by density."""
    bare = replace(patient, volumes={k: v for k, v in patient.volumes.items() if k != "pet"})
    fitted = fit(bare)
    spacing = orthogonal_spacing(patient.affine)
    found = coverages(
        {"density": fitted.density.data}, gtv=patient.core, brain=patient.brain, spacing=spacing, later=later
    )
    return {
        "misfit_mm": fitted.label_misfit_mm,
        **{target: {f"{mm:g}": c for mm, c in curve.items()} for target, curve in found["density"].items()},
    }


def rankings(patient: Patient) -> dict[str, Order]:
    """Return the orders of voxels that need no fit; the model first."""
    brain, spacing = patient.brain, orthogonal_spacing(patient.affine)
    white, grey = tissue_fractions(patient)
    path = geodesic_distance(
        patient.core, brain & (white + grey >= 0.1), spacing, limit_mm=2 * MARGINS_MM[-1]
    )
    orders: dict[str, Order] = {"model": reach_ranking(patient, patient.core, brain, MARGINS_MM[-1]).order}
    orders["path"] = -np.where(np.isfinite(path), path, 1e3)
    for name, metric in TRAVEL.items():
        reach = expected_reach(
            patient.core,
            white,
            grey,
            brain=brain,
            spacing=spacing,
            limit_mm=WITHIN_MM,
            metrics=(metric,),
        )
        orders[name] = -reach
    return orders


def voxels(patient: Patient, reach: Order, later: NDArray[np.bool_]) -> dict[str, Any]:
    """Return reach, distance and fate of the voxels outside the GTV that calibration counts."""
    straight = distance_from(patient.core, orthogonal_spacing(patient.affine), region=patient.brain)
    there = patient.brain & ~patient.core & (reach <= WITHIN_MM)
    return {
        "patient": patient.identity,
        "reach": reach[there],
        "straight": straight[there],
        "later": later[there],
        "ml": patient.segmentation.voxel_volume_ml,
    }


def oedema_dice(patient: Patient) -> dict[str, float]:
    """Return the Dice of the oedema with what each order takes first outside the core, as many voxels as it has."""
    seen = core_alone(patient)
    around = seen.brain & ~seen.core
    oedema = patient.oedema & around
    distance = distance_from(seen.core, orthogonal_spacing(seen.affine), region=seen.brain)
    count = int(np.count_nonzero(oedema))
    orders = {"isotropic": -distance, **rankings(seen)}
    return {
        name: float(np.count_nonzero(model_ctv(order, around, distance, count) & oedema) / count)
        for name, order in orders.items()
    }


def pairs(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return coverages of isotropic margins and paired differences from them."""
    if not rows:
        return {"n": 0}
    names = [n for n in rows[0]["pair"] if n != "isotropic"]

    def differences(name: str, target: str) -> dict[str, Any]:
        of = [[r["pair"][kind][target] for r in rows] for kind in (name, "isotropic")]
        return {k: paired_difference(*([c[k] for c in side] for side in of)) for k in of[0][0]}

    def means(target: str) -> dict[str, Any]:
        return {
            k: float(np.mean([c for r in rows if (c := r["pair"]["isotropic"][target][k]) is not None]))
            for k in rows[0]["pair"]["isotropic"][target]
        }

    return {
        "n": len(rows),
        "isotropic": means("all"),
        "model_minus_isotropic": differences("model", "all"),
        "new_tumour": {"isotropic": means("new"), "model_minus_isotropic": differences("model", "new")},
        "others_minus_isotropic": {
            name: {target: differences(name, target) for target in ("all", "new")} for name in names[1:]
        },
    }


def core_to_oedema(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean Dice of the oedema, and the model's paired differences."""
    if not rows:
        return {"n": 0}
    by = {name: [r["oedema"][name] for r in rows] for name in rows[0]["oedema"]}
    mean = {name: float(np.mean(values)) for name, values in by.items()}
    best = max(TRAVEL, key=lambda name: mean[name])
    return {
        "n": len(rows),
        "model": mean["model"],
        "isotropic": mean["isotropic"],
        "travel_time": mean[best],
        "best_travel_time": best,
        "model_minus_isotropic": paired_difference(by["model"], by["isotropic"]),
        "model_minus_travel_time": paired_difference(by["model"], by[best]),
        "all": mean,
    }


def labels(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the default fit reproduces labels."""
    if not rows:
        return {"misfit_mm": {"n": 0, "median": None, "worst": None}}
    of = [r["labels"] for r in rows]
    misfit, below = ([entry[key] for entry in of] for key in ("misfit_mm", "core_below_level"))
    found, explained = (sum(entry["lesions"][k] for entry in of) for k in (0, 1))
    return {
        "misfit_mm": {"n": len(of), "median": float(np.median(misfit)), "worst": max(misfit)},
        "core_below_level": {"median": float(np.median(below)), "worst": max(below)},
        "lesions": {"found": found, "explained": explained},
    }


def calibration(patients: list[dict[str, Any]]) -> dict[str, Any]:
    """Fit the readout on all patients but one and predict that one, by reach and by straight distance."""
    if len(patients) < 2:
        return {"n": len(patients)}
    losses: dict[str, list[float]] = {"reach": [], "straight": []}
    expected, seen, counts = (np.zeros(len(BINS_MM) - 1) for _ in range(3))
    for left_out in patients:
        others = [p for p in patients if p is not left_out]
        for kind, of in losses.items():
            fate = left_out["later"].astype(float)
            readout = fit_coefficients(
                [p[kind] for p in others], [p["later"] for p in others], [p["ml"] for p in others]
            )
            p = np.clip(probability(left_out[kind], readout), 1e-12, 1 - 1e-12)
            of.append(float(-np.mean(fate * np.log(p) + (1 - fate) * np.log1p(-p))))
            if kind == "reach":
                which = np.digitize(left_out[kind], BINS_MM[1:-1])
                expected += np.bincount(which, p * left_out["ml"], len(expected))
                seen += np.bincount(which, fate * left_out["ml"], len(seen))
                counts += np.bincount(which, fate, len(counts))
    total = np.zeros(len(BINS_MM) - 1)
    for p in patients:
        total += np.bincount(np.digitize(p["reach"], BINS_MM[1:-1]), minlength=len(total)) * p["ml"]
    keys = ("reach", "later", "ml")
    return {
        "n": len(patients),
        "log_loss": float(np.mean(losses["reach"])),
        "log_loss_isotropic": float(np.mean(losses["straight"])),
        "better_in": int(sum(a < b for a, b in zip(losses["reach"], losses["straight"], strict=True))),
        "bins_mm": BINS_MM,
        "bins": [
            [float(e / t), float(s / t), int(c)] if t > 0 else [None, None, 0]
            for e, s, t, c in zip(expected, seen, total, counts, strict=True)
        ],
        "coefficients": fit_coefficients(*([p[k] for p in patients] for k in keys)),
    }


def text(found: Mapping[str, Any]) -> str:
    """Return the figures as tables."""
    lines = []
    if (p := found["pairs"])["n"]:
        lines.append(
            f"pairs of visits, n = {p['n']}: coverage at the volume of isotropic margins, minus the isotropic's"
        )
        lines.append(f"{'':<26}" + "".join(f"{mm + ' mm':>26}" for mm in p["isotropic"]))
        for target, of in (("all later tumour", p), ("new tumour", p["new_tumour"])):
            lines.append(f"{target:<26}" + "".join(f"{c:>26.3f}" for c in of["isotropic"].values()))
            lines.append(f"{'  model':<26}" + "".join(map(interval, of["model_minus_isotropic"].values())))
            key = "all" if of is p else "new"
            for name, other in p["others_minus_isotropic"].items():
                lines.append(f"  {name:<24}" + "".join(map(interval, other[key].values())))
    if (c := found["core_to_oedema"])["n"]:
        lines.append(f"\noedema from the core alone, n = {c['n']}: Dice at the oedema's volume")
        lines += [f"  {name:<24}{value:>8.3f}" for name, value in c["all"].items()]
        lines.append(f"  model minus isotropic   {interval(c['model_minus_isotropic'])}")
        lines.append(f"  model minus {c['best_travel_time']}{interval(c['model_minus_travel_time'])}")
    if (m := found["misfit_mm"])["n"]:
        below, lesions = found["core_below_level"], found["lesions"]
        lines.append(f"\nlabels, n = {m['n']}: misfit {m['median']:.2f} mm (worst {m['worst']:.2f})")
        lines.append(f"  core below its level {below['median']:.1%} (worst {below['worst']:.1%})")
        lines.append(f"  {lesions['explained']} of {lesions['found']} lesions explained")
    if (k := found["calibration"])["n"] >= 2:
        lines.append(f"\ncalibration, one patient left out, n = {k['n']}: log loss {k['log_loss']:.4f}")
        lines.append(f"  by straight distance {k['log_loss_isotropic']:.4f}; better in {k['better_in']}")
        lines.append(f"  coefficients on all: {', '.join(f'{c:.5f}' for c in k['coefficients'])}")
        for low, high, (e, s, n) in zip(k["bins_mm"], k["bins_mm"][1:], k["bins"], strict=False):
            if e is None:
                continue
            ratio = f"{e / s:.2f}" if s > 0 else "-"
            lines.append(
                f"  {low:>4g} to {high:>2g} mm: predicted {e:.4f}, observed {s:.4f} ({ratio}; {n} voxels)"
            )
    for row in found["patients"]:
        if (bare := row.get("without_pet")) is not None:
            lines.append(f"\nPET of {row['patient']}: misfit {row['labels']['misfit_mm']:.2f} mm, without it")
            lines.append(f"  {bare['misfit_mm']:.2f}; coverage by density, with and without:")
            for mm, c in bare["all"].items():
                lines.append(f"  {mm:>4} mm: {row['pair']['density']['all'][mm]:.3f} {c:.3f}")
    return "\n".join(lines)


def interval(found: Sequence[float | None]) -> str:
    """Return a mean and its interval as text."""
    mean, low, high = found
    if mean is None:
        return f"{'-':>26}"
    return f"{mean:+.3f}".rjust(9) + (f" [{low:+.3f}, {high:+.3f}]" if low is not None else "").rjust(17)


if __name__ == "__main__":
    main()
