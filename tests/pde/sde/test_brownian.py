"""What is revealed of a Brownian path, whatever was looked at and rejected before, is still a Brownian path."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.pde.sde.brownian import BrownianPath, Increment, draw, merge, split

LIKE = torch.empty(40_000, dtype=torch.float64)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covariance(*rows: torch.Tensor) -> np.ndarray:
    return np.atleast_2d(np.cov(torch.stack(rows).numpy()))


def law(h: float) -> np.ndarray:
    return np.array([[h, h**2 / 2], [h**2 / 2, h**3 / 3]])


def assert_law(piece: Increment, h: float, samples: int = 40_000) -> None:
    scale = np.outer((h**0.5, h**1.5), (h**0.5, h**1.5))
    np.testing.assert_allclose(
        covariance(piece.W, piece.J) / scale, law(h) / scale, atol=5 * 2 / math.sqrt(samples)
    )


@pytest.mark.parametrize("h", [0.2, 3.0])
def test_a_fresh_interval_has_the_joint_law(h: float) -> None:
    assert_law(draw(h, LIKE, generator(0)), h)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.8])
def test_both_parts_of_a_split_are_independent_brownian_intervals(q: float) -> None:
    source = generator(1)
    first, rest = split(draw(2.0, LIKE, source), 2 * q, source)
    assert_law(first, 2 * q)
    assert_law(rest, 2 * (1 - q))
    cross = np.corrcoef(torch.stack([first.W, first.J, rest.W, rest.J]).numpy())[:2, 2:]
    assert np.abs(cross).max() < 5 / math.sqrt(LIKE.numel())


@settings(max_examples=50, deadline=None)
@given(h=st.floats(1e-6, 1e3), q=st.floats(1e-3, 0.999), seed=st.integers(0, 2**31))
def test_merging_undoes_a_split(h: float, q: float, seed: int) -> None:
    source = generator(seed)
    whole = draw(h, torch.empty(7, dtype=torch.float64), source)
    again = merge(*split(whole, q * h, source))
    assert math.isclose(again.length, h)
    torch.testing.assert_close(again.W, whole.W, rtol=1e-9, atol=1e-9 * math.sqrt(h))
    torch.testing.assert_close(again.J, whole.J, rtol=1e-9, atol=1e-9 * h**1.5)


def walk(path: BrownianPath, *, forget: bool) -> tuple[Increment, int]:
    """Walk to time 1, refusing any step in which the path moves far: what error control does, in the extreme."""
    t, h, rejections = 0.0, 0.25, 0
    walked: list[Increment] = []
    while t < 1 - 1e-9:
        h = min(h, 1 - t)
        pieces = path.take(h)
        noise = functools.reduce(merge, pieces)
        if abs(float(noise.W)) > 0.6 * math.sqrt(0.25) and h > 0.01:
            rejections += 1
            if not forget:
                path.put_back(pieces)
            h *= 0.4
            continue
        walked.append(noise)
        t += noise.length
        h *= 1.7
    return functools.reduce(merge, walked), rejections


@pytest.mark.parametrize("forget", [False, True], ids=["remembered", "forgotten"])
def test_refusing_by_what_was_seen_leaves_the_path_brownian(forget: bool) -> None:
    source, one = generator(2), torch.empty(1, dtype=torch.float64)
    walks = [walk(BrownianPath(one, source), forget=forget) for _ in range(1500)]
    assert sum(count for _, count in walks) > 1500
    ends = torch.cat([end.W for end, _ in walks])
    integrals = torch.cat([end.J for end, _ in walks])
    off = np.abs(covariance(ends, integrals) - law(1.0))
    tolerance = 5 * math.sqrt(2 / 1500)
    if forget:
        assert off[0, 0] > tolerance  # rejected paths thrown away: the test can tell
    else:
        assert off.max() < tolerance
        assert abs(float(ends.mean())) < 5 / math.sqrt(1500)


def test_what_was_revealed_is_not_drawn_again() -> None:
    path = BrownianPath(torch.empty(3, dtype=torch.float64), generator(3))
    seen = functools.reduce(merge, pieces := path.take(1.0))
    path.put_back(pieces)
    path.put_back(path.take(0.3))
    assert math.isclose(path.revealed, 1.0)
    parts = [functools.reduce(merge, path.take(h)) for h in (0.1, 0.5, 0.4)]
    assert path.revealed < 1e-9
    again = functools.reduce(merge, parts)
    torch.testing.assert_close(again.W, seen.W)
    torch.testing.assert_close(again.J, seen.J)
