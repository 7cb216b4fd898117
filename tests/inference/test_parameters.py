"""Scalars: their coordinates and the hinges of the public code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.inference.parameters import Box, Scalars

NAMES = (
    "diffusivity",
    "proliferation_rate",
    "wm_gm_ratio",
    "threshold_core",
    "threshold_oedema",
    "threshold_necrotic",
    "pet_scale",
    "pet_background",
)


def scalars(**values: float) -> Scalars:
    origin = torch.tensor([12.0, -3.0, 40.0], dtype=torch.float64)
    return Scalars.of(**{"diffusivity": 0.5, "proliferation_rate": 0.1, "origins": origin, **values})  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(
    diffusivity=st.floats(0.02, 9),
    proliferation_rate=st.floats(0.025, 2),
    wm_gm_ratio=st.floats(11, 900),
    threshold_core=st.floats(0.51, 0.84),
    threshold_oedema=st.floats(0.21, 0.49),
    threshold_necrotic=st.floats(0.61, 0.94),
    pet_scale=st.floats(0.52, 1.0),
    pet_background=st.floats(-1, 0.45),
)
def test_coordinates_come_back(**values: float) -> None:
    p = scalars(**values)
    box = Box(with_pet=True, with_necrosis=True)
    z = box.encode(p)
    assert z.shape == (11,)
    assert z.dtype == torch.float64
    q = box.decode(z)
    for name in NAMES:
        assert float(getattr(q, name)) == pytest.approx(float(getattr(p, name)), rel=1e-9)
    torch.testing.assert_close(q.origins, p.origins)
    assert float(p.hinge_sum()) == 0


@pytest.mark.parametrize("with_pet", [False, True])
@pytest.mark.parametrize("with_necrosis", [False, True])
def test_scalars_that_are_not_free_stay_out(with_pet: bool, with_necrosis: bool) -> None:
    box = Box(with_pet=with_pet, with_necrosis=with_necrosis)
    z = box.encode(scalars(threshold_necrotic=0.9, pet_scale=0.6, pet_background=0.3))
    assert z.shape == (8 + 2 * with_pet + with_necrosis,)
    p = box.decode(z)
    assert float(p.pet_scale) == pytest.approx(0.6 if with_pet else 1.0)
    assert float(p.pet_background) == pytest.approx(0.3 if with_pet else 0.0)
    assert float(p.threshold_necrotic) == pytest.approx(0.9 if with_necrosis else 1.0)
    assert float(p.hinge_sum()) == 0


@settings(max_examples=25, deadline=None)
@given(z=st.lists(st.floats(-30, 30), min_size=11, max_size=11))
def test_the_box_is_never_left(z: list[float]) -> None:
    """Wherever a search goes, the public hinges stay at zero (to round-off at the bounds)."""
    p = Box(with_pet=True, with_necrosis=True).decode(torch.tensor(z, dtype=torch.float64))
    assert float(p.hinge_sum()) <= 1e-10
    assert 0.6 - 1e-12 <= float(p.threshold_necrotic) <= 0.95 + 1e-12
    assert 0.02 <= float(p.proliferation_rate) < float("inf")


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
    box = Box(with_pet=True, with_necrosis=True)
    z = box.encode(scalars()).requires_grad_()

    def decode(x: torch.Tensor) -> torch.Tensor:
        p = box.decode(x)
        return torch.cat([p.origins.reshape(-1), *(getattr(p, name).reshape(1) for name in NAMES)])

    assert torch.autograd.gradcheck(decode, (z,))


def test_values_beyond_their_bounds_still_give_finite_coordinates() -> None:
    p = replace(
        scalars(), diffusivity=torch.tensor(50.0).double(), proliferation_rate=torch.tensor(0.001).double()
    )
    z = Box(with_pet=True).encode(p)
    assert bool(torch.isfinite(z).all())
    assert float(Box(with_pet=True).decode(z).diffusivity) == pytest.approx(10, rel=0.01)
