"""A noisy spiral learned as a neural SDE from the mean and variance of its trajectories.

    python examples/neural_sde_spiral.py

Truth: du = A u³ dt + 0.2 u dW from (2, 0). Both drift and diffusion are learned; every training step is one adaptive
solve of 32 trajectories, with the sum of its embedded errors as a penalty. About ten seconds.
"""

from __future__ import annotations

import sys

import torch

from gliodil.pde import regularizers
from gliodil.pde.sde import Solution, solve_sde

TIMES = [i / 5 for i in range(6)]
A = torch.tensor([[-0.1, -2.0], [2.0, -0.1]], dtype=torch.float64)
START = torch.tensor([2.0, 0.0], dtype=torch.float64)
ITERATIONS, TOLERANCE, COEFFICIENT = 60, 0.3, 0.02


def moments(solution: Solution) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance over trajectories at every time, each (times, 2)."""
    return solution.states.mean(1), solution.states.var(1)


def main() -> None:
    """Learn, and print how the moments' misfit falls."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = torch.Generator().manual_seed(0)
    truth = solve_sde(
        lambda t, u: u**3 @ A,
        lambda t, u: 0.2 * u,
        START.expand(1000, 2),
        TIMES,
        rtol=0.03,
        atol=0.03,
        generator=source,
    ).raise_for_status()
    mean, variance = moments(truth)

    drift = torch.nn.Sequential(torch.nn.Linear(2, 50), torch.nn.Tanh(), torch.nn.Linear(50, 2)).double()
    diffusion = torch.nn.Linear(2, 2).double()
    optimizer = torch.optim.Adam([*drift.parameters(), *diffusion.parameters()], lr=0.01)
    print(f"{'iteration':>9}{'misfit':>10}{'drift':>8}{'diffusion evaluations':>23}{'rejected':>10}")
    for i in range(ITERATIONS + 1):
        solution = solve_sde(
            lambda t, u: drift(u**3),
            lambda t, u: diffusion(u),
            START.expand(32, 2),
            TIMES,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            generator=source,
            record=("error",),
        ).raise_for_status()
        ours = moments(solution)
        misfit = (ours[0] - mean).square().mean() + (ours[1] - variance).square().mean()
        if i % 15 == 0:
            row = solution.drift_evaluations, solution.diffusion_evaluations, solution.rejected
            print(f"{i:>9}{float(misfit.detach()):>10.4f}{row[0]:>8}{row[1]:>23}{row[2]:>10}")
        loss = misfit + COEFFICIENT * regularizers.error(solution, aggregation="paper")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    sys.exit(main())
