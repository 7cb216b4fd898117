"""What a notebook shows of a fit and of its parameters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gliodil.data.volume import Volume
from gliodil.inference.agreement import Agreement
from gliodil.inference.result import Fit, LossHistory, Parameter


@pytest.fixture
def fit() -> Fit:
    x, y, z = np.indices((20, 22, 18))
    density = np.exp(-((x - 12) ** 2 + (y - 9) ** 2 + (z - 8) ** 2) / 20).astype(np.float32)
    return Fit(
        density=Volume(density, np.diag([2.0, 2.0, 3.0, 1.0]), kind="scalar"),
        parameters={
            "diffusivity_wm_mm2_per_day": Parameter(0.1234, "mm²/day", low=0.05, high=0.3),
            "wm_gm_ratio": Parameter(17.0, "1"),
            "origin_mm": Parameter((24.04, 18.0, -24.0), "mm"),
        },
        status="converged",
        message="The loss would fall by less.",
        loss_total=0.00123,
        loss_terms={"pet": 0.0},
        evaluations=42,
        history=LossHistory((1,), (0.0,), (0.0,), ("full",)),
        method="odil",
        optimizer="lbfgs",
        grid_shape=(24, 24, 24),
        steps=96,
        spacing_mm=(2.5, 2.5, 3.0),
        device="cpu",
        dtype="float32",
        wall_s=3.21,
        warnings=("tissue <maps> are empty",),
        physics="exact",
        agreement=Agreement(0.66, 0.02, 1, 1),
    )


def test_parameters_come_with_unit_and_interval(fit: Fit) -> None:
    texts = {name: parameter.text() for name, parameter in fit.parameters.items()}
    assert texts == {
        "diffusivity_wm_mm2_per_day": "0.123 (0.05 to 0.3) mm²/day",
        "wm_gm_ratio": "17",
        "origin_mm": "24.0, 18.0, -24.0 mm",
    }


def test_the_page_says_how_it_went_with_units_and_warnings(fit: Fit) -> None:
    page = fit._repr_html_()
    for words in (
        "converged",
        "exact physics",
        "2.5 x 2.5 x 3 mm",
        "0.66 mm from",
        "0.123",
        "mm²/day",
        "fixes ratios",
    ):
        assert words in page
    assert "tissue &lt;maps&gt; are empty" in page
    assert "would fall" not in page, "a message of success is not a warning"
    pytest.importorskip("matplotlib")
    assert page.count("data:image/png;base64,") == 1
    assert "alt='Axial" in page
    assert len(page) < 150_000


def test_a_fit_that_did_not_converge_says_so_once(fit: Fit) -> None:
    stopped = replace(fit, status="iteration_limit", message="The budget is spent.", warnings=())
    assert stopped._repr_html_().count("The budget is spent.") == 1
    said = replace(stopped, warnings=("The fit did not converge. The budget is spent.",))
    assert said._repr_html_().count("The budget is spent.") == 1
