"""No part of a patient's name is repeated in what a series is called."""

from __future__ import annotations

import pytest

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize(
    ("name", "called", "shown"),
    [
        ("王^小东", "t1 +C 小东", "t1 +C …"),
        ("王^小东", "t1王小东", "t1…"),
        ("Li^Wu", "t1 +C Li Wu", "t1 +C … …"),
        ("Kim=金^正=김^정", "t1 +C 김정", "t1 +C …"),
        ("Müller^Jörg", "t1 +C MUELLER Jorg", "t1 +C … …"),
        ("Müller^Jörg", "t1 +C Muller", "t1 +C …"),
        ("O'Neil^Ann", "t1 +C O'NEIL", "t1 +C …"),
        ("Meier-Schulz^A", "t1 +C Schulz", "t1 +C …"),
        ("Test^Case", "t1 mprage +C", "t1 mprage +C"),
        ("Tran^An", "t2 tra contrast", "t2 tra contrast"),
    ],
)
def test_names_are_taken_out_of_descriptions(name: str, called: str, shown: str) -> None:
    from gliodil.data.dicom.description import description

    header = pydicom.Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName, header.SeriesDescription = name, called
    assert description([header]) == shown
