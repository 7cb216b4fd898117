"""The loss where the equation holds exactly: its terms, its gradient, and the mobility field."""

from __future__ import annotations

import math

import pytest
import torch

from gliodil.inference.exact import ExactPhysics, seed_ramp
from gliodil.inference.mobility import CORRELATION_MM, DEVIATION, LARGEST, Mobility, softened
from gliodil.inference.reference_loss import ReferenceLoss
from gliodil.inference.variables import TransformedLoss
from gliodil.pde.odil.problem import Point
from gliodil.pde.operators import Faces
from gliodil.pde.seed import gaussian_seed

DOUBLE = torch.float64


@pytest.fixture(params=[False, True], ids=["parameters", "mobility"])
def landscape(request: pytest.FixtureRequest, objective: TransformedLoss) -> ExactPhysics:
    return ExactPhysics(objective, Mobility(objective.loss, 500.0) if request.param else None)


def random_point(landscape: ExactPhysics, size: float = 0.02) -> Point:
    """A field of a tenth of its prior's deviation."""
    generator = torch.Generator().manual_seed(5)
    y, *w = landscape.start()
    field = 0.1 * math.sqrt(
        500.0 / landscape.objective.loss.entries / landscape.objective.loss.case.grid.cell_volume_mm3
    )
    return [
        scale * torch.randn(t.shape, dtype=DOUBLE, generator=generator)
        for scale, t in zip((size, field), [y, *w], strict=False)
    ]


def away(objective: TransformedLoss) -> torch.Tensor:
    """A y with absurd growth."""
    z = objective.coordinates.origin.clone()
    z[1] = 50.0
    return torch.linalg.solve(objective.coordinates.scaling, z - objective.coordinates.origin)


def test_exact_physics_has_no_misfit_terms(objective: TransformedLoss) -> None:
    """What is left is what its last level and its own levels say."""
    landscape = ExactPhysics(objective)
    terms = {name: float(t) for name, t in landscape.terms(landscape.start()).items()}
    assert not {"initial", "pde", "mobility"} & set(terms)
    run = landscape.run(landscape.start())
    assert run is not None
    p, levels = run[0], run[1].levels
    reference = ReferenceLoss.of_field(objective.loss, levels, p)
    assert float(reference["pde"]) < 1e-12
    for name in ("bounds", "csf"):
        assert terms[name] == pytest.approx(float(reference[name]), rel=1e-9, abs=1e-300)
    admissibility = {name: reference[name] for name in ("bounds", "csf")}
    for name, value in objective.loss.parameter_stage(levels[-1], p, admissibility).items():
        assert terms[name] == pytest.approx(float(value), rel=1e-9, abs=1e-300), name


def test_the_gradient_is_the_slope_of_the_loss(landscape: ExactPhysics) -> None:
    """In every parameter, and along random fields."""
    x = random_point(landscape)
    gradient = landscape.at(x).gradient()
    generator = torch.Generator().manual_seed(1)
    for part, g in enumerate(gradient):
        assert g.shape == x[part].shape
        directions = list(torch.eye(g.shape[0], dtype=DOUBLE)) if part == 0 else []
        if part == 1:
            like = x[1].abs().mean()
            directions = [like * torch.randn(g.shape, dtype=DOUBLE, generator=generator) for _ in range(3)]
        for e in directions:
            step = 1e-6 if part == 0 else 1e-4

            def terms(s: float, e: torch.Tensor = e, part: int = part) -> dict[str, float]:
                return landscape.at([t + s * e if k == part else t for k, t in enumerate(x)]).terms

            there, back = terms(step), terms(-step)
            difference = math.fsum(there[k] - back[k] for k in there) / (2 * step)
            assert float((g * e).sum()) == pytest.approx(difference, rel=5e-6, abs=1e-9)


