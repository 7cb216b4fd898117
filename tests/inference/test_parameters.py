"""Scalars: their coordinates and the hinges of the public code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.inference.parameters import Scalars

NAMES = (
    "diffusivity",
    "proliferation_rate",
    "wm_gm_ratio",
    "threshold_core",
    "threshold_oedema",
    "pet_scale",
    "pet_background",
)


def scalars(**values: float) -> Scalars:
    origin = torch.tensor([12.0, -3.0, 40.0], dtype=torch.float64)
    return Scalars.of(**{"diffusivity": 0.5, "proliferation_rate": 0.1, "origin": origin, **values})  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    diffusivity=st.floats(0.02, 9),
    proliferation_rate=st.floats(0.025, 2),
    wm_gm_ratio=st.floats(11, 900),
    threshold_core=st.floats(0.51, 0.84),
    threshold_oedema=st.floats(0.21, 0.49),
    pet_scale=st.floats(0.52, 1.0),
    pet_background=st.floats(-1, 0.45),
)
def test_coordinates_come_back(**values: float) -> None:
    p = scalars(**values)
    z = p.coordinates(with_pet=True)
    assert z.shape == (10,)
    assert z.dtype == torch.float64
    q = Scalars.from_coordinates(z)
    for name in NAMES:
        assert float(getattr(q, name)) == pytest.approx(float(getattr(p, name)), rel=1e-9)
    torch.testing.assert_close(q.origin, p.origin)
    assert float(p.hinge_sum()) == 0


def test_without_pet_its_parameters_stay_out() -> None:
    z = scalars().coordinates(with_pet=False)
    assert z.shape == (8,)
    p = Scalars.from_coordinates(z)
    assert (float(p.pet_scale), float(p.pet_background)) == (1.0, 0.0)
    assert float(p.hinge_sum()) == 0


@settings(max_examples=25, deadline=None)
@given(z=st.lists(st.floats(-5, 5), min_size=10, max_size=10))
def test_any_coordinates_give_finite_positive_physics(z: list[float]) -> None:
    p = Scalars.from_coordinates(torch.tensor(z, dtype=torch.float64))
    for name in ("diffusivity", "proliferation_rate", "wm_gm_ratio"):
        assert 0 < float(getattr(p, name)) < float("inf")


@pytest.mark.parametrize(
    ("outside", "distance"),
    [
        ({"diffusivity": 0.004}, 0.006),
        ({"diffusivity": 12.0}, 2.0),
        ({"proliferation_rate": 0.005}, 0.015),
        ({"wm_gm_ratio": 4.0}, 6.0),
        ({"wm_gm_ratio": 1003.0}, 3.0),
        ({"threshold_core": 0.45}, 0.05),
        ({"threshold_core": 0.95}, 0.1),
        ({"threshold_oedema": 0.05}, 0.15),
        ({"threshold_oedema": 0.6}, 0.1),
        ({"pet_scale": 0.3}, 0.2),
        ({"pet_scale": 1.12}, 0.1),
        ({"pet_background": 0.7}, 0.2),
        ({"diffusivity": 12.0, "pet_background": 0.7, "threshold_core": 0.95}, 2.3),
    ],
)
def test_hinges(outside: dict[str, Any], distance: float) -> None:
    assert float(scalars(**outside).hinge_sum()) == pytest.approx(distance)


def test_decoding_is_differentiable() -> None:
    z = scalars().coordinates(with_pet=True).requires_grad_()

    def decode(x: torch.Tensor) -> torch.Tensor:
        p = Scalars.from_coordinates(x)
        return torch.cat([p.origin, *(getattr(p, name).reshape(1) for name in NAMES)])

    assert torch.autograd.gradcheck(decode, (z,))


def test_values_beyond_their_bounds_still_give_finite_coordinates() -> None:
    p = replace(
        scalars(), diffusivity=torch.tensor(50.0).double(), proliferation_rate=torch.tensor(0.001).double()
    )
    assert bool(torch.isfinite(p.coordinates(with_pet=True)).all())
