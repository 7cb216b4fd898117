"""Networks of local bases that grow where the residual is.

    u = G + D Σⱼ θⱼ φⱼ,     φⱼ(x) = exp(-½ Σᵢ ((xᵢ - mⱼᵢ)/(a hⱼᵢ))²)

One Gaussian sits in every node of a tree of cells (`leaves`), of the cell's size h times an overlap a. Amplitudes
solve a weighted linear least-squares problem, or a few of them (Gauss-Newton) where the equation is nonlinear; cells
that hold most of the squared residual are split; what was there before is kept, so that every solve starts from the
last one. Local scale and density of points are matched by construction: both are the cells'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from gliodil.sampling.bases import LocalBases
from gliodil.sampling.derivatives import Jet, coordinates
from gliodil.sampling.leaves import Cells, lattice, ring
from gliodil.sampling.objective import Objective, squared_residual
from gliodil.sampling.points import Points, Sampler
from gliodil.sampling.problems.problem import Problem
from gliodil.sampling.solution import Record, Solution, relative_error


@dataclass(frozen=True)
class Growth:
    """How a local network grows.

    Attributes
    ----------
    start
        Cells per axis at first.
    overlap
        Width of a Gaussian over the size of its cell.
    each
        Training points per node.
    marked
        Share of the squared residual that the cells to be split hold together.
    fastest
        Most growth of the number of cells in one round.
    largest
        Most bases.
    budget_s, tolerance, rounds
        When to stop: CPU seconds, root mean square validation residual, rounds of growth.
    damping
        Relative damping of the least squares (of squared, normalized columns).
    newton
        Most Gauss-Newton iterations per round.
    defensive
        Share of the training points that come from the cells; the rest is the sampler's, if there is one.
    """

    start: int = 6
    overlap: float = 1.2
    each: int = 2
    marked: float = 0.6
    fastest: float = 1.6
    largest: int = 4000
    budget_s: float = 60.0
    tolerance: float = 0.0
    rounds: int = 60
    damping: float = 1e-24
    newton: int = 6
    defensive: float = 0.6


def solve_local(
    problem: Problem,
    *,
    sampler: Sampler | None = None,
    growth: Growth | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    test_points: int = 20_000,
    progress: Callable[[Record], None] | None = None,
) -> Solution:
    """Grow a network of local bases until the validation residual is small enough or the budget is spent.

    Parameters as those of `solve`; meant for boxes of up to three dimensions. Returns the bases of the round with
    the smallest validation residual.
    """
    plan = growth or Growth()
    generator = torch.Generator(device=device).manual_seed(seed)
    like = torch.zeros(1, problem.box.dimension, dtype=dtype, device=device)
    judge = relative_error(problem, test_points, seed, like)
    leaves = lattice(problem.box, (plan.start,) * problem.box.dimension, like=like)
    outside = ring(leaves, problem.box)
    nodes = leaves.join(outside)
    count = len(problem.scalars)
    theta = like.new_zeros(len(nodes) + count)
    theta[len(nodes) :] = like.new_tensor(problem.scalars)
    history: list[Record] = []
    best: tuple[float, LocalBases, torch.Tensor] | None = None
    status, message = "budget", f"Spent {plan.budget_s:g} CPU seconds or {plan.rounds} rounds."
    cpu, wall, looked = time.process_time(), time.monotonic(), 0.0
    steps = 0
    for round_index in range(plan.rounds):
        network = LocalBases(nodes.centres, plan.overlap * nodes.sizes)
        points = _draw(leaves, plan.each * len(nodes), sampler, plan, generator)
        conditions = _conditions(problem, 4 * len(nodes), generator, dtype)
        objective = Objective(problem, network, points, conditions=conditions)
        theta, loss, taken = _amplitudes(objective, theta, plan)
        steps += taken
        squared = squared_residual(problem, network, theta)
        fresh, density = leaves.draw(4, generator=generator)
        r2 = squared(fresh)
        mass = r2.reshape(len(leaves), 4).mean(1) * leaves.volumes
        soft = Objective(
            problem, network, Points(fresh, density), conditions=_conditions(problem, 1000, generator, dtype)
        )
        validation = math.sqrt(2 * soft.loss(theta))
        before = time.process_time()
        error, mse = judge(network, theta)
        looked += time.process_time() - before
        scalars = tuple(float(s) for s in theta[network.size :])
        spent = time.process_time() - cpu - looked
        history.append(Record(steps, spent, time.monotonic() - wall, loss, validation, error, mse, scalars))
        if progress is not None:
            progress(history[-1])
        if best is None or validation < best[0]:
            best = (validation, network, theta)
        if not math.isfinite(validation):
            status, message = "diverged", f"The residual stopped being finite in round {round_index}."
            break
        if validation <= plan.tolerance:
            status, message = "converged", f"The validation residual is {validation:.1e}."
            break
        # A round costs as the cube of its size: do not begin one that the budget cannot pay.
        previous = history[-2].cpu_s if len(history) > 1 else 0.0
        if spent + 1.5 * (spent - previous) > plan.budget_s:
            break
        added = _split(problem, network, theta, leaves, mass, fresh, plan)
        if added is None or len(nodes) + 1.3 * len(added[1]) > plan.largest:
            status, message = "stalled", f"The next round would need more than {plan.largest} bases."
            break
        leaves, pieces = added
        pieces = pieces.join(ring(pieces, problem.box))
        nodes = nodes.join(pieces)
        theta = torch.cat([theta[: network.size], theta.new_zeros(len(pieces)), theta[network.size :]])
        if sampler is not None:
            with torch.enable_grad():  # a flow is trained
                sampler.update(squared, generator=generator)
    if best is None:
        raise AssertionError("there is at least one round")
    return Solution(problem, best[1], best[2], status, message, seed, tuple(history))


def _draw(
    leaves: Cells, count: int, sampler: Sampler | None, plan: Growth, generator: torch.Generator
) -> Points:
    """Draw training points from the cells, mixed with the sampler's."""
    share = 1.0 if sampler is None else plan.defensive
    each = max(1, math.ceil(share * count / len(leaves)))
    x, density = leaves.draw(each, generator=generator)
    if sampler is None:
        return Points(x, density)
    own = count - round(share * count)
    x = torch.cat([x, sampler.draw(own, generator=generator).x.to(x)])
    share = 1 - own / x.shape[0]
    return Points(x, share * leaves.density(x) + (1 - share) * sampler.density(x).to(x))


