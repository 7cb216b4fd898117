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
# # A cohort and what it can say
#
# Many patients overnight, one of them broken; then the statistics of recurrence coverage, and how many patients a
# claim takes. Needs `pip install 'gliodil[cohort,report]'`. Research use only.
#
# ## Planning a cohort
#
# Four synthetic patients, tiny (6 mm voxels, 8³ cells) so that this runs in seconds. The last one's segmentation is
# cut off in the middle, as a full disk leaves it.

# %%
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

import gliodil

scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # goes away with the notebook
os.chdir(scratch.name)
for seed in (1, 3, 4, 6):
    gliodil.simulate(seed=seed, resolution_mm=6).save(f"patients/patient_{seed:03}")
broken = Path("patients/patient_006/seg.nii.gz")
broken.write_bytes(broken.read_bytes()[:400])


def cohort(*arguments):
    """Run `gliodil cohort`, as one would in a terminal, and show how it ended."""
    command = [sys.executable, "-m", "gliodil", "cohort", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    print(f"exit code {done.returncode}")
    return done


done = cohort("patients", "results", "participant", "--cells", "8", "--scheduler", "none", "--device", "cpu")

# %% [markdown]
# Exit code 2: some failed. Everything is checked before anything is computed, and every patient has a status with
# the reason. Run the same line again and only what is missing or has changed is done.

# %%
for status in sorted(Path("results").glob("*/status.json")):
    found = json.loads(status.read_text())
    error = found["error"] or {}
    print(f"{found['patient']:14}{found['state']:8}{found['seconds']:6.1f} s  {error.get('problem', '')}")

# %%
done = cohort("patients", "results", "group")
with open("results/cohort.tsv") as stream:
    for row in csv.DictReader(stream, delimiter="\t"):
        print(
            f"{row['patient_id']:14}{row['state']:8}{row['plan']:10}{row['volume_ml']:>9} mL"
            f"   covers {row['coverage_any']} of any recurrence"
        )

# %% [markdown]
# The failed patient stays in the table, so nobody drops out of a denominator unseen. `results/cohort.html` is the
# report; `results/cohort.json` says what the columns mean.
#
# ## What coverage can show
#
# Coverage of a recurrence at equal volume is compared patient by patient with the standard plan. Published cohorts
# look like this: half of the standard plans cover everything already, few patients carry the difference, and some
# recurrences are empty. Here is a made-up cohort with those features, in the published format; give your own table
# instead.

# %%
rng = np.random.default_rng(0)
lines = ["Patient_Code\tModel_Name\tCoverage[%]\tIoU"]
for n in range(120):
    empty = n % 10 == 0
    standard = 100.0 if empty or rng.random() < 0.45 else 100 * rng.beta(4, 1.5)
    gain = (
        0.0 if standard == 100 and rng.random() < 0.8 else rng.normal(2.0, 6.0) + 30 * (rng.random() < 0.02)
    )
    model = 100.0 if empty else float(np.clip(standard + gain, 0, 100))
    for name, value in (("Standard", standard), ("Model", model)):
        lines.append(f"p{n:03}\t{name}\t{value:.3f}\t{0 if empty else 0.1}")
Path("coverage.txt").write_text("\n".join(lines) + "\n")

from gliodil.cohort.coverages import analyse, read_coverage_table

(table,) = read_coverage_table(Path("coverage.txt"))
analysis = analyse(table)
model = analysis.primary["Model"]
print(
    f"{analysis.patients} patients, {analysis.empty} without recurrence, "
    f"{analysis.reference_full} covered in full already"
)
print(
    f"mean difference {100 * model.mean_difference:+.2f} points ({100 * model.low:+.2f} to {100 * model.high:+.2f})"
)
print(
    f"median {100 * model.median_difference:+.2f}; {model.better} better, {model.equal} equal, {model.worse} worse"
)
print(f"Wilcoxon p = {model.p_wilcoxon:.3f} (no difference left out), t-test p = {model.p_t:.3f} (all)")
most = model.influence
print(
    f"without {most.patient} ({100 * most.difference:+.0f}): {100 * most.mean_without:+.2f} points "
    f"({100 * most.low_without:+.2f} to {100 * most.high_without:+.2f})"
)
with_empty = analysis.with_empty["Model"]
print(f"empties counted as covered in full: {100 * with_empty.mean_difference:+.2f} points")

# %%
from gliodil.cohort.figures import difference_figure

figure = difference_figure(table, analysis)
figure.set_dpi(70)
figure

# %% [markdown]
# An empty recurrence is no success: it is left out, and counted only beside the main result, where it pulls every
# plan towards no difference. The median says "nothing happens to a typical patient"; the mean is carried by few.
# Report both, and the mean without the most influential patient. Intervals and p-values are exploratory: nothing
# adjusts them for the number of plans and definitions one looked at.
#
# ## How many patients does it take?
#
# By simulation, drawing patients from the cohort above and shifting the mean to what one hopes for:

# %%
from gliodil.planning.bootstrap import bootstrap_interval

values, reference = table.plans["Model"], table.plans["Standard"]
d = np.array([values[p] - r for p, r in reference.items() if r is not None and values[p] is not None])
sizes = (25, 50, 100, 200, 400)
_, axes = plt.subplots(figsize=(5.5, 3.3), layout="constrained")
for effect in (0.01, 0.02, 0.03):
    shifted = d - d.mean() + effect
    power = []
    for n in sizes:
        samples = (rng.choice(shifted, n) for _ in range(100))
        lows = [bootstrap_interval(sample, resamples=500)[0] for sample in samples]
        power.append(np.mean([low > 0 for low in lows]))
    axes.semilogx(sizes, power, "o-", label=f"{100 * effect:.0f} points")
axes.axhline(0.8, color="k", linestyle=":", label="80 %")
axes.set(xlabel="patients with a recurrence", ylabel="interval above zero (share of studies)", ylim=(0, 1.02))
axes.set(xticks=sizes, xticklabels=sizes, title=f"SD of the difference {100 * d.std():.1f} points")
axes.minorticks_off()
axes.legend(title="true mean gain")
plt.show()

# %% [markdown]
# The made-up differences spread less than published ones (SD 8 to 11 points), so real studies need more: at an SD
# of 11.5 about 260 patients for 2 points. Tuning a method on the mean coverage of a hundred patients is chasing
# noise below that.
