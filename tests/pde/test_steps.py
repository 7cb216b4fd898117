"""The semi-iteration: as accurate as promised, in no more steps than that takes, and honest where it cannot be."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import NumericsError
from gliodil.pde.odil.steps import LARGEST_GROWTH, Steps, resolvable

thorough = settings(max_examples=200, deadline=None)
dts = st.floats(0.05, 5)
bounds = st.floats(0, 2000)
rates = st.floats(0, 0.3)
tolerances = st.floats(-12, -0.5).map(lambda x: 10.0**x)


def resolving(
    *, dt: float = 0.5, diffusion_bound: float = 8.0, growth: float = 0.1, tolerance: float = 1e-6
) -> Steps:
    return Steps.resolving(
        dt=dt, sigma=1.0, diffusion_bound=diffusion_bound, growth=growth, tolerance=tolerance
    )


def residual(steps: Steps, eigenvalues: torch.Tensor, count: int | None = None) -> torch.Tensor:
    """1 − λ p(λ): what is left of b = 1 after so many steps from x = 0, as ``loops`` takes them."""
    x = d = torch.zeros_like(eigenvalues)
    for beta, alpha in steps.weights[:count]:
        d = beta * d + alpha * (1 - eigenvalues * x)
        x = x + d
    return 1 - eigenvalues * x


def interval(dt: float, diffusion_bound: float, growth: float) -> torch.Tensor:
    """Eigenvalues of I − ½Δt A′ that may occur, ends included."""
    part = (1 - torch.cos(math.pi * torch.linspace(0, 1, 201, dtype=torch.float64))) / 2
    low, high = 1 - dt * growth / 2, 1 + dt * (diffusion_bound + 2 * growth) / 2
    return low + (high - low) * part


@thorough
@given(dt=dts, bound=bounds, growth=rates, tolerance=tolerances)
def test_reaches_the_tolerance_on_the_whole_spectrum_and_not_much_earlier(
    dt: float, bound: float, growth: float, tolerance: float
) -> None:
    steps = resolving(dt=dt, diffusion_bound=bound, growth=growth, tolerance=tolerance)
    eigenvalues = interval(dt, bound, growth)
    left = residual(steps, eigenvalues).abs()
    assert float(left.max()) <= tolerance + 1e-13
    count = len(steps.weights)
    if count > 2:
        earlier = residual(steps, eigenvalues, count - 1).abs()
        assert float(earlier.max()) >= 0.45 * tolerance


@thorough
@given(dt=dts, bound=st.floats(0.1, 2000), growth=rates, count=st.integers(1, 8))
def test_no_polynomial_of_the_degree_is_better(dt: float, bound: float, growth: float, count: int) -> None:
    """Every number of steps gives the Chebyshev polynomial of that degree: T_k(m/h) in closed form."""
    steps = resolving(dt=dt, diffusion_bound=bound, growth=growth, tolerance=1e-12)
    eigenvalues = interval(dt, bound, growth)
    count = min(count, len(steps.weights))
    middle, half = float(eigenvalues[0] + eigenvalues[-1]) / 2, float(eigenvalues[-1] - eigenvalues[0]) / 2
    best = 1 / math.cosh(count * math.acosh(middle / half))
    left = residual(steps, eigenvalues, count)
    assert float(left.abs().max()) == pytest.approx(best, rel=1e-6, abs=1e-14)
    assert float(left[0]) == pytest.approx(best, rel=1e-6, abs=1e-14)
    assert float(left[-1]) == pytest.approx((-1) ** count * best, rel=1e-6, abs=1e-14)


@thorough
@given(bound=bounds, factor=st.floats(1, 3), tolerance=tolerances)
def test_stiffer_equations_and_tighter_tolerances_take_no_fewer_steps(
    bound: float, factor: float, tolerance: float
) -> None:
    counts = [
        len(resolving(diffusion_bound=b, tolerance=t).weights)
        for b, t in (
            (bound, tolerance),
            (bound * factor, tolerance),
            (bound * factor, tolerance / factor),
        )
    ]
    assert counts == sorted(counts)


def test_the_cost_grows_with_the_square_root_of_the_stiffness() -> None:
    counts = [len(resolving(diffusion_bound=b).weights) for b in (1e3, 4e3, 1.6e4, 6.4e4)]
    assert all(1.9 < b / a < 2.1 for a, b in itertools.pairwise(counts)), counts


@pytest.mark.parametrize("growth", [0.0, 1e-14])
def test_without_diffusion_and_growth_there_is_nothing_to_solve(growth: float) -> None:
    steps = resolving(diffusion_bound=0.0, growth=growth)
    assert len(steps.weights) == 1
    assert float(residual(steps, torch.ones(1, dtype=torch.float64))) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(NumericsError, match="does not resolve"):
        resolving(diffusion_bound=bad)
    with pytest.raises(NumericsError, match="does not resolve"):
        resolving(growth=bad)
    assert not resolvable(0.5, bad)


@thorough
@given(dt=dts, growth=st.floats(0, 100))
def test_refuses_growth_that_a_step_does_not_resolve(dt: float, growth: float) -> None:
    assert resolvable(dt, growth) == (dt * growth / 2 <= LARGEST_GROWTH)
    if resolvable(dt, growth):
        assert len(resolving(dt=dt, growth=growth).weights) >= 2
    else:
        with pytest.raises(NumericsError, match="does not resolve"):
            resolving(dt=dt, growth=growth)


def test_keeps_the_step_and_the_scale() -> None:
    steps = Steps.resolving(dt=0.7, sigma=3.5, diffusion_bound=2.0, growth=0.1, tolerance=1e-3)
    assert (steps.dt, steps.sigma) == (0.7, 3.5)
