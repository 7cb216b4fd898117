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
# # From DICOM to RTSTRUCT and back
#
# The folder a scanner's export is in goes in; contours on the slices of its reference series come out, and are read
# back. Needs `pip install 'gliodil[dicom,report]'`. Research use only: the structure set says so and is UNAPPROVED.
#
# To have an export, a synthetic T1 with contrast is written as one DICOM series of 5 mm slices. Skip this cell with
# your own data.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

import gliodil

scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # goes away with the notebook
folder = Path(scratch.name) / "patient_007"
simulated = gliodil.simulate(seed=4, resolution_mm=3).patient
for role, volume in {"seg": simulated.segmentation, **simulated.volumes}.items():
    if role in ("seg", "wm", "gm", "csf", "brain", "recurrence"):
        gliodil.write_nifti(volume, folder / f"{role}.nii.gz")

# Axial slices of 2 x 2 x 5 mm; DICOM counts towards the patient's left and back (LPS), NIfTI to the right and front.
lps = np.diag([-1.0, -1.0, 1.0, 1.0])
affine = lps @ np.array([[2.0, 0, 0, -80], [0, 2, 0, -85], [0, 0, 5, -60], [0, 0, 0, 1]])
frame = gliodil.Volume(np.zeros((80, 96, 28), np.float32), affine, kind="scalar")
pixels = simulated.volumes["t1"].resample_to(frame).data + 60 * simulated.segmentation.resample_to(frame).data
study, series, space = (generate_uid(entropy_srcs=["gliodil", name]) for name in ("study", "series", "space"))
(folder / "DICOM").mkdir()
for k in range(pixels.shape[2]):
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=[series, str(k)])
    header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, space
    header.PatientName, header.PatientID, header.StudyDate = "Nobody^Synthetic", "synthetic-4", "20200102"
    header.Modality, header.SeriesDescription, header.SeriesNumber = "MR", "t1_mprage +KM", 5
    header.InstanceNumber = k + 1
    header.Rows, header.Columns = pixels.shape[1], pixels.shape[0]
    header.PixelSpacing, header.SliceThickness = [2, 2], 5
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [float(x) for x in (lps @ affine @ [0, 0, k, 1])[:3]]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.PixelData = np.ascontiguousarray(pixels[:, :, k].T.astype(np.int16)).tobytes()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = MRImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    pydicom.dcmwrite(folder / "DICOM" / f"IM{k:04d}", header, enforce_file_format=True)

# %% [markdown]
# ## What is in the folder?
#
# Series are told apart by their headers. No name, number or date of birth is repeated in any message or result but
# the exported DICOM itself.

# %%
from gliodil.data.dicom.scan import find_series

for found in find_series(folder):
    print(found)

patient = gliodil.load_patient(folder)
patient

# %% [markdown]
# The segmentation is NIfTI on another grid; the plan is computed on the segmentation's grid and carried to the
# slices at the end. (A segmentation as DICOM SEG or RTSTRUCT is read too.)
#
# ## Plan and export

# %%
result = Path(scratch.name) / "result"
done = gliodil.plan_patient(patient, result, config=gliodil.FitConfig(cells=24, steps=96))
print(*sorted(path.name for path in result.glob("*.dcm")), sep="\n")
print(f"\n{'':14}{'Dice':>7}{'on the plan':>13}{'in voxels':>11}{'in contours':>13}")
for name, s in done.metrics["dicom"]["structures"].items():
    print(
        f"{name:14}{s['dice']:7.4f}{s['plan_ml']:10.1f} mL{s['voxel_ml']:8.1f} mL{s['polygon_ml']:10.1f} mL"
    )

# %% [markdown]
# Each file was read back before the run counted as a success: a Dice of 1 means that the contours give back every
# voxel of the slices. The volume on the plan's own grid differs because 5 mm slices cannot show the same shape.
# Compare the volume your planning system shows with "in contours" before you use a structure.
#
# ## Reading it back
#
# With gliodil, onto the grid of the series; and with nothing but pydicom, as a planning system would.

# %%
from gliodil.data.dicom.rtstruct_reader import read_rtstruct

image = patient.series["t1c"].volume()
masks = read_rtstruct(result / "rtstruct.dcm", image)
for name, mask in masks.items():
    print(f"{name:14}{np.count_nonzero(mask.data) * mask.voxel_volume_ml:8.1f} mL")

# %%
structures = pydicom.dcmread(result / "rtstruct.dcm")
names = {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}
k = int(np.argmax(masks["GTV"].data.sum(axis=(0, 1))))
z = float((lps @ image.affine @ [0, 0, k, 1])[2])
corner, far = (
    lps @ image.affine @ [*index, k, 1] for index in ((-0.5, -0.5), np.array(image.shape[:2]) - 0.5)
)

_, axes = plt.subplots(figsize=(4.6, 4.8), layout="constrained")
axes.imshow(image.data[:, :, k].T, cmap="gray", extent=(corner[0], far[0], far[1], corner[1]))
for roi in structures.ROIContourSequence:
    colour = np.array(roi.ROIDisplayColor, float) / 255
    label = names[roi.ReferencedROINumber]
    for contour in roi.ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        if abs(points[0, 2] - z) < 0.01:
            axes.plot(*np.vstack([points, points[:1]])[:, :2].T, color=colour, linewidth=1.3, label=label)
            label = None
axes.set(
    xlabel="x (mm, DICOM: to the patient's left)",
    ylabel="y (mm, to the back)",
    title=f"Slice at z = {z:.0f} mm",
)
axes.legend(fontsize=8, labelcolor="white", facecolor="black")
plt.show()
print(structures.StructureSetLabel, "/", structures.ApprovalStatus)

# %% [markdown]
# No commercial planning system has been tried with these files; contours run along pixel edges, where the mask
# ends.
