"""Derivatives by truncated Taylor series, carried forward.

A jet holds, at every point, the value u, its gradient ∂ᵢu and k second-order combinations

    (L_k u) = Σᵢ c_ki ∂ᵢᵢu,

which for c = (1, …, 1) is the Laplacian: 1 + d + k streams instead of d nested reverse passes. The rules are

    L(ab)   = a Lb + b La + 2 Σᵢ cᵢ ∂ᵢa ∂ᵢb
    L(f(a)) = f′(a) La + f″(a) Σᵢ cᵢ (∂ᵢa)².

Exact solutions, boundary lifts and distance functions are written in jet arithmetic once; their derivatives
and the sources of manufactured problems follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Rows c_k of the second-order combinations, each of length d.
SecondOrder = tuple[tuple[float, ...], ...]


def laplacian(dimension: int) -> SecondOrder:
    """Return the single row of ones: the Laplacian in all coordinates."""
    return ((1.0,) * dimension,)


@dataclass(frozen=True)
class Jet:
    """Value, gradient and second-order combinations of a scalar field at N points.

    Attributes
    ----------
    streams
        (1 + d + k, N): the value, d first derivatives, k second-order combinations.
    coefficients
        (k, d), the c_ki.
    """

    streams: torch.Tensor
    coefficients: torch.Tensor

    @property
    def value(self) -> torch.Tensor:
        """(N,)"""
        return self.streams[0]

    @property
    def gradient(self) -> torch.Tensor:
        """(d, N)"""
        return self.streams[1 : 1 + self.coefficients.shape[1]]

    @property
    def second(self) -> torch.Tensor:
        """(k, N)"""
        return self.streams[1 + self.coefficients.shape[1] :]

    @property
    def laplacian(self) -> torch.Tensor:
        """(N,), the first second-order combination."""
        return self.second[0]

    def __add__(self, other: Jet | float | torch.Tensor) -> Jet:
        if isinstance(other, Jet):
            return self._with(self.streams + other.streams)
        return self._with(torch.cat([self.streams[:1] + other, self.streams[1:]]))

    def __mul__(self, other: Jet | float | torch.Tensor) -> Jet:
        if not isinstance(other, Jet):
            return self._with(self.streams * other)
        a, b = self, other
        cross = self.coefficients @ (a.gradient * b.gradient)
        return self._with(
            torch.cat(
                [
                    (a.value * b.value)[None],
                    a.value * b.gradient + b.value * a.gradient,
                    a.value * b.second + b.value * a.second + 2 * cross,
                ]
            )
        )

    def __neg__(self) -> Jet:
        return self._with(-self.streams)

    def __sub__(self, other: Jet | float | torch.Tensor) -> Jet:
        return self + (-other)

    def __rsub__(self, other: float | torch.Tensor) -> Jet:
        return -self + other

    def __pow__(self, exponent: float) -> Jet:
        a, n = self.value, exponent
        if n == 2:
            return self * self
        return self.compose(a**n, n * a ** (n - 1), n * (n - 1) * a ** (n - 2))

    def __truediv__(self, other: Jet | float | torch.Tensor) -> Jet:
        if isinstance(other, Jet):
            return self * other**-1
        return self * (1 / other)

    def __rtruediv__(self, other: float | torch.Tensor) -> Jet:
        return self**-1 * other

    __radd__ = __add__
    __rmul__ = __mul__

    def compose(self, value: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> Jet:
        """Return f(self), given f, f′ and f″ at the value: (N,) each."""
        square = self.coefficients @ self.gradient**2
        return self._with(
            torch.cat([value[None], first * self.gradient, first * self.second + second * square])
        )

    def exp(self) -> Jet:
        """Exponential."""
        e = self.value.exp()
        return self.compose(e, e, e)

    def sin(self) -> Jet:
        """Sine."""
        s, c = self.value.sin(), self.value.cos()
        return self.compose(s, c, -s)

    def cos(self) -> Jet:
        """Cosine."""
        s, c = self.value.sin(), self.value.cos()
        return self.compose(c, -s, -c)

    def tanh(self) -> Jet:
        """Hyperbolic tangent."""
        t = self.value.tanh()
        return self.compose(t, 1 - t**2, -2 * t * (1 - t**2))

    def _with(self, streams: torch.Tensor) -> Jet:
        return Jet(streams, self.coefficients)


def coordinates(x: torch.Tensor, second_order: SecondOrder) -> list[Jet]:
    """Return the d coordinate functions as jets at x: (N, d)."""
    count, dimension = x.shape
    c = torch.tensor(second_order, dtype=x.dtype, device=x.device).reshape(-1, dimension)
    jets = []
    for axis in range(dimension):
        streams = x.new_zeros(1 + dimension + len(second_order), count)
        streams[0], streams[1 + axis] = x[:, axis], 1.0
        jets.append(Jet(streams, c))
    return jets


def constant(value: torch.Tensor | float, like: Jet) -> Jet:
    """Return a jet without derivatives."""
    streams = torch.zeros_like(like.streams)
    streams[0] = value
    return Jet(streams, like.coefficients)
