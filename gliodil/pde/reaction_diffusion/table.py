"""A growth law solved once on a table, and read off in every voxel.

    du/dt = u (1 − u) (ρ + g(u, s)),      s the local tissue (the share of white matter)

In the log-odds y = ln u/(1−u) this is dy/dt = ρ + g. The ρ is exact there; what g adds, measured in the frame that moves
with ρ,

    dδ/dt = g(φ, s),   φ = the density whose log-odds are y(0) + ρt + δ,   δ(0) = 0,

is a scalar equation per value of u, solved for a few hundred values (and a few of s) by an adaptive Runge-Kutta method
with recorded error estimates. Voxels interpolate δ linearly, and the flow u → φ(y + ρt + δ) keeps 0, 1 and everything
between by construction. Errors of the solver are errors of g alone: logistic growth has none.

Values of u lie at (i/n)², denser at low densities, where laws may vary as ln u.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from gliodil.pde import ode
from gliodil.pde.reaction_diffusion.problem import shift_log_odds

NODES = 256
"""Intervals of u in a table."""
SHARES = 3
"""Values of s in a table of a law that depends on the tissue: grey, mixed, white."""
TOLERANCE = 1e-6
"""Of the table's solution, as log-odds."""

Rate = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""g(u, s) [1/day] for densities and shares of the same shape."""


@dataclass
class TabulatedGrowth:
    """The reaction u (1 − u) (ρ + g(u, s)) by tables.

    Attributes
    ----------
    rho
        ρ [1/day], a number or a tensor.
    correction
        g.
    shares
        s in every voxel, in [0, 1], shape (N,); None for a law that is the same everywhere.
    dtype, device
        Of the tables where there are no shares.
    """

    rho: float | torch.Tensor
    correction: Rate
    shares: torch.Tensor | None = None
    dtype: torch.dtype = torch.float64
    device: torch.device | str = "cpu"
    evaluations: int = 0
    """Evaluations of g on the whole table so far."""
    errors: list[torch.Tensor] = field(default_factory=list)
    """Per solved table Σ_j E_j h_j / days of its accepted steps, differentiable."""
    _shifts: dict[float, torch.Tensor] = field(default_factory=dict, repr=False)
    _rates: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.shares is not None:
            self.dtype, self.device = self.shares.dtype, self.shares.device
        rows = 1 if self.shares is None else SHARES
        nodes = density_nodes(self.dtype, self.device)
        self._u = nodes.expand(rows, -1)
        self._s = torch.linspace(0, 1, max(rows, 2), dtype=self.dtype, device=self.device)[
            :rows, None
        ].expand(-1, len(nodes))

    def rate(self, u: torch.Tensor) -> torch.Tensor:
        """Return the reaction [1/day], g interpolated in its table."""
        if self._rates is None:
            self._rates = self.correction(self._u, self._s)
        return u.abs() * (1 - u) * (self.rho + interpolate(self._rates, u, self.shares))

    def flow(self, u: torch.Tensor, days: float) -> torch.Tensor:
        """Return the density after some days of growth alone."""
        return shift_log_odds(u, interpolate(self._shift(days), u, self.shares) + self.rho * days)

    def stiffness(self) -> float:
        """Return the largest |∂f/∂u| between neighbouring values of the table [1/day]."""
        with torch.no_grad():
            u = self._u
            f = u * (1 - u) * (self.rho + self.correction(u, self._s))
            return float(((f[:, 1:] - f[:, :-1]) / (u[:, 1:] - u[:, :-1])).abs().max())

    def _shift(self, days: float) -> torch.Tensor:
        """Return δ(days) on the table."""
        if days not in self._shifts:
            # Splittings ask for half a step and then for a whole one: both come from one solution.
            self._shifts[days], self._shifts[2 * days] = self._solved(days, 2 * days)
        return self._shifts[days]

    def _solved(self, *days: float) -> torch.Tensor:
        def g(t: float, delta: torch.Tensor) -> torch.Tensor:
            return self.correction(shift_log_odds(self._u, self.rho * t + delta), self._s)

        start = torch.zeros_like(self._u)
        solution = ode.solve(
            g, start, (0.0, *days), rtol=TOLERANCE, atol=TOLERANCE, record=("error",), max_steps=1000
        ).raise_for_status()
        self.evaluations += solution.evaluations
        steps = solution.errors.new_tensor(solution.steps)
        self.errors.append((solution.errors * steps).sum() / days[-1])
        return solution.states[1:]


def density_nodes(dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return the densities of a table, (i/n)², shape (n + 1,)."""
    return torch.linspace(0, 1, NODES + 1, dtype=dtype, device=device).square()


def interpolate(table: torch.Tensor, u: torch.Tensor, shares: torch.Tensor | None) -> torch.Tensor:
    """Return the table's values at u (and s), linear between nodes, constant beyond [0, 1]; differentiable in both.

    Parameters
    ----------
    table
        Values at the nodes, shape (rows, n + 1); one row, or one per share.
    """
    found: torch.Tensor = _Interpolate.apply(table, u, shares)  # type: ignore[no-untyped-call]
    return found


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, u: torch.Tensor, shares: torch.Tensor | None) -> torch.Tensor:
        rows, n = table.shape[0], table.shape[1] - 1
        inside = u.clamp(0, 1)
        i = inside.sqrt().mul_(n).long().clamp_(max=n - 1)
        low = (i / n).square_()
        width = ((2 * i + 1) / n**2).to(u.dtype)
        w = inside.sub(low).div_(width)
        flat = table.reshape(-1)
        corners: list[tuple[torch.Tensor, torch.Tensor | None]] = [(i, None)]
        if rows > 1:
            assert shares is not None
            position = shares.clamp(0, 1) * (rows - 1)
            row = position.long().clamp_(max=rows - 2)
            q = position - row
            corners = [(row * (n + 1) + i, 1 - q), ((row + 1) * (n + 1) + i, q)]
        out, slope = torch.zeros_like(u), torch.zeros_like(u)
        for at, share in corners:
            left, right = flat[at], flat[at + 1]
            rise = right - left
            value = left.addcmul(w, rise)
            out.add_(value if share is None else value * share)
            slope.add_(rise if share is None else rise * share)
        slope.div_(width).mul_((u >= 0) & (u <= 1))
        ctx.save_for_backward(w, slope, *(t for pair in corners for t in pair if t is not None))
        ctx.shape = table.shape
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        w, slope, *corners = ctx.saved_tensors
        (g,) = gradients
        of_u = g * slope if ctx.needs_input_grad[1] else None
        of_table = None
        if ctx.needs_input_grad[0]:
            size = ctx.shape.numel()
            total = torch.zeros(size, dtype=torch.float64, device=g.device)
            pairs = [(corners[0], g)]
            if len(corners) > 1:
                pairs = [(corners[k], g * corners[k + 1]) for k in range(0, len(corners), 2)]
            for at, weighted in pairs:
                right = (weighted * w).double()
                total += torch.bincount(at, weighted.double() - right, size)
                total += torch.bincount(at + 1, right, size)
            of_table = total.to(g.dtype).reshape(ctx.shape)
        return of_table, of_u, None
