"""A boundary- or initial-value problem, stated by its residuals.

    r(x; u) = 0 in the box Ω,       bⱼ(x; u) = 0 on the set Γⱼ

u is a jet: its value, gradient and the second-order combinations the problem asks for. Two treatments of
conditions, which may be combined:

hard    u = G + D N with the network N, a lift G that satisfies the conditions and a distance D that vanishes where
        they hold. Nothing is left to train.
soft    a `Condition` with its own residual, its own points and a weight γ in the loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from gliodil.sampling.derivatives import Jet, SecondOrder, coordinates
from gliodil.sampling.domain import Box

# A function of the coordinates in jet arithmetic.
Field = Callable[[Sequence[Jet]], Jet]


class Residual(Protocol):
    """The residual at N points; it acts point by point."""

    def __call__(self, x: torch.Tensor, u: Jet, scalars: torch.Tensor) -> torch.Tensor:
        """Return r (N,) from the points (N, d), the jet of u and the unknown scalars (N, n)."""
        ...


class DrawPoints(Protocol):
    """Draws points of a set of lower dimension."""

    def __call__(self, count: int, *, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Return (count, d)."""
        ...


@dataclass(frozen=True)
class Condition:
    """A soft condition: γ mean b² over points drawn by `points` is added to the loss.

    Attributes
    ----------
    residual
        b, as the interior residual.
    points
        How points of Γ are drawn (uniformly by its measure).
    weight
        γ.
    """

    residual: Residual
    points: DrawPoints
    weight: float = 1.0


@dataclass(frozen=True)
class Problem:
    """What is solved and, where known, its solution.

    Attributes
    ----------
    name
        Short name.
    box
        The domain Ω; time, where there is one, is the last coordinate.
    second_order
        Rows c_k of the second-order combinations Σᵢ c_ki ∂ᵢᵢu that residuals read from `u.second`.
    residual
        The interior residual.
    lift, distance
        G and D of the hard treatment; without `distance` u = N, without `lift` G = 0.
    conditions
        Soft conditions.
    scalars
        Starting values of unknown scalars that are inferred with u (inverse problems).
    exact
        The solution at (N, d), if known: (N,).
    inside
        For domains that are not boxes: which points (N, d) belong to it. Others have residual zero.
    test_points
        The evaluation law: draws the points on which the error is measured. Uniform in the box if not given.
    evaluation
        That law in words.
    """

    name: str
    box: Box
    second_order: SecondOrder
    residual: Residual
    lift: Field | None = None
    distance: Field | None = None
    conditions: tuple[Condition, ...] = ()
    scalars: tuple[float, ...] = ()
    exact: Callable[[torch.Tensor], torch.Tensor] | None = None
    inside: Callable[[torch.Tensor], torch.Tensor] | None = None
    test_points: DrawPoints | None = None
    evaluation: str = "uniform in the box"

    def draw_test(
        self, count: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> torch.Tensor:
        """Draw points of the evaluation law: (count, d), fewer where the domain is not a box."""
        if self.test_points is not None:
            x = self.test_points(count, generator=generator, dtype=dtype)
        else:
            unit = torch.rand(
                count, self.box.dimension, generator=generator, dtype=dtype, device=generator.device
            )
            x = self.box.from_unit(unit)
        return x if self.inside is None else x[self.inside(x)]


def values(field: Field, x: torch.Tensor) -> torch.Tensor:
    """Return a field's value at x: (N,)."""
    return field(coordinates(x, ())).value


def source_of(
    exact: Field, operator: Residual, second_order: SecondOrder
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return s(x) = operator(exact) of a manufactured solution."""

    def source(x: torch.Tensor) -> torch.Tensor:
        return operator(x, exact(coordinates(x, second_order)), x.new_empty(x.shape[0], 0))

    return source


def box_distance(box: Box, axes: Sequence[int] | None = None) -> Field:
    """Return D = Π (1 - ξᵢ²) over the named axes (all by default), ξ being the box scaled to [-1, 1]^d."""
    chosen = range(box.dimension) if axes is None else axes

    def distance(x: Sequence[Jet]) -> Jet:
        product: Jet | None = None
        for axis in chosen:
            a, b = box.lower[axis], box.upper[axis]
            xi = (x[axis] - (a + b) / 2) * (2 / (b - a))
            factor = 1.0 - xi * xi
            product = factor if product is None else product * factor
        if product is None:
            raise AssertionError("a distance needs an axis")
        return product

    return distance
