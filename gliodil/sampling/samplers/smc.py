"""Sequential Monte Carlo: finds the residual's peaks in any dimension, then describes them by a law with known density.

Particles start from the law until now, q, and are carried to π ∝ (r²)^γ through

    π_φ ∝ q^(1−φ) (r²)^(γφ),      0 = φ_0 < φ_1 < … ≤ 1 .

Each φ is chosen so that the weights' effective number stays at half of the particles; these are resampled and moved by
random-walk Metropolis steps, reflected at the faces. As only ratios of r² matter, a peak is found from where r² is
1e-20 of its height. A truncated Gaussian mixture is then fitted to the particles. The particles follow π approximately;
the points are drawn from the mixture, whose density is exact.

A ladder keeps the fits at all φ in equal shares, the uniform law among them: points of every scale between the domain
and the peaks, each rung as far from the next as weights that are worth half of the particles.
"""

from __future__ import annotations

import torch

from gliodil.sampling.domain import Box
from gliodil.sampling.gaussians import fit_gaussians
from gliodil.sampling.laws import Law, MixtureLaw, UniformLaw
from gliodil.sampling.residual_map import SquaredResidual, evaluate
from gliodil.sampling.samplers.base import Redrawing

TINY = {torch.float64: 1e-290, torch.float32: 1e-37}


class SmcSampler(Redrawing):
    """All points redrawn from a Gaussian mixture fitted to particles of (r²)^γ.

    Parameters
    ----------
    box, dtype
        The domain, and the type of the points.
    power
        γ: 1 is the density r²/∫r², 0.5 is |r|.
    particles, moves
        Number of particles; Metropolis steps at each temperature. r² is evaluated particles · moves times for each.
    parts
        Gaussians of the mixture, at most.
    temperatures
        At most; the last one reached is used.
    ladder
        Start from the uniform law at every update and keep the laws of all temperatures, not of the last one only.
    """

    def __init__(
        self,
        box: Box,
        *,
        dtype: torch.dtype,
        power: float = 1.0,
        particles: int = 1000,
        moves: int = 3,
        parts: int = 12,
        temperatures: int = 60,
        ladder: bool = False,
    ) -> None:
        super().__init__(UniformLaw(box, dtype))
        self.box, self.dtype = box, dtype
        self.power, self.particles, self.moves, self.parts = power, particles, moves, parts
        self.temperatures, self.ladder = temperatures, ladder
        self.reached = 0.0

    def update(self, squared_residual: SquaredResidual, *, generator: torch.Generator) -> None:
        """Run the particles on r² and fit the mixture to them."""
        uniform = UniformLaw(self.box, self.dtype)
        # A ladder leads from uniform points to the residual, whatever the last one was.
        start = uniform if self.ladder else MixtureLaw((uniform, self.law), (0.5, 0.5))
        rungs: list[Law] = [uniform]

        def target(x: torch.Tensor) -> torch.Tensor:
            squared = evaluate(squared_residual, x)
            return self.power * torch.log(squared.clamp_min(TINY.get(squared.dtype, 1e-37))).to(torch.float64)

        def base(x: torch.Tensor) -> torch.Tensor:
            return torch.log(start.density(x).to(torch.float64))

        x = start.sample(self.particles, generator=generator)
        log_r, log_q = target(x), base(x)
        phi = 0.0
        for _ in range(self.temperatures):
            gain = log_r - log_q
            step = _longest_step(gain, 1 - phi)
            phi = min(1.0, phi + step)
            weight = torch.exp(step * (gain - gain.max()))
            chosen = _systematic(weight, generator)
            x, log_r, log_q = x[chosen], log_r[chosen], log_q[chosen]
            for _ in range(self.moves):
                proposed = self._proposed(x, generator)
                new_r, new_q = target(proposed), base(proposed)
                ratio = (1 - phi) * (new_q - log_q) + phi * (new_r - log_r)
                level = torch.rand(len(x), dtype=torch.float64, device=x.device, generator=generator)
                accept = torch.log(level) < ratio
                x = torch.where(accept[:, None], proposed, x)
                log_r, log_q = torch.where(accept, new_r, log_r), torch.where(accept, new_q, log_q)
            if self.ladder:
                rungs.append(self._fit(x, generator))
            if phi >= 1:
                break
        self.reached = phi
        if self.ladder:
            self.law = MixtureLaw(tuple(rungs), (1 / len(rungs),) * len(rungs))
        else:
            self.law = self._fit(x, generator)

    def _fit(self, x: torch.Tensor, generator: torch.Generator) -> Law:
        return fit_gaussians(
            self.box.to_unit(x), self.box, parts=self.parts, dtype=self.dtype, generator=generator
        )

    def _proposed(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a symmetric random move: the difference of two other particles, of random length.

        It takes its scale and shape from the particles, also where they form several peaks.
        """
        n, d = x.shape
        u = self.box.to_unit(x)
        i, j = (torch.randint(n, (n,), generator=generator, device=x.device) for _ in range(2))
        length = 1.7 / d**0.5 * torch.rand(n, 1, dtype=x.dtype, device=x.device, generator=generator)
        noise = 1e-4 * torch.randn(n, d, dtype=x.dtype, device=x.device, generator=generator)
        u = torch.remainder(u + length * (u[i] - u[j]) + noise, 2)
        return self.box.from_unit(torch.where(u > 1, 2 - u, u))


def _longest_step(gain: torch.Tensor, rest: float) -> float:
    """Return the largest step ≤ rest for which weights exp(step·gain) are worth half of the particles."""

    def worth(step: float) -> float:
        w = torch.exp(step * (gain - gain.max()))
        return float(w.sum() ** 2 / (w * w).sum()) / len(gain)

    if worth(rest) >= 0.5:
        return rest
    low, high = 0.0, rest
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if worth(middle) >= 0.5 else (low, middle)
    return max(low, 1e-9)


def _systematic(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return as many indices as weights, each about as often as its share asks for."""
    n = len(weight)
    offset = torch.rand((), dtype=torch.float64, device=weight.device, generator=generator)
    level = (torch.arange(n, device=weight.device) + offset) / n
    cumulated = weight.cumsum(0) / weight.sum()
    return torch.searchsorted(cumulated, level).clamp_max(n - 1)
