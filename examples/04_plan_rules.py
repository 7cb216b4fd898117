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
# # Plan rules and barriers
#
# A rule says what counts as gross tumour (GTV), how far the clinical target (CTV) reaches beyond it, what stops it,
# and what is added for set-up errors (PTV). One fit, several rules, and a rule of your own. The packaged guideline
# rules are readings of guidelines; what was recalled and not read is listed under `verify`. Research use only.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import gliodil
from gliodil.planning.rules import RULES, get_rule

for rule in RULES.values():
    reach = ", ".join(f"{mm:g} mm into {name}" for name, mm in rule.reach_mm.items())
    print(f"{rule.name} {rule.version}, {rule.scan}: {' + '.join(rule.gtv)}")
    print(
        f"  CTV {rule.margin_mm:g} mm, PTV {rule.ptv_mm:g} mm; trimmed at {', '.join(rule.barriers)}; "
        f"{reach or 'no reach'}"
    )
    print(f"  to verify: {', '.join(rule.verify) or 'nothing'}")

# %% [markdown]
# ## A tumour beside the falx
#
# Simulated patients bring falx and tentorium of the template (`barriers`: 1 and 2). Voxels of 3 mm, a coarse grid.

# %%
simulated = gliodil.simulate(seed=11, resolution_mm=3)
patient = simulated.patient
fit = gliodil.fit(patient, config=gliodil.FitConfig(cells=24, steps=96, crop_margin_mm=32))
patient

# %%
plans = {name: gliodil.plan(patient, fit, rule=name) for name in RULES}
print(f"{'mL':20}{'GTV':>8}{'standard':>10}{'trimmed':>9}{'model':>8}{'PTV of model':>14}")
for name, p in plans.items():
    ml = p.volumes_ml
    ptv = f"{ml['ptv_model']:.1f}" if "ptv_model" in ml else "none"
    print(
        f"{name:20}{ml['gtv']:8.1f}{ml['ctv_standard']:10.1f}{ml['ctv_trimmed']:9.1f}{ml['ctv_model']:8.1f}{ptv:>14}"
    )
print()
for warning in sorted({w for p in plans.values() for w in p.warnings}):
    print("-", warning)

# %% [markdown]
# ## What the barriers do
#
# An axial slice through the tumour under each rule: the standard CTV (blue, dashed), and what of it a path of the
# same length round the barriers reaches (pink). Green: falx and tentorium. The patient's left is on the right.

# %%
grid, barriers = patient.segmentation, patient.volumes["barriers"].data
far = {
    name: np.count_nonzero((p.standard.data > 0) & (p.trimmed.data == 0)) * grid.voxel_volume_ml
    for name, p in plans.items()
}
k = int(np.argmax(patient.core.sum(axis=(0, 1))))
across, upward = np.nonzero(plans["eortc-2016"].standard.data[::-1, :, k])
_, axes = plt.subplots(1, len(plans), figsize=(3 * len(plans), 3.6), layout="constrained")
for axis, (name, p) in zip(axes, plans.items(), strict=True):

    def cut(array):
        return np.asarray(array[::-1, :, k]).T.astype(float)

    axis.imshow(cut(patient.volumes["t1"].data), origin="lower", cmap="gray")
    axis.contourf(cut(barriers > 0), levels=[0.5, 1.5], colors=["#009E73"], alpha=0.6)
    for volume, colour, dashes in (
        (p.trimmed, "#F4A6D0", "-"),
        (p.standard, "#56B4E9", "--"),
        (p.gtv, "#F0E442", "-"),
    ):
        axis.contour(cut(volume.data), levels=[0.5], colors=colour, linestyles=dashes)
    axis.set(title=f"{name}\n{far[name]:.1f} mL trimmed", xticks=[], yticks=[], xlabel="R – L")
    axis.set(xlim=(across.min() - 3, across.max() + 3), ylim=(upward.min() - 3, upward.max() + 3))
plt.show()

# %% [markdown]
# `benchmark-15mm` has no falx among its barriers, but its trimmed CTV stops at all CSF; the guideline rules open
# other CSF and reach 5 mm into ventricles. The model CTV always has the volume of the *standard* CTV, so that the
# budget does not hang on which barriers happen to be known.
#
# ## What happens without the sheets
#
# Leave `barriers` out and the plan goes on with the barriers it has, and says so.

# %%
from dataclasses import replace

without = replace(patient, volumes={k: v for k, v in patient.volumes.items() if k != "barriers"})
p = gliodil.plan(without, fit, rule="eortc-2016")
print(
    f"trimmed CTV {plans['eortc-2016'].volumes_ml['ctv_trimmed']:.1f} mL with the sheets, "
    f"{p.volumes_ml['ctv_trimmed']:.1f} mL without"
)
for warning in p.warnings:
    print("-", warning)

# %% [markdown]
# ## An organ to spare
#
# A ball of 12 mm stands in for an organ at risk beside the tumour. Its volume in every target is counted; excluded,
# no CTV enters it, and the model CTV spends the same volume elsewhere.

# %%
middle = np.argwhere(patient.core).mean(axis=0) + np.array([0, 8, 0])  # voxels of 3 mm: 24 mm in front
distance = 3 * np.linalg.norm(np.indices(grid.shape) - middle[:, None, None, None], axis=0)
organ = grid.with_data((distance < 12).astype(np.uint8), kind="label")
for exclude in ((), ("organ",)):
    p = gliodil.plan(patient, fit, organs={"organ": organ}, exclude=exclude)
    inside = {name: round(ml, 1) for name, ml in p.organs_ml["organ"].items()}
    print("excluded" if exclude else "counted ", inside, "mL")
p

# %% [markdown]
# ## A rule of your own
#
# A TOML file with a name of its own. Every plan and report prints its definition and version.

# %%
text = """
name = "ours-10mm"
version = "0.1"
description = "Enhancing tumour and necrosis, grown by 10 mm; trimmed at the edge of the brain, falx and tentorium."
source = "An example, from nowhere."
gtv = ["enhancing", "necrotic"]
margin_mm = 10.0
ptv_mm = 3.0
barriers = ["brain-surface", "falx", "tentorium"]
"""
with tempfile.TemporaryDirectory() as folder:
    (Path(folder) / "ours.toml").write_text(text)
    ours = get_rule(str(Path(folder) / "ours.toml"))
gliodil.plan(patient, fit, rule=ours)
