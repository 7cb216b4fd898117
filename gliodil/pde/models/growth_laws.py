"""Named growth laws, as rates of the log-odds of a density.

    f(u) = u (1 − u) g(u),      d/dt ln(u/(1−u)) = g(u)      [1/day]

    fisher-kolmogorov   g = ρ
    gompertz            g = α ln((1 + ε)/(u + ε)) / (1 − u),   f = α u ln((1 + ε)/(u + ε)),  ε = 0.01
    allee               g = ρ (u + a)/(1 + a),  a = 0.2        (weak: growth per cell is slow where cells are few)

The law of Gompertz has an infinite rate at u = 0, so that its fronts have no speed; ε bounds it by α ln(1/ε + 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gliodil.errors import InputError
from gliodil.pde.reaction_diffusion.table import TabulatedGrowth

GOMPERTZ_FLOOR = 0.01
ALLEE = 0.2
LAWS = ("fisher-kolmogorov", "gompertz", "allee")


@dataclass(frozen=True)
class GrowthLaw:
    """One of the laws with its rate.

    Attributes
    ----------
    name
        One of ``LAWS``.
    per_day
        ρ or α [1/day].

    Raises
    ------
    InputError
        If there is no such law.
    """

    name: str
    per_day: float

    def __post_init__(self) -> None:
        if self.name not in LAWS:
            raise InputError("Unknown growth law.", expected=", ".join(LAWS), found=str(self.name))

    def log_odds_rate(self, u: torch.Tensor) -> torch.Tensor:
        """Return g(u) [1/day]."""
        if self.name == "gompertz":
            rest = (1 - u).clamp(min=1e-9)
            return self.per_day * torch.log1p(rest / (u + GOMPERTZ_FLOOR)) / rest
        if self.name == "allee":
            return self.per_day * (u + ALLEE) / (1 + ALLEE)
        return torch.full_like(u, self.per_day)

    def rate(self, u: torch.Tensor) -> torch.Tensor:
        """Return f(u) [1/day]; for u < 0 as steep as at 0."""
        return u * (1 - u) * self.log_odds_rate(u.clamp(0, 1))

    def flow(self, u: torch.Tensor, days: float) -> torch.Tensor:
        """Return the density after some days of growth alone."""
        return self.tabulated().flow(u, days)

    def stiffness(self) -> float:
        """Return a bound of |∂f/∂u| on [0, 1] [1/day]."""
        return self.tabulated().stiffness()

    def tabulated(self) -> TabulatedGrowth:
        """Return the same law by tables."""
        return TabulatedGrowth(0.0, lambda u, _: self.log_odds_rate(u))
