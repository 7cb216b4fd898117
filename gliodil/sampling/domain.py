"""Axis-aligned boxes and their map to the unit cube."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gliodil.errors import InputError


@dataclass(frozen=True)
class Box:
    """The box Π [lower_i, upper_i], in the domain's own coordinates (of whatever units each axis has)."""

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
        """Number of axes d."""
        return len(self.lower)

    @property
    def edges(self) -> tuple[float, ...]:
        """Lengths of the edges."""
        return tuple(b - a for a, b in zip(self.lower, self.upper, strict=True))

    @property
    def volume(self) -> float:
        """Product of the edges."""
        return math.prod(self.edges)

    def to_unit(self, x: torch.Tensor) -> torch.Tensor:
        """Map (…, d) positions to the unit cube."""
        return (x - x.new_tensor(self.lower)) / x.new_tensor(self.edges)

    def from_unit(self, u: torch.Tensor) -> torch.Tensor:
        """Map (…, d) positions of the unit cube to the box; never leaves it by round-off."""
        lower, upper = u.new_tensor(self.lower), u.new_tensor(self.upper)
        return torch.minimum(lower + u * u.new_tensor(self.edges), upper)

    def contains(self, x: torch.Tensor) -> torch.Tensor:
        """Return which of the (…, d) positions lie in the closed box."""
        return ((x >= x.new_tensor(self.lower)) & (x <= x.new_tensor(self.upper))).all(-1)
