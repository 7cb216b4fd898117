"""Boxes, partitions, mixtures, weights: properties for any input."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.errors import InputError, NumericsError
from gliodil.sampling.cells import CellLaw, GridPartition, TreePartition
from gliodil.sampling.domain import Box
from gliodil.sampling.laws import MixtureLaw, UniformLaw, split
from gliodil.sampling.points import Points
from gliodil.sampling.residual_map import map_residual
from gliodil.sampling.weights import effective_size, importance_weights

CPU = torch.device("cpu")
sides = st.lists(
    st.tuples(st.floats(-100, 100), st.floats(0.01, 50)).map(lambda s: (s[0], s[0] + s[1])),
    min_size=1,
    max_size=4,
)


def box_of(s: list[tuple[float, float]]) -> Box:
    return Box(tuple(a for a, _ in s), tuple(b for _, b in s))


@given(sides, st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_box_round_trip(s, seed):
    box = box_of(s)
    u = torch.rand(50, box.dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = box.from_unit(u)
    assert bool(box.contains(x).all())
    torch.testing.assert_close(box.to_unit(x), u, rtol=0, atol=1e-11)
    assert not bool(box.contains(x + 2 * torch.tensor(box.edges, dtype=torch.float64)).any())


@pytest.mark.parametrize(
    ("lower", "upper"), [((), ()), ((0.0,), (1.0, 2.0)), ((1.0,), (1.0,)), ((0.0,), (float("inf"),))]
)
def test_what_is_no_box_is_refused(lower, upper):
    with pytest.raises(InputError, match="not a box"):
        Box(lower, upper)


@given(st.integers(1, 4), st.integers(0, 8), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_cells_tile_the_cube_and_points_find_theirs(dimension, rounds, seed):
    g = torch.Generator().manual_seed(seed)
    tree = TreePartition(dimension, CPU)
    for _ in range(rounds):
        chosen = torch.randperm(len(tree), generator=g)[: 1 + len(tree) // 2]
        new = tree.halve(chosen)
        assert len(new) == len(chosen)
    lower, upper = tree.corners()
    assert float((upper - lower).prod(-1).sum()) == pytest.approx(1)
    u = torch.rand(200, dimension, dtype=torch.float64, generator=g)
    cell = tree.locate(u)
    assert bool(((u >= lower[cell]) & (u <= upper[cell])).all())
    assert torch.equal(tree.locate((lower + upper) / 2), torch.arange(len(tree)))


@given(
    st.lists(st.floats(0, 10), min_size=6, max_size=6).filter(lambda m: sum(m) > 1e-3), st.integers(0, 2**31)
)
@settings(max_examples=50, deadline=None)
def test_cell_law_has_mass_one_and_never_draws_an_empty_cell(mass, seed):
    box = Box((0.0, -1.0), (2.0, 1.0))
    partition = GridPartition((2, 3), CPU)
    law = CellLaw(box, partition, torch.tensor(mass, dtype=torch.float64), dtype=torch.float64)
    x = law.sample(300, generator=torch.Generator().manual_seed(seed))
    assert bool((law.density(x) > 0).all())
    p = law.density(box.from_unit(partition.centres()))
    assert float(p.mean()) * box.volume == pytest.approx(1)
    assert float(law.density(torch.tensor([[5.0, 0.0]], dtype=torch.float64))) == 0
    ends = law.choose(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert bool((law.probability[ends] > 0).all())


def test_masses_that_are_no_probability_are_refused():
    for mass in ([0.0] * 6, [1, 1, 1, 1, 1, -1.0], [float("nan")] * 6):
        with pytest.raises(NumericsError, match="probability"):
            CellLaw(
                Box((0.0, 0.0), (1.0, 1.0)),
                GridPartition((2, 3), CPU),
                torch.tensor(mass),
                dtype=torch.float64,
            )


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(0, 500), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_shares_are_rounded_without_bias(parts, count, seed):
    shares = [p / sum(parts) for p in parts]
    g = torch.Generator().manual_seed(seed)
    drawn = torch.tensor([split(count, shares, g) for _ in range(400)], dtype=torch.float64)
    assert bool((drawn.sum(-1) == count).all())
    wanted = torch.tensor(shares, dtype=torch.float64) * count
    assert bool(((drawn - wanted).abs() <= 1 + 1e-9).all())
    assert bool(((drawn.mean(0) - wanted).abs() < 0.15).all())


@given(st.floats(0.05, 0.95), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_mixture_mass_is_one(share, seed):
    box = Box((0.0, 0.0), (1.0, 2.0))
    g = torch.Generator().manual_seed(seed)
    partition = GridPartition((8, 8), CPU)
    law = CellLaw(box, partition, torch.rand(64, generator=g), dtype=torch.float64)
    mixture = MixtureLaw((UniformLaw(box, torch.float64), law), (share, 1 - share))
    p = mixture.density(box.from_unit(partition.centres()))
    assert float(p.mean()) * box.volume == pytest.approx(1)
    assert bool((p >= share / box.volume - 1e-15).all())


def test_shares_that_are_no_mixture_are_refused():
    law = UniformLaw(Box((0.0,), (1.0,)), torch.float64)
    with pytest.raises(InputError, match="mixture"):
        MixtureLaw((law, law), (0.7, 0.7))


@given(st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_tempered_weights(kappa, seed):
    p = torch.rand(100, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 1e-3
    box = Box((-1.0,), (3.0,))
    w = importance_weights(Points(torch.zeros(100, 1), p), box=box, kappa=kappa)
    torch.testing.assert_close(w * (4 * p) ** kappa, torch.ones_like(p))
    assert 1 <= effective_size(w) <= 100 + 1e-9


def test_weights_refuse_an_impossible_point_and_exponent():
    points, box = Points(torch.zeros(2, 1), torch.tensor([1.0, 0.0])), Box((0.0,), (1.0,))
    with pytest.raises(NumericsError, match="no importance weight"):
        importance_weights(points, box=box)
    with pytest.raises(InputError, match="exponent"):
        importance_weights(points, box=box, kappa=1.5)


def test_the_map_zooms_in_on_a_peak_within_its_budget():
    calls = 0
    box = Box((-1.0, -1.0), (1.0, 1.0))

    def peak(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += len(x)
        return torch.exp(-1000 * ((x - 0.5) ** 2).sum(-1))

    seen = map_residual(
        peak, box, budget=8192, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    assert calls <= 8192
    assert float(seen.volume.sum()) == pytest.approx(1)
    assert seen.mean == pytest.approx(torch.pi / 1000 / 4, rel=0.05)
    middle = seen.partition.locate(box.to_unit(torch.tensor([[0.501, 0.501]], dtype=torch.float64)))
    assert float(seen.volume[middle]) < 0.1 * float(seen.volume.max())
