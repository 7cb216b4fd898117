"""Orders, dense output and gradients of the adaptive solvers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from gliodil.errors import InputError, NumericsError
from gliodil.pde import ode

METHODS = tuple(ode.TABLEAUS)
Field = Callable[[float, torch.Tensor], torch.Tensor]


def swing(t: float, z: torch.Tensor) -> torch.Tensor:
    """Return f of z₁' = z₂ + ½ cos t, z₂' = −sin z₁ − t z₂/10: nonlinear, with time in it."""
    return torch.stack((z[1] + 0.5 * math.cos(t), -torch.sin(z[0]) - 0.1 * t * z[1]))


def precise(times: tuple[float, ...]) -> torch.Tensor:
    start = torch.tensor([1.2, -0.3], dtype=torch.float64)
    return ode.solve(swing, start, times, method="dp5", rtol=1e-13, atol=1e-13).states


def slope(errors: list[float]) -> float:
    """Return log₂ of the error's last ratio, the step being halved."""
    return math.log2(errors[-2] / errors[-1])


Z0 = torch.tensor([1.0, 2.0], dtype=torch.float64)
KNOWN = {
    "logistic": (lambda t, z: 2 * z * (1 - z / 4), lambda t: 4 / (1 + (4 / Z0 - 1) * math.exp(-2 * t))),
    "with time": (lambda t, z: -z * z * math.cos(3 * t), lambda t: 1 / (1 / Z0 + math.sin(3 * t) / 3)),
}


@pytest.mark.parametrize("problem", KNOWN)
@pytest.mark.parametrize("method", METHODS)
def test_order_of_the_solution(method: str, problem: str) -> None:
    f, exact = KNOWN[problem]
    times = (0.0, 0.5, 1.0, 1.5, 2.0)
    truth = torch.stack([exact(t) for t in times])
    counts = (64, 128) if problem == "logistic" else (128, 256)
    errors = []
    for count in counts:
        out = ode.solve(f, Z0, times, method=method, steps=[2.0 / count] * count)
        errors.append(float((out.states - truth).norm()))
    assert abs(slope(errors) - ode.get_tableau(method).order) < 0.35


