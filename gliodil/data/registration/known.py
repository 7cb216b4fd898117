"""A head whose anatomy is known: the MNI152 template deformed, biased, noisy, with a lesion painted in.

The patient's point x shows the template's point

    y = A (x + d(x)),    d smooth and random, plus the mass effect of a lesion: a pull towards its centre c,
                         d_m(x) = −m (x − c)/|x − c| · exp(−½ (|x − c| − r)² / (r/2)²),  |x − c| > r

with A a rotation, scaling and shift. The T1 image is the template's there, raised to a power (another contrast), times
a smooth bias, plus noise. The lesion covers what was there: dark core, bright rim, darkened oedema.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gliodil.data.distort import blurred_noise
from gliodil.data.labels import get_convention
from gliodil.data.template import Anatomy
from gliodil.data.volume import Volume

CONVENTION = get_convention("brats-2023")


@dataclass(frozen=True, eq=False)
class KnownHead:
    """An image to register, and what registering should find; all on one grid.

    Attributes
    ----------
    t1
        T1-weighted image, zero outside the brain.
    brain, segmentation
        Brain mask; lesion labels (brats-2023).
    wm, gm
        True tissue fractions, as they would be without the lesion.
    """

    t1: Volume
    brain: Volume
    segmentation: Volume
    wm: Volume
    gm: Volume


def known_head(
    anatomy: Anatomy,
    *,
    seed: int = 0,
    warp_mm: float = 8.0,
    mass_mm: float = 4.0,
    lesion_mm: float = 22.0,
    lesion_centre: tuple[float, float, float] = (30.0, -20.0, 22.0),
    contrast: float = 1.3,
    bias: float = 0.25,
    noise: float = 0.03,
) -> KnownHead:
    """Return a head made from `anatomy`, on the anatomy's grid.

    Parameters
    ----------
    warp_mm, mass_mm
        Largest displacement of the smooth field and of the mass effect, mm.
    lesion_mm
        Radius of the lesion with its oedema, mm; 0 for none.
    lesion_centre
        World mm in the patient.
    contrast
        Power that the template's intensities (in [0, 1]) are raised to.
    bias, noise
        Largest relative change by the bias field; standard deviation of the noise against the brightest tissue.
    """
    rng = np.random.default_rng(seed)
    grid = anatomy.t1
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in grid.shape), indexing="ij"), -1)
    world = grid.to_world(index)
    from_centre = world - np.asarray(lesion_centre)
    distance = np.linalg.norm(from_centre, axis=-1)
    moved = world + _smooth_field(rng, grid, warp_mm)
    if lesion_mm > 0:
        pull = mass_mm * np.exp(-0.5 * (np.maximum(distance - lesion_mm, 0) / (lesion_mm / 2)) ** 2)
        pull = np.minimum(pull, 0.6 * distance)
        moved -= from_centre * (pull / np.maximum(distance, 1e-6))[..., None]
    looked_up = moved @ _random_affine(rng).T[:3, :3] + rng.uniform(-6, 6, 3)
    position = np.moveaxis(grid.to_index(looked_up), -1, 0)

    def carried(volume: Volume, order: int = 1) -> NDArray[np.float32]:
        data = volume.data.astype(np.float32)
        return np.asarray(ndimage.map_coordinates(data, position, order=order, mode="constant"))

    brain = carried(anatomy.brain, 0) > 0
    image = (np.clip(carried(anatomy.t1), 0, 255) / 255) ** contrast
    labels = np.zeros(grid.shape, np.uint8)
    if lesion_mm > 0:
        # A bumpy surface: no tumour is a ball.
        radius = distance * (1 + 0.15 * _unit(_smooth(rng, grid, 9.0)))
        labels[radius < lesion_mm] = CONVENTION.oedema[0]
        labels[radius < 0.65 * lesion_mm] = CONVENTION.enhancing[0]
        labels[radius < 0.4 * lesion_mm] = CONVENTION.necrotic[0]
        labels[~brain] = 0
        image = np.where(labels == CONVENTION.oedema[0], 0.7 * image, image)
        image = np.where(labels == CONVENTION.enhancing[0], 0.95, image)
        image = np.where(labels == CONVENTION.necrotic[0], 0.15, image)
    image = image * (1 + bias * _unit(_smooth(rng, grid, 45.0)))
    image = image + noise * rng.standard_normal(grid.shape)
    return KnownHead(
        t1=grid.with_data(np.where(brain, np.maximum(image, 1e-3), 0).astype(np.float32)),
        brain=grid.with_data(brain, kind="label"),
        segmentation=grid.with_data(labels, kind="label"),
        wm=grid.with_data(np.where(brain, carried(anatomy.wm), 0)),
        gm=grid.with_data(np.where(brain, carried(anatomy.gm), 0)),
    )


def _random_affine(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return rotations of up to 6 degrees and scalings of up to 6 %, as a 3x3 matrix."""
    matrix = np.diag(1 + rng.uniform(-0.06, 0.06, 3))
    for axis, angle in enumerate(np.radians(rng.uniform(-6, 6, 3))):
        a, b = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = turn @ matrix
    return matrix


def _smooth_field(rng: np.random.Generator, grid: Volume, largest_mm: float) -> NDArray[np.float64]:
    """Return a displacement field, mm, whose longest vector has the given length."""
    field = np.stack([_smooth(rng, grid, 18.0) for _ in range(3)], axis=-1)
    return np.asarray(field * (largest_mm / np.linalg.norm(field, axis=-1).max()))


def _smooth(rng: np.random.Generator, grid: Volume, sigma_mm: float) -> NDArray[np.float64]:
    return blurred_noise(rng, grid.shape, grid.spacing, sigma_mm)


def _unit(field: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(field / np.abs(field).max())
