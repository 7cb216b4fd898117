"""From a patient to plans in Python, on a simulated patient small enough for a quick look.

    python examples/plan_from_python.py [FOLDER]

Writes the plan's volumes and surfaces to FOLDER (default: gliodil-example). Voxels of 4 mm and a grid of 16³
cells show how the calls fit together; they are too coarse for results, which take the defaults of both.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gliodil


def main(folder: Path) -> None:
    """Simulate, fit, plan, save, and print what came out."""
    simulated = gliodil.simulate(seed=0, resolution_mm=4.0)
    patient = simulated.patient  # your own: gliodil.load_patient("patient_001/")

    fit = gliodil.fit(patient, config=gliodil.FitConfig(cells=16, steps=48))
    plans = gliodil.plan(patient, fit)
    plans.save(folder)

    print(f"fit: {fit.status}, loss {fit.loss_total:.3g}, {fit.evaluations} gradients, {fit.wall_s:.1f} s")
    for name in ("infiltration_length_mm", "diffusivity_wm_mm2_per_day", "proliferation_rate_per_day"):
        fitted, true = fit.parameters[name], simulated.parameters[name]
        print(f"{name}: {fitted.value:.3g} {fitted.unit} (true {true:.3g})")
    for name, ml in plans.volumes_ml.items():
        print(f"{name}: {ml:.1f} mL")
    for kind, shares in (plans.coverage or {}).items():
        if shares is not None:
            print(
                f"{kind} recurrence covered: " + ", ".join(f"{n} {share:.0%}" for n, share in shares.items())
            )
    for warning in (*patient.warnings, *fit.warnings, *plans.warnings):
        print(f"note: {warning}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gliodil-example"))
