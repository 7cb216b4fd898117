"""Memory for fields over space and time, which are large and short-lived.

The system hands out new memory page by page, zeroed, when it is first written. NumPy asks for pages of 2 MB where
Linux has them, PyTorch does not: 4 KB each, a field is four times as slow to write the first time.
"""

from __future__ import annotations

import numpy as np
import torch


def empty(*shape: int, like: torch.Tensor) -> torch.Tensor:
    """Return a tensor of this shape, contents undefined, with the precision and device of another."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, like.detach().numpy().dtype))
