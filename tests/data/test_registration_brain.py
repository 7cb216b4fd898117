"""Where the brain mask comes from: given, an image without skull, or a tool that may be missing."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from scipy import ndimage

from gliodil.data import Volume
from gliodil.data.registration.brain import brain_source, find_brain, stripped_mask
from gliodil.data.template import Anatomy, load_anatomy
from gliodil.errors import InputError, MissingExtraError


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return load_anatomy(resolution_mm=4)


def head_with_skull(anatomy: Anatomy) -> Volume:
    """The template's brain inside a bright scalp, with noise in the air."""
    brain = anatomy.brain.data > 0
    scalp = ndimage.binary_dilation(brain, iterations=4) & ~ndimage.binary_dilation(brain, iterations=2)
    noise = np.random.default_rng(0).random(brain.shape) * 3
    return anatomy.t1.with_data(np.where(brain, anatomy.t1.data, np.where(scalp, 200, 1)) + noise)


def test_a_given_mask_is_used(anatomy):
    given = anatomy.brain.with_data(anatomy.brain.data * 7)
    brain = find_brain({"brain": given, "t1": anatomy.t1})
    assert brain.source == "given"
    np.testing.assert_array_equal(brain.mask.data, anatomy.brain.data)


@pytest.mark.parametrize("background", [0.0, -1.5])
def test_an_image_without_skull_is_recognised(anatomy, background):
    mask = anatomy.brain.data > 0
    # Tissue as dark as the background, inside: a hole to be filled.
    image = np.where(mask, np.maximum(anatomy.t1.data, 1), background)
    hole = tuple(slice(n // 2 - 1, n // 2 + 1) for n in mask.shape)
    image[hole] = background
    t1 = anatomy.t1.with_data(image.astype(np.float32))
    brain = find_brain({"t1": t1})
    assert brain.source == "stripped"
    np.testing.assert_array_equal(brain.mask.data > 0, ndimage.binary_fill_holes(mask))
    flipped = Volume(t1.data[::-1, :, ::-1], t1.affine, kind="scalar")
    np.testing.assert_array_equal(stripped_mask(flipped)[::-1, :, ::-1], brain.mask.data > 0)


def test_a_head_with_skull_is_not_taken_for_a_brain(anatomy):
    head = head_with_skull(anatomy)
    assert stripped_mask(head) is None
    quiet = head.with_data(np.where(head.data < 5, 0, head.data))  # air set to 0 still leaves a head
    assert stripped_mask(quiet) is None


@pytest.mark.skipif(find_spec("deepbet") is not None, reason="deepbet is installed")
def test_without_deepbet_the_remedy_is_named(anatomy):
    volumes = {"t1": head_with_skull(anatomy)}
    for function in (brain_source, find_brain):
        with pytest.raises(MissingExtraError, match="deepbet") as raised:
            function(volumes)
        assert "gliodil[skullstrip]" in str(raised.value)
        assert "--brain FILE" in str(raised.value)


def test_without_an_image_the_remedy_is_named(anatomy):
    with pytest.raises(InputError, match="no anatomical image") as raised:
        find_brain({"wm": anatomy.wm})
    assert "--brain" in str(raised.value)
