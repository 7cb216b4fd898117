"""The MNI152 brain as tissue maps: the anatomy that synthetic patients grow in.

Maps: ICBM 152 (2009a, symmetric, 1 mm, RAS+), as packaged with nilearn, whose files are read without
importing it. They are averages over 152 people and therefore blurred: grey matter reaches 0.3 inside the
ventricles, which tumour cells would cross. A single brain has sharp CSF spaces, so a voxel in which CSF
prevails is taken as CSF altogether:

    s = w + g;    w = g = 0 where s < 1/2;    brain = filled {G_1mm * s > 0.3};    c = brain − w − g
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.nifti import read_nifti
from gliodil.data.volume import Volume
from gliodil.errors import InputError, MissingExtraError

COARSEST_MM = 8

CSF_PREVAILS = 0.5
"""White- plus grey-matter fraction below which a voxel of the template counts as CSF."""

BRAIN_LEVEL = 0.3
"""Smoothed tissue fraction at the surface of the brain."""

Scalars = NDArray[np.float32]
Mask = NDArray[np.bool_]
Coordinate = NDArray[np.float64]


@dataclass(frozen=True)
class Anatomy:
    """A head without a tumour; all volumes lie on one grid, world millimetres of MNI152 (RAS+).

    Attributes
    ----------
    wm, gm, csf
        Tissue fractions in [0, 1]; they add up to 1 in the brain and vanish outside.
    brain
        Label volume, 1 inside the brain with its ventricles.
    t1
        T1-weighted image, 0 to 255.
    """

    wm: Volume
    gm: Volume
    csf: Volume
    brain: Volume
    t1: Volume

    def infratentorial(self) -> Mask:
        """Return which voxels lie below the tentorium (cerebellum, brainstem); see `below_tentorium`."""
        # The template's axes are those of the world, so that each coordinate depends on one index.
        ends = [np.arange(n)[:, None] * np.eye(3)[axis] for axis, n in enumerate(self.brain.shape)]
        x, y, z = (self.brain.to_world(index)[:, axis] for axis, index in enumerate(ends))
        return below_tentorium(x[:, None, None], y[:, None], z)


def load_anatomy(*, resolution_mm: float = 1.0) -> Anatomy:
    """Return the MNI152 anatomy.

    Parameters
    ----------
    resolution_mm
        Voxel size: a whole number of millimetres from 1 to 8. Coarser maps are block means of the 1 mm maps.

    Raises
    ------
    MissingExtraError
        If nilearn, whose wheel holds the maps, is not installed.
    InputError
        If the resolution is not a whole number from 1 to 8.
    """
    if not 1 <= resolution_mm <= COARSEST_MM or resolution_mm != int(resolution_mm):
        raise InputError(
            "The synthetic anatomy does not come in this resolution.",
            expected=f"a whole number of millimetres from 1 to {COARSEST_MM}",
            found=f"{resolution_mm:g} mm",
        )
    factor, folder = int(resolution_mm), _template_folder()
    t1, grey, white = (
        read_nifti(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz", kind="scalar")
        for name in ("t1", "gm", "wm")
    )
    w, g = (np.asarray(volume.data / np.float32(255), np.float32) for volume in (white, grey))
    brain = _brain_mask(w + g)
    tissue = brain & (w + g >= CSF_PREVAILS)
    maps = (np.where(tissue, w, 0), np.where(tissue, g, 0), brain.astype(np.float32), t1.data)
    w, g, share, image = (_block_mean(np.asarray(m, np.float32), factor) for m in maps)
    inside = share >= 0.5
    w, g = np.where(inside, w, np.float32(0)), np.where(inside, g, np.float32(0))
    csf = np.clip(inside - w - g, 0, 1).astype(np.float32)
    affine = _block_affine(white.affine, factor)
    return Anatomy(
        wm=Volume(w, affine, kind="scalar"),
        gm=Volume(g, affine, kind="scalar"),
        csf=Volume(csf, affine, kind="scalar"),
        brain=Volume(inside.astype(np.uint8), affine, kind="label"),
        t1=Volume(image, affine, kind="scalar"),
    )


def below_tentorium(x: Coordinate, y: Coordinate, z: Coordinate) -> Mask:
    """Return which points [world mm, MNI152] lie below the tentorium, approximated by two planes.

    The tent's ridge runs in the midline, level at z = 8 from y = -35 to -50 and then falling by 0.45 mm per
    mm to the back; its sides fall by 0.55 mm per mm. The brainstem is a block in front of it. Good to a few
    millimetres on this template.
    """
    tent = (y < -35) & (z < 8 - 0.55 * np.abs(x) + 0.45 * np.minimum(y + 50, 0))
    stem = (np.abs(x) < 20) & (y > -45) & (y < -5) & (z < -8)
    return np.asarray(tent | stem)


def _template_folder() -> Path:
    """Find the maps in the installed nilearn; importing it would take seconds."""
    spec = find_spec("nilearn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "datasets" / "data"
        if (folder / "mni_icbm152_wm_tal_nlin_sym_09a_converted.nii.gz").is_file():
            return folder
    raise MissingExtraError("nilearn", "report")


def _brain_mask(tissue: Scalars) -> Mask:
    parts, _ = ndimage.label(ndimage.gaussian_filter(tissue, sigma=1.0) > BRAIN_LEVEL)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(parts == sizes.argmax()))


def _block_mean(data: Scalars, factor: int) -> Scalars:
    """Return means over cubes of `factor` voxels; zeros fill up the last ones (the image's border is air)."""
    if factor == 1:
        return data
    padded = np.pad(data, [(0, -n % factor) for n in data.shape])
    x, y, z = (n // factor for n in padded.shape)
    blocks = padded.reshape(x, factor, y, factor, z, factor)
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float64), np.float32)


def _block_affine(affine: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return the affine of the blocks; the first is centred (factor - 1)/2 voxels from the first voxel."""
    to_fine = np.diag([factor, factor, factor, 1.0])
    to_fine[:3, 3] = (factor - 1) / 2
    return affine @ to_fine
