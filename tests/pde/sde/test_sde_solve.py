"""Orders, means, gradients and endings of `solve_sde` on equations with known solutions."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from gliodil.errors import InputError, NumericsError
from gliodil.pde.sde import FrozenPath, Increment, Solution, merge, solve_sde
from gliodil.pde.sde.brownian import draw

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def nested_paths(samples: int, finest: int, levels: int) -> list[list[Increment]]:
    """Return the same paths on [0, 1] cut into ``finest`` intervals and by halves into fewer."""
    source, like = generator(7), torch.empty(samples, dtype=DOUBLE)
    paths = [[draw(1 / finest, like, source) for _ in range(finest)]]
    for _ in range(levels - 1):
        fine = paths[-1]
        paths.append([merge(a, b) for a, b in zip(fine[::2], fine[1::2], strict=True)])
    return paths


def slope(steps: list[int], errors: list[float]) -> float:
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def geometric(method: str, a: float, b: float, path: list[Increment]) -> torch.Tensor:
    u0 = torch.ones_like(path[0].W)
    frozen = FrozenPath(tuple(path))
    return solve_sde(
        lambda t, u: a * u, lambda t, u: b * u, u0, (0.0, 1.0), method=method, frozen=frozen
    ).states[-1]


@pytest.mark.parametrize(("method", "order"), [("sosri", 1.5), ("sosri2", 1.5), ("euler_maruyama", 0.5)])
def test_strong_order_on_geometric_brownian_motion(method: str, order: float) -> None:
    a, b = 0.8, 0.6
    paths = nested_paths(2000, 256, 5)
    exact = torch.exp(a - b * b / 2 + b * functools.reduce(merge, paths[0]).W)
    errors = [float((geometric(method, a, b, path) - exact).square().mean().sqrt()) for path in paths]
    assert slope([len(path) for path in paths], errors) == pytest.approx(order, abs=0.12)


@pytest.mark.parametrize(("method", "order"), [("sosri", 2.0), ("sosri2", 2.0), ("euler_maruyama", 1.0)])
def test_weak_order_on_geometric_brownian_motion(method: str, order: float) -> None:
    # E u(1) = eᵃ; the difference to the exact path keeps the sampling noise of u itself out of the error.
    a, b = 1.5, 0.1
    paths = nested_paths(40_000, 32, 4)
    exact = torch.exp(a - b * b / 2 + b * functools.reduce(merge, paths[0]).W)
    errors = [abs(float((geometric(method, a, b, path) - exact).mean())) for path in paths]
    assert slope([len(path) for path in paths], errors) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("method", ["sra1", "sosra2"])
def test_strong_order_with_additive_noise(method: str) -> None:
    # du = −u dt + (1 + t) dW against the same method on a path sixteen times finer.
    paths = nested_paths(1000, 512, 8)

    def run(path: list[Increment]) -> torch.Tensor:
        u0, frozen = torch.ones(1000, dtype=DOUBLE), FrozenPath(tuple(path))
        noise = lambda t, u: (1 + t) * torch.ones_like(u)  # noqa: E731
        return solve_sde(lambda t, u: -u, noise, u0, (0.0, 1.0), method=method, frozen=frozen).states[-1]

    reference = run(paths[0])
    errors = [float((run(path) - reference).square().mean().sqrt()) for path in paths[4:]]
    measured = slope([len(path) for path in paths[4:]], errors)
    # The theory promises 3/2; on this linear drift the h^(3/2) term of the local error averages out to order 2.
    assert 1.4 < measured < 2.3


@pytest.mark.parametrize(
    ("method", "tolerance", "bias"),
    [("sosri", 1e-3, 0.003), ("sosri2", 1e-3, 0.003), ("euler_maruyama", 5e-3, 0.03)],
)
def test_an_adaptive_solution_with_rejections_is_unbiased(method: str, tolerance: float, bias: float) -> None:
    # du = σ(t) u dW, one element at a time so that its own noise decides; σ jumps at 3, where steps have grown long.
    quiet, loud, source = 0.02, 1.2, generator(3)
    ours, exact, halves, rejected = [], [], [], 0
    for _ in range(60):
        s = solve_sde(
            lambda t, u: 0 * u,
            lambda t, u: (quiet if t < 3 else loud) * u,
            torch.ones(1, dtype=DOUBLE),
            (0.0, 3.0, 3.5),
            method=method,
            rtol=tolerance,
            atol=tolerance / 10,
            generator=source,
            record=("noise",),
        )
        t, W = 0.0, [0.0, 0.0]
        for piece in s.path.increments:
            W[t > 3 - 1e-9] += float(piece.W)
            t += piece.length
        exact.append(math.exp(quiet * W[0] + loud * W[1] - (6 * quiet**2 + loud**2) / 4))
        ours.append(float(s.states[-1]))
        halves.append(W)
        rejected += s.rejected
    assert rejected > 200
    # The path itself is Brownian, though steps were rejected for where it went ...
    assert np.cov((np.array(halves) / np.sqrt([3, 0.5])).T) == pytest.approx(
        np.eye(2), abs=5 * math.sqrt(2 / 60)
    )
    # ... and the state follows it: what is left is the tolerance's error, in the mean and in spread.
    difference = np.array(ours) - np.array(exact)
    assert abs(difference.mean()) < bias
    assert np.median(np.abs(difference)) < 4 * tolerance
    assert np.corrcoef(ours, exact)[0, 1] > 0.998


def network(seed: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(seed)
    drift = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).to(DOUBLE)
    return drift, torch.nn.Linear(3, 3).to(DOUBLE)


@pytest.mark.parametrize("method", ["sosri2", "sosri", "euler_maruyama"])
def test_gradients_at_frozen_steps_pass_finite_differences(method: str) -> None:
    drift, diffusion = network(0)
    u0 = torch.linspace(-1, 1, 6, dtype=DOUBLE).reshape(2, 3)
    record = ["error", "stiffness"] if method == "sosri2" else ["error"]

    def solve(frozen: FrozenPath | None = None) -> Solution:
        return solve_sde(
            lambda t, u: drift(u),
            lambda t, u: 0.3 * diffusion(u),
            u0,
            (0.0, 0.4, 1.0),
            method=method,
            rtol=0.2,
            atol=0.2,
            generator=generator(5),
            record=[*record, "noise"],
            frozen=frozen,
        )

    def loss(s: Solution) -> torch.Tensor:
        value = s.states[1].square().sum() + s.states[2].sum() + (s.errors * torch.tensor(s.steps)).sum()
        return value + 0.1 * s.stiffness.sum() if "stiffness" in record else value

    adaptive = solve()
    value = loss(adaptive)
    parameters = [*drift.parameters(), *diffusion.parameters()]
    gradients = torch.autograd.grad(value, parameters)
    again = solve(adaptive.path)
    torch.testing.assert_close(loss(again), value, rtol=1e-12, atol=0)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator(9), dtype=DOUBLE)
        with torch.no_grad():
            sides = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-5)
                sides.append(loss(solve(adaptive.path)))
                parameter.sub_(direction, alpha=sign * 1e-5)
        difference = (sides[0] - sides[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-6, atol=1e-8)


def test_stiffness_of_a_linear_drift_is_its_rate() -> None:
    s = solve_sde(
        lambda t, u: -7.0 * u,
        lambda t, u: 0.1 * u,
        torch.ones(4, dtype=DOUBLE),
        (0.0, 0.5),
        method="sosri2",
        generator=generator(),
        record=("stiffness",),
    )
    torch.testing.assert_close(s.stiffness, torch.full_like(s.stiffness, 7.0))
    assert len(s.stiffness) == s.accepted == len(s.steps)


def test_outputs_are_hit_and_evaluations_counted() -> None:
    calls = {"f": 0, "g": 0}

    def f(t: float, u: torch.Tensor) -> torch.Tensor:
        calls["f"] += 1
        return -u

    def g(t: float, u: torch.Tensor) -> torch.Tensor:
        calls["g"] += 1
        return 0.2 * u

    u0 = torch.ones(3, 2, dtype=torch.float32)
    s = solve_sde(f, g, u0, (0.0, 0.1, 0.35, 1.0), generator=generator())
    assert s.status == "done"
    assert s.times == (0.0, 0.1, 0.35, 1.0)
    assert s.states.shape == (4, 3, 2)
    assert s.states.dtype == torch.float32
    assert (s.drift_evaluations, s.diffusion_evaluations) == (calls["f"], calls["g"])
    assert calls["f"] == 2 + 4 * (s.accepted + s.rejected)
    assert math.isclose(math.fsum(s.steps), 1.0)
    fixed = solve_sde(f, g, u0, (0.0, 0.25, 1.0), generator=generator(), step=0.1, method="euler_maruyama")
    np.testing.assert_allclose(fixed.steps, [0.1, 0.1, 0.05] + [0.1] * 7 + [0.05], rtol=1e-6)
    assert fixed.drift_evaluations == fixed.accepted


def test_the_same_generator_gives_the_same_path() -> None:
    def run(seed: int) -> torch.Tensor:
        return solve_sde(
            lambda t, u: -u, lambda t, u: u, torch.ones(2), (0.0, 1.0), generator=generator(seed)
        ).states[-1]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("options", [{}, {"step": 0.05}], ids=["adaptive", "fixed"])
def test_a_diverging_drift_ends_with_a_status(options: dict[str, float]) -> None:
    s = solve_sde(
        lambda t, u: u**3 + 1 / (u < 5).to(u.dtype) - 1,
        lambda t, u: 0.1 * u,
        torch.full((2,), 2.0, dtype=DOUBLE),
        (0.0, 0.05, 3.0),
        generator=generator(),
        **options,
    )
    assert s.status == "diverged"
    assert s.reached == 2
    assert torch.isfinite(s.states[:2]).all()
    assert torch.isnan(s.states[2]).all()
    with pytest.raises(NumericsError, match="not solved to its end"):
        s.raise_for_status()


def test_the_budget_of_steps_is_kept() -> None:
    s = solve_sde(
        lambda t, u: -u,
        lambda t, u: u,
        torch.ones(2),
        (0.0, 1.0),
        generator=generator(),
        rtol=1e-4,
        max_steps=10,
    )
    assert s.status == "step_limit"
    assert s.accepted + s.rejected == 10


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"method": "heun"}, "no such method"),
        ({"record": ("speed",)}, "no such record"),
        ({"record": ("stiffness",)}, "no two drift stages"),
        ({"generator": None}, "generator is needed"),
        ({"times": (0.0, 0.0)}, "must increase"),
        ({"step": 0.0}, "must be positive"),
        ({"u0": torch.ones(2, dtype=torch.int64)}, "floating-point tensor"),
    ],
)
def test_misuse_is_named(wrong: dict[str, object], problem: str) -> None:
    arguments: dict[str, object] = {
        "u0": torch.ones(2),
        "times": (0.0, 1.0),
        "generator": generator(),
    } | wrong
    u0, times = arguments.pop("u0"), arguments.pop("times")
    with pytest.raises(InputError, match=problem):
        solve_sde(lambda t, u: -u, lambda t, u: u, u0, times, **arguments)  # type: ignore[arg-type]


def test_a_frozen_path_must_fit_the_output_times() -> None:
    def solve(times: tuple[float, ...], frozen: FrozenPath | None = None) -> Solution:
        u0 = torch.ones(2, dtype=DOUBLE)
        return solve_sde(
            lambda t, u: -u,
            lambda t, u: u,
            u0,
            times,
            generator=generator(),
            record="noise",
            step=0.5,
            frozen=frozen,
        )

    first = solve((0.0, 1.0))
    torch.testing.assert_close(solve((0.0, 0.5, 1.0), first.path).states[-1], first.states[-1])
    with pytest.raises(InputError, match="past an output time"):
        solve((0.0, 0.3, 1.0), first.path)
    with pytest.raises(InputError, match="not as long"):
        solve((0.0, 0.5), first.path)
