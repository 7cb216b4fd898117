"""Frames of reference meet through links only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gliodil.data.frames import FrameGraph, Link
from gliodil.data.volume import Volume
from gliodil.errors import GeometryError


def _rigid(angles: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = shift
    return matrix


three = st.tuples(*[st.floats(-40, 40)] * 3)


@given(a=three, b=three, c=three, d=three)
def test_a_chain_is_the_product_of_its_links_whichever_way_each_is_stored(a, b, c, d):
    first, second = _rigid(a, b), _rigid(c, d)
    graph = FrameGraph(
        (Link("mr", "ct", first, "REG"), Link("pet", "ct", np.linalg.inv(second), "registered", 1.5))
    )
    found = graph.path("mr", "pet")
    assert found is not None
    assert found.matrix == pytest.approx(second @ first, abs=1e-9)
    assert found.origin == "registered"
    assert found.residual_mm == 1.5
    assert graph.path("pet", "mr").matrix == pytest.approx(np.linalg.inv(second @ first), abs=1e-9)


def test_frames_that_nothing_joins_are_refused_with_both_names():
    with pytest.raises(GeometryError) as caught:
        FrameGraph((Link("a", "b", np.eye(4), "REG"),)).require("a", "c", what="structure set")
    assert caught.value.found == "frame a"
    assert "--reg" in (caught.value.remedy or "")


@pytest.mark.parametrize("diagonal", [(1.03, 1.03, 1.03), (-1, 1, 1), (1, 1, 0.99)])
def test_a_link_that_scales_or_mirrors_is_refused(diagonal):
    with pytest.raises(GeometryError, match="not rigid"):
        Link("a", "b", np.diag([*diagonal, 1.0]), "REG")


def test_volumes_of_two_frames_do_not_meet_by_their_coordinates():
    one = Volume(np.ones((3, 3, 3)), np.eye(4), kind="scalar", frame="1.2")
    other = Volume(np.ones((3, 3, 3)), np.eye(4), kind="scalar", frame="1.3")
    unstated = Volume(np.ones((3, 3, 3)), np.eye(4), kind="scalar")
    with pytest.raises(GeometryError, match="different frames"):
        one.resample_to(other)
    assert unstated.resample_to(one).frame == "1.2"
    assert one.carried(np.eye(4), "1.3").resample_to(other).frame == "1.3"
