"""Pictures for notebooks: the right plane, the right way round, with nothing personal in them."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest

from gliodil.data.display import Outline, planes_html
from gliodil.data.volume import Volume

pytest.importorskip("matplotlib")

RAS = np.diag([2.0, 2.0, 2.0, 1.0])


def pixels(page: str) -> np.ndarray:
    from PIL import Image

    found = re.search(r"base64,([^']+)'", page)
    assert found is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("L"), float)


def head() -> np.ndarray:
    """A grey box, brighter on the patient's left in front."""
    grey = np.zeros((20, 24, 16), np.float32)
    grey[2:18, 2:22, 2:14] = 0.3
    grey[3:8, 14:21, 4:12] = 1.0
    return grey


def test_left_is_on_the_right_however_the_image_was_stored() -> None:
    grey = head()
    volume = Volume(grey, RAS, kind="scalar")
    flipped = RAS @ np.array([[-1.0, 0, 0, 19], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    other = Volume(np.ascontiguousarray(grey[::-1].transpose(0, 2, 1)), flipped, kind="scalar")
    one, two = (pixels(planes_html(v, v.data, alt="x")) for v in (volume, other))
    assert np.array_equal(one, two)
    axial = one[:, : one.shape[1] // 3]
    grey = (axial > 60) & (axial < 100)  # 0.3 of white
    rows, columns = (np.flatnonzero(grey.sum(axis=axis) > 30) for axis in (1, 0))
    panel = axial[rows[0] : rows[-1], columns[0] : columns[-1]]
    down, across = (np.argwhere(panel > 240).mean(axis=0) - np.array(panel.shape) / 2) / panel.shape
    assert across > 0.1, "the patient's left is on the right"
    assert down < -0.1, "front is up"


def test_empty_masks_and_empty_images_draw_nothing_and_do_not_fail() -> None:
    volume = Volume(np.zeros((6, 5, 4), np.float32), RAS, kind="scalar")
    nothing = [Outline("nothing", np.zeros(volume.shape, bool)), Outline("all", np.ones(volume.shape, bool))]
    assert "<img alt='it&#x27;s empty'" in planes_html(
        volume, volume.data, nothing, alt="it's empty", levels=(0.5,)
    )


def test_a_page_names_the_file_and_not_where_it_lies(tmp_path: Path) -> None:
    volume = Volume(head(), RAS, kind="scalar", path=tmp_path / "t1.nii.gz", notes=("headers <disagree>",))
    page = volume._repr_html_()
    assert "t1.nii.gz" in page
    assert str(tmp_path) not in page
    assert "2 x 2 x 2" in page
    assert "headers &lt;disagree&gt;" in page
