"""The least-squares objective on one set of points:

    F(θ) = ½ Σᵢ wᵢ/N r(xᵢ; θ)²  +  ½ Σⱼ γⱼ mean bⱼ(·; θ)²  +  ½ α |θ_N|²,       wᵢ = (p(xᵢ) |Ω|)^-κ.

With κ = 1 the first sum estimates the mean of r² over Ω without bias, whatever law p the points were drawn from;
κ = 0 is the adversarial objective, the mean of r² under p. θ holds the network's parameters θ_N, then the unknown
scalars. A little α keeps a neuron from growing so steep that its bend fits between the points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gliodil.sampling.derivatives import Jet, constant, coordinates
from gliodil.sampling.network import Network, Tape
from gliodil.sampling.points import Points
from gliodil.sampling.problems.problem import Problem, Residual
from gliodil.sampling.weights import importance_weights


@dataclass(frozen=True)
class Block:
    """Residual rows of one kind: points, root weights and the fixed jets of lift and distance."""

    x: torch.Tensor
    root: torch.Tensor
    residual: Residual
    lift: Jet
    distance: Jet | None

    @property
    def coefficients(self) -> torch.Tensor:
        """(k, d)."""
        return self.lift.coefficients

    def ansatz(self, n: Jet) -> Jet:
        """Return u = G + D N."""
        return self.lift + (n if self.distance is None else self.distance * n)


def make_block(
    problem: Problem, residual: Residual, x: torch.Tensor, root: torch.Tensor, *, masked: bool = False
) -> Block:
    """Prepare rows at x (N, d) with root weights (N,)."""
    x_jets = coordinates(x, problem.second_order)
    lift = constant(0.0, x_jets[0]) if problem.lift is None else problem.lift(x_jets)
    distance = None if problem.distance is None else problem.distance(x_jets)
    if masked and problem.inside is not None:
        root = root * problem.inside(x)
    return Block(x, root, residual, lift, distance)


class Objective:
    """F on fixed points; everything an optimizer asks for.

    Parameters
    ----------
    problem, network
        What is solved and with what.
    points
        Interior points with their density.
    kappa
        Exponent κ in [0, 1] of the importance weights.
    conditions
        Points (N_j, d) of each soft condition, in the problem's order.
    decay
        α ≥ 0.
    """

    def __init__(
        self,
        problem: Problem,
        network: Network,
        points: Points,
        *,
        kappa: float = 1.0,
        conditions: tuple[torch.Tensor, ...] = (),
        decay: float = 0.0,
    ) -> None:
        self.problem = problem
        self.network = network
        self.root_decay = decay**0.5
        weight = importance_weights(points, box=problem.box, kappa=kappa) / points.x.shape[0]
        self.blocks = [make_block(problem, problem.residual, points.x, weight.sqrt(), masked=True)]
        for condition, x in zip(problem.conditions, conditions, strict=True):
            root = x.new_full((x.shape[0],), (condition.weight / x.shape[0]) ** 0.5)
            self.blocks.append(make_block(problem, condition.residual, x, root))

    @property
    def size(self) -> int:
        """Length of θ: network parameters, then scalars."""
        return self.network.size + len(self.problem.scalars)

    @property
    def rows(self) -> int:
        """Number of residual rows."""
        return sum(block.x.shape[0] for block in self.blocks) + (self.network.size if self.root_decay else 0)

    def residual(self, theta: torch.Tensor) -> torch.Tensor:
        """Return the weighted residual vector: (rows,)."""
        return torch.cat([*(self._rows(block, theta)[0] for block in self.blocks), *self._decayed(theta)])

    def loss(self, theta: torch.Tensor) -> float:
        """Return F(θ)."""
        return 0.5 * float(self.residual(theta).square().sum())

    def linearize(
        self, theta: torch.Tensor, *, linear_only: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weighted residual (rows,) and its Jacobian (rows, P), or the linear parameters' columns."""
        share = theta[: self.network.size]
        rows, jacobians = [], []
        for block in self.blocks:
            r, tape, adjoint, scalar = self._rows(block, theta, adjoints=True)
            rows.append(r)
            own = self.network.jacobian(share, tape, adjoint, linear_only=linear_only)
            jacobians.append(own if scalar is None or linear_only else torch.cat([own, scalar], 1))
        if self.root_decay:
            slope = torch.eye(self.network.size, self.size, dtype=theta.dtype, device=theta.device)
            jacobians.append((slope[:, self.network.linear] if linear_only else slope) * self.root_decay)
        rows += self._decayed(theta)
        return torch.cat(rows), jacobians[0] if len(jacobians) == 1 else torch.cat(jacobians)

    def gradient(self, theta: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Return F(θ) and its gradient (P,)."""
        r, pullback = self.pullback(theta)
        return 0.5 * float(r.square().sum()), pullback(r)

    def pullback(self, theta: torch.Tensor) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
        """Return the weighted residual r and v ↦ Jᵀv, without forming J."""
        share = theta[: self.network.size]
        passes = [self._rows(block, theta, adjoints=True) for block in self.blocks]
        decayed = self._decayed(theta)
        sizes = [block.x.shape[0] for block in self.blocks] + [len(rows) for rows in decayed]

        def transpose(v: torch.Tensor) -> torch.Tensor:
            total = torch.zeros_like(theta)
            parts = torch.split(v, sizes)
            for part in parts[len(passes) :]:
                total[: self.network.size] += self.root_decay * part
            for part, (_, tape, adjoint, scalar) in zip(parts, passes, strict=False):
                total[: self.network.size] += self.network.gradient(share, tape, adjoint * part)
                if scalar is not None:
                    total[self.network.size :] += part @ scalar
            return total

        return torch.cat([*(r for r, *_ in passes), *decayed]), transpose

    def _decayed(self, theta: torch.Tensor) -> list[torch.Tensor]:
        """Return the rows √α θ_N, if there are any."""
        return [self.root_decay * theta[: self.network.size]] if self.root_decay else []

    def _rows(
        self, block: Block, theta: torch.Tensor, *, adjoints: bool = False
    ) -> tuple[torch.Tensor, Tape, torch.Tensor, torch.Tensor | None]:
        """Return weighted rows, the tape, ∂rows/∂streams (S, N) and ∂rows/∂scalars (N, n)."""
        tape = self.network.forward(theta[: self.network.size], block.x, block.coefficients)
        scalars = theta[self.network.size :].expand(block.x.shape[0], -1)
        if not adjoints:
            r = block.root * block.residual(
                block.x, block.ansatz(Jet(tape.streams, block.coefficients)), scalars
            )
            return r, tape, tape.streams, None
        with torch.enable_grad():
            streams = tape.streams.detach().requires_grad_()
            free = scalars.detach().clone().requires_grad_()
            u = block.ansatz(Jet(streams, block.coefficients))
            r = block.root * block.residual(block.x, u, free)
            wanted = [streams, free] if free.shape[1] else [streams]
            found = torch.autograd.grad(r.sum(), wanted, allow_unused=True)
        adjoint = torch.zeros_like(streams) if found[0] is None else found[0]
        scalar = None
        if free.shape[1]:
            scalar = torch.zeros_like(free) if found[1] is None else found[1]
        return r.detach(), tape, adjoint, scalar


def predict(problem: Problem, network: Network, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return u(x): (N,)."""
    x_jets = coordinates(x, ())
    n = network.value(theta[: network.size], x)
    if problem.distance is not None:
        n = problem.distance(x_jets).value * n
    return n if problem.lift is None else problem.lift(x_jets).value + n


def squared_residual(
    problem: Problem, network: Network, theta: torch.Tensor, *, chunk: int = 20000
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function x (N, d) ↦ r(x)² (N,) of the interior residual, evaluated in chunks."""

    def evaluate(x: torch.Tensor) -> torch.Tensor:
        parts = []
        for piece in torch.split(x.to(theta.dtype), chunk):
            block = make_block(problem, problem.residual, piece, torch.ones_like(piece[:, 0]), masked=True)
            streams = network.forward(theta[: network.size], piece, block.coefficients).streams
            scalars = theta[network.size :].expand(piece.shape[0], -1)
            r = block.root * block.residual(piece, block.ansatz(Jet(streams, block.coefficients)), scalars)
            parts.append(r.square())
        return torch.cat(parts) if parts else x.new_zeros(0)

    return evaluate
