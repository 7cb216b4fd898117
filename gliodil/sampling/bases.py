"""Networks that are linear in all parameters, and sums of networks; the protocol is that of `network`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gliodil.sampling.network import Tape


@dataclass(frozen=True)
class LocalBases:
    """Gaussians of fixed centres and widths with trained amplitudes: u = Σⱼ θⱼ exp(-½ Σᵢ ((xᵢ - mⱼᵢ)/sⱼᵢ)²).

    Attributes
    ----------
    centres, widths
        (M, d) each, in the domain's own coordinates.
    """

    centres: torch.Tensor
    widths: torch.Tensor

    @property
    def size(self) -> int:
        """Number of amplitudes M."""
        return self.centres.shape[0]

    @property
    def linear(self) -> slice:
        """All of them."""
        return slice(0, self.size)

    def initial(
        self,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        through: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return zeros: (M,)."""
        return torch.zeros(self.size, dtype=dtype, device=generator.device)

    def forward(self, theta: torch.Tensor, x: torch.Tensor, coefficients: torch.Tensor) -> Tape:
        """Evaluate all streams at x (N, d)."""
        features = self._features(x, coefficients)
        return Tape(features @ theta, features)

    def value(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Evaluate the network alone at x (N, d): (N,)."""
        return self._values(x)[0] @ theta

    def jacobian(
        self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor, *, linear_only: bool = False
    ) -> torch.Tensor:
        """Return per-sample derivatives: (N, M)."""
        out: torch.Tensor = tape.kept[0] * adjoint[0][:, None]
        for feature, weight in zip(tape.kept[1:], adjoint[1:], strict=True):
            if bool(weight.any()):
                out.addcmul_(feature, weight[:, None])
        return out

    def gradient(self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor) -> torch.Tensor:
        """Return the summed derivatives: (M,)."""
        return torch.einsum("snm,sn->m", tape.kept, adjoint)

    def shapes(self) -> list[tuple[int, ...]]:
        """One vector."""
        return [(self.size,)]

    def _features(self, x: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        widths = self.widths.to(x)
        value, y = self._values(x)
        streams = [value, *(value * y[axis] / -widths[:, axis] for axis in range(x.shape[1]))]
        for c in coefficients.tolist():
            curvature = torch.zeros_like(value)
            for axis, share in enumerate(c):
                if share != 0:
                    curvature += (share / widths[:, axis] ** 2) * (y[axis].square() - 1)
            streams.append(value * curvature)
        return torch.stack(streams)

    def _values(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return φ (N, M) and the scaled offsets per axis."""
        centres, widths = self.centres.to(x), self.widths.to(x)
        y = [(x[:, axis, None] - centres[:, axis]) / widths[:, axis] for axis in range(x.shape[1])]
        exponent = torch.stack([part.square() for part in y]).sum(0)
        # Below e^-100 a product of two is nothing, and slow: it would be denormal.
        return torch.where(exponent > 200, 0.0, (-0.5 * exponent).exp()), y


@dataclass(frozen=True)
class Sum:
    """The sum of networks, each with its own share of θ, in order."""

    parts: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return sum(part.size for part in self.parts)

    @property
    def linear(self) -> slice:
        """The last part's linear parameters."""
        last: slice = self.parts[-1].linear
        before = self.size - self.parts[-1].size
        return slice(before + last.start, before + last.stop)

    def initial(
        self,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
        through: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw each part's starting parameters."""
        return torch.cat(
            [part.initial(generator=generator, dtype=dtype, through=through) for part in self.parts]
        )

    def forward(self, theta: torch.Tensor, x: torch.Tensor, coefficients: torch.Tensor) -> Tape:
        """Evaluate all streams at x (N, d)."""
        tapes = [
            part.forward(share, x, coefficients)
            for part, share in zip(self.parts, self._split(theta), strict=True)
        ]
        return Tape(torch.stack([tape.streams for tape in tapes]).sum(0), tapes)

    def value(self, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Evaluate the network alone at x (N, d): (N,)."""
        shares = zip(self.parts, self._split(theta), strict=True)
        return torch.stack([part.value(share, x) for part, share in shares]).sum(0)

    def jacobian(
        self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor, *, linear_only: bool = False
    ) -> torch.Tensor:
        """Return per-sample derivatives: (N, P)."""
        shares = list(zip(self.parts, self._split(theta), tape.kept, strict=True))
        if linear_only:
            part, share, own = shares[-1]
            columns: torch.Tensor = part.jacobian(share, own, adjoint, linear_only=True)
            return columns
        return torch.cat([part.jacobian(share, own, adjoint) for part, share, own in shares], dim=1)

    def gradient(self, theta: torch.Tensor, tape: Tape, adjoint: torch.Tensor) -> torch.Tensor:
        """Return the summed derivatives: (P,)."""
        shares = zip(self.parts, self._split(theta), tape.kept, strict=True)
        return torch.cat([part.gradient(share, own, adjoint) for part, share, own in shares])

    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of all parts."""
        return [shape for part in self.parts for shape in part.shapes()]

    def _split(self, theta: torch.Tensor) -> Sequence[torch.Tensor]:
        return torch.split(theta, [part.size for part in self.parts])
