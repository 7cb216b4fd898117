"""The step control is its formulas, within its limits, and all of it numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gliodil.pde import ode
from gliodil.pde.ode.controller import first_step, trial_step

ERRORS = st.floats(1e-12, 1.0)


def test_defaults_are_the_published_ones() -> None:
    pairs = {name: (t.beta1, t.beta2) for name, t in ode.TABLEAUS.items()}
    assert pairs == {
        "tsit5": (0.14, 0.08),
        "dp5": (0.17, 0.04),
        "bs3": (7 / 30, 2 / 15),
        "heun": (7 / 20, 1 / 5),
    }


@pytest.mark.parametrize("method", tuple(ode.TABLEAUS))
def test_tableaus_are_consistent(method: str) -> None:
    t = ode.get_tableau(method)
    for c, row in zip(t.c, t.a, strict=True):
        assert math.isclose(sum(row), c, abs_tol=1e-13)
    assert math.isclose(sum(t.b), 1.0, abs_tol=1e-13)
    assert math.isclose(sum(t.e), 0.0, abs_tol=1e-13)
    assert t.dense_weights(1.0) == pytest.approx(t.b, abs=1e-12)
    assert t.dense_weights(0.0) == [0.0] * t.stages
    for power in range(1, t.order):
        assert math.isclose(
            sum(b * c**power for b, c in zip(t.b, t.c, strict=True)), 1 / (power + 1), abs_tol=1e-12
        )


@given(error=ERRORS, last=st.floats(1e-4, 1.0), h=st.floats(-10, 10).filter(lambda h: abs(h) > 1e-3))
def test_accepted_steps_change_within_limits(error: float, last: float, h: float) -> None:
    controller = ode.PIController.of(ode.get_tableau("tsit5"))
    new, remembered = controller.accepted(h, error, last)
    assert 0.2 * (1 - 1e-12) <= new / h <= 10 * (1 + 1e-12)
    assert remembered == max(error, 1e-4)
    free = h * 0.9 * last**0.08 / error**0.14
    if 0.2 < free / h < 10:
        assert math.isclose(new, free, rel_tol=1e-12)


@given(error=st.floats(1.0, 1e300) | st.sampled_from([math.inf, math.nan]))
def test_rejected_steps_shrink_within_limits(error: float) -> None:
    new = ode.PIController.of(ode.get_tableau("dp5")).rejected(1.0, error)
    assert 0.2 * (1 - 1e-12) <= new <= 0.9
    if error < 100:
        assert math.isclose(new, max(0.2, 0.9 / error**0.17))


def test_the_error_settles_where_the_controller_says() -> None:
    """E* = γ^(1/(β₁−β₂)) on a problem that is the same all along."""
    z0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    out = ode.solve(
        lambda t, z: torch.stack((z[1], -z[0])), z0, (0.0, 200.0), rtol=0, atol=1e-7, record=("error",)
    )
    assert math.isclose(float(out.errors[-20:-1].median()), 0.9 ** (1 / 0.06), rel_tol=0.05)


def test_first_step_is_the_published_heuristic() -> None:
    assert trial_step(2.0, 4.0) == 0.005
    assert trial_step(1e-6, 4.0) == trial_step(2.0, math.nan) == 1e-6
    assert math.isclose(first_step(2.0, 4.0, 9.0, 0.005, 5), (0.01 / 9) ** 0.2)
    assert math.isclose(first_step(2.0, 4.0, 9.0, 1e-6, 5), 1e-4)
    assert first_step(2.0, 4.0, math.inf, 1e-6, 5) == 1e-6
    assert first_step(2.0, 0.0, 0.0, 1e-6, 5) == 1e-6


def test_float32_states_have_float64_errors() -> None:
    z0 = torch.ones(2, 3)
    for per_sample in (False, True):
        out = ode.solve(lambda t, z: -z, z0, (0.0, 1.0), record=("error",), per_sample=per_sample, rtol=1e-4)
        assert out.states.dtype == torch.float32
        assert out.errors.dtype == torch.float64


def test_the_examples_of_the_documentation_run() -> None:
    text = (Path(__file__).parents[2] / "docs" / "solvers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"t_drawn": 0.3}
    exec(blocks[0], names)
    names["field"] = TimeFirst(names["net"])  # type: ignore[arg-type]
    exec(blocks[1], names)
    assert float(names["R"]) > 0  # type: ignore[arg-type]


class TimeFirst(torch.nn.Module):
    """A network as a field."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, t: float, z: torch.Tensor) -> torch.Tensor:
        rate: torch.Tensor = self.net(z)
        return rate
