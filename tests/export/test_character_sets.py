"""Names in every character set arrive in the exported objects as the series spells them."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import DataElement

from gliodil.data.dicom.objects import KEPT_SETS
from gliodil.data.dicom.reference import read_reference
from gliodil.data.dicom.rtstruct import write_rtstruct
from gliodil.data.dicom.seg import write_seg
from gliodil.data.volume import Volume
from gliodil.planning.export import check_export

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
SETS = [
    (["", "ISO 2022 IR 87"], JAPANESE),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    (["ISO 2022 IR 6", "ISO 2022 IR 100"], "Müller^Jörg"),
    (["", "ISO 2022 IR 100", "ISO 2022 IR 144"], "Müller^Иван"),
    (["ISO_IR 100", "ISO 2022 IR 100"], "Æble^Øyvind"),
    ("ISO 2022 IR 100", "Çelik^José"),
    ("ISO_IR 6", "Plain^Name"),
    ("", "Plain^Name"),
    (None, "Plain^Name"),
    ("ISO-IR 100", "Weiß^Änne"),
    ("iso_ir 100", "Plain^Name"),
    ("NONSENSE", "Plain^Name"),
    ("ISO_IR 100", "Zöllner^Erika"),
    ("ISO_IR 144", "Люкceмбypг"),
    ("ISO_IR 192", "王^小东=王^小东"),
    ("GB18030", "王^小东"),
    ("GBK", "王^小东"),
    (["ISO_IR 192", "GB18030"], "王^小东"),
]


def _spell(path, stated, name):
    data = pydicom.dcmread(path)
    if stated is None:
        del data.SpecificCharacterSet
    else:
        data.SpecificCharacterSet = stated
    data["PatientName"] = DataElement("PatientName", "PN", name)
    data["StudyDescription"] = DataElement("StudyDescription", "LO", name.split("^")[0].split("=")[0])
    data.save_as(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("stated", "name"), SETS, ids=[str(stated) for stated, _ in SETS])
def test_a_name_is_carried_in_whatever_set_it_is_written(geometries, new_series, tmp_path, stated, name):
    geometry = geometries["axial"]
    files = new_series(tmp_path / "series", geometry)
    for path in files:
        _spell(path, stated, name)
    read = pydicom.dcmread(files[0])
    mask = np.zeros(geometry.shape, np.uint8)
    mask[3:6, 3:6, 1:3] = 1
    gtv = Volume(mask, geometry.affine, kind="label")
    check_export(files, gtv)
    reference = read_reference(files)
    for write in (write_rtstruct, write_seg):
        made = pydicom.dcmread(write(tmp_path / f"{write.__name__}.dcm", {"GTV": gtv}, reference))
        assert str(made.PatientName) == str(read.PatientName)
        assert made.StudyDescription == read.StudyDescription
        assert made.PatientID == read.PatientID
        assert made.get("SpecificCharacterSet") in (*KEPT_SETS, None)


def test_common_sets_stay_as_they_are(geometries, new_series, tmp_path):
    geometry = geometries["axial"]
    files = new_series(tmp_path / "series", geometry)
    mask = np.ones(geometry.shape, np.uint8)
    path = write_rtstruct(tmp_path / "a.dcm", {"GTV": Volume(mask, geometry.affine, kind="label")}, files)
    assert pydicom.dcmread(path).SpecificCharacterSet == "ISO_IR 100"


def test_headers_that_no_object_can_be_made_from_are_found_before_anything_is_computed(
    geometries, new_series, tmp_path, monkeypatch
):
    from gliodil.data.dicom import seg
    from gliodil.errors import ImageFileError

    def refuse(*_, **__):
        raise ValueError("as a strict library does")

    geometry = geometries["axial"]
    files = new_series(tmp_path / "series", geometry)
    monkeypatch.setattr(seg, "_segmentation", refuse)
    gtv = Volume(np.ones(geometry.shape, np.uint8), geometry.affine, kind="label")
    with pytest.raises(ImageFileError, match="do not allow"):
        check_export(files, gtv)
