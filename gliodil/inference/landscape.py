"""The loss around a point [y, w, v], for the optimizers: value, gradient, and the data's derivative.

L = ‖w‖² + ‖v‖² + ‖d(u_last, y)‖² + ‖y‖² + small terms. The model of the curvature leaves out the small terms
(density beyond [0, 1] or in impassable cells); ∂d is one tangent sweep, its transpose one adjoint sweep
(``pde.odil.loops``). The gradient has every term.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gliodil.inference.reference_loss import WEIGHT_BOUNDS, WEIGHT_CSF
from gliodil.inference.variables import TransformedLoss
from gliodil.pde.odil import loops
from gliodil.pde.odil.linear import LinearMap
from gliodil.pde.odil.problem import Point, dot
from gliodil.pde.operators import Faces

FREE_PARAMETERS = 1e-3
"""Curvature assumed of the parameters where no anchor holds them."""


class LossLandscape:
    """A ``TransformedLoss`` in all its variables."""

    def __init__(self, loss: TransformedLoss) -> None:
        self.loss = loss

    @property
    def metric(self) -> Sequence[float]:
        """Curvature of the loss in y, w and v without the data."""
        return (1.0 if self.loss.loss.anchored else FREE_PARAMETERS, 1.0, 1.0)

    def at(self, x: Point) -> LocalLoss:
        """Evaluate the loss at x."""
        return LocalLoss(self, x)

    def field(self, levels: int) -> torch.Tensor:
        """Return a space-time field of so many levels, contents undefined."""
        return self.loss.loss.memory.empty(levels, self.loss.steps_shape[1], like=self.loss.impassable)


class LocalLoss:
    """The loss at one point."""

    def __init__(self, landscape: LossLandscape, x: Point) -> None:
        self._landscape, self._x = landscape, x
        self.value, self.terms = math.inf, dict[str, float]()
        loss = landscape.loss
        self._y = x[0].detach().requires_grad_()
        p = loss.coordinates.scalars(self._y)
        if not loss.admissible(p):
            return
        reference = loss.loss
        self._seed = loss.seed(p.origins)
        coefficients, self._rho = loss.equation(p)
        self._growth = float(self._rho.detach())
        self._strides, self._values = coefficients.strides, coefficients.values
        self._faces = Faces(tuple(c.detach() for c in self._values), self._strides)  # type: ignore[arg-type]
        self._steps = loss.steps(self._faces, self._growth)
        self._u = landscape.field(loss.steps_shape[0] + 1)
        torch.add(self._seed.detach(), x[1], alpha=1 / reference.sigma_initial, out=self._u[0])
        bounds, outside = loops.forward(
            self._u, x[2], self._faces, loss.impassable, self._growth, self._steps
        )
        self._last = self._u[-1].clone().requires_grad_()
        residuals = reference.data_residuals(self._last, p)
        self._data = torch.cat([r.reshape(-1) for r in residuals.values()])
        self._charge = loss.parameter_residuals(self._y, p).square().sum()
        terms = {
            "pde": dot([x[2]], [x[2]]),
            "initial": dot([x[1]], [x[1]]),
            **{name: float(r.detach().double().square().sum()) for name, r in residuals.items()},
            "parameters": float(self._charge.detach()),
            "bounds": float(bounds) * WEIGHT_BOUNDS**2 / reference.entries,
            "csf": float(outside) * WEIGHT_CSF**2 / reference.entries,
        }
        self.terms, self.value = terms, sum(terms.values())
        self._maps: tuple[LinearMap, LinearMap] | None = None

    def gradient(self) -> Point:
        """Return the gradient at [y, w, v]."""
        loss, x = self._landscape.loss, self._x
        entries = loss.loss.entries
        scales = (2 * WEIGHT_BOUNDS**2 / entries, 2 * WEIGHT_CSF**2 / entries)
        of_model, of_data = self._linearized()
        d_last, d_y = of_data.pull([self._data.detach() * 2])
        (charge,) = torch.autograd.grad(self._charge, self._y, retain_graph=True, materialize_grads=True)
        d_v = self._landscape.field(loss.steps_shape[0])
        d_faces, d_rho = self._adjoint(d_last, d_v, scales)
        (through_model,) = of_model.pull([d_last, *d_faces.values, d_rho.to(self._rho)])
        d_w = d_last.div_(loss.loss.sigma_initial).add_(x[1], alpha=2)
        return [d_y + charge + through_model, d_w, d_v.add_(x[2], alpha=2)]

    def push(self, dx: Point) -> torch.Tensor:
        """Return the change of the data residuals."""
        loss = self._landscape.loss
        of_model, of_data = self._linearized()
        d_seed, dx_faces, dy_faces, dz_faces, d_rho = of_model.push([dx[0]])
        d_u = d_seed.add_(dx[1], alpha=1 / loss.loss.sigma_initial)
        d_faces = Faces((dx_faces, dy_faces, dz_faces), self._strides)
        loops.tangent(d_u, dx[2], self._u, self._faces, self._growth, d_faces, float(d_rho), self._steps)
        (change,) = of_data.push([d_u, dx[0]])
        return change

    def pull(self, d: torch.Tensor) -> Point:
        """Return the transpose of ``push`` applied to d."""
        of_model, of_data = self._linearized()
        d_last, d_y = of_data.pull([d])
        d_v = self._landscape.field(self._landscape.loss.steps_shape[0])
        d_faces, d_rho = self._adjoint(d_last, d_v, None)
        (through_model,) = of_model.pull([d_last, *d_faces.values, d_rho.to(self._rho)])
        return [d_y + through_model, d_last.div_(self._landscape.loss.loss.sigma_initial), d_v]

    def _adjoint(
        self, d_last: torch.Tensor, d_v: torch.Tensor, scales: tuple[float, float] | None
    ) -> tuple[Faces, torch.Tensor]:
        """Sweep backwards; ``d_last`` becomes dL/du⁰."""
        impassable = self._landscape.loss.impassable
        return loops.backward(
            d_last, d_v, self._u, self._faces, impassable, self._growth, self._steps, scales
        )

    def _linearized(self) -> tuple[LinearMap, LinearMap]:
        """The derivatives y → (seed, face coefficients, ρ) and (last level, y) → data residuals."""
        if self._maps is None:
            of_model = LinearMap([self._seed, *self._values, self._rho], [self._y])
            self._maps = of_model, LinearMap([self._data], [self._last, self._y])
        return self._maps
