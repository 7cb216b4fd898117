"""The density at the first visit, where what was seen is noisy: estimated together with the law.

    u(0) = 1/(1 + e^{−z}),      z = z₀ + G q

z₀ are the log-odds of the smoothed density, G a Gaussian of two voxels, q = 0 at first. Densities fall off
exponentially ahead of a front, so that their log-odds are nearly straight there and smoothing leaves them alone. Where
the model starts from the noise itself, growth that is fast at low densities turns it into a tumour, and the fit answers
with a diffusivity that is too large. G q has a prior: normal, standard deviation 1.
"""

from __future__ import annotations

import torch

from gliodil.inference.blur import blur
from gliodil.pde.grid import Grid

VOXELS = 2.0
SCALE = 10.0
"""Of q, so that it is about as stiff as the parameters."""
LOWEST, HIGHEST = 1e-4, 1 - 1e-3


class StartField:
    """The map from q to u(0).

    Parameters
    ----------
    grid
        Grid of the fields.
    guess
        Smoothed density at the first visit, shape (N,).
    passable
        Where cells can be.
    """

    def __init__(self, grid: Grid, guess: torch.Tensor, passable: torch.Tensor) -> None:
        self._grid, self._passable = grid, passable
        self._z = torch.logit(guess.clamp(LOWEST, HIGHEST))

    def zero(self) -> torch.Tensor:
        """Return q = 0."""
        return torch.zeros_like(self._z)

    def density(self, q: torch.Tensor) -> torch.Tensor:
        """Return u(0), differentiable."""
        moved = blur(self._grid.box(q), (VOXELS,) * 3, unit_variance=True).reshape(-1)
        return torch.where(self._passable, torch.sigmoid(self._z + SCALE * moved), 0.0)

    def price(self, q: torch.Tensor) -> torch.Tensor:
        """Return −2 ln of the prior."""
        return (SCALE * q).square().sum()
