"""Memory for fields over space and time, which are large and short-lived.

The system hands out new memory page by page, zeroed, when it is first written; a virtual machine asks its host for it
once more. That can take as long as the sweep that fills it. So what a fit lets go of it is handed again. NumPy asks
for pages of 2 MB where Linux has them, PyTorch does not: 4 KB each, a field is four times as slow to write the first
time.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from typing import Any

import numpy as np
import torch


def empty(*shape: int, like: torch.Tensor) -> torch.Tensor:
    """Return a tensor of this shape, contents undefined, with the precision and device of another."""
    return Memory().empty(*shape, like=like)


class Memory:
    """Hands out fields, and takes each back once nothing refers to it any more.

    Holds no more than was in use at once, and lets go of it with the last reference to this object and its fields. On
    CUDA that is PyTorch's own doing.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray[Any, Any]]] = defaultdict(list)

    def empty(self, *shape: int, like: torch.Tensor) -> torch.Tensor:
        """Return a tensor of this shape, contents undefined, with the precision and device of another."""
        if like.device.type != "cpu":
            return like.new_empty(shape)
        dtype = like.detach().numpy().dtype
        entries = math.prod(shape)
        size = _rounded(entries * dtype.itemsize)
        free = self._free[size]
        block = free.pop() if free else np.empty(size, np.uint8)
        field = block.view(dtype)[:entries].reshape(shape)
        weakref.finalize(field, free.append, block).atexit = False
        return torch.from_numpy(field)


def _rounded(size: int) -> int:
    """Round up by less than an eighth, to serve a level more as well; pages never written cost nothing."""
    unit = max(64, 1 << max(0, size.bit_length() - 4))
    return -(-size // unit) * unit
