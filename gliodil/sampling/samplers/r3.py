"""R3: retain points whose residual is above the mean, release the rest, resample them uniformly (Daw et al., ICML 2023).

A point at x that is in the population now was born, uniformly, at some update j, and x was in the retained set A_i at
all later ones. With b_j points born at update j the population therefore has the intensity

    Λ(x) = (1/|Ω|) Σ_j b_j ∏_{i>j} 1[x ∈ A_i]

and p = Λ/N is reported, with N the population. The b_j are known, so Σ f(x_i)/Λ(x_i) has expectation ∫f up to the
dependence of later births on earlier survivors; this dependence is also why the mass of p is 1 only up to a random
deviation of order N^−1/2. Retention uses the cells of the residual's map for r², so that A_i can be asked at any x.
Points retire after ``memory`` updates: their place is released, and bookkeeping stays finite.
"""

from __future__ import annotations

import torch

from gliodil.errors import InputError
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import UniformLaw
from gliodil.sampling.points import Points
from gliodil.sampling.residual_map import ResidualMap, SquaredResidual, map_residual


class R3Sampler:
    """A population of constant size that gathers where the residual stays high.

    Parameters
    ----------
    box, dtype
        The domain, and the type of the points.
    budget
        Evaluations of r² at each update.
    memory
        Updates that a point lives at most.
    """

    def __init__(self, box: Box, *, dtype: torch.dtype, budget: int = 8192, memory: int = 30) -> None:
        if memory < 1:
            raise InputError("Points must live for an update.", expected="memory ≥ 1", found=str(memory))
        self.uniform = UniformLaw(box, dtype)
        self.box, self.dtype, self.budget, self.memory = box, dtype, budget, memory
        self.x = torch.empty(0, box.dimension, dtype=dtype)
        self.birth = torch.empty(0, dtype=torch.long)
        self.time = 0
        self.born: dict[int, int] = {0: 0}
        # (when, residual map, its threshold), oldest first
        self.retained: list[tuple[int, ResidualMap, float]] = []

    def draw(self, count: int, *, generator: torch.Generator) -> Points:
        """Return ``count`` points of the population; where it holds fewer, uniform ones are born."""
        if len(self.x) < count:
            self._bear(count - len(self.x), generator)
        chosen = torch.randperm(len(self.x), generator=generator, device=generator.device)[:count]
        x = self.x[chosen]
        return Points(x, self.density(x))

    def density(self, x: torch.Tensor) -> torch.Tensor:
        """Return Λ(x)/N, shape (N,); before the first draw, the uniform density."""
        total = len(self.x)
        if total == 0:
            return self.uniform.density(x)
        births = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        alive = torch.ones_like(births)
        retained = {when: (seen, threshold) for when, seen, threshold in self.retained}
        for when in range(self.time, min(self.born) - 1, -1):
            births += self.born.get(when, 0) * alive
            if when in retained:
                seen, threshold = retained[when]
                alive = alive * (seen.at(x) > threshold)
        return (births / total).to(x.dtype) * self.uniform.density(x)

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Retain points above the population's mean of r², and replace the others by uniform ones."""
        seen = map_residual(
            squared_residual, self.box, budget=self.budget, dtype=self.dtype, generator=generator
        )
        if not len(self.x):
            return
        value = seen.at(self.x)
        threshold = float(value.mean())
        self.time += 1
        keep = (value > threshold) & (self.birth >= self.time - self.memory)
        released = int((~keep).sum())
        self.x, self.birth = self.x[keep], self.birth[keep]
        self.retained = [*self.retained, (self.time, seen, threshold)][-self.memory :]
        self.born = {when: n for when, n in self.born.items() if when >= self.time - self.memory}
        self._bear(released, generator)

    def _bear(self, count: int, generator: torch.Generator) -> None:
        new = self.uniform.sample(count, generator=generator)
        self.x = torch.cat([self.x.to(new.device), new])
        self.birth = torch.cat(
            [self.birth.to(new.device), self.birth.new_full((count,), self.time).to(new.device)]
        )
        self.born[self.time] = self.born.get(self.time, 0) + count
