"""A diffusivity that differs smoothly from what the tissue maps say.

    D(x) = D_w (w + g/R) e^{ξ(x)},      ξ = 2.5 tanh(0.5 G q / 2.5),      q white

Registered tissue maps are off by a millimetre or two, cells follow fibres, and no tumour keeps to one equation. Where
exact growth cannot reach the visible boundaries, a field of log-mobility ξ (standard deviation 0.5, Gaussian correlation
of 4 mm) may bend it: the front arrives earlier here and later there, its tail remains what the equation makes of it.
Model error added to the equation instead would cut the tail off ahead of the front, since that costs next to nothing.

Its price counts labels as they come, in clusters that err together. With one independent observation per volume V,
−2 ln(posterior) is the misfit S of ``informed_loss`` in units of V cells, plus ‖q‖²; in the units of the loss,

    S + ‖w‖²,     w = q √(V / V_cell / (Nt N)) .

V decides how stiff the field is. It is lowered along ``STIFFNESS_MM3`` until the labels are explained as well as they
can be seen (discrepancy principle, ``label_misfit``).
"""

from __future__ import annotations

import math

import torch

from gliodil.inference.blur import blur
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.pde.operators import Faces

DEVIATION = 0.5
"""Standard deviation of ξ."""
CORRELATION_MM = 4.0
"""Standard deviation of the Gaussian G [mm]; the autocorrelation of ξ is √2 wider."""
STIFFNESS_MM3 = (3200.0, 800.0, 300.0)
"""Volumes V, stiffest first [mm³]."""
LARGEST = 2.5
"""Bound on |ξ|, far beyond its deviation: a factor of twelve is more than any tissue accounts for."""


class Mobility:
    """The map from w to the factors e^ξ at the faces.

    Parameters
    ----------
    loss
        Loss of the case whose cells it acts on.
    stiffness_mm3
        V [mm³].
    """

    def __init__(self, loss: ReferenceLoss, stiffness_mm3: float) -> None:
        self.grid = loss.case.grid
        self._sigmas = tuple(CORRELATION_MM / h for h in self.grid.spacing)
        self._amplitude = DEVIATION * math.sqrt(loss.entries * self.grid.cell_volume_mm3 / stiffness_mm3)

    def start(self, dtype: torch.dtype) -> torch.Tensor:
        """Return w = 0."""
        return torch.zeros(self.grid.cells, dtype=dtype, device=self.grid.device)

    def log_factor(self, w: torch.Tensor) -> torch.Tensor:
        """Return ξ per cell."""
        smooth = blur(self.grid.box(w), self._sigmas, unit_variance=True)
        return LARGEST * torch.tanh(self._amplitude / LARGEST * smooth.reshape(-1))

    def scale(self, coefficients: Faces, log_factor: torch.Tensor) -> Faces:
        """Return the coefficients times e^ξ, ξ being the mean of the two cells at every face."""
        x, y, z = (
            c * torch.exp(0.5 * (log_factor[s:] + log_factor[: log_factor.shape[0] - s]))
            for c, s in coefficients
        )
        return Faces((x, y, z), coefficients.strides)


def softened(w: torch.Tensor, before_mm3: float, after_mm3: float) -> torch.Tensor:
    """Return the w of the same ξ at another stiffness."""
    return w * math.sqrt(after_mm3 / before_mm3)