@pytest.mark.parametrize("method", METHODS)
def test_order_of_dense_output_and_of_the_error_estimate(method: str) -> None:
    f, exact = KNOWN["logistic"]
    tableau = ode.get_tableau(method)
    inside, estimates = [], []
    for h in (0.04, 0.02):
        times = [h * q for q in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
        out = ode.solve(f, Z0, times, method=method, steps=[h], rtol=0.0, atol=1.0, record=("error",))
        truth = torch.stack([exact(t) for t in times[:-1]])
        inside.append(float((out.states[:-1] - truth).norm()))
        estimates.append(float(out.errors[0]))
    assert abs(slope(inside) - (tableau.dense_order + 1)) < 0.35
    assert abs(slope(estimates) - tableau.order) < 0.35, "of the embedded solution's local order"


@pytest.mark.parametrize("method", METHODS)
def test_adaptive_error_follows_the_tolerance(method: str) -> None:
    times = (0.0, 1.0, 2.5, 6.0)
    truth = precise(times)
    errors = []
    for tolerance in (1e-4, 1e-6):
        out = ode.solve(swing, truth[0], times, method=method, rtol=tolerance, atol=tolerance)
        assert out.status == "done"
        assert out.times == times
        assert out.reached == 4
        assert math.isclose(sum(out.steps), 6.0, rel_tol=1e-12)
        expected = 2 + (ode.get_tableau(method).stages - 1) * (out.accepted + out.rejected)
        assert out.evaluations == expected
        errors.append(float((out.states - truth).abs().max()))
    assert errors[0] < 20 * 1e-4
    assert errors[1] < 20 * 1e-6


def test_backward_in_time_returns_to_the_start() -> None:
    truth = precise((0.0, 3.0))
    back = ode.solve(swing, truth[-1], (3.0, 0.0), rtol=1e-11, atol=1e-11)
    assert torch.allclose(back.states[-1], truth[0], atol=1e-9)
    assert all(h < 0 for h in back.steps)


class Net(nn.Module):
    """A small field with parameters."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w1 = nn.Parameter(torch.randn(5, 8, generator=generator, dtype=torch.float64))
        self.w2 = nn.Parameter(torch.randn(8, 4, generator=generator, dtype=torch.float64))

    def forward(self, t: float, z: torch.Tensor) -> torch.Tensor:
        time = torch.full_like(z[:, :1], t)
        return torch.tanh(torch.cat((z, time), 1) @ self.w1) @ self.w2


@pytest.mark.parametrize("method", METHODS)
def test_gradients_pass_finite_differences_at_frozen_steps(method: str) -> None:
    net = Net()
    record = ("error", "stiffness") if ode.get_tableau(method).same_abscissa else ("error",)
    z0 = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    times = (0.0, 0.3, 1.0)
    chosen = ode.solve(net, z0, times, method=method, rtol=1e-3, atol=1e-3, record=record)
    assert chosen.accepted >= 3

    def pieces(start: torch.Tensor) -> list[torch.Tensor]:
        out = ode.solve(
            net, start, times, method=method, rtol=1e-3, atol=1e-3, record=record, steps=chosen.steps
        )
        rows = torch.linspace(0.5, 1.5, out.states.numel(), dtype=torch.float64).view_as(out.states)
        found = [(out.states * rows).sum(), (out.errors * torch.tensor(out.steps)).sum()]
        return [*found, out.stiffness.square().mean()] if "stiffness" in record else found

    assert torch.equal(pieces(z0)[1], (chosen.errors * torch.tensor(chosen.steps)).sum())
    generator = torch.Generator().manual_seed(2)
    for index in range(len(pieces(z0))):
        for target in (z0, net.w1, net.w2):
            direction = torch.randn(target.shape, generator=generator, dtype=torch.float64)
            target.requires_grad_(True)
            (gradient,) = torch.autograd.grad(pieces(z0)[index], target)
            analytic = float((gradient * direction).sum())
            values = {}
            with torch.no_grad():
                for shift in (-2, -1, 1, 2):
                    target.add_(direction, alpha=shift * 1e-4)
                    values[shift] = float(pieces(z0)[index])
                    target.add_(direction, alpha=-shift * 1e-4)
            measured = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * 1e-4)
            assert math.isclose(analytic, measured, rel_tol=1e-6, abs_tol=1e-9)


def test_heuristics_are_their_formulas() -> None:
    net = Net()
    z0 = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = ode.solve(net, z0, (0.0, 1.0), rtol=1e-3, atol=1e-4, record=("error", "stiffness", "path"))
    tableau = ode.get_tableau("tsit5")
    t = sum(out.steps[:1])
    z, h = out.path[1], out.steps[1]
    k, g = [net(t, z)], [z]
    for c, row in zip(tableau.c[1:], tableau.a[1:], strict=True):
        g.append(z + h * sum(a * k_i for a, k_i in zip(row, k, strict=True)))
        k.append(net(t + c * h, g[-1]))
    e = h * sum(w * k_i for w, k_i in zip(tableau.e, k, strict=True))
    E = (e / (1e-4 + 1e-3 * torch.maximum(z.abs(), g[-1].abs()))).square().mean().sqrt()
    S = (k[6] - k[5]).norm() / (g[6] - g[5]).norm()
    assert torch.allclose(out.errors[1], E, rtol=1e-11)
    assert torch.allclose(out.stiffness[1], S, rtol=1e-11)


def test_what_was_not_recorded_says_so() -> None:
    out = ode.solve(lambda t, z: -z, torch.ones(2), (0.0, 1.0))
    with pytest.raises(InputError, match="did not record error"):
        _ = out.errors


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"method": "rk45"}, "no such method"),
        ({"times": (0.0,)}, "not times"),
        ({"times": (0.0, 1.0, 0.5)}, "not times"),
        ({"record": ("energy",)}, "no such record"),
        ({"record": ("stiffness",), "method": "bs3"}, "no two stages"),
        ({"z0": torch.ones(2, dtype=torch.int64)}, "floating-point"),
        ({"rtol": 0.0, "atol": 0.0}, "Tolerances"),
        ({"f": lambda t, z: z[0]}, "like the state"),
        ({"steps": [0.5]}, "frozen steps end"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], match: str) -> None:
    settings: dict[str, object] = {"f": lambda t, z: -z, "z0": torch.ones(2), "times": (0.0, 1.0)} | change
    with pytest.raises(InputError, match=match):
        ode.solve(settings.pop("f"), settings.pop("z0"), settings.pop("times"), **settings)  # type: ignore[arg-type]


def test_stiff_ends_with_a_status() -> None:
    out = ode.solve(lambda t, z: -1e6 * (z - math.cos(t)), torch.zeros(2, dtype=torch.float64), (0.0, 10.0))
    assert out.status == "stiff"
    assert out.accepted + out.rejected < 1000, "it is not run to the limit"
    assert out.states.shape == (2, 2)
    assert out.states[1].isnan().all()
    with pytest.raises(NumericsError, match="stiff"):
        out.raise_for_status()


@pytest.mark.parametrize("method", METHODS)
def test_a_solution_that_leaves_the_numbers_ends_with_a_status(method: str) -> None:
    one = torch.ones(2, dtype=torch.float64)
    assert ode.solve(lambda t, z: z * z, one, (0.0, 2.0), method=method, rtol=1e-4).status == "diverged"
    bad = ode.solve(lambda t, z: torch.where(z > 1.5, math.nan, z), one, (0.0, 2.0), method=method)
    assert bad.status == "diverged"
    assert bad.reached == 1


def test_too_many_steps_ends_with_a_status() -> None:
    out = ode.solve(swing, torch.ones(2, dtype=torch.float64), (0.0, 50.0), max_steps=20)
    assert out.status == "step_limit"
    assert out.accepted + out.rejected == 20


def test_a_field_that_is_constant_gives_no_nan() -> None:
    z0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    out = ode.solve(lambda t, z: 0 * z, z0, (0.0, 1.0), record=("error", "stiffness"))
    (out.errors.sum() + out.stiffness.sum()).backward()
    assert z0.grad is not None
    assert torch.equal(z0.grad, torch.zeros(3, dtype=torch.float64))


def test_noise_floor_warns_in_single_precision_only() -> None:
    net = Net().float()
    z0 = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
    with pytest.warns(ode.PrecisionWarning, match="float64"):
        out = ode.solve(net, z0, (0.0, 1.0), rtol=1.4e-8, atol=1.4e-8)
    assert out.noise_floor > 0.1
    double = ode.solve(net.double(), z0.double(), (0.0, 1.0), rtol=1.4e-8, atol=1.4e-8)
    assert double.noise_floor < 1e-6
