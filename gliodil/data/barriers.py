"""Falx and tentorium of the MNI152 template: the dural sheets that tumour cells do not cross.

Neither is visible as such in the template's maps, but the brain's own fissures say where they run.

    basins      cerebrum, cerebellum and brainstem, flooded from their white matter over −T1 (watershed), and
                8 mm on into the skull, where the dura is attached
    tentorium   where cerebrum meets cerebellum; where it meets the brainstem, only beside the pons. Midbrain,
                peduncles and the cisterns in the notch stay open.
    falx        midsagittal plane, |x| ≤ 1 mm, within the basin of the cerebrum, above and in front of the corpus
                callosum. Callosum, what lies under its arch (septum, fornix, commissures, thalami, third
                ventricle) and the lamina terminalis stay open.

Both are 2 to 3 mm thick, more than the dura: a sheet carried to another grid must not become leaky. It stops paths
across faces of voxels as long as a step moves less than that across it in the template, which `resample_sheets` sees
to on coarse grids.
"""

from __future__ import annotations

import itertools
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.template import Anatomy, below_tentorium, load_anatomy
from gliodil.data.volume import Volume

FALX, TENTORIUM = 1, 2

SKULL_MM = 8
"""How far the sheets go on beyond the brain: a patient's brain mask may be wider than the template's."""

SAMPLE_MM = 1.0
"""Distance of the samples within a voxel when sheets are carried to another grid."""

# Basins, and the numbers of their labels.
_CEREBRUM, _CEREBELLUM, _STEM = 1, 2, 3

# Landmarks of MNI152, world mm.
_BOX_Y, _BOX_Z = 10.0, 35.0  # cerebellum and brainstem lie behind and below
_NOTCH_Z = -16.0  # above this the crura leave the brainstem
_PONS_X = 10.0  # beside the pons, below the notch, dura lies between it and the temporal lobe
_LAMINA_TERMINALIS_Y = 9.0  # behind this everything under the callosum is open
_LAMINA_TERMINALIS_Z = -9.0
_ROSTRUM = (12.0, 6.0)  # the callosum in front of this y and below this z is its rostrum and genu

Mask = NDArray[np.bool_]


def falx_and_tentorium(anatomy: Anatomy) -> Volume:
    """Return falx (label 1) and tentorium (label 2) on the grid of an anatomy.

    They are found at 1 mm and carried to coarser anatomies.

    Raises
    ------
    MissingExtraError
        If the anatomy is coarse and nilearn, whose wheel holds the fine one, is not installed.
    """
    fine = max(anatomy.brain.spacing) <= 1.0
    return resample_sheets(_sheets(anatomy) if fine else _template_sheets(), anatomy.brain)


# A few seconds each time, and patients are often simulated in a row.
@cache
def _template_sheets() -> Volume:
    return _sheets(load_anatomy())


@lru_cache(maxsize=1)
def _sheets(anatomy: Anatomy) -> Volume:
    basins = _basins(anatomy)
    sheets = np.where(_tentorium(basins, anatomy), TENTORIUM, 0)
    sheets[_falx(basins, anatomy)] = FALX
    return anatomy.brain.with_data(sheets.astype(np.uint8))


def resample_sheets(sheets: Volume, reference: Volume) -> Volume:
    """Return thin sheets on another grid, without holes: a voxel belongs to a sheet if any part of it does.

    Parts are samples at most 1 mm apart; the nearest voxel of `sheets` decides. Where two sheets meet, the higher
    label wins.
    """
    if sheets.same_grid(reference):
        return sheets.resample_to(reference)
    counts = [max(1, int(np.ceil(h / SAMPLE_MM - 1e-6))) for h in reference.spacing]
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in counts]
    found = np.zeros(reference.shape, sheets.data.dtype)
    for offset in itertools.product(*offsets):
        affine = reference.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ offset
        there = Volume(np.zeros(reference.shape, np.uint8), affine, kind="label")
        np.maximum(found, sheets.resample_to(there).data, out=found)
    return reference.with_data(found, kind="label")


