"""What a network is to the solvers: Taylor streams forward, their adjoints backward, and flat parameters θ.

The streams are those of a jet (see `derivatives`). For an adjoint ā of them, one per sample n,

    jacobian   J_n = ∂(Σ_s ā_sn stream_sn)/∂θ        gradient   Σ_n J_n.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True)
class Tape:
    """What a forward pass leaves for the backward one; `streams` (1 + d + k, N) is the result."""

    streams: torch.Tensor
    kept: Any


class Network(Protocol):
    """A scalar function of x with flat parameters."""

    @property
    def size(self) -> int:
        """Number of parameters P."""
        ...

    @property
    def linear(self) -> slice:
        """The parameters in which the network is linear (may be empty)."""
        ...

    def initial(
        self,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        through: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw starting parameters (P,), with detail near the points `through` (n, d) if there are any."""
        ...

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the weights and biases in the order of θ."""
        ...

    def forward(self, theta: torch.Tensor, x: torch.Tensor, coefficients: torch.Tensor) -> Tape:
        """Evaluate all streams at x (N, d); `coefficients` is (k, d)."""
        ...

    def value(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Evaluate the network alone at x (N, d): (N,)."""
        ...

    def jacobian(
        self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor, *, linear_only: bool = False
    ) -> torch.Tensor:
        """Return ∂(Σ_s adjoint_sn stream_sn)/∂θ for every sample n: (N, P), or the columns of `linear`."""
        ...

    def gradient(self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor) -> torch.Tensor:
        """Return the sum over samples of `jacobian`: (P,)."""
        ...
