"""A neural ODE fitted to a cubic spiral, du/dt = A u³."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gliodil.errors import NumericsError
from gliodil.pde import ode, penalties
from neural.models import SpiralField
from neural.records import Row
from neural.solving import peer_solve, solve
from neural.training import Clock, Variant, ending


@dataclass(frozen=True, kw_only=True)
class SpiralConfig:
    """Sizes and settings; tolerance is both rtol and atol."""

    end: float = 1.5
    times: int = 30
    iterations: int = 500
    learning_rate: float = 0.01
    tolerance: float = 1.4e-8
    hidden: int = 50


def truth(config: SpiralConfig) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Return start (1, 2), states (times, 1, 2) and times."""
    matrix = torch.tensor([[-0.1, -2.0], [2.0, -0.1]], dtype=torch.float64)
    z0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    times = torch.linspace(0, config.end, config.times, dtype=torch.float64).tolist()
    solution = ode.solve(lambda t, z: z**3 @ matrix, z0, times, rtol=1e-10, atol=1e-10).raise_for_status()
    return z0, solution.states, times


def run(config: SpiralConfig, variant: Variant, seed: int, peers: tuple[str, ...]) -> Row:
    """Fit, and measure the mean squared error along the curve."""
    z0, target, times = truth(config)
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    model = SpiralField(config.hidden).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    clock, losses, course = Clock(), [], []
    try:
        for i in range(config.iterations):
            with clock:
                coefficient = variant.coefficient(i, config.iterations)
                name = variant.penalty if coefficient else None
                moments = penalties.steer_times(times, generator=source) if variant.steer else times
                solved = solve(model, z0, moments, tolerance=config.tolerance, penalty=name, generator=source)
                loss = task = (solved.states - target).square().mean()
                if solved.penalty is not None:
                    loss = task + coefficient * solved.penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(float(task.detach()))
            if i % max(1, config.iterations // 20) == 0:
                course.append(solved.solution.evaluations)
        status = ending(losses)
        return {
            **_predict(model, z0, target, times, config),
            "status": status,
            "train_loss": losses[-1],
            "train_cpu_s": clock.cpu_s,
            "train_wall_s": clock.wall_s,
            "nfe_by_epoch": course,
            "peers": {peer: _predict(model, z0, target, times, config, peer) for peer in peers},
        }
    except NumericsError as error:
        return {"value": None, "nfe": None, "status": f"diverged ({error.found})", "train_cpu_s": clock.cpu_s}


def _predict(
    model: SpiralField,
    z0: torch.Tensor,
    target: torch.Tensor,
    times: list[float],
    config: SpiralConfig,
    peer: str | None = None,
) -> Row:
    clock = Clock()
    with torch.no_grad(), clock:
        if peer is None:
            s = solve(model, z0, times, tolerance=config.tolerance).solution
            states, counts = s.states, {"nfe": s.evaluations, "accepted": s.accepted, "rejected": s.rejected}
        else:
            states, calls = peer_solve(peer, model, z0, times, tolerance=config.tolerance)
            counts = {"nfe": calls}
    return {"value": float((states - target).square().mean()), "predict_cpu_s": clock.cpu_s, **counts}
