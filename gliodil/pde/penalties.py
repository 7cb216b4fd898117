"""Penalties on learned dynamics that do not ask the solver: the ones solver heuristics are compared with.

    RNODE        ∫ ‖f‖² dt  and  ∫ ‖εᵀ ∂f/∂z‖² dt,  ε one random probe          Finlay et al., ICML 2020
    TayNODE, K=2 ∫ ‖d²z/dt²‖² dt,  d²z/dt² = ∂f/∂t + (∂f/∂z) f by one forward derivative   Kelly et al., NeurIPS 2020
    STEER        a random end time                                              Ghosh et al., NeurIPS 2020

The integrals are further columns of the state, one per sample: z of shape (B, d) becomes (B, d + columns).
They take part in the error norm. Norms are sums over d; average over samples as the loss does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch

from gliodil.errors import InputError
from gliodil.pde.ode.step import Field


class _Augmented(torch.nn.Module):
    columns = 1

    def __init__(self, f: Field) -> None:
        super().__init__()
        self.f = f

    def start(self, z0: torch.Tensor) -> torch.Tensor:
        """Return the state with its integrals at zero, shape (B, d + columns)."""
        if z0.ndim != 2:
            raise InputError(
                "This penalty needs one row per sample.",
                expected="a state of shape (B, d)",
                found=str(tuple(z0.shape)),
            )
        return torch.cat((z0, z0.new_zeros(len(z0), self.columns)), 1)

    def split(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z of shape (…, B, d) and the integrals of shape (…, B, columns)."""
        return states[..., : -self.columns], states[..., -self.columns :]


class RNode(_Augmented):
    """Dynamics with the kinetic energy ∫‖f‖² and the Jacobian norm ∫‖εᵀ∂f/∂z‖² as two more columns.

    Parameters
    ----------
    f
        The dynamics, on states of shape (B, d).
    probe
        ε, shape (B, d), entries of mean zero and variance one; constant during a solve.
    """

    columns = 2

    def __init__(self, f: Field, probe: torch.Tensor) -> None:
        super().__init__(f)
        self.probe = probe

    def forward(self, t: float, y: torch.Tensor) -> torch.Tensor:
        """Return the rates of z and of both integrals."""
        taped = torch.is_grad_enabled()
        with torch.enable_grad():
            z = self.split(y)[0]
            if not z.requires_grad:
                z = z.detach().requires_grad_()
            rate = self.f(t, z)
            (pulled,) = torch.autograd.grad(rate, z, self.probe, create_graph=taped, retain_graph=True)
        if not taped:
            rate, pulled = rate.detach(), pulled.detach()
        sums = (rate.square().sum(1, keepdim=True), pulled.square().sum(1, keepdim=True))
        return torch.cat((rate, *sums), 1)


class TayNode(_Augmented):
    """Dynamics with ∫‖d²z/dt²‖² as one more column.

    f is called with t as a 0-dimensional tensor: time must enter by arithmetic on tensors, or its part is lost.
    """

    def forward(self, t: float, y: torch.Tensor) -> torch.Tensor:
        """Return the rates of z and of the integral."""
        z = self.split(y)[0]
        time = z.new_tensor(t)
        rate = self.f(time, z)  # type: ignore[arg-type]
        second = torch.func.jvp(self.f, (time, z), (torch.ones_like(time), rate))[1]
        return torch.cat((rate, second.square().sum(1, keepdim=True)), 1)


def steer_end(end: float, half_width: float, *, generator: torch.Generator) -> float:
    """Return an end time drawn from U(end − b, end + b)."""
    share = float(torch.rand((), generator=generator, dtype=torch.float64))
    return end + half_width * (2 * share - 1)


def steer_times(times: Sequence[float], *, generator: torch.Generator) -> tuple[float, ...]:
    """Return the times, each after the first moved by up to half of the shorter interval beside it."""
    gaps = [b - a for a, b in pairwise(times)]
    moved = [times[0]]
    for n, t in enumerate(times[1:]):
        beside = min(abs(gap) for gap in gaps[n : n + 2])
        moved.append(steer_end(t, beside / 2 * (1 - math.ulp(1.0)), generator=generator))
    return tuple(moved)
