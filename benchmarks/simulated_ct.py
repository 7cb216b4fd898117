"""A planning CT made from an MR whose place in it is known.

    HU(y) = head(T⁻¹ y) + couch + noise,      T: world mm of the MR → world mm of the CT, rigid

The head has air (−1000), fat, soft tissue, bone between brain and scalp, and grey matter, white matter and fluid by the
T1's brightness. The couch lies still in the CT, under the head as it was before it was turned. Slices may be sheared
(a tilted gantry) and the field of view may end inside the head. No distortion of the MR is simulated: errors found on
such pairs are optimistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.resample import resample
from gliodil.data.volume import Volume

AIR, FAT, SOFT, BONE, FLUID, WHITE, GREY = -1000.0, -80.0, 40.0, 800.0, 8.0, 29.0, 37.0


@dataclass(frozen=True)
class Scan:
    """How a CT was taken, lengths in mm: voxel size, extent along z, its middle over the brain's, tilt, noise."""

    pixel_mm: float
    slice_mm: float
    extent_mm: float
    middle_mm: float
    tilt_deg: float
    noise_hu: float


def head_hu(t1: Volume, brain: NDArray[np.bool_]) -> Volume:
    """Return a T1 image of a whole head as Hounsfield units."""
    data = t1.data.astype(np.float32)
    low, high = np.percentile(data[brain], (2, 98))
    spacing = t1.spacing
    inside = ndimage.binary_closing(ndimage.gaussian_filter(data, 1.5) > 0.12 * high, iterations=4)
    inside = ndimage.binary_fill_holes(inside | brain)
    depth = ndimage.distance_transform_edt(~brain, sampling=spacing)
    hu = np.where(inside, SOFT, AIR)
    hu[inside & (data > 0.9 * high) & (depth > 9)] = FAT
    hu[inside & (depth > 2.5) & (depth <= 8.5)] = BONE
    within = inside & (depth <= 2.5)
    hu[within] = FLUID
    brightness = (data - low) / (high - low)
    hu[brain & (brightness > 0.35)] = GREY
    hu[brain & (brightness > 0.68)] = WHITE
    return t1.with_data(ndimage.gaussian_filter(hu, 0.5).astype(np.float32), kind="scalar")


def planning_ct(
    head: Volume,
    centre: NDArray[np.float64],
    motion: NDArray[np.float64],
    scan: Scan,
    rng: np.random.Generator,
) -> Volume:
    """Return the CT of a head.

    Parameters
    ----------
    head
        Hounsfield units on the MR's grid.
    centre
        Of the brain, world mm of the MR.
    motion
        T: world mm of the MR to world mm of the CT.
    """
    n = round(300 / scan.pixel_mm)
    slices = round(scan.extent_mm / scan.slice_mm)
    middle = motion[:3, :3] @ centre + motion[:3, 3]
    affine = np.diag([scan.pixel_mm, scan.pixel_mm, scan.slice_mm, 1.0])
    affine[1, 2] = np.tan(np.radians(scan.tilt_deg)) * scan.slice_mm
    corner = np.array([(n - 1) / 2, (n - 1) / 2, (slices - 1) / 2])
    affine[:3, 3] = middle + np.array([0, 0, scan.middle_mm]) - affine[:3, :3] @ corner
    moved = resample(
        head.data - AIR, motion @ head.affine, onto_affine=affine, onto_shape=(n, n, slices), linear=True
    )
    hu = np.asarray(moved, np.float32) + AIR
    y = (affine @ np.array([0, 0, 0, 1.0]))[1] + scan.pixel_mm * np.arange(n)
    under = middle[1] - 115.0
    couch = (y < under) & (y > under - 25)
    shell = couch & ((y > under - 3) | (y < under - 22))
    wide = np.abs(np.arange(n) - (n - 1) / 2) * scan.pixel_mm < 130
    for rows, value in ((couch, -850.0), (shell, 50.0)):
        empty = wide[:, None, None] & rows[None, :, None] & (hu < -900)
        hu[empty] = value
    hu += rng.normal(0, scan.noise_hu, hu.shape)
    return Volume(hu.astype(np.float32), affine, kind="scalar", frame="1.2.3.ct")


def random_motion(
    rng: np.random.Generator, centre: NDArray[np.float64], *, degrees: float, mm: float
) -> NDArray[np.float64]:
    """Return a rotation about the centre by up to so many degrees, and a shift by up to so many mm."""
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(rng.uniform(0, degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    shift = rng.normal(size=3)
    shift *= rng.uniform(0, mm) / np.linalg.norm(shift)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + shift
    return matrix
