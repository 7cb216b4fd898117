"""A Brownian path revealed interval by interval, that remembers what it has revealed.

Of an interval of length h a method sees W = W(t+h) − W(t) and its integral J = ∫ (W(s) − W(t)) ds. The pair is a
Gauss-Markov process in h with covariance and transition

    P(h) = [ h     h²/2 ]          Φ(r) = [ 1  0 ]
           [ h²/2  h³/3 ],                [ r  1 ]

A step that is rejected has already looked at its interval. Taking a shorter one afresh would throw away the paths on
which steps fail, and bias the solution. So the interval is split by the exact conditional law (a bridge),

    (W, J)(s) | (W, J)(h) ~ N( K (W, J)(h), P(s) − K Φ(r) P(s) ),    K = P(s) Φ(r)ᵀ P(h)⁻¹,   r = h − s,

and the part not used waits on a stack for the steps that follow. W and J are split together: bridging them as if
they were independent motions would leave a pair that no single path has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Increment:
    """What is known of W on one interval: its length [time], W [√time] and J = ∫W [time^3/2] (as the state's shape)."""

    length: float
    W: torch.Tensor
    J: torch.Tensor


def merge(first: Increment, second: Increment) -> Increment:
    """Join two adjacent intervals: W adds, and J of the second starts from where the first ended."""
    J = (first.J + second.J).add_(first.W, alpha=second.length)
    return Increment(first.length + second.length, first.W + second.W, J)


def draw(length: float, like: torch.Tensor, generator: torch.Generator) -> Increment:
    """Draw an interval nothing is known of."""
    W, Z = _normal(like, generator), _normal(like, generator)
    # J = h/2 (W + Z/√3) with Z independent of W has covariance P(h).
    W.mul_(math.sqrt(length))
    Z.mul_(math.sqrt(length / 3)).add_(W).mul_(length / 2)
    return Increment(length, W, Z)


def split(whole: Increment, length: float, generator: torch.Generator) -> tuple[Increment, Increment]:
    """Reveal the first ``length`` of an interval and what that leaves of the rest."""
    h = whole.length
    q, r = length / h, 1 - length / h
    # In units of the interval, W/√h and J/h^(3/2), the matrices depend on q alone.
    # P(1)⁻¹ = [4, −6; −6, 12];  P(q)Φ(r)ᵀ = [q, qr + q²/2; q²/2, q²r/2 + q³/3].
    a, b = q, q * r + q * q / 2
    c, d = q * q / 2, q * q * r / 2 + q**3 / 3
    k = (4 * a - 6 * b, -6 * a + 12 * b, 4 * c - 6 * d, -6 * c + 12 * d)
    # The Cholesky factor of the bridge's covariance in closed form; differences would lose digits near the ends.
    l11 = math.sqrt(q * r * (1 - 3 * q * r))
    l21 = (q * r) ** 2 * (r - q) / 2 / l11
    l22 = math.sqrt((q * r) ** 3 / (12 * (1 - 3 * q * r)))
    x, y = _normal(whole.W, generator), _normal(whole.W, generator)
    W = (k[0] * whole.W).add_(whole.J, alpha=k[1] / h).add_(x, alpha=l11 * math.sqrt(h))
    J = (k[2] * h * whole.W).add_(whole.J, alpha=k[3])
    J.add_(x, alpha=l21 * h**1.5).add_(y, alpha=l22 * h**1.5)
    rest = h - length
    W2 = whole.W - W
    J2 = (whole.J - J).sub_(W, alpha=rest)
    return Increment(length, W, J), Increment(rest, W2, J2)


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(like.shape, dtype=like.dtype, device=generator.device, generator=generator)
    return drawn.to(like.device)


class BrownianPath:
    """The future of one path, as far as rejected steps have revealed it.

    Parameters
    ----------
    like
        A tensor with the state's shape, dtype and device; every element has its own Brownian motion.
    generator
        Where new randomness comes from.
    """

    def __init__(self, like: torch.Tensor, generator: torch.Generator) -> None:
        self._like = like.detach()
        self._generator = generator
        self._future: list[Increment] = []  # nearest last

    @property
    def revealed(self) -> float:
        """Return how far ahead of the current time the path is known."""
        return math.fsum(piece.length for piece in self._future)

    def take(self, length: float) -> list[Increment]:
        """Take the next ``length`` off the path, in as many pieces as are known of it."""
        pieces: list[Increment] = []
        missing = length
        tiny = 1e-12 * length  # what round-off in the sum of lengths may leave over
        while missing > tiny:
            if not self._future:
                pieces.append(draw(missing, self._like, self._generator))
                break
            piece = self._future.pop()
            if piece.length > missing + tiny:
                piece, rest = split(piece, missing, self._generator)
                self._future.append(rest)
            pieces.append(piece)
            missing -= piece.length
        return pieces

    def put_back(self, pieces: list[Increment]) -> None:
        """Return pieces whose step was rejected; they are the next ones again."""
        self._future.extend(reversed(pieces))