def _basins(anatomy: Anatomy) -> NDArray[np.int32]:
    """Return cerebrum, cerebellum and brainstem as a partition of the brain and a shell around it."""
    from skimage.segmentation import watershed

    spacing, brain = anatomy.brain.spacing, anatomy.brain.data > 0
    reach = ndimage.distance_transform_edt(~brain, sampling=spacing) <= SKULL_MM
    basins = np.where(reach, _CEREBRUM, 0).astype(np.int32)
    # All that is not cerebrum lies behind and below; flooding the rest would take time and change nothing.
    x, y, z = _coordinates(anatomy)
    box = (slice(None), slice(0, int((y < _BOX_Y).sum())), slice(0, int((z < _BOX_Z).sum())))
    y, z = y[box[1]], z[:, box[2]]
    white, tissue = anatomy.wm.data[box], (anatomy.wm.data + anatomy.gm.data)[box]
    below = below_tentorium(x, y, z)
    inside, outside = (ndimage.distance_transform_edt(m, sampling=spacing) for m in (below, ~below))
    markers = np.zeros(below.shape, np.int32)
    markers[(white > 0.7) & (outside > 6)] = _CEREBRUM
    markers[(white > 0.5) & (inside > 18) & (y < -45)] = _CEREBELLUM
    level = (z > -60) & (z < _NOTCH_Z + 5)
    markers[(tissue > 0.9) & level & (np.abs(x) < 13) & (y > -40) & (y < -14)] = _STEM
    markers[(white > 0.5) & level & (np.abs(x) < 16) & (y > -34) & (y < -16)] = _STEM
    darkness = -ndimage.gaussian_filter(np.where(brain, anatomy.t1.data, 0)[box], 0.5)
    basins[box] = watershed(darkness, markers, mask=reach[box])
    return basins


def _tentorium(basins: NDArray[np.int32], anatomy: Anatomy) -> Mask:
    """Return both sides of the border between cerebrum and cerebellum, and of that beside the pons."""
    x, _, z = _coordinates(anatomy)
    cerebrum = basins == _CEREBRUM
    below = (basins == _CEREBELLUM) | ((basins == _STEM) & (z < _NOTCH_Z) & (np.abs(x) > _PONS_X))
    near = ndimage.generate_binary_structure(3, 3)
    return np.asarray(
        (cerebrum & ndimage.binary_dilation(below, near)) | (below & ndimage.binary_dilation(cerebrum, near))
    )


def _falx(basins: NDArray[np.int32], anatomy: Anatomy) -> Mask:
    """Return the midsagittal sheet."""
    x, y, z = _coordinates(anatomy)
    middle = int(np.argmin(np.abs(x.ravel())))
    open_plane = _under_the_arch(anatomy.wm.data[middle] > 0.5, y, z)
    return np.asarray((np.abs(x) <= 1.0) & (basins == _CEREBRUM) & ~open_plane)


def _under_the_arch(white: Mask, y: NDArray[np.float64], z: NDArray[np.float64]) -> Mask:
    """Return corpus callosum and what lies under it, in the midsagittal plane (y, z)."""
    parts, _ = ndimage.label(white & (z > -8))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    callosum = parts == sizes.argmax()
    columns = np.flatnonzero(callosum.any(axis=1))
    ys, zs = y.ravel(), z.ravel()
    top = np.full(len(ys), -np.inf)
    top[columns] = [zs[column.nonzero()[0].max()] for column in callosum[columns]]
    front = np.argwhere(callosum & (y > _ROSTRUM[0]) & (z < _ROSTRUM[1]))
    tip = front[front[:, 0] == front[:, 0].min()].min(axis=0)
    bottom = np.full(len(ys), -np.inf)
    for i in columns:
        if ys[i] >= ys[tip[0]]:
            bottom[i] = zs[callosum[i].nonzero()[0].min()]
        elif ys[i] > _LAMINA_TERMINALIS_Y:
            bottom[i] = np.interp(
                ys[i], [_LAMINA_TERMINALIS_Y, ys[tip[0]]], [_LAMINA_TERMINALIS_Z, zs[tip[1]]]
            )
    return np.asarray((z <= top[:, None]) & (z >= bottom[:, None]))


def _coordinates(anatomy: Anatomy) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return world x, y and z [mm] of the voxels, shaped to be broadcast; the template's axes are the world's."""
    ends = [np.arange(n)[:, None] * np.eye(3)[axis] for axis, n in enumerate(anatomy.brain.shape)]
    x, y, z = (anatomy.brain.to_world(index)[:, axis] for axis, index in enumerate(ends))
    return x[:, None, None], y[:, None], z[None, :]
