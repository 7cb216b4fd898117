"""Growth laws by tables: against formulas, in bounds, differentiable; fronts at their known speed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import InputError, NumericsError
from gliodil.pde.grid import Grid
from gliodil.pde.models.growth_laws import LAWS, GrowthLaw
from gliodil.pde.models.learned_growth import Correction, LearnedGrowth, front_speed
from gliodil.pde.reaction_diffusion import Logistic, solve
from gliodil.pde.reaction_diffusion.table import TabulatedGrowth, interpolate


def brute_force(law: GrowthLaw, u: torch.Tensor, days: float, steps: int = 4000) -> torch.Tensor:
    h = days / steps
    for _ in range(steps):  # classical Runge-Kutta
        k1 = law.rate(u)
        k2 = law.rate(u + h / 2 * k1)
        k3 = law.rate(u + h / 2 * k2)
        u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + law.rate(u + h * k3))
    return u


@pytest.mark.parametrize(
    ("name", "digits"), [("fisher-kolmogorov", 1e-12), ("gompertz", 1e-5), ("allee", 1e-6)]
)
def test_tabulated_flow_solves_the_scalar_equation(name: str, digits: float) -> None:
    law = GrowthLaw(name, 0.03)
    u = torch.linspace(0, 1, 301, dtype=torch.float64)
    flow = law.flow(u, 10.0)
    assert float((flow - brute_force(law, u, 10.0)).abs().max()) < digits
    assert float(flow[0]) == 0
    assert float(flow[-1]) == pytest.approx(1, abs=1e-12)
    table = law.tabulated()
    torch.testing.assert_close(table.rate(u), law.rate(u), rtol=0, atol=2e-5)


def test_rates_of_the_laws_are_their_formulas() -> None:
    u = torch.tensor([0.05, 0.3, 0.9], dtype=torch.float64)
    gompertz = 0.02 * u * torch.log(1.01 / (u + 0.01))
    torch.testing.assert_close(GrowthLaw("gompertz", 0.02).rate(u), gompertz)
    torch.testing.assert_close(GrowthLaw("allee", 0.02).rate(u), 0.02 * u * (1 - u) * (u + 0.2) / 1.2)
    with pytest.raises(InputError, match="Unknown growth law"):
        GrowthLaw("exponential", 0.1)
    assert {GrowthLaw(name, 0.1).name for name in LAWS} == set(LAWS)


def test_interpolation_and_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 3):
        table = torch.rand(rows, 9, dtype=torch.float64, generator=generator, requires_grad=True)
        u = torch.rand(40, dtype=torch.float64, generator=generator, requires_grad=True)
        shares = torch.rand(40, dtype=torch.float64, generator=generator) if rows > 1 else None
        assert torch.autograd.gradcheck(lambda t, v, s=shares: interpolate(t, v, s), (table, u))
    nodes = (torch.arange(9, dtype=torch.float64) / 8).square()
    torch.testing.assert_close(interpolate(table, nodes, nodes * 0 + 0.5), table[1])
    outside = interpolate(table, torch.tensor([-0.3, 1.2]).double(), torch.zeros(2).double())
    torch.testing.assert_close(outside, table[0, [0, -1]])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), days=st.floats(0.1, 30), size=st.floats(0, 3))
def test_any_correction_keeps_densities_in_bounds(seed: int, days: float, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    correction = Correction(0.05, generator=generator)
    with torch.no_grad():
        correction.weights[-1].normal_(0, size, generator=generator)
        u = torch.linspace(0, 1, 101, dtype=torch.float64)
        v = TabulatedGrowth(0.02, correction).flow(u, days)
    assert float(v.min()) >= 0
    assert float(v.max()) <= 1 + 1e-12
    assert float(v[0]) == 0
    assert float(v[-1]) == pytest.approx(1)


@pytest.mark.parametrize("tissue", [False, True])
def test_gradients_of_the_learned_equation(tissue: bool) -> None:
    """In D, ρ and θ, through splitting and table, by finite differences; and of the recorded errors."""
    grid = Grid((5, 4, 3), (1.0, 1.5, 2.0))
    white = torch.rand(grid.cells, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    model = LearnedGrowth.on(grid, white, 1 - white)
    centres = grid.centres()
    u0 = 0.8 * torch.exp(-(centres - centres.mean(dim=1, keepdim=True)).square().sum(dim=0) / 4)
    generator = torch.Generator().manual_seed(1)
    correction = Correction(0.05, generator=generator, tissue=tissue)
    with torch.no_grad():
        correction.weights[-1].normal_(0, 1, generator=generator)
    bias = correction.biases[0]

    def value(d: torch.Tensor, rho: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        growth = model.growth(rho, correction)
        problem = model.problem(model.coefficients(d, 10.0), growth)
        u = solve(problem, u0, duration=12.0, steps=2, tolerance=1e-8).u
        return u.square().sum(), torch.stack(growth.errors).sum()

    d = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    rho = torch.tensor(0.04, dtype=torch.float64, requires_grad=True)
    of_d, of_rho, of_bias = torch.autograd.grad(value(d, rho)[0], [d, rho, bias])

    def difference(move: str, e: float = 1e-6) -> float:
        with torch.no_grad():
            ends = []
            for sign in (-e, e):
                if move == "bias":
                    bias[0] += sign
                ends.append(float(value(d + sign * (move == "d"), rho + sign * (move == "rho"))[0]))
                if move == "bias":
                    bias[0] -= sign
        return (ends[1] - ends[0]) / (2 * e)

    # The table's steps adapt, and with them its solution by the tolerance of 1e-6: no better than that is to be seen.
    assert float(of_d) == pytest.approx(difference("d"), rel=1e-6)
    assert float(of_rho) == pytest.approx(difference("rho"), rel=1e-4)
    assert float(of_bias[0]) == pytest.approx(difference("bias"), rel=1e-3, abs=1e-6)
    (of_errors,) = torch.autograd.grad(value(d, rho)[1], [bias])
    assert float(of_errors.abs().max()) > 0


def test_errors_are_those_of_the_correction_alone() -> None:
    """Logistic growth has none, however fast: nothing is left for a regularizer to bias."""
    none = TabulatedGrowth(0.5, lambda u, _: torch.zeros_like(u))
    none.flow(torch.rand(5, dtype=torch.float64), 10.0)
    assert float(none.errors[0]) < 1e-9


def test_front_speeds() -> None:
    """Pulled fronts approach 2√(Dρ) from below, slowly; a weak Allee effect below a = ½ makes √(Dρ'/2)(1 + 2a)."""
    assert front_speed(0.15, Logistic(0.025)) == pytest.approx(2 * math.sqrt(0.15 * 0.025), rel=0.08)
    law = GrowthLaw("allee", 0.06)
    pushed = math.sqrt(0.15 * 0.06 / 1.2 / 2) * (1 + 2 * 0.2)
    assert front_speed(0.15, law) == pytest.approx(pushed, rel=0.03)
    with pytest.raises(NumericsError, match="No front"):
        front_speed(0.15, GrowthLaw("fisher-kolmogorov", -0.02))
