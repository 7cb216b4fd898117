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
# # Your own NIfTI files
#
# What gliodil expects of a folder, what it tells you about it, and what it refuses. A synthetic patient is written
# as files first, so that everything here runs; with your own data, start at "Reading". Research use only.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import gliodil

scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # goes away with the notebook
os.chdir(scratch.name)
folder = Path("patient_001")
gliodil.simulate(seed=4, resolution_mm=3).save(folder)
for path in sorted(folder.glob("truth*")):
    path.unlink()  # nobody has this
print(*sorted(path.name for path in folder.iterdir()), sep="\n")

# %% [markdown]
# ## Reading
#
# Files are told apart by name ("t1_wm" is white matter, "segm_rec" the recurrence). Look at the table before you
# trust it.

# %%
patient = gliodil.load_patient(folder)
patient

# %% [markdown]
# What the labels mean is told from their values and arrangement where only one convention fits; say it with
# `labels="brats-2023"` otherwise. Here is what happens when it is said wrongly:

# %%
try:
    gliodil.load_patient(folder, labels="decathlon")
except gliodil.GliodilError as error:
    print(error)

# %% [markdown]
# ## Grids may differ, spaces may not
#
# Everything is brought onto the grid of the segmentation through world coordinates (mm, RAS+), never by voxel
# index. A PET of 5 mm voxels is no problem:

# %%
fine = gliodil.read_nifti(folder / "pet.nii.gz", kind="scalar")
edge = np.array([[5 / 3, 0, 0, 0], [0, 5 / 3, 0, 0], [0, 0, 5 / 3, 0], [0, 0, 0, 1]])
shape = tuple(int(n * 3 / 5) for n in fine.shape)
coarse = fine.resample_to(gliodil.Volume(np.zeros(shape, np.float32), fine.affine @ edge, kind="scalar"))
gliodil.write_nifti(coarse, folder / "pet.nii.gz")
patient = gliodil.load_patient(folder)
print(next(row for row in patient.describe() if row["role"] == "pet"))

# %% [markdown]
# A PET that lies beside the head is one, and is refused before anything is computed:

# %%
shifted = coarse.affine.copy()
shifted[0, 3] += 500  # mm
gliodil.write_nifti(gliodil.Volume(coarse.data, shifted, kind="scalar"), folder / "pet.nii.gz")
try:
    gliodil.load_patient(folder)
except gliodil.GliodilError as error:
    print(error)
_ = gliodil.write_nifti(coarse, folder / "pet.nii.gz")

# %% [markdown]
# ## Naming files one by one
#
# Files can have any name if you say what they are. Only a segmentation and either tissue maps or an MRI are needed.

# %%
names = {role: folder / f"{role}.nii.gz" for role in ("seg", "wm", "gm", "csf")}
few = gliodil.load_patient(files=names, identity="patient_001")
few

# %% [markdown]
# ## Planning
#
# On the command line this is `gliodil plan patient_001/ --dry-run`, then without `--dry-run`. In Python, on a grid
# far too coarse for results:

# %%
done = gliodil.plan_patient(
    gliodil.load_patient(folder), "result", config=gliodil.FitConfig(cells=24, steps=96)
)
done.plans

# %%
for warning in done.metrics["warnings"] or ["no warnings"]:
    print(warning)
for name, ml in done.metrics["volumes_ml"].items():
    print(f"{name:14}{ml:8.1f} mL")
margin = done.metrics["margin_mm"]
for name in ("left", "right", "anterior", "posterior", "superior", "inferior"):
    mm = [margin[name + end] for end in ("", "_min", "_max")]
    print(f"margin {name:10}" + ("none" if None in mm else "{:6.1f} mm ({:.1f} to {:.1f})".format(*mm)))

# %% [markdown]
# Run it again with `resume=True` and the finished folder is kept if files, settings and version are the same. Any
# other program reads the results: they are NIfTI on the grid of the segmentation.

# %%
again = gliodil.plan_patient(
    gliodil.load_patient(folder),
    "result",
    config=gliodil.FitConfig(cells=24, steps=96),
    resume=True,
)
print("computed again" if again.fit else "kept")
gliodil.read_nifti("result/margin.nii.gz", kind="scalar")
