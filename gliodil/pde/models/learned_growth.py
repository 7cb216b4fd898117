"""Growth with a learned law in brain tissue.

    ∂u/∂t = ∇·(D(x)∇u) + u (1 − u) (ρ + g_θ(u, s)),      D(x) = D_w (w(x) + g(x)/R),      s = w/(w + g)

D and the tissue are those of ``fisher_kolmogorov``. ρ u(1−u) is what is known; u(1−u) g_θ is a small correction,
learned: zero at u = 0 and u = 1 whatever θ is, and zero everywhere at the start. g_θ is a network of the density, of
its logarithm (laws such as Gompertz's vary with it) and of the white-matter share s. It is evaluated on a table of
densities, never on voxels (``reaction_diffusion.table``).

Only the sum ρ + g_θ has a meaning: a constant moves freely from one to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch

from gliodil.errors import NumericsError
from gliodil.pde.grid import Grid
from gliodil.pde.models.fisher_kolmogorov import FisherKolmogorov
from gliodil.pde.operators import Faces
from gliodil.pde.reaction_diffusion.problem import Reaction, ReactionDiffusion
from gliodil.pde.reaction_diffusion.solve import solve
from gliodil.pde.reaction_diffusion.table import TabulatedGrowth

HIDDEN = 8
LOG_FLOOR = 0.01
"""Density below which the logarithm among the inputs levels off."""


class Correction(torch.nn.Module):
    """g_θ(u, s) = scale × W₂ tanh(W₁ [2u − 1, ℓ(u), 2s − 1] + b₁) + …, two hidden layers, the last one zero at first.

    Parameters
    ----------
    scale
        Rate that an output of one stands for [1/day].
    generator
        Of the first weights.
    tissue
        Whether g depends on s.
    """

    def __init__(
        self,
        scale: float,
        *,
        generator: torch.Generator,
        tissue: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.scale, self.tissue = scale, tissue
        sizes = (3 if tissue else 2, HIDDEN, HIDDEN, 1)
        weights, biases = [], []
        for n, m in pairwise(sizes):
            spread = 0.0 if m == 1 else 1 / math.sqrt(n)
            draw = torch.randn(m, n, generator=generator, dtype=torch.float64) * spread
            shift = torch.randn(m, generator=generator, dtype=torch.float64) * (0.5 if m > 1 else 0.0)
            weights.append(torch.nn.Parameter(draw.to(dtype).to(device)))
            biases.append(torch.nn.Parameter(shift.to(dtype).to(device)))
        self.weights, self.biases = torch.nn.ParameterList(weights), torch.nn.ParameterList(biases)

    def forward(self, u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Return g_θ [1/day] for densities and shares of one shape."""
        logarithm = (
            torch.log((u.clamp(min=0) + LOG_FLOOR) / LOG_FLOOR) / (0.5 * math.log(1 + 1 / LOG_FLOOR)) - 1
        )
        inputs = [2 * u - 1, logarithm, 2 * s - 1][: 3 if self.tissue else 2]
        x = torch.stack(inputs, dim=-1)
        last = len(self.weights) - 1
        for k, (w, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.nn.functional.linear(x, w, b)
            if k < last:
                x = torch.tanh(x)
        return self.scale * x[..., 0]


@dataclass(frozen=True)
class LearnedGrowth:
    """The equation on one patient's tissue.

    Attributes
    ----------
    tissue
        Grid, tissue maps and face coefficients.
    shares
        White-matter share s, shape (N,).
    """

    tissue: FisherKolmogorov
    shares: torch.Tensor

    expression = "u_t = div(D_w (w + g/R) grad u) + u (1 - u) (rho + g_theta(u, s))"

    @classmethod
    def on(cls, grid: Grid, white: torch.Tensor, grey: torch.Tensor) -> LearnedGrowth:
        """Build the model from tissue fractions given per cell."""
        tissue = FisherKolmogorov.on(grid, white, grey)
        total = (tissue.white + tissue.grey).clamp(min=1e-6)
        return cls(tissue, (tissue.white / total).clamp(0, 1))

    def coefficients(self, diffusivity: float | torch.Tensor, wm_gm_ratio: float | torch.Tensor) -> Faces:
        """Return D/h² at the faces [1/day]; differentiable."""
        return self.tissue.coefficients(diffusivity, wm_gm_ratio)

    def growth(self, rho: float | torch.Tensor, correction: Correction) -> TabulatedGrowth:
        """Return the reaction by tables; differentiable in ρ and the correction's parameters."""
        grid = self.tissue.grid
        shares = self.shares if correction.tissue else None
        return TabulatedGrowth(rho, correction, shares, grid.dtype, grid.device)

    def problem(self, coefficients: Faces, growth: TabulatedGrowth) -> ReactionDiffusion:
        """Return the equation for ``reaction_diffusion.solve``."""
        return ReactionDiffusion(self.tissue.grid, coefficients, growth)

    def rate(self, u: torch.Tensor, coefficients: Faces, growth: TabulatedGrowth) -> torch.Tensor:
        """Return the right-hand side [1/day], shape (N,)."""
        return self.problem(coefficients, growth).rate(u)


def front_speed(diffusivity: float, reaction: Reaction, *, spacing: float = 0.4) -> float:
    """Return the speed of a plane front in white matter [mm/day], measured on a line.

    Parameters
    ----------
    diffusivity
        D_w [mm²/day].
    reaction
        A law that is the same everywhere.
    spacing
        Cell size [mm].

    Raises
    ------
    NumericsError
        If no front forms.
    """
    fastest = max(reaction.stiffness(), 1e-6)
    days = 12 / fastest
    cells = math.ceil((4 * math.sqrt(diffusivity * fastest) * days + 20) / spacing)
    grid = Grid((cells, 1, 1), (spacing, 1.0, 1.0))
    line = FisherKolmogorov.on(grid, grid.zeros() + 1, grid.zeros())
    problem = ReactionDiffusion(grid, line.coefficients(diffusivity, 1.0), reaction)
    x = grid.centres()[0]
    u = (x < 5.0).to(grid.dtype)
    position = []
    with torch.no_grad():
        for _ in range(2):
            u = solve(problem, u, duration=days, method="strang", steps=60).u
            position.append(_crossing(u, x))
    if not 0 < position[1] < float(x[-1]) - 3:
        raise NumericsError("No front forms on the line.", found=f"u = 1/2 at {position} mm")
    return (position[1] - position[0]) / days


def _crossing(u: torch.Tensor, x: torch.Tensor) -> float:
    """Return where u falls to 1/2 [mm]; nan where it nowhere does."""
    above = torch.nonzero(u >= 0.5)
    if not len(above) or int(above[-1]) == len(u) - 1:
        return math.nan
    i = int(above[-1])
    return float(x[i] + (u[i] - 0.5) / (u[i] - u[i + 1]) * (x[i + 1] - x[i]))
