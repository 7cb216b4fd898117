"""What series are called, and what they are; PET in SUV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_series import HALF_LIFE_S, SUV_FIELDS, ramp, suv_edit, write_series
from pydicom.dataset import Dataset

from gliodil.data.dicom.modality import role_of
from gliodil.data.dicom.scan import find_series


def header(description: str = "", **fields: Any) -> Dataset:
    dataset = Dataset()
    dataset.Modality = "MR"
    dataset.SeriesDescription = description
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("description", "role"),
    [
        ("t1_mprage_sag_p2_iso", "t1"),
        ("t1_mprage_sag_p2_iso_KM", "t1c"),
        ("T1 3D TFE +C", "t1c"),
        ("AX T1 POST GD", "t1c"),
        ("Ax T1 pre", "t1"),
        ("T1 pre-contrast", "t1"),
        ("t1 without contrast", "t1"),
        ("T1 ohne KM", "t1"),
        ("Ax 3D BRAVO C+", "t1c"),
        ("post-op t1 mprage", "t1"),
        ("postop T1 mprage Gd", "t1c"),
        ("AX T1 FLAIR", "t1"),
        ("Sag CUBE T2 FLAIR", "flair"),
        ("t2_tirm_tra_dark-fluid", "flair"),
        ("t2_spc_da-fl_sag FLAIR post", "flair"),
        ("T2W_TSE", "t2"),
        ("t2_fl2d_tra_hemo", None),
        ("T2* GRE", None),
        ("ep2d_diff_3scan_trace_ADC", None),
        ("SWI_Images", None),
        ("localizer", None),
        ("3-plane loc T2", None),
        ("t1_sub", None),
        ("TOF_3D_multi-slab", None),
        ("T1 DCE perfusion", None),
        ("anat-T1w", "t1"),
        ("whatever", None),
    ],
)
def test_roles_by_name(description: str, role: str | None) -> None:
    assert role_of(header(description)) == role


@pytest.mark.parametrize(
    ("fields", "role"),
    [
        ({"EchoTime": 2.98, "RepetitionTime": 2300, "InversionTime": 900}, "t1"),
        ({"EchoTime": 12, "RepetitionTime": 500, "ScanningSequence": "SE"}, "t1"),
        ({"EchoTime": 12, "RepetitionTime": 500, "ContrastBolusAgent": "Gadovist"}, "t1c"),
        ({"EchoTime": 12, "RepetitionTime": 500, "ContrastBolusAgent": "None"}, "t1"),
        ({"EchoTime": 394, "RepetitionTime": 6000, "InversionTime": 2200}, "flair"),
        ({"EchoTime": 100, "RepetitionTime": 5000, "ScanningSequence": "SE"}, "t2"),
        ({"EchoTime": 80, "RepetitionTime": 5000, "ScanningSequence": "EP"}, None),
        ({"EchoTime": 20, "RepetitionTime": 700, "ScanningSequence": "GR"}, None),
        ({"EchoTime": 15, "RepetitionTime": 3000, "ScanningSequence": "SE"}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "ADC"], "EchoTime": 100, "RepetitionTime": 5000}, None),
        ({"ProtocolName": "t1_mprage"}, "t1"),
        ({"Modality": "CT"}, "ct"),
        ({"Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, None),
        ({"Modality": "CT", "SeriesDescription": "Topogram 0.6"}, None),
        ({"Modality": "CT", "SeriesDescription": "Head 2.0 H30s"}, "ct"),
        ({"Modality": "CT", "SeriesDescription": "Monoenergetic 70 keV"}, "ct"),
        ({"Modality": "CT", "SeriesDescription": "Iodine map"}, None),
        ({"Modality": "CT", "SeriesDescription": "Dose Report"}, None),
        ({"Modality": "CT", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, None),
        ({"Modality": "REG"}, "reg"),
        ({"Modality": "REG", "Manufacturer": "gliodil"}, None),
        ({"Modality": "RTDOSE"}, "dose"),
        ({"Modality": "PT"}, "pet"),
        ({"Modality": "PT", "SeriesDescription": "FET NAC"}, None),
        ({"Modality": "SEG"}, "seg"),
        ({"Modality": "RTSTRUCT"}, "rtstruct"),
        ({}, None),
    ],
)
def test_roles_by_timing_and_modality(fields: dict[str, Any], role: str | None) -> None:
    assert role_of(header(**fields)) == role


def _pet(folder: Path, *, dose: dict[str, Any] | None = None, **fields: Any) -> Any:
    write_series(
        folder, modality="PT", edit=lambda d, k: suv_edit(d, k, **(dose or {})), **{**SUV_FIELDS, **fields}
    )
    (series,) = find_series(folder)
    return series


def test_activity_becomes_suv(tmp_path: Path) -> None:
    series = _pet(tmp_path)
    # 70 kg, 200 MBq decayed over 1200 s: one SUV is this many Bq/mL.
    one = 2e8 * 0.5 ** (1200 / HALF_LIFE_S) / 70e3
    assert (series.role, series.unit, series.notes) == ("pet", "SUV", ())
    np.testing.assert_allclose(series.volume().data, 2 * ramp() / one, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "dose", "factor"),
    [
        ({"DecayCorrection": "ADMIN"}, {}, 70e3 / 2e8),
        ({"Units": "GML"}, {}, 1.0),
        ({}, {"RadiopharmaceuticalStartTime": None, "RadiopharmaceuticalStartDateTime": "20200102100000.000000"},
         70e3 / 2e8 * 2 ** (1200 / HALF_LIFE_S)),
        ({"SeriesTime": "113000"}, {}, 70e3 / 2e8 * 2 ** (1200.5 / HALF_LIFE_S)),
    ],
    ids=["admin", "suv already", "date and time", "made later"],
)  # fmt: skip
def test_other_ways_to_suv(tmp_path: Path, fields: dict, dose: dict, factor: float) -> None:
    series = _pet(tmp_path, dose=dose, **fields)
    assert series.unit == "SUV"
    np.testing.assert_allclose(series.volume().data, 2 * ramp() * factor, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "dose", "unit", "says"),
    [
        ({"PatientWeight": None}, {}, "Bq/mL", "lacks weight"),
        ({}, {"RadionuclideTotalDose": 200}, "Bq/mL", "lacks injected activity"),
        ({}, {"RadiopharmaceuticalStartTime": "110000"}, "Bq/mL", "lacks time of injection"),
        ({"DecayCorrection": "NONE"}, {}, "Bq/mL", "lacks decay correction"),
        ({"Units": "CNTS"}, {}, "CNTS", "'CNTS'"),
        ({"Units": None}, {}, "", "no unit"),
    ],
)
def test_without_what_it_takes_values_stay(
    tmp_path: Path, fields: dict, dose: dict, unit: str, says: str
) -> None:
    series = _pet(tmp_path, dose=dose, **fields)
    assert series.unit == unit
    assert says in series.volume().notes[0]
    np.testing.assert_allclose(series.volume().data, 2 * ramp())


T1_TIMING = {"EchoTime": 3, "RepetitionTime": 2000, "InversionTime": 900}


@pytest.mark.parametrize(
    ("description", "fields", "role"),
    [
        ("t2_space_dark-fluid_sag_p2_iso_MPR Tra", {}, "flair"),
        ("T2 SPACE MPR", {}, "t2"),
        ("MPR Range", {}, None),
        ("sT1W_3D_TFE_Gd", {}, "t1c"),
        ("AX T1 C-", {}, "t1"),
        ("AX T1 C-", {"ContrastBolusAgent": "Gadovist"}, "t1"),
        ("SAG T1 W/O", {}, "t1"),
        ("SAG T1 W/", {}, "t1c"),
        ("T1 W/WO", {}, None),
        ("T1 W/WO", {"ContrastBolusAgent": "Gadovist"}, "t1c"),
        ("T1 с контрастом", {}, None),
        ("T1 с контрастом", {"ContrastBolusAgent": "Gadovist"}, "t1c"),
        ("t1 tra", {"DiffusionBValue": 1000}, None),
        ("t1 tra", {"DiffusionBValue": 0}, "t1"),
        ("", {"EchoTime": 100, "RepetitionTime": 5000, "DiffusionBValue": 800}, None),
        ("t1 tra", {"EchoTime": 120, "RepetitionTime": 9000, "InversionTime": 2500}, "flair"),
        ("t1 tra", {"EchoTime": 100, "RepetitionTime": 5000, "ScanningSequence": "SE"}, "t2"),
        ("t1 tra", {**T1_TIMING, "ImageType": ["DERIVED", "SECONDARY", "SUBTRACTION"]}, None),
        ("t1 tra", {**T1_TIMING, "ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "t1"),
        ("t1 tra", {**T1_TIMING, "AcquisitionContrast": "PERFUSION"}, None),
    ],
)
def test_what_the_scanner_states_outweighs_the_name(
    description: str, fields: dict[str, Any], role: str | None
) -> None:
    assert role_of(header(description, **fields)) == role


@pytest.mark.parametrize(
    ("creator", "block", "tag"),
    [("SIEMENS MR HEADER", 0x00190010, 0x0019100C), ("OTHER", 0x00190010, 0x0019100C)],
)
def test_private_b_values_count_in_their_vendors_block(creator: str, block: int, tag: int) -> None:
    dataset = header("", EchoTime=100, RepetitionTime=5000)
    dataset.add_new(block, "LO", creator)
    dataset.add_new(tag, "IS", "1000")
    assert role_of(dataset) == (None if creator.startswith("SIEMENS") else "t2")


def test_the_image_at_b_0_of_a_diffusion_series_is_no_t2(tmp_path: Path) -> None:
    fields = {"SeriesInstanceUID": "1.2.3", "EchoTime": 100, "RepetitionTime": 5000, "description": ""}
    for b in (0, 1000):
        write_series(tmp_path, names=f"b{b}_{{:04d}}.dcm", DiffusionBValue=b, **fields)
    assert [series.role for series in find_series(tmp_path)] == [None, None]


def test_an_original_goes_before_its_reformat(tmp_path: Path) -> None:
    from gliodil.data.dicom.inputs import find_inputs

    write_series(tmp_path / "a", description="t2 flair", ImageType=["ORIGINAL", "PRIMARY", "M"])
    write_series(tmp_path / "b", description="t2 flair MPR cor", ImageType=["DERIVED", "SECONDARY", "MPR"])
    found = find_inputs(tmp_path, given=(), taken=())
    assert found.roles["flair"].description == "t2 flair"
    assert any("a reformat" in note for note in found.notes)
