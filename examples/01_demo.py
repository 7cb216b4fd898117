# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From images to a plan
#
# A synthetic patient goes through the whole pipeline: images in, tumour-cell density out, three clinical target
# volumes (CTV) and a report. Its truth is known, so the result can be scored.
#
# **Small on purpose.** Voxels of 3 mm and a grid of 24³ cells run in seconds and show how the calls fit together.
# For results, leave out `resolution_mm` and `config`: the defaults are 1 mm and 48³ cells. Research use only.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import gliodil

simulated = gliodil.simulate(seed=3, resolution_mm=3)
patient = simulated.patient
patient

# %% [markdown]
# What a clinic would have: a segmentation, tissue maps, a T1 image, FET-PET and, later, a recurrence. The fit sees
# none of `simulated.truth` and `simulated.parameters`.
#
# ## The density

# %%
fit = gliodil.fit(patient, config=gliodil.FitConfig(cells=24, steps=96))
fit

# %% [markdown]
# The fit solves $u_t = \nabla\cdot(D\nabla u) + \rho u(1-u)$ for the parameters that explain the labels and the
# PET. Against the truth:

# %%
print(f"{'':28}{'fitted':>9}{'true':>9}")
for name, parameter in fit.parameters.items():
    if name in simulated.parameters:
        print(f"{name:28}{parameter.value:9.3g}{simulated.parameters[name]:9.3g}  {parameter.unit}")

# %%
from gliodil.inference.score import score

for name, value in score(fit.density, simulated.truth, patient.tumour).items():
    print(f"{name:22}{value:7.3f}")

# %% [markdown]
# `dice_at_0.01` compares the tail, which no image shows: it is the part that matters for a margin and the part that
# rests on the equation alone. These scores are optimistic, since the truth was grown with the equation that is
# fitted.
#
# ## The plans

# %%
plans = gliodil.plan(patient, fit)
plans

# %% [markdown]
# Standard and model CTV hold equally many voxels, so the two can be compared. Does the density say more than a
# distance does? The band shows how much it varies at one distance from the tumour; if it is narrow, a uniform
# margin says nearly the same.

# %%
from gliodil.reporting.curves import density_by_distance

distance, (low, median, high) = density_by_distance(
    plans.density.data,
    plans.gtv.data > 0,
    patient.brain,
    spacing=plans.density.spacing,
    quantiles=(0.1, 0.5, 0.9),
)
_, axes = plt.subplots(figsize=(6, 3.2))
axes.fill_between(distance, 100 * low, 100 * high, alpha=0.25, label="10th to 90th percentile")
axes.plot(distance, 100 * median, label="median")
axes.axvline(plans.rule.margin_mm, color="k", linestyle="--", label="standard margin")
axes.set(xlabel="distance from the GTV (mm), negative inside", ylabel="density (%)", xlim=(-10, 30))
axes.legend(frameon=False, loc="center right")
plt.show()

# %% [markdown]
# ## The report
#
# `plan_patient` does all of the above and writes one folder: volumes, surfaces, metrics, provenance, and
# `report.html`, which opens in any browser without a network.

# %%
with tempfile.TemporaryDirectory() as folder:
    done = gliodil.plan_patient(
        patient, Path(folder) / "result", config=gliodil.FitConfig(cells=24, steps=96)
    )
    for path in sorted(done.report.parent.iterdir()):
        size = f"{path.stat().st_size / 1e6:.2f} MB" if path.is_file() else "folder"
        print(f"{path.name:26}{size:>10}")

print("\ncoverage of the recurrence, fraction")
for kind, shares in done.metrics["coverage"].items():
    print(f"  {kind:10}", {plan: round(share, 3) for plan, share in shares.items()})
