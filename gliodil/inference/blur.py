"""Gaussian smoothing of a box of cells, differentiable, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import conv3d, pad


def blur(box: torch.Tensor, sigmas: Sequence[float], *, unit_variance: bool = False) -> torch.Tensor:
    """Return a 3-D box convolved with a Gaussian.

    Parameters
    ----------
    box
        Shape (nx, ny, nz).
    sigmas
        Standard deviation per axis, in cells.
    unit_variance
        Scale the kernel such that white noise keeps its variance, and take what lies outside the box as zero. By default
        the kernel sums to one, and the outermost cells go on outside the box.
    """
    out = box[None, None]
    for axis, sigma in enumerate(sigmas, start=2):
        reach = math.ceil(3 * sigma)
        offsets = torch.arange(-reach, reach + 1, device=box.device, dtype=box.dtype)
        kernel = torch.exp(-0.5 * (offsets / sigma).square())
        kernel = kernel / (kernel.square().sum().sqrt() if unit_variance else kernel.sum())
        shape, sides = [1] * 5, [0] * 6
        shape[axis] = kernel.numel()
        sides[2 * (4 - axis)] = sides[2 * (4 - axis) + 1] = reach
        padded = pad(out, sides) if unit_variance else pad(out, sides, mode="replicate")
        out = conv3d(padded, kernel.reshape(shape))
    return out[0, 0]
