"""The box Ω = Π [lowerᵢ, upperᵢ], in the units of the problem's own coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gliodil.errors import InputError


@dataclass(frozen=True)
class Box:
    """An axis-parallel box; space, time and parameters of a family are coordinates alike.

    Attributes
    ----------
    lower, upper
        Corners; every extent is positive and finite.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", tuple(float(v) for v in self.lower))
        object.__setattr__(self, "upper", tuple(float(v) for v in self.upper))
        finite = all(math.isfinite(v) for v in (*self.lower, *self.upper))
        if (
            not self.lower
            or len(self.lower) != len(self.upper)
            or not finite
            or any(a >= b for a, b in zip(self.lower, self.upper, strict=True))
        ):
            raise InputError(
                "This is not a box.",
                expected="as many finite lower as upper bounds, each lower one below its upper one",
                found=f"lower {self.lower}, upper {self.upper}",
            )

    @property
    def dimension(self) -> int:
        """Number of coordinates."""
        return len(self.lower)

    @property
    def edges(self) -> tuple[float, ...]:
        """Lengths of the edges."""
        return tuple(b - a for a, b in zip(self.lower, self.upper, strict=True))

    @property
    def volume(self) -> float:
        """|Ω|."""
        return math.prod(self.edges)

    def bounds(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both corners as tensors (d,) of the dtype and on the device of `like`."""
        make = torch.tensor
        return (
            make(self.lower, dtype=like.dtype, device=like.device),
            make(self.upper, dtype=like.dtype, device=like.device),
        )

    def to_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Map the box onto [0, 1]^d: (..., d)."""
        lower, upper = self.bounds(x)
        return (x - lower) / (upper - lower)

    def from_unit(self, z: torch.Tensor) -> torch.Tensor:
        """Map [0, 1]^d onto the box: (..., d); never leaves it by round-off."""
        lower, upper = self.bounds(z)
        return torch.minimum(lower + z * (upper - lower), upper)

    def contains(self, x: torch.Tensor) -> torch.Tensor:
        """Return which points lie in the closed box: (...,) of bool."""
        lower, upper = self.bounds(x)
        return ((x >= lower) & (x <= upper)).all(-1)

    def boundary(
        self, count: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> torch.Tensor:
        """Draw points uniformly (by surface measure) on all faces: (count, d)."""
        device = generator.device
        z = torch.rand(count, self.dimension, generator=generator, dtype=dtype, device=device)
        x = self.from_unit(z)
        lower, upper = self.bounds(x)
        # A face's measure is |Ω| over the extent across it, the same for both sides of an axis.
        axis = torch.multinomial(1 / (upper - lower), count, replacement=True, generator=generator)
        side = torch.rand(count, generator=generator, dtype=dtype, device=device) < 0.5
        rows = torch.arange(count, device=device)
        x[rows, axis] = torch.where(side, lower[axis], upper[axis])
        return x

    def face(
        self,
        axis: int,
        *,
        upper: bool,
        count: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> torch.Tensor:
        """Draw points uniformly on one face: (count, d)."""
        z = torch.rand(count, self.dimension, generator=generator, dtype=dtype, device=generator.device)
        x = self.from_unit(z)
        x[:, axis] = self.upper[axis] if upper else self.lower[axis]
        return x