def _conditions(
    problem: Problem, count: int, generator: torch.Generator, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    return tuple(c.points(count, generator=generator, dtype=dtype) for c in problem.conditions)


def _amplitudes(objective: Objective, theta: torch.Tensor, plan: Growth) -> tuple[torch.Tensor, float, int]:
    """Gauss-Newton with step halving; one iteration where the residual is linear."""
    loss = objective.loss(theta)
    for iteration in range(plan.newton):
        r, a = objective.linearize(theta)
        delta, promised = least_squares(a, r, plan.damping)
        length, found = 1.0, math.inf
        for _ in range(8):
            found = objective.loss(theta + length * delta)
            if found < loss:
                break
            length /= 2
        if not found < loss:
            return theta, loss, iteration + 1
        theta, previous, loss = theta + length * delta, loss, found
        if abs(found - promised) <= 1e-2 * found or found > 0.9 * previous:
            return theta, loss, iteration + 1
    return theta, loss, plan.newton


def least_squares(a: torch.Tensor, r: torch.Tensor, damping: float) -> tuple[torch.Tensor, float]:
    """Return the δ that minimizes |r + A δ|² + damping |S δ|² (S the column norms) and ½|r + A δ|².

    A is overwritten.
    """
    scale = a.norm(dim=0).clamp_min(1e-300)
    a = a.div_(scale)
    columns = a.shape[1]
    eye = torch.eye(columns, dtype=a.dtype, device=a.device) * damping**0.5
    full = torch.cat([torch.cat([a, r[:, None]], 1), torch.cat([eye, eye[:, :1] * 0], 1)])
    triangle = torch.linalg.qr(full, mode="r").R
    delta = -torch.linalg.solve_triangular(
        triangle[:columns, :columns], triangle[:columns, columns:], upper=True
    )[:, 0]
    return delta / scale, 0.5 * float((r + a @ delta).square().sum())


def _split(
    problem: Problem,
    network: LocalBases,
    theta: torch.Tensor,
    leaves: Cells,
    mass: torch.Tensor,
    x: torch.Tensor,
    plan: Growth,
) -> tuple[Cells, Cells] | None:
    """Split the leaves that hold most of the squared residual; return all leaves, and the new ones."""
    order = mass.argsort(descending=True)
    running = mass[order].cumsum(0) / mass.sum()
    most = max(1, int((plan.fastest - 1) * len(leaves)))
    chosen = order[: min(most, int((running < plan.marked).sum()) + 1)]
    each = x.shape[0] // len(leaves)
    here = x.reshape(len(leaves), each, -1)[chosen].reshape(chosen.numel() * each, -1)
    bend = _bending(problem, network, theta, here).reshape(chosen.numel(), each, -1).square().mean(1).sqrt()
    bend = bend * leaves.sizes[chosen] ** 2
    axes = bend >= 0.3 * bend.amax(1, keepdim=True)
    pieces = leaves.select(chosen).halve(axes)
    stay = torch.ones(len(leaves), dtype=torch.bool, device=x.device)
    stay[chosen] = False
    return leaves.select(stay).join(pieces), pieces


def _bending(problem: Problem, network: LocalBases, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return ∂ᵢᵢu for every axis: (N, d)."""
    d = problem.box.dimension
    rows = tuple(tuple(float(i == j) for j in range(d)) for i in range(d))
    jets = coordinates(x, rows)
    n = Jet(network.forward(theta[: network.size], x, jets[0].coefficients).streams, jets[0].coefficients)
    if problem.distance is not None:
        n = problem.distance(jets) * n
    if problem.lift is not None:
        n = problem.lift(jets) + n
    return n.second.T
