from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from gliodil.data.volume import Volume
from gliodil.reporting.display import PLANES, Display, display_for

SHAPE = (20, 24, 16)
CENTRE = (10, 12, 8)
MARKERS = {"L": (-6, 0, 0), "R": (6, 0, 0), "A": (0, 6, 0), "P": (0, -6, 0), "S": (0, 0, 6), "I": (0, 0, -6)}
ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "ASL", "SRA"]


def stored(array: np.ndarray, orientation: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Volume:
    transform = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    affine = np.diag([*spacing, 1.0]) @ inv_ornt_aff(transform, array.shape)
    return Volume(apply_orientation(array, transform), affine, kind="scalar")


def point(index: tuple[int, ...]) -> np.ndarray:
    array = np.zeros(SHAPE)
    array[index] = 1.0
    return array


def display(orientation: str, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Display:
    grid = stored(np.zeros(SHAPE), orientation, spacing)
    target = stored(point(CENTRE), orientation).data > 0
    everything = np.ones(grid.shape, bool)
    return display_for(grid, target=target, region=target, brain=everything)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
class TestOrientation:
    @pytest.mark.parametrize("plane", PLANES)
    @pytest.mark.parametrize("letter", MARKERS)
    def test_a_marker_appears_at_the_edge_that_bears_its_letter(self, orientation, plane, letter):
        view = display(orientation)
        edge = {shown: side for side, shown in view.letters(plane).items()}.get(letter)
        index = tuple(np.add(CENTRE, MARKERS[letter]))
        picture = view.cut(stored(point(index), orientation).data, plane)
        if edge is None:  # the plane is cut across this direction and misses the marker
            assert not picture.any()
            return
        (row,), (column,) = np.nonzero(picture)
        across, down = view.pixel_centres(plane)
        x, y = view.centre_mm(plane)
        offsets = {"left": x - across[column], "right": across[column] - x}
        offsets |= {"top": y - down[row], "bottom": down[row] - y}
        assert max(offsets, key=offsets.__getitem__) == edge
        assert offsets[edge] == pytest.approx(6.0)

    @pytest.mark.parametrize("plane", ["axial", "coronal"])
    def test_the_patients_left_is_on_the_right_of_the_image(self, orientation, plane):
        view = display(orientation)
        picture = view.cut(stored(point((2, 12, 8)), orientation).data, plane)
        assert np.nonzero(picture)[1].item() > picture.shape[1] / 2
        assert view.letters(plane)["right"] == "L"

    def test_the_picture_does_not_depend_on_how_the_image_is_stored(self, orientation):
        image = np.random.default_rng(0).random(SHAPE)
        for plane in PLANES:
            here = display(orientation).cut(stored(image, orientation).data, plane)
            np.testing.assert_array_equal(here, display("RAS").cut(image, plane))


def test_pictures_are_to_scale():
    view = display("LPS", spacing=(1.0, 2.0, 5.0))
    assert view.extent("axial") == (0.0, 20.0, 48.0, 0.0)
    assert view.extent("coronal") == (0.0, 20.0, 80.0, 0.0)
    assert view.extent("sagittal") == (0.0, 48.0, 80.0, 0.0)


def test_the_position_of_a_plane_is_its_world_coordinate():
    view = display("LPS", spacing=(1.0, 2.0, 5.0))
    assert [view.position_mm(plane) for plane in PLANES] == [40.0, 24.0, 10.0]


def test_planes_pass_through_a_ring_whose_middle_is_empty():
    index = np.indices(SHAPE)
    away = np.hypot(index[0] - 10, index[1] - 12)
    ring = (away > 3) & (away < 5) & (index[2] == 8)
    view = display_for(stored(np.zeros(SHAPE), "RAS"), target=ring, region=ring, brain=np.ones(SHAPE, bool))
    assert ring[view.centre]


def test_an_empty_target_shows_the_middle_of_the_image():
    nothing = np.zeros(SHAPE, bool)
    view = display_for(stored(np.zeros(SHAPE), "RAS"), target=nothing, region=nothing, brain=nothing)
    assert view.centre == (10, 12, 8)


def test_oblique_images_are_told_apart():
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    mask = np.ones(SHAPE, bool)
    oblique = display_for(Volume(np.zeros(SHAPE), turn, kind="scalar"), target=mask, region=mask, brain=mask)
    assert oblique.oblique
    assert not display("LPS").oblique


@settings(max_examples=25, deadline=None)
@given(
    low=st.tuples(*[st.integers(0, 7)] * 3),
    size=st.tuples(*[st.integers(1, 8)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
)
def test_the_window_is_square_and_holds_the_region(low, size, orientation):
    region = np.zeros(SHAPE, bool)
    region[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))] = True
    mask = stored(region.astype(float), orientation).data > 0
    grid = stored(np.zeros(SHAPE), orientation, (2.0, 3.0, 4.0))
    view = display_for(grid, target=mask, region=mask, brain=np.ones(grid.shape, bool))
    lengths = {round(high - low, 6) for low, high in view.window_mm}
    assert len(lengths) == 1
    for (first, last), start, count, spacing in zip(view.window_mm, low, size, (2.0, 3.0, 4.0), strict=True):
        assert first <= start * spacing
        assert last >= (start + count) * spacing
