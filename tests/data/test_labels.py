"""Label conventions: detection, refusal with the likely alternative, specks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.data import CONVENTIONS, Volume, check_labels, detect_convention, get_convention
from gliodil.data.label_geometry import contacts, read_as
from gliodil.errors import LabelError

INDEX = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1)
ROLES = ("oedema", "enhancing", "necrotic")


def tumour(name: str, *, roles: tuple[str, ...] = ROLES, centre: tuple[float, ...] = (15, 16, 17)) -> Volume:
    """Concentric tumour with the given parts, in the convention `name`."""
    distance = np.linalg.norm(INDEX - np.array(centre), axis=-1)
    labels = np.zeros(distance.shape, np.uint8)
    for role, radius in zip(ROLES, (12, 8, 5), strict=True):
        if role in roles:
            labels[distance < radius] = getattr(CONVENTIONS[name], role)[0]
    return Volume(labels, np.eye(4), kind="label")


def with_specks(volume: Volume, label: int, count: int) -> Volume:
    data = volume.data.copy()
    data.reshape(-1)[:count] = label
    return volume.with_data(data)


@pytest.mark.parametrize("name", ["brats-2017", "brats-2023", "gliodil", "decathlon"])
def test_layered_tumours_are_recognised(name: str) -> None:
    convention, warnings = detect_convention(tumour(name))
    assert convention.name == name
    assert len(warnings) == 1
    assert name in warnings[0]
    assert check_labels(tumour(name), convention) == ()


def test_post_treatment_is_recognised_by_its_cavity() -> None:
    data = tumour("brats-2024-post").data.copy()
    data[20:26, 14:18, 14:18] = 4
    convention, _ = detect_convention(Volume(data, np.eye(4), kind="label"))
    assert convention.name == "brats-2024-post"


@pytest.mark.parametrize(
    ("true", "stated", "likely"),
    [
        ("gliodil", "brats-2017", "gliodil"),
        ("gliodil", "brats-2023", "gliodil"),
        ("gliodil", "decathlon", "gliodil"),
        ("brats-2017", "gliodil", "brats-2017"),
        ("brats-2017", "brats-2023", "brats-2017"),
        ("brats-2023", "brats-2017", "brats-2023"),
        ("brats-2023", "decathlon", "brats-2023"),
        ("decathlon", "brats-2023", "decathlon"),
    ],
)
def test_wrong_convention_is_refused_naming_the_likely_one(true: str, stated: str, likely: str) -> None:
    with pytest.raises(LabelError) as error:
        check_labels(tumour(true), get_convention(stated))
    assert error.value.remedy is not None
    assert f"--labels {likely}" in error.value.remedy
    assert f"--labels {stated}" not in error.value.remedy
    assert stated in (error.value.expected or "")


def four_labels(*, rim: int, other: int) -> Volume:
    """Necrosis (1) in oedema (2), its shell half of label `rim` and half of label `other` where they differ."""
    data = tumour("brats-2017").data.copy()
    shell = data == 4
    data[shell] = rim
    data[shell & (INDEX[..., 0] >= 17)] = other
    data[4:7, 15:18, 16:19] = {3: 4, 4: 3}[rim]
    return Volume(data, np.eye(4), kind="label")


@pytest.mark.parametrize(("rim", "name"), [(4, "brats-2013"), (3, "brats-2024-post")])
def test_four_labels_are_told_apart_by_what_surrounds_the_necrosis(rim: int, name: str) -> None:
    volume = four_labels(rim=rim, other=rim)
    convention, warnings = detect_convention(volume)
    assert convention.name == name
    assert len(warnings) == 1
    assert check_labels(volume, convention) == ()


def test_four_labels_with_a_shell_of_two_are_refused() -> None:
    with pytest.raises(LabelError, match="--labels NAME") as error:
        detect_convention(four_labels(rim=4, other=3))
    assert "brats-2013" in str(error.value)
    assert "brats-2024-post" in str(error.value)


def test_what_is_not_enhancing_belongs_to_the_core_in_2013() -> None:
    volume = four_labels(rim=4, other=4)
    convention, _ = detect_convention(volume)
    assert np.array_equal(volume.mask(convention.necrotic), np.isin(volume.data, (1, 3)))


def test_fewer_labels_never_suggest_2013() -> None:
    for roles in (ROLES, ("oedema", "enhancing"), ("oedema", "necrotic")):
        for name in ("brats-2017", "brats-2023"):
            try:
                found = " ".join(detect_convention(tumour(name, roles=roles))[1])
            except LabelError as error:
                found = str(error)
            assert "brats-2013" not in found


def test_low_grade_glioma_without_enhancement() -> None:
    """Core inside oedema, labels 1 and 2: all BraTS conventions say the same."""
    volume = tumour("brats-2017", roles=("oedema", "necrotic"))
    convention, warnings = detect_convention(volume)
    assert convention.name == "brats-2017"
    assert "brats-2023" in warnings[0]
    for name in ("brats-2017", "brats-2023", "brats-2024-post"):
        assert check_labels(volume, get_convention(name)) == ()


def test_specks_are_ignored_and_reported() -> None:
    volume = with_specks(tumour("gliodil"), 2, 3)
    convention, warnings = detect_convention(volume)
    assert convention.name == "gliodil"
    assert any("3 of label 2" in text for text in warnings)
    assert any("3 of label 2" in text for text in check_labels(volume, convention))


def test_more_than_specks_are_refused() -> None:
    volume = tumour("gliodil")
    total = np.count_nonzero(volume.data)
    with pytest.raises(LabelError, match="does not follow"):
        check_labels(with_specks(volume, 2, int(0.0011 * total) + 1), get_convention("gliodil"))


def test_specks_settle_between_conventions_of_equal_meaning() -> None:
    volume = with_specks(tumour("brats-2023", roles=("oedema", "necrotic")), 3, 2)
    assert detect_convention(volume)[0].name == "brats-2023"


def test_a_mask_of_ones_is_read_as_gross_tumour_and_said_so() -> None:
    data = np.zeros((9, 9, 9), np.uint8)
    data[3:6, 3:6, 3:6] = 1
    convention, notes = detect_convention(Volume(data, np.eye(4), kind="label"))
    assert convention.name == "gtv"
    assert convention.enhancing == (1,)
    assert any("gross tumour" in note for note in notes)


@pytest.mark.parametrize("label", [2, 3, 4])
def test_one_label_alone_has_no_known_meaning(label: int) -> None:
    data = np.zeros((9, 9, 9), np.uint8)
    data[3:6, 3:6, 3:6] = label
    with pytest.raises(LabelError, match="--labels NAME"):
        detect_convention(Volume(data, np.eye(4), kind="label"))


def test_ambiguous_nesting_lists_the_candidates() -> None:
    """Label 1 inside label 3: necrosis in a rim, or enhancing tumour in oedema."""
    volume = tumour("gliodil", roles=("oedema", "enhancing"))
    with pytest.raises(LabelError) as error:
        detect_convention(volume)
    assert "gliodil" in str(error.value)
    assert "brats-2023" in str(error.value)
    assert "decathlon" not in str(error.value)
    assert check_labels(volume, get_convention("gliodil")) == ()
    assert check_labels(volume, get_convention("brats-2023")) == ()


def test_unknown_labels_fit_nothing() -> None:
    data = np.zeros((9, 9, 9), np.uint8)
    data[2:7, 2:7, 2:7], data[4, 4, 4] = 17, 41
    with pytest.raises(LabelError, match="no known label convention"):
        detect_convention(Volume(data, np.eye(4), kind="label"))


def test_empty_segmentation() -> None:
    empty = Volume(np.zeros((4, 4, 4), int), np.eye(4), kind="label")
    for check in (detect_convention, lambda v: check_labels(v, get_convention("gliodil"))):
        with pytest.raises(LabelError, match="every voxel is 0"):
            check(empty)


def test_no_core() -> None:
    with pytest.raises(LabelError, match="no tumour core") as error:
        check_labels(tumour("brats-2017", roles=("oedema",)), get_convention("brats-2017"))
    assert error.value.remedy


def test_weak_contradiction_is_a_warning_only() -> None:
    """Oedema between two slabs of core is unusual, but no other reading is clearly better."""
    data = np.zeros((20, 20, 20), np.uint8)
    data[2:12, 2:18, 2:18] = 1
    data[4:10, 2:18, 2:18] = 2
    volume = Volume(data, np.eye(4), kind="label")
    warnings = check_labels(volume, get_convention("brats-2017"))
    assert len(warnings) == 1
    assert "unusual" in warnings[0]
    with pytest.raises(LabelError, match="--labels NAME"):
        detect_convention(volume)


def test_names_are_forgiving_about_case_only() -> None:
    assert get_convention("BraTS-2017").name == "brats-2017"
    with pytest.raises(LabelError) as error:
        get_convention("brats")
    assert all(name in str(error.value) for name in CONVENTIONS)


def test_conventions_are_unambiguous() -> None:
    for convention in CONVENTIONS.values():
        values = convention.necrotic + convention.oedema + convention.enhancing + convention.cavity
        assert len(values) == len(set(values))
        assert {convention.role_of(label) for label in values} <= {
            "necrotic",
            "oedema",
            "enhancing",
            "cavity",
        }
        assert convention.role_of(99) is None


def test_contacts_count_faces() -> None:
    data = np.zeros((5, 5, 5), int)
    data[2, 2, 2], data[2, 2, 3] = 1, 2
    assert contacts(data, (1, 2)).tolist() == [[0, 5, 5], [5, 0, 1], [5, 1, 0]]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["brats-2017", "brats-2023", "gliodil", "decathlon"]),
    st.permutations(range(3)),
    st.tuples(*[st.integers(10, 22)] * 3),
    st.integers(0, 2),
)
def test_detection_ignores_orientation_and_place(
    name: str, axes: list[int], centre: tuple[int, int, int], flip: int
) -> None:
    volume = tumour(name, centre=centre)
    turned = Volume(np.flip(np.transpose(volume.data, axes), flip), np.eye(4), kind="label")
    assert detect_convention(turned)[0].name == name
    labels = tuple(int(v) for v in np.unique(volume.data) if v)
    reading = read_as(CONVENTIONS[name], labels, contacts(volume.data, labels))
    again = read_as(CONVENTIONS[name], labels, contacts(turned.data, labels))
    assert reading.score == pytest.approx(again.score)
