"""The reference loss in the variables (z, w, v): parameters, initial misfit and model error.

    u⁰ = g(x − x₀) + w/σ_w ,      (uⁿ⁺¹ − uⁿ)/Δt = ½ [A_z(uⁿ⁺¹) + A_z(uⁿ)] + vⁿ/σ_v        (``pde.odil.trajectory``)

so that the initial term is ‖w‖² and the pde term ‖v‖². The parameters enter as z = z₀ + S y with
S chosen from the curvature of the loss in z alone (``whitening``), so that the Hessian in (y, w, v) is close to 2I.

The seed's cutoff makes the loss jump whenever an origin carries a cell across it. The origins therefore stay where exact
physics (``exact``) put them, and w has what freedom is left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gliodil.inference.parameters import Box, Scalars
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.pde.multigrid import prolong
from gliodil.pde.odil.problem import Point
from gliodil.pde.odil.steps import Steps, resolvable
from gliodil.pde.odil.trajectory import Trajectory, sweep
from gliodil.pde.operators import Faces, spectral_bound

SOLVER_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-11}
"""Relative accuracy of every implicit step."""


@dataclass(frozen=True)
class Coordinates:
    """The affine map z = z₀ + S y."""

    box: Box
    origin: torch.Tensor
    scaling: torch.Tensor

    @classmethod
    def plain(cls, box: Box, z: torch.Tensor) -> Coordinates:
        """Return z itself, measured from a point."""
        return cls(box, z, torch.eye(z.shape[0], dtype=z.dtype, device=z.device))

    def scalars(self, y: torch.Tensor) -> Scalars:
        """Decode y."""
        return self.box.decode(self.origin + self.scaling @ y)

    def moved(self, y: torch.Tensor) -> Coordinates:
        """Return the same coordinates centred at y."""
        return Coordinates(self.box, self.origin + self.scaling @ y.detach(), self.scaling)

    def with_origin_fixed(self) -> Coordinates:
        """Return the same coordinates, none of which moves the origins x₀."""
        scaling = self.scaling.clone()
        scaling[self.box.origins] = 0
        return Coordinates(self.box, self.origin, scaling)

    def zero(self) -> torch.Tensor:
        """Return y = 0."""
        return torch.zeros_like(self.origin)


class TransformedLoss:
    """The reference loss at points [y, w, v] (evaluated by ``landscape``).

    Parameters
    ----------
    loss
        The reference loss of a case.
    coordinates
        Meaning of y.
    dtype
        Precision of the fields; parameters stay float64.
    """

    def __init__(
        self, loss: ReferenceLoss, coordinates: Coordinates, *, dtype: torch.dtype = torch.float32
    ) -> None:
        self.loss, self.coordinates, self.dtype = loss, coordinates, dtype
        grid = loss.case.grid
        self.model = loss.case.model.to(dtype)
        self.impassable = loss.impassable.to(dtype)
        self.steps_shape = (loss.config.steps - 1, grid.cells)

    def equation(self, p: Scalars) -> tuple[Faces, torch.Tensor]:
        """Return D/h² at the faces and ρ [1/day] of the loss's equation; differentiable."""
        rates = self.loss.rates(p)
        return rates.coefficients(self.model), rates.proliferation

    def steps(self, coefficients: Faces, growth: float) -> Steps:
        """Return how the sweep advances with these coefficients."""
        return Steps.resolving(
            dt=self.loss.config.dt,
            sigma=self.loss.sigma_pde,
            diffusion_bound=float(spectral_bound(coefficients, self.steps_shape[1])),
            growth=growth,
            tolerance=SOLVER_TOLERANCE[self.dtype],
        )

    def seed(self, origins: torch.Tensor) -> torch.Tensor:
        """Return the seed in the fields' precision."""
        return self.loss.seed(origins).to(self.dtype)

    def trajectory(self, x: Point) -> Trajectory:
        """Return the density at every level for a point [y, w, v]."""
        with torch.no_grad():
            p = self.coordinates.scalars(x[0])
            coefficients, rate = self.equation(p)
            steps = self.steps(coefficients, float(rate))
            u0 = self.seed(p.origins) + x[1] / self.loss.sigma_initial
            return sweep(u0, x[2], coefficients, rate, self.impassable, steps)

    def start(self) -> Point:
        """Return the point of exact physics: y = 0, w = 0, v = 0."""
        device = self.loss.case.grid.device
        w = torch.zeros(self.steps_shape[1], device=device, dtype=self.dtype)
        return [self.coordinates.zero(), w, torch.zeros(self.steps_shape, device=device, dtype=self.dtype)]

    def prolong_to(self, finer: ReferenceLoss, x: Point) -> Point:
        """Return the point of a finer grid with the same parameters, initial misfit w/σ_w and model error v/σ_v."""
        y, w, v = x
        here, there = self.loss, finer
        shape = there.case.grid.shape
        misfit = prolong(here.case.grid.box(w)[None], (1, *shape)).reshape(-1)
        error = prolong(here.case.grid.box(v), (there.config.steps - 1, *shape))
        return [
            y,
            misfit * (there.sigma_initial / here.sigma_initial),
            error.reshape(there.config.steps - 1, -1) * (there.sigma_pde / here.sigma_pde),
        ]

    def parameter_residuals(self, y: torch.Tensor, p: Scalars) -> torch.Tensor:
        """Return the residuals of the parameter term: distance from the centre of y, or the loss's own."""
        if self.loss.anchored:
            return y
        return self.loss.parameter_residuals(p)

    def admissible(self, p: Scalars) -> bool:
        """Whether the time steps resolve the growth; an optimizer shortens its step where they do not."""
        dt, growth = self.loss.config.dt, float(p.proliferation_rate.detach())
        # Rates of a grid are more than half of what they stand for, and only sought where those are sensible.
        return resolvable(dt, growth / 2) and resolvable(dt, float(self.loss.rates(p).proliferation.detach()))


def whitening(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    *,
    floor: float = 1e-4,
    step: float = 1e-2,
) -> torch.Tensor:
    """Return S with Sᵀ H S ≈ 2I for the Hessian H of a loss in the parameters z.

    H is taken by central differences of the gradient; eigenvalues are floored at ``floor`` times the largest, which
    keeps directions the data do not determine from being stretched without bound. Where a gradient is not finite the
    coordinates stay as they are (S = 1).
    """
    n = z.shape[0]
    columns = []
    for i in range(n):
        e = torch.zeros_like(z)
        e[i] = step
        columns.append((gradient(z + e) - gradient(z - e)) / (2 * step))
    hessian = torch.stack(columns)
    hessian = (hessian + hessian.T) / 2
    if not bool(torch.isfinite(hessian).all()):
        return torch.eye(n, dtype=z.dtype, device=z.device)
    values, vectors = torch.linalg.eigh(hessian)
    largest = values.abs().max().clamp(min=1e-12)
    scaling: torch.Tensor = vectors * (2 / values.abs().clamp(min=floor * float(largest))).sqrt()
    return scaling
