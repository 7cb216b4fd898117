"""The published example patient, with tissue maps of the SRI24 atlas; skipped where it is absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gliodil.data import load_patient
from gliodil.errors import LabelError


def test_gliodil_001(shared_data: Path) -> None:
    atlas = {tissue: shared_data / "sri24" / f"{tissue}.nii.gz" for tissue in ("wm", "gm", "csf")}
    patient = load_patient(shared_data / "gliodil_001", files=atlas, labels="gliodil")
    assert set(patient.volumes) == {"wm", "gm", "csf", "brain", "pet", "recurrence"}
    assert patient.segmentation.orientation == "LPS"
    counts = [int(mask.sum()) for mask in (patient.enhancing, patient.oedema, patient.necrotic)]
    # 988 voxels that the core encloses carry no label.
    assert counts == [41174, 58958, 27243 + 988]
    assert patient.tumour.sum() == np.count_nonzero(patient.segmentation.data) - 8
    assert any("8 of label 2" in text for text in patient.warnings)
    assert any("standardPlan.nii.gz" in text for text in patient.warnings)
    assert len(patient.warnings) == 3


def test_conventions_of_real_patients(shared_data: Path) -> None:
    gliodil = {"seg": shared_data / "gliodil_001" / "segm.nii.gz"}
    assert load_patient(files=gliodil).convention.name == "gliodil"
    for wrong in ("brats-2017", "brats-2023", "brats-2024-post", "decathlon"):
        with pytest.raises(LabelError, match="--labels gliodil"):
            load_patient(files=gliodil, labels=wrong)
    low_grade = load_patient(shared_data / "tcga_du_7294", labels="brats-2017")
    assert low_grade.warnings == ()
    assert not low_grade.enhancing.any()
    assert low_grade.core.sum() == low_grade.necrotic.sum() > 0
    assert set(low_grade.volumes) == {"t1", "t1c", "t2", "flair"}


def test_labels_of_2013(shared_data: Path) -> None:
    """Those whose necrosis has a rim of one label are recognised, no other is taken for something else."""
    for number, known in ((1, True), (2, True), (3, True), (4, False), (5, True), (6, False)):
        files = {"seg": shared_data / "preop" / f"brats13_{number}" / "seg.nii.gz"}
        if known:
            assert load_patient(files=files).convention.name == "brats-2013"
        else:
            with pytest.raises(LabelError, match="--labels NAME"):
                load_patient(files=files)
            assert load_patient(files=files, labels="brats-2013").core.any()
