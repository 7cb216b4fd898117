"""The methods, each one step at a time: what ``solve`` advances with.

    rkc2      explicit Chebyshev steps of the whole equation (``chebyshev``)
    strang    R(h/2) D(h) R(h/2): reaction by its flow, diffusion exactly (``cosine``) where its coefficients are
              constant, by a polynomial of the operator (``polynomial``) where they vary; second order, stable for
              every h
    imex      ARS(2,2,2): diffusion implicit (``implicit``), reaction explicit; second order, L-stable in the diffusion

Ascher, Ruuth & Spiteri, Implicit-explicit Runge-Kutta methods, Appl. Numer. Math. 25 (1997) 151, section 2.6.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from gliodil.errors import InputError
from gliodil.pde.reaction_diffusion.chebyshev import chebyshev_step, stages_needed
from gliodil.pde.reaction_diffusion.cosine import CosineDiffusion
from gliodil.pde.reaction_diffusion.implicit import ImplicitDiffusion
from gliodil.pde.reaction_diffusion.polynomial import coefficients, polynomial_step
from gliodil.pde.reaction_diffusion.problem import ReactionDiffusion

METHOD_NAMES = ("strang", "rkc2", "imex")


class Method(Protocol):
    """A second-order one-step method on one problem."""

    @property
    def evaluations(self) -> int:
        """Applications of the diffusion operator so far (of its exact flow; inside implicit solves, too)."""

    def step(self, u: torch.Tensor, h: float) -> torch.Tensor:
        """Return the density h days later."""

    def sweep(self, u: torch.Tensor, h: float, steps: int) -> torch.Tensor:
        """Return the density after equal steps."""

    def estimated(self, u: torch.Tensor, h: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the density h days later and an estimate of its local error, without gradient."""


class Doubled:
    """Estimates errors by doing a step again in two halves: (two − one)/3 is the error of the halves.

    Symmetric methods have an expansion in even powers of h, and subtracting the estimate leaves a fourth-order result.
    """

    symmetric = False

    def step(self, u: torch.Tensor, h: float) -> torch.Tensor:
        """Return the density h days later."""
        raise NotImplementedError

    def sweep(self, u: torch.Tensor, h: float, steps: int) -> torch.Tensor:
        """Return the density after equal steps."""
        for _ in range(steps):
            u = self.step(u, h)
        return u

    def estimated(self, u: torch.Tensor, h: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the density h days later and the estimated local error of two half steps."""
        twice = self.sweep(u, h / 2, 2)
        if self.symmetric:
            error = (twice - self.step(u, h)).div(3)
            return twice + error, error.detach()
        with torch.no_grad():
            return twice, (twice - self.step(u, h)).div_(3)


class Rkc2:
    """Chebyshev steps of the whole equation; the estimate is RKC's own."""

    refused: tuple[torch.Tensor, torch.Tensor] | None = None

    def __init__(self, problem: ReactionDiffusion) -> None:
        self.problem, self.evaluations = problem, 0
        self._sigma = problem.bound + problem.reaction.stiffness()
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def _rate(self, u: torch.Tensor) -> torch.Tensor:
        self.evaluations += 1
        return self.problem.rate(u)

    def _at(self, u: torch.Tensor) -> torch.Tensor:
        """Return the rate at u, evaluated once where a step ends and the next begins."""
        if self._known is None or self._known[0] is not u:
            self._known = u, self._rate(u)
        return self._known[1]

    def step(self, u: torch.Tensor, h: float) -> torch.Tensor:
        """Return the density h days later."""
        return chebyshev_step(self._rate, u, self._at(u), h, stages_needed(h, self._sigma))

    def sweep(self, u: torch.Tensor, h: float, steps: int) -> torch.Tensor:
        """Return the density after equal steps."""
        for _ in range(steps):
            u = self.step(u, h)
        return u

    def estimated(self, u: torch.Tensor, h: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the density h days later and the estimate of its local error."""
        f = self._at(u)
        after = self.step(u, h)
        known, f_after = self._known, self._at(after)
        with torch.no_grad():
            error = (u - after).mul_(0.8).add_(f + f_after, alpha=0.4 * h)
        self.refused = known
        return after, error

    def refuse(self) -> None:
        """Forget the last step: the rate where it began is still known."""
        self._known = self.refused


class Strang(Doubled):
    """R(h/2) D(h) R(h/2); halves of neighbouring steps are done at once."""

    symmetric = True

    def __init__(self, problem: ReactionDiffusion, tolerance_per_day: float) -> None:
        self.problem, self.evaluations = problem, 0
        self._exact = CosineDiffusion.of(problem.grid, problem.coefficients)
        # A bound on a coarse scale: the polynomial stays the same where D changes by a little, as a gradient assumes.
        bound = problem.bound
        self._sigma = 1.02 ** math.ceil(math.log(bound, 1.02)) if bound > 0 else 0.0
        self._tolerance = tolerance_per_day

    def _diffuse(self, u: torch.Tensor, h: float) -> torch.Tensor:
        if self._exact is not None:
            self.evaluations += 1
            return self._exact.flow(u, h)
        if self._sigma == 0:
            return u
        p = coefficients(h * self._sigma, min(1e-2, self._tolerance * h))
        self.evaluations += len(p) - 1
        return polynomial_step(self.problem.diffusion, u, self._sigma, p)

    def step(self, u: torch.Tensor, h: float) -> torch.Tensor:
        """Return the density h days later."""
        return self.sweep(u, h, 1)

    def sweep(self, u: torch.Tensor, h: float, steps: int) -> torch.Tensor:
        """Return the density after equal steps."""
        react = self.problem.reaction.flow
        u = react(u, h / 2)
        for _ in range(steps - 1):
            u = react(self._diffuse(u, h), h)
        return react(self._diffuse(u, h), h / 2)


class Imex(Doubled):
    """ARS(2,2,2): two implicit solves with the same matrix I − γh∇·(D∇) per step."""

    gamma = 1 - 1 / math.sqrt(2)

    def __init__(self, problem: ReactionDiffusion) -> None:
        self.problem = problem
        self._implicit = ImplicitDiffusion(problem)

    @property
    def evaluations(self) -> int:
        """Applications of the operator so far."""
        return self._implicit.applications

    def step(self, u: torch.Tensor, h: float) -> torch.Tensor:
        """Return the density h days later."""
        gamma, react = self.gamma, self.problem.reaction.rate
        delta = 1 - 1 / (2 * gamma)
        f0 = react(u)
        b1 = u + gamma * h * f0
        u1 = self._implicit.solve(b1, gamma * h, guess=u)
        diffused = (u1 - b1) / (gamma * h)
        b2 = u + h * (delta * f0 + (1 - delta) * react(u1)) + (1 - gamma) * h * diffused
        return self._implicit.solve(b2, gamma * h, guess=u1)


def make(name: str, problem: ReactionDiffusion, tolerance_per_day: float) -> Method:
    """Return a method by its name.

    Parameters
    ----------
    tolerance_per_day
        How well ``strang`` follows a diffusion that varies.

    Raises
    ------
    InputError
        If there is no such method.
    """
    if name == "strang":
        return Strang(problem, tolerance_per_day)
    if name == "rkc2":
        return Rkc2(problem)
    if name == "imex":
        return Imex(problem)
    raise InputError("Unknown grid method.", expected=", ".join(METHOD_NAMES), found=str(name))
