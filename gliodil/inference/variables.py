"""The reference loss in the variables (z, w, v): parameters, initial misfit and model error.

    u⁰ = g(x − x₀) + w/σ_w ,      u^{n+1} = Φ_z(uⁿ) + Δt vⁿ/σ_v        (``pde.odil.trajectory``)

so that the initial term is exactly ‖w‖² and the pde term nearly ‖v‖². The parameters enter as z = z₀ + S y with
S chosen from the curvature of the loss in z alone (``whitening``), so that the Hessian in (y, w, v) is close to 2I.

The seed's cutoff makes the loss jump whenever the origin carries a cell across it. Each ``TransformedLoss`` therefore
freezes the set of cells the seed occupies to that of its own z₀; at y = 0 it is the reference loss exactly, and the fit
re-centres until the two agree where it stops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gliodil.inference.parameters import Box, Scalars
from gliodil.inference.reference_loss import WEIGHT_BOUNDS, WEIGHT_CSF, ReferenceLoss, squares
from gliodil.pde.multigrid import prolong
from gliodil.pde.odil.problem import Evaluation, Point
from gliodil.pde.odil.steps import Steps, stages_needed, stiffness_limit
from gliodil.pde.odil.trajectory import Trajectory, model_error, sweep, unroll
from gliodil.pde.operators import spectral_bound
from gliodil.pde.residual import theta_residual

SEED_RAMP = 0.15
"""Relative width of the seed's cutoff while the parameters alone are fitted."""
STIFFNESS_MARGIN = 1.5
"""Room left for the diffusivity to grow before the sweep needs more stages."""


@dataclass(frozen=True)
class Coordinates:
    """The affine map z = z₀ + S y."""

    box: Box
    origin: torch.Tensor
    scaling: torch.Tensor
    anchor: torch.Tensor
    """y of the estimate the full fit started from."""

    @classmethod
    def plain(cls, box: Box, z: torch.Tensor) -> Coordinates:
        """Return z itself, measured from a point."""
        return cls.scaled(box, z, torch.eye(z.shape[0], dtype=z.dtype, device=z.device))

    @classmethod
    def scaled(cls, box: Box, z: torch.Tensor, scaling: torch.Tensor) -> Coordinates:
        """Return coordinates anchored and centred at z."""
        return cls(box, z.detach(), scaling, torch.zeros_like(z.detach()))

    def scalars(self, y: torch.Tensor) -> Scalars:
        """Decode y."""
        return self.box.decode(self.origin + self.scaling @ y)

    def moved(self, y: torch.Tensor) -> Coordinates:
        """Return the same coordinates centred at y."""
        y = y.detach()
        return Coordinates(self.box, self.origin + self.scaling @ y, self.scaling, self.anchor - y)

    def zero(self) -> torch.Tensor:
        """Return y = 0."""
        return torch.zeros_like(self.origin)


