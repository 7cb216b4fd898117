"""Fisher-Kolmogorov growth in brain tissue.

    ∂u/∂t = ∇·(D(x)∇u) + ρ |u| (1 − u),        D(x) = D_w (w(x) + g(x)/R + v² c(x))

u is the tumour-cell density as a fraction of the carrying capacity, w and g are the white- and grey-matter
fractions of a cell, D_w the diffusivity in white matter [mm²/day], R = D_white/D_grey [-] and ρ the
proliferation rate [1/day]. c is the fraction that the maps call cerebrospinal fluid and v the speed of a front
there relative to white matter; by default it is closed. Cells with w + g (+ c where that is open) below
``TISSUE_THRESHOLD`` are impassable: no flux crosses their faces. |u| keeps the reaction from running away where
an optimizer's trial field is negative; it is u for every admissible density (Balcerak et al., arXiv 2312.05063,
public code).

Good values: D_w 0.035-0.2 mm²/day, ρ 0.035-0.2 1/day, R 10-30, over 100 days. A plane front then moves at
2√(D_w ρ), 0.07-0.4 mm/day, and its tail falls off over √(D_w/ρ), 0.4-2.4 mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gliodil.pde.grid import Grid
from gliodil.pde.operators import Faces, diffuse, face_means

TISSUE_THRESHOLD = 0.1
"""Smallest white- plus grey-matter fraction that tumour cells can enter [-]."""


@dataclass(frozen=True)
class FisherKolmogorov:
    """The equation on one patient's tissue.

    Attributes
    ----------
    grid
        Grid of the tissue maps.
    white, grey
        Tissue fractions per cell, shape (N,), in [0, 1].
    passable
        Boolean field: where w + g reaches the threshold.
    white_faces, grey_faces
        Face means divided by h² [1/mm²].
    csf, csf_faces
        The same of cerebrospinal fluid; None where that is closed.
    """

    grid: Grid
    white: torch.Tensor
    grey: torch.Tensor
    passable: torch.Tensor
    white_faces: Faces
    grey_faces: Faces
    csf: torch.Tensor | None = None
    csf_faces: Faces | None = None

    expression = "u_t = div(D_w (w + g/R + v^2 c) grad u) + rho |u| (1 - u)"

    @classmethod
    def on(
        cls, grid: Grid, white: torch.Tensor, grey: torch.Tensor, csf: torch.Tensor | None = None
    ) -> FisherKolmogorov:
        """Build the model from tissue fractions given per cell; without ``csf`` it is closed."""
        white, grey = grid.field(white), grid.field(grey)
        fluid = None if csf is None else grid.field(csf)
        open_fraction = white + grey if fluid is None else white + grey + fluid
        passable = open_fraction >= TISSUE_THRESHOLD
        per_h2 = [1 / h**2 for h in grid.spacing]
        return cls(
            grid=grid,
            white=white,
            grey=grey,
            passable=passable,
            white_faces=face_means(grid, white, passable).map(*per_h2),
            grey_faces=face_means(grid, grey, passable).map(*per_h2),
            csf=fluid,
            csf_faces=None if fluid is None else face_means(grid, fluid, passable).map(*per_h2),
        )

    def to(self, dtype: torch.dtype) -> FisherKolmogorov:
        """Return the same model in another precision."""
        grid = self.grid.with_dtype(dtype)
        return FisherKolmogorov(
            grid=grid,
            white=self.white.to(dtype),
            grey=self.grey.to(dtype),
            passable=self.passable,
            white_faces=self.white_faces.to(dtype),
            grey_faces=self.grey_faces.to(dtype),
            csf=None if self.csf is None else self.csf.to(dtype),
            csf_faces=None if self.csf_faces is None else self.csf_faces.to(dtype),
        )

    def coefficients(
        self,
        diffusivity: float | torch.Tensor,
        wm_gm_ratio: float | torch.Tensor,
        csf_speed: float | torch.Tensor = 0.0,
    ) -> Faces:
        """Return D/h² at the faces [1/day] for D_w [mm²/day], R and v [-]; differentiable in all."""
        tissue = self.white_faces * diffusivity + self.grey_faces * (diffusivity / wm_gm_ratio)
        if self.csf_faces is None:
            return tissue
        return tissue + self.csf_faces * (diffusivity * csf_speed**2)

    def rate(self, u: torch.Tensor, coefficients: Faces, rho: float | torch.Tensor) -> torch.Tensor:
        """Return the right-hand side A(u) [1/day] for fields of shape (..., N)."""
        return diffuse(u, coefficients) + reaction(u, rho)


def reaction(u: torch.Tensor, rho: float | torch.Tensor) -> torch.Tensor:
    """Return ρ |u| (1 − u) [1/day]."""
    return rho * u.abs() * (1 - u)


def reaction_slope(u: torch.Tensor) -> torch.Tensor:
    """Return d/du of |u| (1 − u), i.e. sign(u) (1 − 2u)."""
    return u.sign() * (1 - 2 * u)
