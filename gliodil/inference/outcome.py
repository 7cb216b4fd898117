"""What every way of fitting hands back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gliodil.inference.parameters import Scalars
from gliodil.pde.odil.problem import Minimum


@dataclass(frozen=True)
class Outcome:
    """The density at every level that was kept (the last one at least), the parameters, and the optimizer's account."""

    levels: torch.Tensor
    scalars: Scalars
    minimum: Minimum
    dtype: torch.dtype
    physics: str = "soft"
    misfit_mm: float | None = None
    optimizer: str = ""
    """Name of the optimizer, where it is not the configuration's."""