class TransformedLoss:
    """Evaluates the reference loss and its gradient at points [y, w, v] or, hard physics, [y].

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
        self.centre = coordinates.scalars(coordinates.zero()).origin
        self.support = loss.seed(self.centre) > 0
        self._no_error: torch.Tensor | None = None
        self.steps_shape = (loss.config.steps - 1, grid.cells)
        self.stages = stages_needed(self._stiffness(coordinates.zero()) * STIFFNESS_MARGIN)

    @property
    def steps(self) -> Steps:
        """How the sweep advances."""
        return Steps(dt=self.loss.config.dt, sigma=self.loss.sigma_pde, stages=self.stages)

    def _stiffness(self, y: torch.Tensor) -> float:
        with torch.no_grad():
            p = self.coordinates.scalars(y)
            bound = spectral_bound(
                self.loss.case.model.coefficients(p.diffusivity, p.wm_gm_ratio), self.loss.case.grid.cells
            )
        return (float(bound) + float(p.proliferation_rate)) * self.loss.config.dt

    def _seed(self, origin: torch.Tensor) -> torch.Tensor:
        return self.loss.seed(origin, support=self.support).to(self.dtype)

    def _run(self, p: Scalars, u0: torch.Tensor, v: torch.Tensor) -> Trajectory:
        coefficients = self.model.coefficients(p.diffusivity, p.wm_gm_ratio)
        return sweep(u0, v, coefficients, p.proliferation_rate, self.impassable, self.steps)

    def trajectory(self, x: Point) -> Trajectory:
        """Return the density at every level for a point [y, w, v] or [y]."""
        with torch.no_grad():
            p = self.coordinates.scalars(x[0])
            if len(x) == 1:
                return self._run(
                    p, self.loss.seed(p.origin, cutoff_width=SEED_RAMP).to(self.dtype), self.zero_v()
                )
            u0 = self._seed(p.origin) + x[1] / self.loss.sigma_initial
            return self._run(p, u0, x[2])

    def zero_w(self) -> torch.Tensor:
        """Return w = 0."""
        return torch.zeros(self.steps_shape[1], device=self.loss.case.grid.device, dtype=self.dtype)

    def zero_v(self) -> torch.Tensor:
        """Return v = 0, kept between calls."""
        if self._no_error is None:
            self._no_error = torch.zeros(
                self.steps_shape, device=self.loss.case.grid.device, dtype=self.dtype
            )
        return self._no_error

    def start(self) -> Point:
        """Return a point to start the full fit from: y = 0, w = 0 and a model error that nearly meets the θ-scheme.

        At v = 0 the explicit increment leaves the second difference of A(u) as residual r; v = −σ r cancels it up to
        the small change it makes to u.
        """
        centre = self.coordinates.zero()
        p = self.coordinates.scalars(centre)
        with torch.no_grad():
            levels = self.trajectory([centre, self.zero_w(), self.zero_v()]).levels
            coefficients = self.model.coefficients(p.diffusivity, p.wm_gm_ratio)
            r = theta_residual(
                levels, lambda f: self.model.rate(f, coefficients, p.proliferation_rate), self.loss.config.dt
            )
        return [centre, self.zero_w(), r.mul_(-self.loss.sigma_pde)]

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

    def full(self, x: Point) -> Evaluation:
        """Return the reference loss and its gradient at [y, w, v]."""
        leaves = [t.detach().requires_grad_() for t in x]
        y, w, v = leaves
        p = self.coordinates.scalars(y)
        if self._unstable(y) or self._far_from_support(p):
            return Evaluation(float("inf"), [], {})
        u0 = self._seed(p.origin) + w / self.loss.sigma_initial
        t = self._run(p, u0, v)
        terms = {
            "pde": t.pde,
            "initial": w.square().sum().double(),
            **squares(self.loss.data_residuals(t.last, p)),
            "parameters": self._parameter_residuals(y, p).square().sum(),
            **self._admissibility(t),
        }
        return _evaluate(terms, leaves)

    def hard(self, x: Point) -> Evaluation:
        """Return loss and gradient at [y] with w = v = 0: exact physics, fitted parameters."""
        leaves = [x[0].detach().requires_grad_()]
        if self._unstable(leaves[0]):
            return Evaluation(float("inf"), [], {})
        p = self.coordinates.scalars(leaves[0])
        u0 = self.loss.seed(p.origin, cutoff_width=SEED_RAMP).to(self.dtype)
        t = self._run(p, u0, self.zero_v())
        return _evaluate(self.loss.parameter_stage(t.last, p, self._admissibility(t)), leaves)

    def residuals(self, x: Point) -> Point:
        """Return the weighted residuals at [y, w, v], plain differentiable torch (for Gauss-Newton)."""
        y, w, v = x
        p = self.coordinates.scalars(y)
        u0 = self._seed(p.origin) + w / self.loss.sigma_initial
        coefficients = self.model.coefficients(p.diffusivity, p.wm_gm_ratio)
        u = unroll(
            u0,
            v,
            lambda f: self.model.rate(f, coefficients, p.proliferation_rate),
            self.steps,
        )
        of_field = self.loss.field_residuals(u, p)
        others = [r for name, r in of_field.items() if name not in ("initial", "parameters")]
        return [self._parameter_residuals(y, p), w, *others]

    def _parameter_residuals(self, y: torch.Tensor, p: Scalars) -> torch.Tensor:
        if self.loss.anchored:
            return y - self.coordinates.anchor
        return self.loss.parameter_residuals(p)

    def _admissibility(self, t: Trajectory) -> dict[str, torch.Tensor]:
        entries = self.loss.entries
        return {
            "bounds": t.bounds * (WEIGHT_BOUNDS**2 / entries),
            "csf": t.outside * (WEIGHT_CSF**2 / entries),
        }

    def _unstable(self, y: torch.Tensor) -> bool:
        """Whether the sweep would be unstable here (the optimizer then shortens its step)."""
        stiffness = self._stiffness(y)
        return not stiffness <= stiffness_limit(self.stages)

    def _far_from_support(self, p: Scalars) -> bool:
        """Whether the origin has left the cell for whose neighbourhood the seed's support was frozen."""
        moved = (p.origin - self.centre).detach().abs()
        return bool((moved > max(self.loss.case.grid.spacing)).any())

    def recentred(self, x: Point) -> tuple[TransformedLoss, list[Point]]:
        """Return the loss re-centred at a point [y, w, v], and points there to go on from.

        Re-centring renews the seed's support and the number of stages. If cells entered or left the support, either
        the misfit w or the initial density can be kept; both points are returned. The model error is converted if
        the number of stages changed.
        """
        y, w, v = x
        there = TransformedLoss(self.loss, self.coordinates.moved(y), dtype=self.dtype)
        centre = there.coordinates.zero()
        with torch.no_grad():
            p = self.coordinates.scalars(y)
            if there.stages != self.stages:
                coefficients = self.model.coefficients(p.diffusivity, p.wm_gm_ratio)
                levels = self.trajectory(x).levels
                v = model_error(
                    levels,
                    lambda f: self.model.rate(f, coefficients, p.proliferation_rate),
                    there.steps,
                )
            points = [[centre, w, v]]
            if bool((there.support != self.support).any()):
                shift = self._seed(p.origin) - there._seed(p.origin)
                points.append([centre, w + shift * self.loss.sigma_initial, v])
        return there, points

    def near_stability_limit(self, y: torch.Tensor) -> bool:
        """Whether the stability limit may have held the optimizer back at y."""
        return self._stiffness(y) * 1.1 > stiffness_limit(self.stages)


