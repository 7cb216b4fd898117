"""Which voxels are brain: a given mask, an image that is stripped already, or `deepbet`.

A stripped image has one value (mostly 0) in most of its voxels, and what is left is one piece of the size of a
brain: a head with its scalp is larger. Holes in it are brain that happens to have the background's value.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import ndimage

from gliodil.data.nifti import read_nifti, write_nifti
from gliodil.data.registration.images import Mask
from gliodil.data.volume import Volume
from gliodil.errors import InputError, MissingExtraError

STRIPPED_ML = (700.0, 2100.0)
"""Volume of what is not background in a stripped image, mL: brains, and hardly a head."""

LARGEST_PIECE = 0.97
"""Share of it that the largest connected piece holds at least."""

ANATOMICAL = ("t1c", "t1", "flair", "t2")

Source = Literal["given", "stripped", "deepbet"]


@dataclass(frozen=True, eq=False)
class Brain:
    """A brain mask (label volume, 1 inside) and where it comes from."""

    mask: Volume
    source: Source


def find_brain(volumes: Mapping[str, Volume]) -> Brain:
    """Return the brain mask of a patient whose volumes lie on one grid.

    Raises
    ------
    MissingExtraError
        If the images show the whole head and deepbet, which would strip them, is not installed.
    InputError
        If there is no anatomical image, or no brain is found in it.
    """
    source = brain_source(volumes)
    if source == "given":
        given = volumes["brain"]
        return Brain(given.with_data((given.data != 0).astype(np.uint8)), source)
    if source == "stripped":
        found = [
            mask for key in ANATOMICAL if key in volumes if (mask := stripped_mask(volumes[key])) is not None
        ]
        # One image's dark tissue may equal its background; hardly that of all.
        mask = _whole(np.logical_or.reduce(found))
        return Brain(next(iter(volumes.values())).with_data(mask.astype(np.uint8), kind="label"), source)
    key = next(key for key in ("t1", "t1c", "t2", "flair") if key in volumes)
    return Brain(_deepbet(volumes[key]), source)


def brain_source(volumes: Mapping[str, Volume]) -> Source:
    """Return where the brain mask will come from; raises what `find_brain` would raise before it computes."""
    if "brain" in volumes:
        return "given"
    images = [volumes[key] for key in ANATOMICAL if key in volumes]
    if not images:
        raise InputError(
            "There is no anatomical image to find the brain in.",
            expected="a T1, T1c, T2 or FLAIR image, or a brain mask",
            found=", ".join(volumes) or "only the segmentation",
            remedy="add an image, or --brain FILE",
        )
    if any(stripped_mask(image) is not None for image in images):
        return "stripped"
    if find_spec("deepbet") is None:
        raise MissingExtraError("deepbet", "skullstrip", instead="give a brain mask with --brain FILE")
    return "deepbet"


def stripped_mask(image: Volume) -> Mask | None:
    """Return the brain in an image without skull; None if the image shows more than a brain."""
    data = image.data
    border = np.concatenate([data.take(k, axis).ravel() for axis in range(3) for k in (0, -1)])
    values, counts = np.unique(border, return_counts=True)
    background = values[counts.argmax()]
    inside = data != background
    ml = float(np.count_nonzero(inside)) * image.voxel_volume_ml
    if not STRIPPED_ML[0] <= ml <= STRIPPED_ML[1]:
        return None
    pieces, count = ndimage.label(inside)
    if count == 0:
        return None
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    if sizes.max() < LARGEST_PIECE * np.count_nonzero(inside):
        return None
    return _whole(pieces == sizes.argmax())


def _whole(mask: Mask) -> Mask:
    """Fill holes, also those open within one slice only."""
    return np.asarray(ndimage.binary_fill_holes(mask))


def _deepbet(image: Volume) -> Volume:
    """Return the brain mask that deepbet predicts; its weights come with the package, nothing is downloaded."""
    try:
        from deepbet import run_bet
    except ImportError as error:
        raise MissingExtraError(
            "deepbet", "skullstrip", instead="give a brain mask with --brain FILE"
        ) from error
    with tempfile.TemporaryDirectory() as scratch:
        head, mask = Path(scratch) / "head.nii.gz", Path(scratch) / "mask.nii.gz"
        write_nifti(Volume(image.data, image.affine, kind="scalar"), head)
        run_bet([str(head)], mask_paths=[str(mask)], no_gpu=True, skip_broken=False)
        found = read_nifti(mask, kind="label").resample_to(image)
    if not found.data.any():
        raise InputError(
            "No brain was found in the image.",
            file=image.path,
            expected="a T1-weighted image of a head",
            found="an empty mask from deepbet",
            remedy="give a brain mask with --brain FILE",
        )
    return found.with_data((found.data != 0).astype(np.uint8))
