"""Tissue maps that are none, are hard, are scaled wrongly, or lie elsewhere than the brain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from gliodil.data import Volume, load_patient
from gliodil.errors import InputError

Head = dict[str, Volume]
Save = Callable[[Mapping[str, Volume]], Path]


def warnings(folder: Path) -> list[str]:
    return list(load_patient(folder, labels="brats-2017").warnings)


def scaled(head: Head, factor: float, *roles: str) -> Head:
    return {r: v.with_data(v.data * np.float32(factor)) if r in roles else v for r, v in head.items()}


@pytest.mark.parametrize("role", ["wm", "gm"])
def test_a_map_of_next_to_nothing_is_refused(head: Head, save: Save, role: str) -> None:
    largest = 0.004 / float(head[role].data.max())
    with pytest.raises(InputError, match="next to nothing") as error:
        load_patient(save(scaled(head, largest, role)))
    text = str(error.value)
    assert f"{role}.nii.gz" in text
    assert "values up to 0.004" in text
    assert "scale the map" in text


def test_an_image_may_hold_no_fluid(head: Head, save: Save) -> None:
    assert warnings(save(scaled(head, 0.01, "csf"))) == []


def test_a_map_that_nowhere_comes_near_1_is_doubted(head: Head, save: Save) -> None:
    (text,) = warnings(save(scaled({k: v for k, v in head.items() if k != "csf"}, 0.5, "wm")))
    assert text.startswith("wm.nii.gz: the wm map reaches no more than 0.45")


def test_hard_maps_are_noticed_one_by_one(head: Head, save: Save) -> None:
    hard = {role: head[role].with_data(np.round(head[role].data)) for role in ("wm", "gm")}
    del head["csf"]
    texts = warnings(save(head | hard))
    assert [text.split(":")[0] for text in texts] == ["wm.nii.gz", "gm.nii.gz"]
    assert all("hard (0 or 1 only)" in text for text in texts)


def test_maps_are_taken_as_given_unless_said_otherwise(head: Head, save: Save) -> None:
    folder = save(head)
    assert load_patient(folder).tissue_source == "given"
    assert load_patient(folder, tissue_source="template").tissue_source == "template"


def test_sums_far_from_1_are_noticed(head: Head, save: Save) -> None:
    mask = head["csf"].with_data(head["brain"].data * np.float32(0.99))  # given for the fluid
    (text,) = warnings(save(head | {"csf": mask}))
    assert text.startswith("WM + GM + CSF is 1.8")
    *_, text = warnings(save(scaled(head, 0.7, "wm", "gm", "csf")))
    assert text.startswith("WM + GM + CSF is 0.7")
    assert "1 is expected" in text


def test_a_brain_mask_elsewhere_is_noticed(head: Head, save: Save) -> None:
    brain = head["brain"].with_data(np.roll(head["brain"].data, 12, axis=1))
    texts = [t for t in warnings(save(head | {"brain": brain})) if "the same place" in t]
    assert len(texts) == 1
    assert "Dice 0." in texts[0]