def _evaluate(terms: dict[str, torch.Tensor], leaves: list[torch.Tensor]) -> Evaluation:
    total = torch.stack([t.double() for t in terms.values()]).sum()
    gradient = torch.autograd.grad(total, leaves)
    return Evaluation(float(total.detach()), list(gradient), {k: float(t.detach()) for k, t in terms.items()})


def whitening(
    gradient: Callable[[torch.Tensor], torch.Tensor],
    z: torch.Tensor,
    *,
    floor: float = 1e-4,
    step: float = 1e-2,
) -> torch.Tensor:
    """Return S with Sᵀ H S ≈ 2I for the Hessian H of a loss in the parameters z.

    H is taken by central differences of the gradient; eigenvalues are floored at ``floor`` times the largest, which
    keeps directions the data do not determine from being stretched without bound.
    """
    n = z.shape[0]
    columns = []
    for i in range(n):
        e = torch.zeros_like(z)
        e[i] = step
        columns.append((gradient(z + e) - gradient(z - e)) / (2 * step))
    hessian = torch.stack(columns)
    hessian = (hessian + hessian.T) / 2
    values, vectors = torch.linalg.eigh(hessian)
    largest = values.abs().max().clamp(min=1e-12)
    scaling: torch.Tensor = vectors * (2 / values.abs().clamp(min=floor * float(largest))).sqrt()
    return scaling
