"""One step of several rows, each with its own time and length; the sums for ``per_sample``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from gliodil.pde.ode.step import combine
from gliodil.pde.ode.tableaus import Tableau

RowField = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""f(t, z) with t of shape (rows, 1, …): the right-hand side, row by row."""


@dataclass(frozen=True)
class Attempt:
    """One step of several rows, each with its own h; shapes (rows, …)."""

    z: torch.Tensor
    z_new: torch.Tensor
    before: torch.Tensor
    stages: list[torch.Tensor]
    h: torch.Tensor

    def errors(self, tableau: Tableau, rtol: float, atol: float) -> torch.Tensor:
        """Return E per row."""
        wide = [k.double() if k.dtype == torch.float32 else k for k in self.stages]
        e = self.h * weighted_sum(wide, tableau.e)
        scale = atol + rtol * torch.maximum(self.z.abs(), self.z_new.abs())
        norms: torch.Tensor = torch.linalg.vector_norm((e / scale).flatten(1), dim=1)
        return norms / math.sqrt(e[0].numel())

    def stiffness(self) -> torch.Tensor:
        """Return S per row; zero, with zero gradient, where two stages coincide."""
        rates = (self.stages[-1] - self.stages[-2]).flatten(1)
        states = (self.z_new - self.before).flatten(1)
        known = (states != 0).any(1) & (rates != 0).any(1)
        above, below = (
            torch.linalg.vector_norm(torch.where(known[:, None], x, torch.ones_like(x)), dim=1)
            for x in (rates, states)
        )
        return torch.where(known, above / below, torch.zeros_like(above))

    def at(self, places: Sequence[tuple[int, float]], tableau: Tableau) -> torch.Tensor:
        """Return dense output of some rows: (row, share of its step) each."""
        index = torch.tensor([row for row, _ in places], device=self.z.device)
        weights = torch.tensor([tableau.dense_weights(q) for _, q in places], dtype=self.z.dtype)
        weights = weights.to(self.z.device).view(*weights.shape, *[1] * (self.z.ndim - 1))
        total = weights[:, 0] * self.stages[0][index]
        for i, k in enumerate(self.stages[1:], 1):
            total = total + weights[:, i] * k[index]
        return self.z[index] + self.h[index] * total


def attempt(
    f: RowField,
    times: Sequence[float],
    lengths: Sequence[float],
    z: torch.Tensor,
    k1: torch.Tensor,
    tableau: Tableau,
) -> Attempt:
    """Evaluate the stages after the first, each row at its own time with its own step."""
    t, h = column(times, z), column(lengths, z)
    stages, g, before = [k1], z, z
    for c, weights in zip(tableau.c[1:], tableau.a[1:], strict=True):
        before, g = g, z + h * weighted_sum(stages, weights)
        stages.append(f(t + c * h, g))
    return Attempt(z, g, before, stages, h)


def weighted_sum(stages: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return Σ w_i k_i."""
    used = [(w, k) for w, k in zip(weights, stages, strict=False) if w != 0]
    (w0, first), rest = used[0], used[1:]
    return combine(first * w0, [k for _, k in rest], [w for w, _ in rest])


def column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """Return numbers as a tensor that multiplies rows."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))
