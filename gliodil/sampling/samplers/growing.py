"""Samplers that keep their points and add to them: RAR, RAR-D, failure-informed, DAS-G.

The set starts with n₀ uniform points; update j adds n_j points of a law p_j. A point chosen at random from the set of
N = Σ n_j follows

    p(x) = Σ_j (n_j/N) p_j(x) ,     p_0 = 1/|Ω| ,

exactly, because every p_j is fixed before its points are drawn. The set persists; a draw of fewer points than it holds
is a random subset, so that methods can be compared at the same number of points per step. The mixture is evaluated at
every point of the set, those of other stages included: weights stay bounded by the uniform share.
"""

from __future__ import annotations

import torch

from gliodil.errors import InputError
from gliodil.sampling.cells import CellLaw
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import Law, MixtureLaw, UniformLaw
from gliodil.sampling.points import Points
from gliodil.sampling.residual_map import ResidualMap, SquaredResidual, map_residual
from gliodil.sampling.samplers.flow import FlowSampler
from gliodil.sampling.samplers.rad import residual_law

FIRST_COUNT = 1000


class GrowingSampler:
    """A set of points that grows at each update.

    Parameters
    ----------
    box, dtype
        The domain, and the type of the points.
    growth
        Points added at each update, as a fraction of the first draw.
    """

    def __init__(self, box: Box, *, dtype: torch.dtype, growth: float) -> None:
        if not growth > 0:
            raise InputError("A growing set must grow.", expected="growth > 0", found=str(growth))
        self.box, self.dtype, self.growth = box, dtype, growth
        self.parts: list[tuple[Law, int]] = [(UniformLaw(box, dtype), 0)]
        self.x = torch.empty(0, box.dimension, dtype=dtype)
        self.intensity = torch.empty(0, dtype=dtype)  # Σ n_j p_j at the points
        self.first_count = 0

    @property
    def law(self) -> Law:
        """The mixture that the set follows, for independent points of it."""
        total = sum(n for _, n in self.parts)
        if total == 0:
            return self.parts[0][0]
        parts, numbers = zip(*self.parts, strict=True)
        return MixtureLaw(parts, tuple(n / total for n in numbers))

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Return ``count`` points of the set; where it holds fewer, it is filled up with uniform ones."""
        if len(self.x) < count:
            self._add(self.parts[0][0], count - len(self.x), generator)
        self.first_count = self.first_count or count
        chosen = torch.randperm(len(self.x), generator=generator, device=generator.device)[:count]
        return Points(self.x[chosen], self.intensity[chosen] / len(self.x))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return the density of the mixture, shape (N,)."""
        return self.law.density(x)

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Add points of the law that r² asks for."""
        law = self.next_law(squared_residual, generator)
        if law is None:
            return
        if not len(self.x):
            self.draw(FIRST_COUNT, generator=generator)
        self._add(law, max(1, round(self.growth * self.first_count)), generator)

    def next_law(self, squared_residual: SquaredResidual, generator: torch.Generator) -> Law | None:
        """Return the law of the points to add, or None to add none."""
        raise NotImplementedError

    def _add(self, law: Law, count: int, generator: torch.Generator) -> None:
        new = law.sample(count, generator=generator)
        old = self.x.to(new.device)
        at_new = count * law.density(new)
        for earlier, number in self.parts:
            if number:
                at_new = at_new + number * earlier.density(new)
        at_old = self.intensity.to(new.device) + count * law.density(old)
        self.x, self.intensity = torch.cat([old, new]), torch.cat([at_old, at_new])
        first, number = self.parts[0]
        if law is first:
            self.parts[0] = (first, number + count)
        else:
            self.parts.append((law, count))


class RarSampler(GrowingSampler):
    """RAR: adds points where the residual is largest (Lu, Meng, Mao & Karniadakis, SIAM Review 63, 2021).

    The publication adds the m largest of M uniform candidates. For many candidates that is a uniform law on the part of
    the domain, of volume fraction m/M, where the residual is largest; this law is drawn here, with the set made of the
    cells of the residual's map. What differs from m of M candidates is the set's edge, blurred there over a relative
    volume of about 1/√m.

    Parameters
    ----------
    fraction
        m/M.
    budget
        Evaluations of r² at each update.
    """

    def __init__(
        self,
        box: Box,
        *,
        dtype: torch.dtype,
        growth: float = 0.1,
        fraction: float = 0.02,
        budget: int = 8192,
    ) -> None:
        super().__init__(box, dtype=dtype, growth=growth)
        if not 0 < fraction <= 1:
            raise InputError(
                "The hardest fraction is out of range.", expected="0 < fraction ≤ 1", found=str(fraction)
            )
        self.fraction, self.budget = fraction, budget

    def next_law(self, squared_residual: SquaredResidual, generator: torch.Generator) -> Law | None:
        """Return the uniform law on the hardest cells."""
        seen = map_residual(
            squared_residual, self.box, budget=self.budget, dtype=self.dtype, generator=generator
        )
        order = seen.value.argsort(descending=True)
        before = seen.volume[order].cumsum(0) - seen.volume[order]
        mass = torch.zeros_like(seen.value)
        # The last cell takes what is left of the fraction, so that ties and large cells keep the volume right.
        mass[order] = torch.minimum(seen.volume[order], (self.fraction - before).clamp_min(0))
        return CellLaw(self.box, seen.partition, mass, dtype=self.dtype)


class RarDSampler(GrowingSampler):
    """RAR-D: adds points of the residual's distribution, p_j ∝ |r|^k/mean|r|^k + c (Wu et al., 2023)."""

    def __init__(
        self,
        box: Box,
        *,
        dtype: torch.dtype,
        growth: float = 0.1,
        k: float = 2.0,
        c: float = 0.0,
        budget: int = 8192,
    ) -> None:
        super().__init__(box, dtype=dtype, growth=growth)
        self.k, self.c, self.budget = k, c, budget

    def next_law(self, squared_residual: SquaredResidual, generator: torch.Generator) -> Law | None:
        """Return the residual's distribution on the map's cells."""
        seen = map_residual(
            squared_residual, self.box, budget=self.budget, dtype=self.dtype, generator=generator
        )
        return residual_law(seen, k=self.k, c=self.c, dtype=self.dtype)