def test_it_reports_the_terms_it_sums(landscape: ExactPhysics) -> None:
    x = random_point(landscape)
    here = landscape.at(x)
    assert here.terms == {name: float(t) for name, t in landscape.terms(x).items()}
    assert here.value == pytest.approx(sum(here.terms.values()), rel=1e-12)
    assert here.value > 0
    assert not x[0].requires_grad


def test_it_is_infinitely_high_where_growth_is_not_resolved(landscape: ExactPhysics) -> None:
    x = landscape.start()
    x[0] = away(landscape.objective)
    here = landscape.at(x)
    assert here.value == math.inf
    assert here.terms == {}
    with pytest.raises(ValueError, match="inadmissible"):
        here.gradient()


def test_no_field_changes_nothing(objective: TransformedLoss) -> None:
    plain, bent = ExactPhysics(objective), ExactPhysics(objective, Mobility(objective.loss, 500.0))
    expected = plain.at(plain.start())
    here = bent.at(bent.start())
    assert here.terms == {**expected.terms, "mobility": 0.0}


def test_no_field_goes_beyond_what_tissue_accounts_for(objective: TransformedLoss) -> None:
    """However large w: the loss stays finite, and a search can go on from there."""
    mobility = Mobility(objective.loss, 500.0)
    bent = ExactPhysics(objective, mobility)
    y, w = bent.start()
    assert float(mobility.log_factor(w + 1.0).abs().max()) <= LARGEST
    assert math.isfinite(bent.at([y, w + 1.0]).value)
    assert bent.at([y, torch.full_like(w, math.nan)]).value == math.inf


def test_the_price_of_a_field_is_its_prior(loss: ReferenceLoss) -> None:
    """White q of unit variance gives log-mobility of the stated deviation, whatever the stiffness."""
    generator = torch.Generator().manual_seed(0)
    for stiffness in (300.0, 3000.0):
        mobility = Mobility(loss, stiffness)
        q = torch.randn(2000, loss.case.grid.cells, dtype=DOUBLE, generator=generator)
        unit = math.sqrt(stiffness / loss.case.grid.cell_volume_mm3 / loss.entries)
        fields = torch.stack([mobility.log_factor(w) for w in q * unit])
        centre = loss.case.grid.box(fields)[:, 4, 4, 4]
        sigma = min(CORRELATION_MM / h for h in loss.case.grid.spacing)
        assert sigma < 2  # the kernel of the middle cell all but fits into eight cells
        assert float(centre.std()) == pytest.approx(DEVIATION, rel=0.06)


def test_a_softer_field_stays_the_same_field(loss: ReferenceLoss) -> None:
    w = torch.randn(loss.case.grid.cells, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    stiff, soft = Mobility(loss, 800.0), Mobility(loss, 300.0)
    torch.testing.assert_close(soft.log_factor(softened(w, 800.0, 300.0)), stiff.log_factor(w))


def test_faces_take_the_geometric_mean_of_their_cells(loss: ReferenceLoss) -> None:
    mobility, model = Mobility(loss, 500.0), loss.case.model
    ones = Faces(tuple(torch.ones_like(c) for c, _ in model.white_faces), model.white_faces.strides)  # type: ignore[arg-type]
    field = torch.linspace(-1, 1, loss.case.grid.cells, dtype=DOUBLE)
    for c, s in mobility.scale(ones, field):
        torch.testing.assert_close(c, (field[s:].exp() * field[:-s].exp()).sqrt())


@pytest.mark.parametrize("h", [0.8, 2.0, 5.0, 9.0, 14.0, 19.0])
def test_no_origin_is_without_a_seed(h: float) -> None:
    """Not even in the corner between eight cells."""
    corner = torch.tensor([[h / 2], [h / 2], [h / 2]], dtype=DOUBLE)
    seed = gaussian_seed(corner, torch.zeros(3, dtype=DOUBLE), cutoff_width=seed_ramp((h, h, h)))
    assert float(seed) > 0
