"""The reference loss against a literal transcription of its definition in NumPy, and its gradients."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from gliodil.inference.case import Case
from gliodil.inference.config import FitConfig
from gliodil.inference.parameters import Scalars
from gliodil.inference.reference_loss import ReferenceLoss, squares

LAMBDA = 1.7


@pytest.fixture
def loss(case: Case, tiny: FitConfig) -> ReferenceLoss:
    return ReferenceLoss(case, replace(tiny, pde_weight=LAMBDA))


def parameters(case: Case) -> Scalars:
    """Some inside, some outside their admissible intervals."""
    centre = case.grid.centres()[:, case.core].mean(dim=1)
    return Scalars.of(
        diffusivity=0.3,
        proliferation_rate=0.015,
        origins=centre + torch.tensor([0.7, -1.3, 0.4], dtype=torch.float64),
        wm_gm_ratio=9.0,
        threshold_core=0.9,
        threshold_oedema=0.33,
        pet_scale=1.2,
        pet_background=0.2,
    )


def field(case: Case, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return 1.6 * torch.rand(steps, case.grid.cells, dtype=torch.float64, generator=generator) - 0.3


def literal(case: Case, p: Scalars, u: np.ndarray, steps: int) -> dict[str, float]:
    """Design 5.1, entry by entry, on arrays of shape (Nt, nx, ny, nz); nothing shared with the package."""
    shape, h, n = case.grid.shape, case.grid.spacing, case.grid.cells
    d, rho, ratio = float(p.diffusivity), float(p.proliferation_rate), float(p.wm_gm_ratio)
    core_threshold, oedema_threshold = float(p.threshold_core), float(p.threshold_oedema)
    w, g = (t.numpy().reshape(shape) for t in (case.model.white, case.model.grey))
    core, oedema = (t.numpy().reshape(shape) for t in (case.core, case.oedema))
    u = u.reshape(-1, *shape)
    dt = 100.0 / steps
    entries = steps * n
    tissue = w + g >= 0.1

    def rate(f: np.ndarray) -> np.ndarray:
        out = rho * np.abs(f) * (1 - f)
        for axis in range(3):
            for i in range(shape[axis] - 1):
                here, there = [slice(None)] * 3, [slice(None)] * 3
                here[axis], there[axis] = i, i + 1
                a, b = tuple(here), tuple(there)
                coefficient = d * ((w[a] + w[b]) / 2 + (g[a] + g[b]) / 2 / ratio) * (tissue[a] & tissue[b])
                flux = coefficient * (f[b] - f[a]) / h[axis] ** 2
                out[a] += flux
                out[b] -= flux
        return out

    terms = dict.fromkeys(("pde", "initial", "seg_lower", "seg_upper", "bounds", "csf"), 0.0)
    for level in range(1, steps):
        r = (u[level] - u[level - 1]) / dt - 0.5 * (rate(u[level]) + rate(u[level - 1]))
        terms["pde"] += float(((2400 * LAMBDA * r) ** 2).sum()) / entries
    x, y, z = np.meshgrid(*((np.arange(m) + 0.5) * k for m, k in zip(shape, h, strict=True)), indexing="ij")
    x0 = p.origins[0].numpy()
    distance2 = (x - x0[0]) ** 2 + (y - x0[1]) ** 2 + (z - x0[2]) ** 2
    seed = 1500 * (4 * np.pi * 15) ** -1.5 * np.exp(-distance2 / 60)
    seed = np.minimum(np.where(seed < 0.1, 0, seed), 1)
    terms["initial"] = float(((1000 * (u[0] - seed)) ** 2).sum()) / entries
    weight = 12 if case.pet is None else 4
    lower = np.where(core, core_threshold, np.where(oedema, oedema_threshold, 0))
    upper = np.where(core, 1, np.where(oedema, core_threshold, oedema_threshold))
    terms["seg_lower"] = float(((weight * np.maximum(0, lower - u[-1])) ** 2).sum()) / entries
    terms["seg_upper"] = float(((weight * np.maximum(0, u[-1] - upper)) ** 2).sum()) / entries
    if case.pet is not None:
        pet = case.pet.numpy().reshape(shape)
        where = (pet > 0.1) & (case.enhancing.numpy().reshape(shape) | oedema)
        misfit = u[-1] - float(p.pet_scale) * (pet - float(p.pet_background))
        terms["pet"] = float(((45 * misfit[where]) ** 2).sum()) / entries
    terms["bounds"] = float((np.maximum(0, np.maximum(-u, u - 1)) ** 2).sum()) / entries
    terms["csf"] = float(((0.01 * u[:, ~tissue]) ** 2).sum()) / entries
    hinges = 0.0
    for value, low, high in (
        (float(p.pet_scale), 0.5, 1.02),
        (oedema_threshold, 0.2, 0.5),
        (core_threshold, 0.5, 0.85),
        (d, 0.01, 10),
        (rho, 0.02, math.inf),
        (ratio, 10, 1000),
        (float(p.pet_background), -math.inf, 0.5),
    ):
        hinges += max(0.0, low - value) + max(0.0, value - high)
    terms["parameters"] = hinges**2
    return terms


def test_every_term_equals_its_definition(case: Case, loss: ReferenceLoss) -> None:
    steps = loss.config.steps
    u, p = field(case, steps), parameters(case)
    found = {name: float(value) for name, value in loss.of_field(u, p).items()}
    expected = literal(case, p, u.numpy(), steps)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert value > 0, name
        assert found[name] == pytest.approx(value, rel=1e-10), name


def test_necrosis_is_left_out_of_the_pet_term(case: Case, loss: ReferenceLoss) -> None:
    if case.pet is None:
        assert loss.pet_where is None
        return
    assert loss.pet_where is not None
    necrotic = case.core & ~case.enhancing
    assert bool(necrotic.any())
    assert not bool((loss.pet_where & necrotic).any())
    assert not bool((loss.pet_where & ~(case.core | case.oedema)).any())
    quiet = replace(case, pet=case.pet * 0 + 0.05)
    silent = ReferenceLoss(quiet, loss.config)
    assert float(silent.of_field(field(case, loss.config.steps), parameters(case))["pet"]) == 0


def test_a_perfect_field_costs_nothing(case: Case, loss: ReferenceLoss) -> None:
    """A seed at rest costs no physics and no initial term; good parameters cost nothing."""
    p = replace(
        parameters(case),
        diffusivity=torch.zeros((), dtype=torch.float64),
        proliferation_rate=torch.zeros((), dtype=torch.float64),
    )
    u = loss.seed(p.origins).expand(loss.config.steps, -1)
    terms = loss.of_field(u, p)
    assert float(terms["pde"]) == float(terms["initial"]) == float(terms["bounds"]) == 0
    good = Scalars.of(diffusivity=0.3, proliferation_rate=0.1, origins=p.origins)
    assert float(loss.of_field(u, good)["parameters"]) == 0


def test_compiled_terms_and_gradient_are_those_of_the_residuals(case: Case, loss: ReferenceLoss) -> None:
    """In the field and in every scalar."""
    p = parameters(case)
    names = [f.name for f in fields(Scalars)]
    inputs = [field(case, loss.config.steps), *(getattr(p, name) for name in names)]
    results = []
    for terms in (loss.of_field, lambda u, p: squares(loss.field_residuals(u, p))):
        leaves = [x.clone().requires_grad_() for x in inputs]
        found = terms(leaves[0], Scalars(**dict(zip(names, leaves[1:], strict=True))))
        total = torch.stack(list(found.values())).sum()
        values = {name: float(t.detach()) for name, t in found.items()}
        results.append((values, torch.autograd.grad(total, leaves, materialize_grads=True)))
    (found, gradient), (expected, definition) = results
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    for name, g, right in zip(["u", *names], gradient, definition, strict=True):
        size = float(right.abs().max())
        assert size > 0 or name in {"threshold_necrotic", "csf_speed", "pet_scale", "pet_background"}
        torch.testing.assert_close(g, right, rtol=0, atol=1e-12 * size, msg=name)


def test_gradient_in_the_field(case: Case, loss: ReferenceLoss) -> None:
    """Directional derivatives by central differences, step below the distance to the nearest kink."""
    p = parameters(case)
    u = field(case, loss.config.steps)

    def total(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(loss.of_field(x, p).values())).sum()

    leaf = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf)
    generator = torch.Generator().manual_seed(1)
    step = 1e-6
    for level in (None, 0, 3, -1):
        e = torch.randn(u.shape, dtype=torch.float64, generator=generator)
        if level is not None:
            mask = torch.zeros_like(e)
            mask[level] = 1
            e = e * mask
        difference = float(total(u + step * e) - total(u - step * e)) / (2 * step)
        assert float((gradient * e).sum()) == pytest.approx(difference, rel=1e-6)


UNUSED = ("threshold_necrotic", "csf_speed")


@pytest.mark.parametrize("name", [f.name for f in fields(Scalars) if f.name not in UNUSED])
def test_gradient_in_each_scalar(case: Case, loss: ReferenceLoss, name: str) -> None:
    p = parameters(case)
    u = field(case, loss.config.steps)

    def total(value: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(loss.of_field(u, replace(p, **{name: value})).values())).sum()

    value = getattr(p, name)
    leaf = value.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf)
    step = 1e-6 * max(1.0, float(value.abs().max()))
    for i in range(value.numel()):
        e = torch.zeros_like(value).reshape(-1)
        e[i] = step
        e = e.reshape(value.shape)
        difference = float(total(value + e) - total(value - e)) / (2 * step)
        assert float(gradient.reshape(-1)[i]) == pytest.approx(difference, rel=1e-5, abs=1e-7)
