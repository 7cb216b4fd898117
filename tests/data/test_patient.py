"""load_patient: choosing files, checks that refuse, checks that warn, resampling."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gliodil.data import CONVENTIONS, Patient, Volume, load_patient, write_nifti
from gliodil.errors import GeometryError, GliodilError, ImageFileError, InputError, LabelError

Head = dict[str, Volume]
Save = Callable[[Mapping[str, Volume]], Path]


def refuse(kind: type[GliodilError], folder: Path, **options: object) -> str:
    """Load, expect an error of exactly this type that names patient and remedy, and return its text."""
    with pytest.raises(GliodilError) as error:
        load_patient(folder, **options)
    assert type(error.value) is kind, str(error.value)
    assert error.value.patient == "patient_007"
    assert error.value.file is not None
    assert error.value.remedy
    return str(error.value)


def test_whole_patient(head: Head, save: Save) -> None:
    patient = load_patient(save(head))
    assert patient.identity == "patient_007"
    assert patient.convention.name == "brats-2017"
    assert set(patient.volumes) == {"wm", "gm", "csf", "pet", "t1c", "brain", "recurrence"}
    assert set(patient.files) == {*patient.volumes, "seg"}
    assert [text for text in patient.warnings if not text.startswith("labels:")] == []
    labels = head["seg"].data
    np.testing.assert_array_equal(patient.enhancing, labels == 4)
    np.testing.assert_array_equal(patient.necrotic, labels == 1)
    np.testing.assert_array_equal(patient.oedema, labels == 2)
    np.testing.assert_array_equal(patient.core, np.isin(labels, [1, 4]))
    np.testing.assert_array_equal(patient.tumour, labels > 0)
    assert not patient.cavity.any()
    np.testing.assert_array_equal(patient.brain, head["brain"].data > 0)
    assert patient.pet is not None
    assert patient.recurrence is not None
    with pytest.raises(ValueError, match="read-only"):
        patient.tumour[0, 0, 0] = True


def test_stated_convention_silences_the_guess(head: Head, save: Save) -> None:
    assert load_patient(save(head), labels="brats-2017").warnings == ()


def test_descriptions(head: Head, save: Save) -> None:
    patient = load_patient(save(head), labels="brats-2017")
    rows = {row["role"]: row for row in patient.describe()}
    assert rows["seg"] == {
        "role": "seg",
        "file": "seg.nii.gz",
        "shape": "40 x 44 x 36",
        "spacing": "4 x 4 x 4",
        "orientation": "LPS",
        "note": "",
    }
    assert len(repr(patient)) < 160
    assert "patient_007" in repr(patient)
    page = patient._repr_html_()
    assert "wm.nii.gz" in page
    pytest.importorskip("matplotlib")
    assert "data:image/png;base64," in page
    again = pickle.loads(pickle.dumps(patient))
    np.testing.assert_array_equal(again.tumour, patient.tumour)


def test_anatomical_images_stay_on_disk_until_used(head: Head, save: Save) -> None:
    volumes = {"seg": head["seg"], "t1": head["t1c"], "flair": head["t1c"]}
    patient = load_patient(save(volumes))
    assert not patient.volumes["t1"].is_loaded
    assert not patient.volumes["flair"].is_loaded


def test_tissue_is_not_required_here_but_brain_says_so(head: Head, save: Save) -> None:
    patient = load_patient(save({"seg": head["seg"]}))
    with pytest.raises(InputError, match="--brain"):
        _ = patient.brain
    folder = save({role: head[role] for role in ("wm", "gm")})
    np.testing.assert_array_equal(load_patient(folder).brain, (head["wm"].data + head["gm"].data) > 0.1)


def test_named_files_override_and_join(head: Head, save: Save, tmp_path: Path) -> None:
    folder = save({role: head[role] for role in ("seg", "wm", "gm")})
    other = write_nifti(head["wm"].with_data(head["wm"].data * 0.5), tmp_path / "else.nii")
    patient = load_patient(folder, files={"wm": other, "csf": write_nifti(head["csf"], tmp_path / "x.nii")})
    assert patient.files["wm"] == other
    assert patient.volumes["wm"].data.max() == pytest.approx(0.45)
    assert set(patient.volumes) == {"wm", "gm", "csf"}
    alone = load_patient(files={"seg": folder / "seg.nii.gz"})
    assert alone.identity == "patient_007"
    assert load_patient(files={"seg": folder / "seg.nii.gz"}, identity="A").identity == "A"


def test_a_named_file_is_not_counted_under_the_role_of_its_name(head: Head, save: Save) -> None:
    folder = save({"mask": head["seg"], "wm": head["wm"], "gm": head["gm"]})
    patient = load_patient(folder, files={"seg": folder / "mask.nii.gz"})
    assert set(patient.volumes) == {"wm", "gm"}


def test_two_candidates(head: Head, save: Save) -> None:
    folder = save({"seg": head["seg"], "wm": head["wm"], "t1_wm": head["wm"]})
    text = refuse(InputError, folder)
    assert "t1_wm.nii.gz" in text
    assert "--wm FILE" in text
    assert load_patient(folder, files={"wm": folder / "wm.nii.gz"}).files["wm"].name == "wm.nii.gz"


def test_missing_segmentation_lists_what_is_there(head: Head, save: Save) -> None:
    text = refuse(InputError, save({"wm": head["wm"], "adc": head["gm"], "standardPlan": head["seg"]}))
    assert all(part in text for part in ("wm: wm.nii.gz", "adc.nii.gz", "standardPlan.nii.gz", "--seg"))


def test_unused_files_are_listed(head: Head, save: Save) -> None:
    folder = save({"seg": head["seg"], "adc": head["gm"], "standardPlan": head["seg"]})
    text = "\n".join(load_patient(folder).warnings)
    assert "unknown role are not used: adc.nii.gz" in text
    assert "predictions in the folder are not used: standardPlan.nii.gz" in text


def test_unknown_input_and_file_given_twice(head: Head, save: Save) -> None:
    folder = save(head)
    with pytest.raises(InputError, match="segm"):
        load_patient(folder, files={"segm": folder / "seg.nii.gz"})
    with pytest.raises(InputError, match="two inputs"):
        load_patient(
            files={"seg": folder / "seg.nii.gz", "wm": folder / "wm.nii.gz", "gm": folder / "wm.nii.gz"}
        )


def test_missing_file(head: Head, save: Save) -> None:
    assert "none.nii" in refuse(ImageFileError, save(head), files={"wm": "none.nii"})


@pytest.mark.parametrize("role", ["seg", "wm", "t1c", "brain", "pet", "recurrence"])
def test_truncated_gzip_is_found_while_loading(head: Head, save: Save, role: str) -> None:
    folder = save(head)
    path = folder / f"{role}.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    assert f"{role}.nii.gz" in refuse(ImageFileError, folder)


def test_not_an_image(head: Head, save: Save) -> None:
    folder = save(head)
    (folder / "gm.nii.gz").write_bytes(b"<html>404</html>")
    refuse(ImageFileError, folder)


def test_two_dimensional_segmentation(head: Head, save: Save) -> None:
    folder = save(head)
    nib.save(nib.Nifti1Image(head["seg"].data[:, :, 18].astype(np.uint8), np.eye(4)), folder / "seg.nii.gz")
    refuse(GeometryError, folder)


def test_empty_segmentation(head: Head, save: Save) -> None:
    head["seg"] = head["seg"].with_data(np.zeros(head["seg"].shape, np.uint8))
    refuse(LabelError, save(head))


def test_no_core(head: Head, save: Save) -> None:
    head["seg"] = head["seg"].with_data(np.where(head["seg"].data > 0, 2, 0))
    assert "no tumour core" in refuse(LabelError, save(head), labels="brats-2017")


def test_wrong_convention(head: Head, save: Save) -> None:
    text = refuse(LabelError, save(head), labels="gliodil")
    assert "--labels brats-2017" in text


@pytest.mark.parametrize("role", ["wm", "gm", "csf", "pet", "t1c"])
def test_nan(head: Head, save: Save, role: str) -> None:
    data = head[role].data.copy()
    data[3, 3, :5] = np.nan
    head[role] = head[role].with_data(data)
    assert "5 of" in refuse(InputError, save(head))


@pytest.mark.parametrize(
    ("factor", "remedy"),
    [(255, "divide the map by 255"), (100, "divide the map by 100"), (1.2, "not an image")],
)
def test_probabilities_beyond_one(head: Head, save: Save, factor: float, remedy: str) -> None:
    wm = head["wm"]
    head["wm"] = wm.with_data(wm.data / wm.data.max() * factor)
    assert remedy in refuse(InputError, save(head))


def test_negative_probabilities(head: Head, save: Save) -> None:
    head["csf"] = head["csf"].with_data(head["csf"].data - 0.01)
    refuse(InputError, save(head))


def test_rounding_around_probabilities_is_clipped(head: Head, save: Save) -> None:
    wm = head["wm"]
    head["wm"] = wm.with_data(wm.data / wm.data.max() * 1.0005 - 0.0004)
    patient = load_patient(save(head), labels="brats-2017")
    assert patient.volumes["wm"].data.min() == 0
    assert patient.volumes["wm"].data.max() <= 1
    assert patient.warnings == ()


def test_empty_tissue_map(head: Head, save: Save) -> None:
    head["gm"] = head["gm"].with_data(np.zeros(head["gm"].shape, np.float32))
    assert "gm map is empty" in refuse(InputError, save(head))


def test_brain_mask_must_be_a_mask(head: Head, save: Save) -> None:
    folder = save({**head, "brain": head["brain"].with_data(head["seg"].data)})
    assert "not a brain mask" in refuse(InputError, folder)
    save({"brain": head["brain"].with_data(np.zeros(head["brain"].shape, np.uint8))})
    assert "empty" in refuse(InputError, folder)
    save({"brain": head["brain"].with_data(head["brain"].data * 255)})
    assert load_patient(folder).brain.sum() == head["brain"].data.sum()


def moved(volume: Volume, mm: float) -> Volume:
    affine = volume.affine.copy()
    affine[0, 3] += mm
    return Volume(volume.data, affine, kind=volume.kind)


@pytest.mark.parametrize("role", ["wm", "brain", "pet", "t1c", "recurrence"])
def test_disjoint_fields_of_view(head: Head, save: Save, role: str) -> None:
    head[role] = moved(head[role], 400)
    text = refuse(GeometryError, save(head))
    assert f"{role}.nii.gz" in text
    assert "seg.nii.gz" in text
    assert "mm" in text


def test_tissue_elsewhere_in_the_same_field_of_view(head: Head, save: Save) -> None:
    """Overlapping fields of view, but all tissue far from the tumour."""
    data = head["wm"].data.copy()
    data[:30] = 0  # x runs from 78 mm downwards by 4 mm; the tumour ends at -4 mm
    text = refuse(GeometryError, save({"seg": head["seg"], "wm": head["wm"].with_data(data)}))
    assert "do not lie in the same place" in text


def test_other_grids_are_resampled_and_reported(head: Head, save: Save) -> None:
    flipped = head["wm"].affine @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = head["wm"].to_world([39, 0, 0])
    expected = head["wm"].data
    head["wm"] = Volume(expected[::-1], flipped, kind="scalar")
    patient = load_patient(save(head), labels="brats-2017")
    np.testing.assert_allclose(patient.volumes["wm"].data, expected)
    assert patient.volumes["wm"].same_grid(patient.segmentation)
    assert len(patient.warnings) == 1
    assert "wm.nii.gz: resampled linearly" in patient.warnings[0]
    assert "(RPS)" in patient.warnings[0]
    row = next(row for row in patient.describe() if row["role"] == "wm")
    assert (row["note"], row["orientation"]) == ("resampled", "RPS")


def test_coarser_labels_are_resampled_by_nearest_neighbour(head: Head, save: Save) -> None:
    rec = Volume(
        head["recurrence"].data[::2, ::2, ::2] * 3, head["seg"].affine @ np.diag([2.0, 2, 2, 1]), kind="label"
    )
    patient = load_patient(save({"seg": head["seg"], "recurrence": rec}))
    assert patient.recurrence is not None
    assert set(np.unique(patient.recurrence.data)) == {0, 3}
    assert any("nearest neighbour" in text for text in patient.warnings)


def test_float_noise_in_affines_is_the_same_grid(head: Head, save: Save) -> None:
    affine = head["wm"].affine.copy()
    affine[:3] += 3e-6
    head["wm"] = Volume(head["wm"].data, affine, kind="scalar")
    assert load_patient(save(head), labels="brats-2017").warnings == ()


def test_header_conflict_becomes_a_warning(head: Head, save: Save) -> None:
    folder = save(head)
    picture = nib.load(folder / "wm.nii.gz")
    picture.set_qform(np.diag([4.0, 4, 4, 1]), code=1)
    nib.save(nib.Nifti1Image(picture.get_fdata(), None, picture.header), folder / "copy.nii.gz")
    shutil.move(folder / "copy.nii.gz", folder / "wm.nii.gz")
    assert any("sform and qform disagree" in text for text in load_patient(folder).warnings)


def test_pet_zero_in_the_tumour(head: Head, save: Save) -> None:
    head["pet"] = head["pet"].with_data(np.where(head["seg"].data > 0, 0, head["pet"].data))
    assert "zero everywhere in the tumour" in refuse(InputError, save(head))


def test_negative_pet(head: Head, save: Save) -> None:
    data = head["pet"].data.copy()
    data[0, 0, :4] = -0.1
    folder = save({**head, "pet": head["pet"].with_data(data)})
    patient = load_patient(folder, labels="brats-2017")
    assert patient.pet is not None
    assert patient.pet.data.min() == 0
    assert "4 negative PET values" in patient.warnings[0]
    save({"pet": head["pet"].with_data(head["pet"].data - 0.5 * head["pet"].data.max())})
    assert "does not look like uptake" in refuse(InputError, folder)


def test_recurrence_maps(head: Head, save: Save) -> None:
    empty = head["recurrence"].with_data(np.zeros(head["seg"].shape, np.uint8))
    folder = save({**head, "recurrence": empty})
    assert any("recurrence map is empty" in text for text in load_patient(folder).warnings)
    save({"recurrence": head["recurrence"].with_data(-head["recurrence"].data.astype(np.int8))})
    assert "negative" in refuse(LabelError, folder)


def test_warnings_about_brain_and_tumour(head: Head, save: Save) -> None:
    brain = head["brain"].data.copy()
    brain[:20] = 0
    text = "\n".join(load_patient(save({**head, "brain": head["brain"].with_data(brain)})).warnings)
    assert "the brain mask holds" in text
    assert "% of the tumour lie outside the brain mask" in text


def test_tumour_at_the_border(head: Head, save: Save) -> None:
    folder = save({"seg": head["seg"].with_data(np.roll(head["seg"].data, -7, axis=0))})
    assert any("border" in text for text in load_patient(folder).warnings)


def test_coarse_spacing(head: Head, save: Save) -> None:
    affine = head["seg"].affine @ np.diag([0.25, 0.25, 1.5, 1])
    folder = save({"seg": Volume(head["seg"].data, affine, kind="label")})
    assert any("coarse voxels (1 x 1 x 6 mm)" in text for text in load_patient(folder).warnings)


def test_dark_enhancement(head: Head, save: Save) -> None:
    head["t1c"] = head["t1c"].with_data(10 - head["t1c"].data)
    assert any("not brighter than oedema" in text for text in load_patient(save(head)).warnings)


def test_specks_belong_to_no_mask(head: Head, save: Save) -> None:
    data = head["seg"].data.copy()
    data[0, 0, 0] = 3
    patient = load_patient(save({**head, "seg": head["seg"].with_data(data)}), labels="brats-2017")
    assert not patient.tumour[0, 0, 0]
    assert "1 of label 3" in patient.warnings[0]


def test_patient_from_arrays(head: Head) -> None:
    volumes = {role: head[role] for role in ("wm", "gm", "csf")}
    patient = Patient("made up", head["seg"], CONVENTIONS["brats-2017"], volumes)
    assert [row["role"] for row in patient.describe()] == ["seg", "wm", "gm", "csf"]
    with pytest.raises(GeometryError, match="grid"):
        replace(patient, volumes={"wm": moved(head["wm"], 10)})
    with pytest.raises(ValueError, match="unknown volume"):
        replace(patient, volumes={"white": head["wm"]})