class DasGSampler(GrowingSampler):
    """DAS-G: adds points of a flow fitted to r² (Tang, Wan & Yang, J. Comput. Phys. 476, 2023).

    Parameters
    ----------
    settings
        Of ``FlowSampler``; its objective is "kl".
    """

    def __init__(
        self, box: Box, *, dtype: torch.dtype, seed: int, growth: float = 0.25, **settings: object
    ) -> None:
        super().__init__(box, dtype=dtype, growth=growth)
        self.fitted = FlowSampler(box, dtype=dtype, seed=seed, objective="kl", **settings)  # type: ignore[arg-type]

    def next_law(self, squared_residual: SquaredResidual, generator: torch.Generator) -> Law | None:
        """Train the flow and return its law."""
        self.fitted.update(squared_residual, generator=generator)
        return self.fitted.law


class FailureInformedSampler(GrowingSampler):
    """FI-PINN: adds points where the network fails, |r| > ε (Gao, Yan & Zhou, SIAM J. Sci. Comput. 45, 2023).

    The failure set F is made of cells of the residual's map. A Gaussian with independent coordinates is fitted to F,
    more to where r² is larger, and truncated to it; its mass in every cell is a product of error functions, so that
    its normalization is exact. No points are added once F is less likely than ``tolerance`` under the uniform law.

    Parameters
    ----------
    threshold
        ε² as a multiple of the mean of r², or of 1 with ``absolute``.
    tolerance
        The probability of failure at which adding ends.
    """

    def __init__(
        self,
        box: Box,
        *,
        dtype: torch.dtype,
        growth: float = 0.1,
        threshold: float = 1.0,
        absolute: bool = False,
        tolerance: float = 1e-4,
        budget: int = 8192,
    ) -> None:
        super().__init__(box, dtype=dtype, growth=growth)
        self.threshold, self.absolute = threshold, absolute
        self.tolerance, self.budget = tolerance, budget
        self.failure_probability = 1.0

    def next_law(self, squared_residual: SquaredResidual, generator: torch.Generator) -> Law | None:
        """Return the Gaussian truncated to the failure set, or None where failure is rare."""
        seen = map_residual(
            squared_residual, self.box, budget=self.budget, dtype=self.dtype, generator=generator
        )
        threshold = self.threshold * (1.0 if self.absolute else seen.mean)
        failed = seen.value > threshold
        self.failure_probability = float(seen.volume[failed].sum())
        if self.failure_probability <= self.tolerance:
            return None
        return TruncatedGaussianLaw(self.box, seen, failed, dtype=self.dtype)


class TruncatedGaussianLaw(CellLaw):
    """A Gaussian with independent coordinates, restricted to cells where the network fails."""

    def __init__(self, box: Box, seen: ResidualMap, failed: torch.Tensor, *, dtype: torch.dtype) -> None:
        lower, upper = seen.partition.corners()
        weight = torch.where(failed, seen.volume * seen.value, 0)
        weight = weight / weight.sum()
        centre = (lower + upper) / 2
        self.mean = (weight[:, None] * centre).sum(0)
        within = (upper - lower).square() / 12
        self.deviation = (weight[:, None] * ((centre - self.mean).square() + within)).sum(0).sqrt()
        self._below, self._above = self._cumulative(lower), self._cumulative(upper)
        mass = torch.where(failed, (self._above - self._below).prod(-1), 0)
        super().__init__(box, seen.partition, mass, dtype=dtype)
        self.normalization = mass.sum()

    def _cumulative(self, u: torch.Tensor) -> torch.Tensor:
        below: torch.Tensor = torch.special.ndtr((u - self.mean) / self.deviation)
        return below

    def sample(self, count: int, *, generator: torch.Generator) -> torch.Tensor:
        """Return (count, d) positions in random order."""
        level, inside = (
            torch.rand(count, n, dtype=torch.float64, device=generator.device, generator=generator)
            for n in (1, self.box.dimension)
        )
        cell = self.choose(level[:, 0])
        below, above = self._below[cell], self._above[cell]
        z = torch.special.ndtri(below + inside * (above - below))
        u = self.mean + self.deviation * z
        u = torch.maximum(torch.minimum(u, self.upper[cell]), self.lower[cell])
        return self.box.from_unit(u.to(self.dtype))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return p(x), shape (N,)."""
        u = self.box.to_unit(x).clamp(0, 1)
        z = (u.to(torch.float64) - self.mean) / self.deviation
        gaussian = torch.exp(-0.5 * z.square()) / (self.deviation * (2 * torch.pi) ** 0.5)
        p = gaussian.prod(-1) / (self.normalization * self.box.volume)
        there = self.probability[self.partition.locate(u)] > 0
        return torch.where(there & self.box.contains(x), p, 0).to(x.dtype)
